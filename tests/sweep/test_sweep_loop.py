"""The work itself: what is asked for, what is decoded, what becomes of failures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from plain import bits
from sweeping import run_plan
from torch import Tensor

from ckptswap.errors import MetricError
from ckptswap.scoring.engines import scorer_of
from ckptswap.scoring.full import FullScorer, ModelOutput, scored
from ckptswap.scoring.variant import Variant
from ckptswap.sweep.loop import Alive, score_missing
from ckptswap.sweep.run_folder.folder import RunFolder
from ckptswap.sweep.run_folder.journal import Journal, key_of
from ckptswap.task import Task, TaskSpec, load_task
from ckptswap.task.data import load_data
from ckptswap.task.task import Score

HEAD, NORM, STEM = (Variant(name, (name,)) for name in ("head.bias", "norm.bias", "stem.bias"))
KEY = {"of": "a test"}


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    RunFolder(tmp_path / "run").begin(run_plan(KEY))
    with Journal(tmp_path / "run", key_of(KEY)) as found:
        yield found


@pytest.fixture
def task(skip: TaskSpec, save) -> Task:
    return load_task(skip, save(0, "Skip"))


@pytest.fixture
def engine(task: Task, save) -> FullScorer:
    return scorer_of(task, save(1, "Skip"), save(0, "Skip"))


def walked(
    task: Task,
    engine: FullScorer,
    journal: Journal,
    *variants: Variant,
    alive: Alive = lambda _, variants: variants,
) -> list:
    """Walks, and gives what was told."""
    told: list = []
    score_missing(engine, variants, journal, told.append, alive)
    return told


def done(journal: Journal) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for variant, number in journal.blocks:
        found.setdefault(variant, []).append(number)
    return found


def test_every_variant_on_every_batch_is_told_and_kept(task: Task, engine: FullScorer, journal: Journal) -> None:
    assert len(walked(task, engine, journal, HEAD, NORM)) == 8
    assert done(journal) == {"head.bias": [0, 1, 2, 3], "norm.bias": [0, 1, 2, 3]}
    assert walked(task, engine, journal, HEAD, NORM) == []
    assert len(walked(task, engine, journal, HEAD, STEM)) == 4


def test_only_those_alive_are_scored_as_the_journal_then_is(
    task: Task, engine: FullScorer, journal: Journal
) -> None:
    """They are asked for anew before each batch, when all before it is in the journal."""

    def alive(number: int, variants: Sequence[Variant]) -> list[Variant]:
        rounds = len(done(journal).get("head.bias", []))
        return [each for each in variants if each is HEAD or rounds < 2]

    walked(task, engine, journal, HEAD, NORM, alive=alive)
    assert done(journal) == {"head.bias": [0, 1, 2, 3], "norm.bias": [0, 1]}


def test_nobody_alive_costs_nothing(task: Task, engine: FullScorer, journal: Journal, monkeypatch) -> None:
    def alive(number: int, variants: Sequence[Variant]) -> list[Variant]:
        return [] if done(journal) else list(variants)

    walked(task, engine, journal, HEAD, alive=alive)
    assert done(journal) == {"head.bias": [0]}
    monkeypatch.setattr(task, "prepared", None)
    assert walked(task, engine, journal, HEAD, alive=lambda number, variants: []) == []


def test_batches_that_are_done_are_not_decoded(skip: TaskSpec, save, journal: Journal, monkeypatch) -> None:
    task = load_task(skip, save(0, "Skip"), data=load_data(skip, memory=0))
    engine = scorer_of(task, save(1, "Skip"), save(0, "Skip"))
    walked(task, engine, journal, HEAD, alive=lambda number, variants: variants if number < 2 else [])
    asked: list[int] = []
    read = task.data._source.read
    monkeypatch.setattr(task.data._source, "read", lambda places: asked.extend(places) or read(places))
    walked(task, engine, journal, HEAD)
    assert sorted(asked) == sorted(np.concatenate(task.data.places[2:]).tolist())


def test_a_variant_that_failed_is_left_alone(skip: TaskSpec, save, task: Task, journal: Journal) -> None:
    donor = save(1, "Skip", norm__bias=torch.full((4,), torch.nan))
    engine = scorer_of(task, donor, save(0, "Skip"))
    walked(task, engine, journal, HEAD, NORM)
    assert done(journal) == {"head.bias": [0, 1, 2, 3], "norm.bias": [0]}
    block = journal.blocks["norm.bias", 0]
    assert (block.statistics, block.engine) == ({}, "replay")
    assert (
        block.failed == f"{len(task.data.places[0]) * 144} of the model's outputs are NaN or infinite in batch 0"
    )


@pytest.mark.parametrize("how", ["auto", "full"])
@pytest.mark.parametrize("at", [1, 2, 5])
def test_an_interrupt_anywhere_puts_the_recipient_back(
    task: Task, save, journal: Journal, monkeypatch, how, at: int
) -> None:
    """In a full pass of a variant, be it only to check a replay."""
    engine = scorer_of(task, save(1, "Skip"), save(0, "Skip"), how)
    engine.refuse_chance()
    before, forward, count = bits(task.model), task.forward, iter(range(1, 100))

    def interrupted(batch: Tensor) -> Tensor:
        if next(count) == at:
            raise KeyboardInterrupt
        return forward(batch)

    monkeypatch.setattr(task, "forward", interrupted)
    with pytest.raises(KeyboardInterrupt):
        walked(task, engine, journal, HEAD, NORM, STEM)
    assert bits(task.model) == before


# An outcome as a block ------------------------------------------------------------------------------------------


def score_of(**statistics: np.ndarray) -> Callable[[Tensor], Score]:
    return lambda output: Score(statistics, 0, 0.0, 1.0, True)


def failing(error: Exception) -> Callable[[Tensor], Score]:
    def score(output: Tensor) -> Score:
        raise error

    return score


def test_statistics_are_kept_as_they_are() -> None:
    values = np.array([[0.25], [0.5]])
    found = scored(3, ModelOutput(HEAD, torch.zeros(2), None, "replay"), score_of(own=values))
    assert found[:2] == ("head.bias", 3)
    assert found.statistics["own"] is values
    assert (found.failed, found.engine) == (None, "replay")


@pytest.mark.parametrize(
    ("score", "reason"),
    [
        (failing(MetricError("it does not fit", remedy="cut it")), "it does not fit: cut it"),
        (failing(ArithmeticError("I take no NaN")), "ArithmeticError: I take no NaN"),
        (
            score_of(own=np.array([[np.inf], [0.0]])),
            "the metric own is NaN or infinite for 1 of 2 samples in batch 3",
        ),
        (lambda output: Score({}, 4, 0.0, 1.0, True), "4 of the model's outputs are NaN or infinite in batch 3"),
    ],
)
def test_what_goes_wrong_in_scoring_is_the_blocks_reason(score, reason: str) -> None:
    found = scored(3, ModelOutput(HEAD, torch.zeros(2), None, "full"), score)
    assert (found.statistics, found.failed, found.engine) == ({}, reason, "full")


def test_an_outcome_without_output_is_not_scored() -> None:
    found = scored(0, ModelOutput(HEAD, None, "the model broke", "full"), failing(AssertionError("it was scored")))
    assert (found.statistics, found.failed) == ({}, "the model broke")
