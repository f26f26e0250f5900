"""Networks that people have: replay runs on them with equal bits, and the page names those where it does not."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import networks_of_people as people
import odd_models
import pytest
import torch
from plain import raw

from ckptswap.formats import open_checkpoint
from ckptswap.scoring.full import FullScorer
from ckptswap.scoring.replay import ANSWERS, SHAPES, ReplayScorer, scorer_of
from ckptswap.scoring.variant import Variant
from ckptswap.task import Task, TaskSpec, load_task

FILE, ODD = Path(people.__file__), Path(odd_models.__file__)
PAGE = Path(__file__).parents[2] / "docs/howto/any-model.md"
KEYS = {"clip/eager": "logits_per_image"}
REPLAYED = [
    "bert/eager", "bert/sdpa", "llama-tied/sdpa", "gpt2/sdpa", "t5/sdpa", "whisper/sdpa", "clip/eager",
    "lora/llama", "mixtral/eager-batched", "nnunet/residual", "LSTM", "RNN", "TransformerEncoder", "masked mean",
    "exported", "scripted",
]  # fmt: skip
TWICE = ["bert/sdpa", "llama-tied/sdpa", "gpt2/sdpa", "t5/sdpa", "lora/llama"]
"""Those that look whether anything is masked: batches with padding have a graph of their own."""
LIBRARIES = {"lora": "peft", "nnunet": "dynamic_network_architectures"}


def scorer(name: str, folder: Path) -> tuple[Task, FullScorer]:
    """Of a network and a noisy copy of it, on three batches of which the second is padded."""
    library = name.partition("/")[0] if "/" in name else ""
    if library:
        pytest.importorskip(LIBRARIES.get(library, "transformers"))
    state, saved = people.build(name).state_dict(), []
    for noise in (0.1, 0.0):
        torch.manual_seed(1)
        for value in {value.data_ptr(): value for value in state.values() if value.is_floating_point()}.values():
            value += noise * torch.rand_like(value)
        torch.save(state, folder / f"{noise}.pt")
        saved.append(open_checkpoint(folder / f"{noise}.pt"))
        state = people.build(name).state_dict()
    spec = TaskSpec(
        model=f"{FILE}:build", model_args={"name": name}, data=f"{FILE}:samples", data_args={"network": name},
        metrics=(f"{FILE}:size",), batch_size=2, threads=1, output_key=KEYS.get(name),
    )  # fmt: skip
    task = load_task(spec, saved[1])
    return task, scorer_of(task, *saved)


@pytest.mark.parametrize("name", REPLAYED)
def test_replay_runs_with_the_bits_of_full_passes(name: str, tmp_path: Path) -> None:
    task, engine = scorer(name, tmp_path)
    names = [name for name in engine.swaps.state if not name.endswith("num_batches_tracked")]
    variants = [Variant(name, (name,)) for name in {*names[:: len(names) // 4 + 1], names[-1]}]
    outputs = set()
    with task.pinned():
        for number, batch in enumerate(task.batches()):
            full = {result.variant: result.output for result in engine.in_full(batch.inputs, variants)}
            for result in engine.outputs(number, batch.inputs, variants):
                assert result.engine == "replay", engine.notes
                assert result.output is not None
                assert raw(result.output) == raw(full[result.variant]), result.variant  # type: ignore[arg-type]
                outputs.add(raw(result.output))
    assert engine.notes == []
    assert len(outputs) > 2 * len(variants), "the variants differ"
    assert isinstance(engine, ReplayScorer)
    assert len(engine._replays) == {**dict.fromkeys(TWICE, 2), "masked mean": 3}.get(name, 1)


# Those that are run in full -------------------------------------------------------------------------------------


def rows() -> dict[str, str]:
    """The page's table: which network, and what a sweep says of it."""
    section = PAGE.read_text("utf-8").partition("## Where every variant is run in full, and why\n")[2]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in section.split("\n## ")[0].splitlines()]
    _, _, *rows = [row for row in cells if len(row) == 3]
    return {network: words for network, words, _ in rows}


NETWORKS = {
    "`nn.GRU`": "GRU",
    "`nn.LSTM` and its like over `pack_padded_sequence`": "LSTM packed",
    "mixtures of experts of transformers, built in a file of one's own": "mixtral/eager",
}
ODD_ONES = {
    "one that looks at its weights or activations (`if y.mean() > 0`, `y[y > 0]`)": "Looks",
    "one that takes a number from each batch (`x * float(x.max())`)": "Scales",
    "one that goes to numpy and back": "Numpy",
    "one that holds a parameter in a function": "Reaches",
    "one whose parameters are parts of one tensor": "Views",
    "one that writes into its input": "WritesInput",
    "one whose `state_dict` has other names than its modules": "Renamed",
}
"""By what the page calls them."""


def test_the_page_names_them_all() -> None:
    assert rows().keys() == {*NETWORKS, *ODD_ONES}
    text = PAGE.read_text("utf-8")
    assert f"more than {SHAPES} shapes" in text
    assert f"more than {ANSWERS} kinds" in text


@pytest.mark.parametrize("title", NETWORKS)
def test_a_network_of_the_page_is_run_in_full(title: str, tmp_path: Path) -> None:
    task, engine = scorer(NETWORKS[title], tmp_path)
    hold_note(engine, task, rows()[title])


@pytest.mark.parametrize("title", ODD_ONES)
def test_what_a_model_does_that_the_page_names(title: str, spec: TaskSpec, save) -> None:
    name = ODD_ONES[title]
    recipient = save(0, name)
    task = load_task(replace(spec, model=f"{ODD}:{name}", batch_size=2), recipient)
    hold_note(scorer_of(task, save(1, name), recipient), task, rows()[title])


def hold_note(engine: FullScorer, task: Task, words: str) -> None:
    """The scorer says it, with something in the place of each …."""
    assert isinstance(engine, ReplayScorer)
    with task.pinned():
        for batch in task.batches():
            engine.replay(batch.inputs)
    [note] = engine.notes
    assert re.search(".*".join(map(re.escape, words.split("…"))), note), note
