"""Sweeps by scores that are only close: the verdicts of exact ones; what hangs on a hair is scored exactly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import UsageError
from ckptswap.scoring import close as close_room
from ckptswap.scoring.variant import BASELINE
from ckptswap.sweep.analysis import Analysis, load_result
from ckptswap.sweep.preparing import prepare
from ckptswap.sweep.run_folder.folder import RunFolder
from ckptswap.sweep.runner import Sweep
from ckptswap.sweep.sides import Sides
from ckptswap.sweep.spec import RunOptions, SweepSpec
from ckptswap.task import TaskSpec


@pytest.fixture
def planned(skip: TaskSpec, save, tmp_path: Path):
    donor: Checkpoint
    donor, recipient = save(1, "Skip"), save(0, "Skip")

    def make(engine: str, **told) -> Sweep:
        by = (("tensor",),)
        spec = SweepSpec((donor.path,), recipient.path, skip, by=by, engine=engine, **told)  # type: ignore[arg-type]
        return prepare(spec, Sides((donor,), recipient), tmp_path / engine)

    return make


def engines(folder: Path) -> dict[str, set[str]]:
    """By tensor how its blocks were computed, the better ones counting."""
    plan, blocks, _ = RunFolder(folder).read_with_owner()
    names = {cell.variant: cell.names[0] for cell in plan.plan.cells}
    return {
        names[variant]: {block.engine for (other, _), block in blocks.items() if other == variant}
        for variant in names
        if (variant, 0) in blocks and variant != BASELINE
    }


def verdicts(table: Analysis) -> dict[str, str | None]:
    return {row.tensors[0]: row.verdict for row in table.result.rows}


def test_close_scores_give_the_verdicts_of_exact_ones(planned, tmp_path: Path) -> None:
    options = RunOptions(tolerance=0.05, samples=False)
    exact = planned("auto").run(options)
    sweep = planned("close")
    close = sweep.run(options)
    assert verdicts(close) == verdicts(exact)
    drops = {row.tensors[0]: row.drop for row in exact.result.rows}
    for row in close.result.rows:
        assert row.drop == pytest.approx(drops[row.tensors[0]], abs=1e-6)
    ways = engines(tmp_path / "close")
    assert any("close" in way for way in ways.values())
    assert any("scores are close, not exact" in note for note in close.result.notes)
    assert not any("close" in note for note in exact.result.notes)
    assert load_result(tmp_path / "close") == close.result


def test_what_is_near_the_tolerance_is_scored_exactly(planned, tmp_path: Path) -> None:
    """A tolerance within the reach of one row's interval: that row's verdict would be another a hair beside it."""
    exact = planned("auto").run(RunOptions(tolerance=0.05, samples=False))
    row = next(row for row in exact.result.rows if row.verdict == "sensitive" and row.ci_low)
    assert row.ci_low is not None
    options = RunOptions(tolerance=row.ci_low, close_within=row.ci_low / 2, samples=False)
    again = planned("auto").run(replace(options, close_within=None))
    close = planned("close").run(options)
    assert verdicts(close) == verdicts(again)
    ways = engines(tmp_path / "close")
    assert ways[row.tensors[0]] == {"replay"}, "its verdict hangs on the closeness"


def test_what_is_too_far_off_is_scored_exactly(planned, tmp_path: Path, monkeypatch) -> None:
    real = close_room._moved

    def off(*statistics):
        return {name: values + 0.01 for name, values in real(*statistics).items()}

    monkeypatch.setattr(close_room, "_moved", off)
    options = RunOptions(tolerance=0.05, samples=False)
    close, exact = planned("close").run(options), planned("auto").run(options)
    assert [row.score for row in close.result.rows] == [row.score for row in exact.result.rows]
    assert all("close" not in way for way in engines(tmp_path / "close").values())
    assert any("a drop was off by at most 0.01" in note for note in close.result.notes)


def test_exactness_is_a_condition(planned, tmp_path: Path) -> None:
    assert planned("close").conditions["exactness"] == "close"
    assert planned("auto").conditions["exactness"] == "bits"
    assert planned("close").source().spec.engine == "close"


@pytest.mark.parametrize(
    ("engine", "options", "words"),
    [
        ("auto", RunOptions(close_within=0.1), "only close"),
        ("close", RunOptions(top=1), "exact scores"),
        ("close", RunOptions(tolerance=0.0), "tolerance 0"),
    ],
)
def test_what_makes_no_sense_is_refused(
    planned, tmp_path: Path, engine: str, options: RunOptions, words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        planned(engine).run(replace(options, samples=False))
    assert not (tmp_path / engine).exists()


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_a_bound_is_a_drop_above_zero(value: float) -> None:
    with pytest.raises(UsageError, match="--close-within"):
        RunOptions(close_within=value)


def test_zero_controls_that_were_close_are_exact_by_a_smaller_bound(planned, tmp_path: Path) -> None:
    options = RunOptions(tolerance=1.0, zero_control=True, samples=False)
    planned("close").run(options)
    now = planned("close").run(replace(options, close_within=1e-300))
    plan, blocks, _ = RunFolder(tmp_path / "close").read_with_owner()
    assert plan.close_within == 1e-300
    controls = {control.id for cell in plan.plan.cells if (control := plan.plan.control(cell))}
    assert controls & {variant for variant, _ in blocks}
    assert "close" not in {block.engine for block in blocks.values()}
    assert load_result(tmp_path / "close") == now.result
