"""Control flow and shapes that depend on a batch's values: captured for what the batch says, and for no other."""

from __future__ import annotations

from dataclasses import replace

import odd_models
import pytest
import torch
from test_scoring_outputs import odd, some, swept, walked, ways
from test_scoring_schedules import the_tensor
from torch import nn
from torch.testing._internal.two_tensor import TwoTensor

from ckptswap.errors import ModelError
from ckptswap.scoring.engines import scorer_of
from ckptswap.scoring.graph import capture
from ckptswap.scoring.guards import Uncapturable
from ckptswap.scoring.replay import ANSWERS
from ckptswap.scoring.scorer import Every
from ckptswap.task import TaskSpec, load_task


def test_a_batch_that_says_otherwise_has_a_graph_of_its_own(spec: TaskSpec, save) -> None:
    """The first pixel of the batches is dark and bright by turns; one graph of each serves them all."""
    task = odd(spec, "Asks", batch_size=2)
    engine, batches = swept(task, save(1, "Asks"), save(0, "Asks"), how="replay")
    assert ways(batches) == {"replay"}
    assert engine.notes == []
    assert len(engine._replays) == 2 < len(batches)
    assert {tuple(replay.graph.guards.values()) for replay in engine._replays.values()} == {("True",), ("False",)}


def test_where_values_decide_scores_are_exact_and_it_is_said(spec: TaskSpec, save) -> None:
    donor, recipient = save(1, "Asks"), save(0, "Asks")
    task = load_task(odd(spec, "Asks", batch_size=2), recipient)
    engine = scorer_of(task, donor, recipient, "close")
    blocks = list(engine.blocks(Every(some("head.bias"), {0, 1})))
    assert [block.engine for block in blocks] == ["replay", "replay"]
    [note] = engine.notes
    assert note.startswith("there is no shorter way (a batch's values decide")


def test_what_another_batch_reads_is_read(spec: TaskSpec, save) -> None:
    """The layer that only dark batches reach is not without effect, whatever the first batch of its shape is."""
    donor, recipient = save(1, "Asks"), save(0, "Asks")
    task = load_task(odd(spec, "Asks", batch_size=2), recipient)
    engine = scorer_of(task, donor, recipient)
    first = engine.replay(task.first_inputs())
    assert first is not None
    reads = first.graph.state["extra.weight"] in first.graph.read
    assert engine.unread() == {"norm.num_batches_tracked"}
    assert not reads or len(engine._replays) == 2, "or this says nothing"


@pytest.mark.parametrize("model", ["Asks", "Scales"])
def test_more_answers_than_are_captured(spec: TaskSpec, save, monkeypatch, model: str) -> None:
    if model == "Asks":
        monkeypatch.setattr("ckptswap.scoring.replay.ANSWERS", 1)
    most = 1 if model == "Asks" else ANSWERS
    engine, batches = swept(odd(spec, model, batch_size=2), save(1, model), save(0, model), some("head.bias"))
    assert ways(batches) == {"replay", "full"}
    assert len(engine._replays) == most
    assert engine.notes == [
        f"the model does more than {most} things, as a batch's values say: the rest is run in full"
    ]
    assert engine.unread() == frozenset()


@pytest.mark.parametrize("how", ["nonzero", "select", "repeat", "unique", "list", "mean", "buffer", "index"])
def test_shapes_that_come_from_the_batch(spec: TaskSpec, save, monkeypatch, how: str) -> None:
    monkeypatch.setattr("ckptswap.scoring.replay.ANSWERS", 8)
    task = odd(spec, "Chooses", model_args={"how": how}, batch_size=2)
    donor, recipient = (save(seed, "Chooses", {"how": how}) for seed in (1, 0))
    engine, batches = swept(task, donor, recipient, how="replay")
    assert ways(batches) == {"replay"}
    assert 1 < len(engine._replays) <= 8


def test_a_guard_is_about_the_batch_alone() -> None:
    model = odd_models.Asks().eval().requires_grad_(False)
    bright, dark = torch.ones(2, 1, 4, 4), torch.zeros(2, 1, 4, 4)
    graph = capture(model, bright, the_tensor)
    assert list(graph.guards.values()) == ["True"]
    assert {value for step in graph.asking for value in step.reads}.isdisjoint(graph.state.values())
    assert len(capture(model, dark, the_tensor).steps) == len(graph.steps) + 2
    with pytest.raises(Uncapturable, match=r"values of stem\.weight, stem\.bias, norm\.weight and 5 more"):
        capture(odd_models.Learns().eval(), bright, the_tensor)


# What a swap reaches ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["auto", "full"])
@pytest.mark.parametrize(("where", "name"), [("attribute", "fused"), ("buffer", "table"), ("list", "store")])
def test_what_a_model_keeps_of_its_tensors_is_refused(spec: TaskSpec, save, where: str, name: str, how) -> None:
    """Loaded afresh the variant would be another: no verdict about the head would be one."""
    donor, recipient = (save(seed, "Keeps", {"where": where}) for seed in (1, 0))
    task = load_task(odd(spec, "Keeps", model_args={"where": where}), recipient)
    with pytest.raises(ModelError, match=rf"keeps what it computed of its tensors .* \({name}\).*: let forward"):
        scorer_of(task, donor, recipient, how).refuse_chance()


@pytest.mark.parametrize("how", ["auto", "full"])
@pytest.mark.parametrize("args", [{}, {"buffer": True}])
def test_what_a_model_keeps_of_the_shape_is_its_own(spec: TaskSpec, save, args: dict[str, bool], how) -> None:
    donor, recipient = (save(seed, "Grows", args) for seed in (1, 0))
    task = load_task(odd(spec, "Grows", model_args=args), recipient)
    scorer_of(task, donor, recipient, how).refuse_chance()
    assert task.watch.made == ["grid"]


@pytest.mark.parametrize(
    "how", ["old weight norm", "weight norm", "old spectral norm", "spectral norm", "orthogonal", "own"]
)
def test_weights_that_are_made_of_others(spec: TaskSpec, save, how: str) -> None:
    task = odd(spec, "Normed", model_args={"how": how})
    donor, recipient = (save(seed, "Normed", {"how": how}) for seed in (1, 0))
    engine, batches = swept(task, donor, recipient)
    assert ways(batches) == {"replay"}, engine.notes
    engine.refuse_chance()


@pytest.mark.parametrize(("name", "lost"), [("Deaf", {"head.weight", "head.bias"}), ("Doubles", {"head.bias"})])
def test_what_the_models_own_loading_does_not_keep_has_no_verdict(spec: TaskSpec, save, name, lost) -> None:
    donor, recipient = save(1, name), save(0, name)
    task = load_task(odd(spec, name), recipient)
    variants = some("stem.weight", "head.weight", "head.bias", "norm.running_var")
    batches = walked(task, scorer_of(task, donor, recipient), variants)
    failed = {variant.id: outcome.failed for variant, outcome in batches[0].items() if outcome.failed}
    assert set(failed) == lost
    for tensor, reason in failed.items():
        assert reason == f"the model's own way of loading does not keep what it is given ({tensor})"


def test_a_lazy_layer_says_what_is_wrong(spec: TaskSpec, save) -> None:
    recipient = save(0, "Plain")
    with pytest.raises(ModelError):
        load_task(replace(spec, model=f"{odd_models.__file__}:Lazy"), recipient).measure()


def test_tensors_of_a_class_of_its_own_are_not_captured() -> None:
    """As libraries that quantise make them; torch has one for its own tests."""
    model = nn.Linear(2, 2)
    model.weight = nn.Parameter(TwoTensor(torch.zeros(2, 2), torch.ones(2, 2)))
    with pytest.raises(Uncapturable, match="it holds tensors of a library's own class, TwoTensor"):
        capture(model.requires_grad_(False), torch.zeros(1, 2), lambda output: output)
