"""A tensor with several names is one cell; a swap that changes nothing in the model has no verdict.

Relatives: one Parameter in two modules, two Parameters over one memory, shared buffers and affine parameters, a
bias in three layers, views of a fused weight; every way to split, every mode, made donors, paths, `select`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from sweeping import prepare, ran, sweep
from tied_networks import built, groups, hold_rows, opened, plain_score, save_pair, task, variant
from torch import Tensor
from torch.optim.swa_utils import update_bn

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import ModelError
from ckptswap.executors.pool import worker_spec_of
from ckptswap.executors.worker_spec import read_worker_spec
from ckptswap.records import from_json
from ckptswap.scoring.engines import scorer_of
from ckptswap.scoring.variant import Calibration, Variant
from ckptswap.sweep.donors import open_donor
from ckptswap.sweep.rebuild import portion_of, rebuilt
from ckptswap.sweep.select import commands, select
from ckptswap.sweep.spec import SweepSource
from ckptswap.task import load_task

NETWORKS = ["Head", "Alias", "Buffers", "Biases", "Views"]
WAYS = [("layer", "kind"), ("kind",), ("layer",), ("tensor",), ("all",)]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def pair(request: pytest.FixtureRequest) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What a.pth and b.pth hold: the donor's and the recipient's."""
    save_pair(request.node.callspec.params["model"])
    return torch.load("a.pth", weights_only=True), torch.load("b.pth", weights_only=True)


@pytest.mark.parametrize("engine", ["auto", "full"])
@pytest.mark.parametrize("model", NETWORKS)
def test_every_row_is_the_plain_loops(model: str, engine: str, pair) -> None:
    proposal = prepare(*opened("a.pth", "b.pth"), task(model), by=WAYS, run_dir="run", engine=engine)
    hold_rows(ran(proposal).rows, model, pair[1], pair[0])
    in_full = any("run in full" in note for note in proposal.scorer.notes)
    assert in_full is (engine == "auto" and model == "Views"), "all but views of one memory can be replayed"
    assert sum("several names" in note or "share part" in note for note in proposal.scorer.notes) == 1


@pytest.mark.parametrize("mode", ["all-but", "prefix", "suffix"])
@pytest.mark.parametrize("model", ["Head", "Buffers"])
def test_every_mode_is_the_plain_loops(model: str, mode: str, pair) -> None:
    result = sweep(*opened("a.pth", "b.pth"), task(model), by=[("layer",)], mode=mode, run_dir="run")
    hold_rows(result.rows, model, pair[1], pair[0])


@pytest.mark.parametrize("file", ["torch", "safetensors", "one name"])
@pytest.mark.parametrize("model", ["Head", "Buffers", "Registered"])
def test_a_name_and_a_file_that_keeps_no_sharing_give_the_same(model: str, file: str, pair) -> None:
    from safetensors.torch import save_file, save_model

    if file != "torch":
        for name, state in zip("ab", pair, strict=True):
            net = built(model)
            net.load_state_dict(state)
            if file == "one name":
                save_model(net, f"{name}.pth.safetensors")
            else:
                save_file({key: value.clone() for key, value in state.items()}, f"{name}.pth.safetensors")
    paths = [f"{name}.pth" + ("" if file == "torch" else ".safetensors") for name in "ab"]
    result = sweep(*opened(*paths), task(model), run_dir="run", engine="replay")
    assert len(result.rows) == len({frozenset(each) for each in groups(model).values()})
    for row in result.rows:
        names = set().union(*(groups(model)[name] for name in row.tensors))
        expected = plain_score(model, variant(names, pair[1], pair[0]))
        assert row.score == pytest.approx(expected, rel=1e-6), row.tensors


@pytest.mark.parametrize("word", ["zeros", "mean", "shuffle:3", "noise:0.3", "init:7"])
@pytest.mark.parametrize("model", ["Head", "Buffers", "Registered"])
@pytest.mark.parametrize("sharing", [True, False], ids=["torch", "safetensors"])
def test_a_donor_that_is_made_has_one_value_a_tensor(model: str, word: str, sharing: bool, pair) -> None:
    from safetensors.torch import save_file

    save_file({key: value.clone() for key, value in pair[1].items()}, "b.safetensors")
    [recipient] = opened("b.pth" if sharing else "b.safetensors")
    donor = open_donor(word, recipient, task(model))
    proposal = prepare(donor, recipient, task(model), run_dir="run", engine="full")
    [made] = proposal.donors
    theirs = {name: torch.from_numpy(made.read(name).copy()) for name in made}
    for name, group in groups(model).items():
        assert all(torch.equal(theirs[name], theirs[other]) for other in group)
    rows = [row for row in ran(proposal).rows if row.status == "measured"]
    hold_rows(rows, model, pair[1], theirs)


@pytest.mark.parametrize("model", ["Head", "Alias"])
def test_a_path_and_a_blend_are_the_plain_loops(model: str, pair) -> None:
    theirs, ours = pair
    result = sweep(*opened("a.pth", "b.pth"), task(model), alphas=(0.25, 0.75), run_dir="run")
    for row in result.rows:
        assert [point.alpha for point in row.path] == [0.25, 0.75]
        for point in row.path:
            mixed = {name: ((1 - point.alpha) * ours[name].double() + point.alpha * theirs[name].double()).float()
                     for name in ours}  # fmt: skip
            assert point.score == pytest.approx(plain_score(model, variant(row.tensors, ours, mixed)), rel=1e-6)


@pytest.mark.parametrize("model", ["Registered", "Buffers", "Siamese"])
def test_new_statistics_are_those_of_torch(model: str, pair) -> None:
    calibration = Calibration(data="net.py:others", data_args={}, batches=2)
    result = sweep(*opened("a.pth", "b.pth"), task(model), calibration=calibration, run_dir="run")
    found = [row for row in result.rows if row.recalibrated and row.recalibrated.score is not None]
    assert found
    from ckptswap.scoring.recalibration import load_calibration

    batches = load_calibration(calibration, load_task(task(model), opened("b.pth")[0]))
    for row in (row for row in found if row.status == "measured"):
        state = variant(row.tensors, pair[1], pair[0])
        expected = plain_score(model, state, lambda net: (update_bn(batches, net), net.eval()))
        assert row.recalibrated.score == pytest.approx(expected, rel=1e-5), row.tensors


@pytest.mark.parametrize("model", ["Head", "Registered"])
def test_select_and_its_commands_mean_the_same_network(model: str, pair, capsys) -> None:
    import shlex

    from cli_program_of_cases import good

    proposal = prepare(*opened("a.pth", "b.pth"), task(model), run_dir="run")
    rows = ran(proposal).rows
    limit = sorted(row.drop for row in rows if row.drop is not None)[len(rows) // 2] + 0.01
    choice = select("run", tolerance=limit)
    names = [name for row in choice.taken for name in row.tensors]
    assert choice.taken
    assert choice.score == pytest.approx(plain_score(model, variant(names, pair[1], pair[0])), rel=1e-6)
    for command in commands(choice, "chosen.safetensors"):
        done = good(*shlex.split(command)[1:])
        assert "not selected" not in done.err
    [chosen] = opened("chosen.safetensors")
    state = {name: torch.from_numpy(chosen.read(name)) for name in chosen}
    assert plain_score(model, state) == pytest.approx(choice.score, rel=1e-6)


@pytest.mark.parametrize("donor", ["a.pth", "shuffle:2"])
@pytest.mark.parametrize("model", ["Registered"])
def test_a_worker_makes_the_same_variants(model: str, donor: str, pair) -> None:
    """From what its order says, written to a file and read again."""
    from safetensors.torch import save_file

    save_file({key: value.clone() for key, value in pair[1].items()}, "b.safetensors")
    [recipient] = opened("b.safetensors")
    spec = task(model)
    proposal = prepare(open_donor(donor, recipient, spec), recipient, spec, by=[("layer",)], run_dir="run")
    variants = proposal.variants
    order = worker_spec_of(proposal, [variants])
    order.write()
    inputs = proposal.task.first_inputs()
    here = {each.variant: each.output for each in proposal.scorer.outputs(0, inputs, variants)}
    told = read_worker_spec(order.path, order.seal)
    with rebuilt(from_json(SweepSource, told.common), proposal.folder) as engine:
        there = {
            each.variant: each.output for each in engine.outputs(0, inputs, portion_of(told.shards[0]).variants)
        }
    assert len(here) > 4
    assert here.keys() == there.keys()
    assert all(torch.equal(output, there[variant]) for variant, output in here.items())


# The net under it all ------------------------------------------------------------------------------------------


def outcome(model: str, donor: Checkpoint, recipient: Checkpoint, names: tuple[str, ...], how: str) -> str | None:
    engine = scorer_of(load_task(task(model), recipient), donor, recipient, how)
    [found] = engine.outputs(0, engine.task.first_inputs(), [Variant("v", names)])
    assert (found.output is None) == (found.failed is not None)
    return found.failed


@pytest.mark.parametrize("how", ["auto", "full"])
@pytest.mark.parametrize("model", ["Head", "Alias"])
def test_two_values_for_one_tensor_have_no_verdict(model: str, how: str, pair) -> None:
    """Where the donor's names of one tensor disagree, what the model holds is not what was meant."""
    donor = Checkpoint.from_arrays({name: value.clone() for name, value in pair[0].items()} | {
        "embed.weight": pair[0]["embed.weight"] + 1})  # fmt: skip
    [recipient] = opened("b.pth")
    failed = outcome(model, donor, recipient, ("embed.weight", "head.weight"), how)
    assert failed is not None
    assert "does not hold what was swapped in (embed.weight)" in failed
    proposal = prepare(donor, recipient, task(model), run_dir=f"run-{how}", engine=how)
    [row] = [row for row in ran(proposal, tolerance=0.1).rows if "embed.weight" in row.tensors]
    assert (row.status, row.verdict, row.drop) == ("mismatch", None, None)
    assert row.reason == "embed.weight and head.weight are one tensor, but the donor's differ"


@pytest.mark.parametrize("how", ["auto", "full"])
@pytest.mark.parametrize("model", ["Views"])
def test_a_part_of_shared_bytes_has_no_verdict(model: str, how: str, pair) -> None:
    """`fused` alone is written over by the recipient's `q` and `k`; together they are sound."""
    donor, recipient = opened("a.pth", "b.pth")
    failed = outcome(model, donor, recipient, ("fused",), how)
    assert failed is not None
    assert "does not hold what was swapped in (fused)" in failed
    assert outcome(model, donor, recipient, ("fused", "k", "q"), how) is None


@pytest.mark.parametrize("how", ["auto", "full"])
@pytest.mark.parametrize("model", ["Biases"])
def test_a_swap_that_changes_nothing_has_no_verdict(model: str, how: str, pair) -> None:
    """The donor differs by less than the model's own dtype holds."""
    ours: Mapping[str, Tensor] = {name: value.double() for name, value in pair[1].items()}
    donor = Checkpoint.from_arrays({name: value * (1 + 1e-12) for name, value in ours.items()})
    recipient = Checkpoint.from_arrays({name: value.clone() for name, value in ours.items()})
    result = sweep(donor, recipient, task(model), run_dir=f"run-{how}", engine=how, tolerance=0.1)
    assert {(row.status, row.verdict, row.drop) for row in result.rows} == {("failed", None, None)}
    assert all("changes nothing in the model" in (row.reason or "") for row in result.rows)


@pytest.mark.parametrize("model", ["Head"])
def test_a_model_that_saves_copies_cannot_be_written_to(model: str, pair) -> None:
    """Its `state_dict` hook clones: loading by copying into it would score the initialisation."""
    with pytest.raises(ModelError, match=r"gives copies of its tensors"):
        load_task(task("Copies"), opened("b.pth")[0])
