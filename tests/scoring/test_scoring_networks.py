"""Networks that people have: replay runs on them with equal bits, and the page names those where it does not."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import odd_models
import pytest
from people_scored import replayed, scorer_of_copies

from ckptswap.scoring.engines import scorer_of
from ckptswap.scoring.full import FullScorer
from ckptswap.scoring.replay import ANSWERS, SHAPES, ReplayScorer
from ckptswap.task import Task, TaskSpec, load_task

ODD = Path(odd_models.__file__)
PAGE = Path(__file__).parents[2] / "docs/howto/any-model.md"
REPLAYED = [
    "bert/eager", "bert/sdpa", "llama-tied/sdpa", "gpt2/sdpa", "t5/sdpa", "whisper/sdpa", "clip/eager",
    "lora/llama", "mixtral/eager-batched", "nnunet/residual", "LSTM", "GRU two ways", "RNN", "LSTM packed",
    "GRU packed two ways", "RNN repadded", "LSTM repadded two ways", "TransformerEncoder", "masked mean",
    "channels last", "exported", "scripted",
]  # fmt: skip
"""A sample of the list that `benchmarks/families.py` goes through."""
PADDED = {"bert/eager", "bert/sdpa", "llama-tied/sdpa", "gpt2/sdpa", "t5/sdpa", "lora/llama"}
"""Those that look whether anything is masked: batches with padding have a graph of their own."""
LIBRARIES = {"lora": "peft", "nnunet": "dynamic_network_architectures"}


def scorer(name: str) -> tuple[Task, ReplayScorer]:
    library = name.partition("/")[0] if "/" in name else ""
    if library:
        pytest.importorskip(LIBRARIES.get(library, "transformers"))
    return scorer_of_copies(name)


@pytest.mark.parametrize("name", REPLAYED)
def test_replay_runs_with_the_bits_of_full_passes(name: str) -> None:
    task, engine = scorer(name)
    count, outputs = replayed(task, engine)
    assert engine.notes == []
    assert count >= 9, "every output was replayed"
    assert outputs > count * 2 // 3, "the variants differ"
    by_length = "packed" in name or "repadded" in name or name == "masked mean"
    assert len(engine._replays) == (3 if by_length else 2 if name in PADDED else 1)


# Those that are run in full -------------------------------------------------------------------------------------


def rows() -> dict[str, str]:
    """The page's table: which network, and what a sweep says of it."""
    section = PAGE.read_text("utf-8").partition("## Where every variant is run in full, and why\n")[2]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in section.split("\n## ")[0].splitlines()]
    _, _, *rows = [row for row in cells if len(row) == 3]
    return {network: words for network, words, _ in rows}


NETWORKS = {
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
def test_a_network_of_the_page_is_run_in_full(title: str) -> None:
    task, engine = scorer(NETWORKS[title])
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
