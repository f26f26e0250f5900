"""Zero controls, each against a plain loop; which rows have one, and when it is scored."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sweeping import prepare, ran, sweep
from test_sweep_modes import READ, error_of, state_of
from torch import Tensor

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import UsageError
from ckptswap.scoring.scorer import ShortcutFailed
from ckptswap.selection import Selection
from ckptswap.sweep.analysis import load_result
from ckptswap.sweep.progress import BlockProgress
from ckptswap.sweep.result import SweepResult
from ckptswap.sweep.run_folder.journal import Journal
from ckptswap.sweep.runner import Sweep
from ckptswap.sweep.spec import RunOptions
from ckptswap.task import TaskSpec

FEW = Selection.parse(only=["stem.bias", "head.bias"])
WIDE = 1e6
"""A tolerance by which every row is reusable, and every control too."""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def pair(save) -> tuple[Checkpoint, Checkpoint]:
    return save(1, "Skip"), save(0, "Skip")


def without(recipient: Checkpoint, names: Iterable[str]) -> dict[str, Tensor]:
    """The recipient with these tensors as zeros, batch norm's as its identity."""
    ones = ("norm.weight", "norm.running_var", "inner.1.weight", "inner.1.running_var")
    state = state_of(recipient)
    return state | {name: torch.full_like(state[name], float(name in ones)) for name in names}


@pytest.mark.parametrize("engine", ["replay", "full"])
@pytest.mark.parametrize("way", [("layer", "kind"), ("layer",)])
def test_a_control_is_that_of_a_plain_loop(skip: TaskSpec, pair, run: Path, way, engine) -> None:
    how = {"selection": READ, "by": [way], "run_dir": run, "engine": engine}
    result = sweep(*pair, skip, **how, tolerance=WIDE, zero_control=True)
    assert {row.verdict for row in result.rows} == {"unused"}
    for row in result.rows:
        error = error_of(skip, pair[1], without(pair[1], row.tensors))
        assert row.zero_drop == pytest.approx(error - result.baseline, rel=1e-5, abs=1e-7)


def limited(result: SweepResult) -> float:
    """A tolerance between the drops: some rows are reusable whose controls are not."""
    drops = sorted(row.sim_high for row in result.rows if row.sim_high is not None)
    return max(drops[len(drops) // 2], 1e-4) * 1.01


def test_unused_is_reusable_both_ways(skip: TaskSpec, pair, run: Path) -> None:
    first = sweep(*pair, skip, selection=READ, run_dir=run, tolerance=WIDE, zero_control=True)
    limit = limited(first)
    result = load_result(run, tolerance=limit)
    verdicts = {row.verdict for row in result.rows}
    assert {"reusable", "unused"} <= verdicts
    for row in result.rows:
        is_able = row.verdict in ("reusable", "unused")
        assert (row.zero_drop is not None) == is_able
        if row.verdict == "unused":
            assert row.zero_drop is not None
            assert row.zero_drop < limit
        if row.verdict == "reusable" and row.zero_drop is not None and row.zero_drop > limit:
            break
    else:
        pytest.fail("no row whose donor serves and zeros do not")


def test_by_itself_it_is_scored_where_it_costs_little(skip: TaskSpec, pair, run: Path) -> None:
    """Nothing else than whether somebody asked differs between the runs."""

    def tried(name: str, **how: object) -> int:
        told = sweep(*pair, skip, selection=READ, run_dir=run.with_name(name), tolerance=WIDE, **how)
        return sum(row.zero_drop is not None for row in told.rows)

    assert tried("unasked") == 0
    assert tried("refused", zero_control=False) == 0
    assert tried("asked", zero_control=True) > 0


def test_few_controls_need_no_asking(skip: TaskSpec, pair, run: Path) -> None:
    """Beside points of a path there are variants enough."""
    alphas = [at / 20 for at in range(21)]
    result = sweep(*pair, skip, selection=FEW, alphas=alphas, run_dir=run, tolerance=WIDE)
    assert {row.verdict for row in result.rows} == {"unused"}
    told = load_result(run, tolerance=0.0)
    assert all(row.zero_drop is None for row in told.rows if row.verdict not in ("reusable", "unused"))


def test_the_same_command_continues_to_the_same_bits(skip: TaskSpec, pair, run: Path) -> None:
    how = {"selection": READ, "tolerance": WIDE, "zero_control": True}
    at_once = sweep(*pair, skip, run_dir=run.with_name("once"), **how)
    before = sweep(*pair, skip, run_dir=run, **(how | {"zero_control": False}))
    assert all(row.zero_drop is None and row.verdict == "reusable" for row in before.rows)

    class Enough(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done > total - 4:
            raise Enough

    with pytest.raises(Enough):
        sweep(*pair, skip, run_dir=run, progress=stop, **how)
    halfway = load_result(run)
    assert sum(row.zero_drop is None for row in halfway.rows) > 0, "a control of some samples says nothing"
    assert sweep(*pair, skip, run_dir=run, **how) == at_once == load_result(run)


def test_a_budget_counts_controls_too(skip: TaskSpec, pair, run: Path) -> None:
    sweep(*pair, skip, selection=READ, run_dir=run, tolerance=WIDE, zero_control=False)
    result = sweep(*pair, skip, selection=READ, run_dir=run, tolerance=WIDE, zero_control=True, budget=0.0)
    assert any(row.zero_drop is None for row in result.rows)


def test_progress_counts_them(skip: TaskSpec, pair, run: Path) -> None:
    told: list[tuple[int, int]] = []
    sweep(*pair, skip, selection=READ, run_dir=run, tolerance=WIDE, zero_control=True,
          progress=lambda done, total: told.append((done, total)))  # fmt: skip
    assert told[-1][0] == told[-1][1] > told[0][1]
    assert all(done <= total for done, total in told)


def test_what_is_zero_already_proves_nothing(skip: TaskSpec, save, run: Path) -> None:
    recipient = save(0, "Skip", stem__bias=torch.zeros(4), norm__weight=torch.ones(4), norm__bias=-torch.zeros(4))
    result = sweep(
        save(1, "Skip"), recipient, skip, selection=READ, run_dir=run, tolerance=WIDE, zero_control=True
    )
    rows = {name: row for row in result.rows for name in row.tensors}
    for name in ("stem.bias", "norm.weight", "norm.bias"):
        assert (rows[name].verdict, rows[name].zero_drop) == ("reusable", None)
        assert "as it is: no zero control" in (rows[name].reason or "")
    assert rows["norm.running_mean"].verdict == "unused"


def test_what_is_never_read_or_equal_is_reusable_without_a_control(skip: TaskSpec, save, run: Path) -> None:
    donor = save(1, "Skip", stem__bias=state_of(save(0, "Skip"))["stem.bias"])
    result = sweep(donor, save(0, "Skip"), skip, run_dir=run, tolerance=WIDE, zero_control=True)
    free = [row for row in result.rows if row.status != "measured"]
    assert {row.status for row in free} == {"identical", "no-effect"}
    assert {(row.verdict, row.zero_drop) for row in free} == {("reusable", None)}


def test_a_control_without_a_score_is_no_failure_of_the_sweep(spec: TaskSpec, save, run: Path) -> None:
    """A network that divides by a weight: it needs it."""
    recipient = save(0)
    planned = prepare(save(1), recipient, spec, run_dir=run)

    def fails(variant) -> str | None:
        return "it gives no numbers" if variant.donor < 0 else None

    planned.runs_model.fault = fails  # type: ignore[method-assign]
    result = ran(planned, tolerance=WIDE, zero_control=True)
    reusable = [row for row in result.rows if row.status == "measured" and row.verdict != "undecided"]
    assert {(row.verdict, row.zero_drop) for row in reusable} == {("reusable", None)}
    assert all("it gives no numbers" in (row.reason or "") for row in reusable)
    assert result.failed == 0


def test_several_donors_share_a_control(skip: TaskSpec, save, run: Path) -> None:
    donors = [save(1, "Skip"), save(2, "Skip")]
    result = sweep(donors, save(0, "Skip"), skip, selection=READ, by=[("kind",)], run_dir=run, tolerance=WIDE,
                   zero_control=True)  # fmt: skip
    drops = {(row.kind, row.donor): row.zero_drop for row in result.rows}
    assert all(drop is not None and drop == drops[kind, 1] for (kind, donor), drop in drops.items() if not donor)


def test_zeros_as_a_donor_are_their_own_control(skip: TaskSpec, save, run: Path) -> None:
    recipient = save(0, "Skip")
    result = sweep("zeros", recipient, skip, selection=READ, by=[("tensor",)], run_dir=run, tolerance=WIDE,
                   zero_control=True)  # fmt: skip
    zeroed = [row for row in result.rows if row.kind and row.kind not in ("bn.weight", "bn.running_var")]
    assert all(row.zero_drop == row.drop for row in zeroed)


def test_a_race_has_none(skip: TaskSpec, pair, run: Path) -> None:
    with pytest.raises(UsageError, match="--top for the worst"):
        RunOptions(top=3, zero_control=True)
    result = sweep(*pair, skip, selection=READ, run_dir=run, tolerance=WIDE, top=1, epsilon=0.0)
    assert all(row.zero_drop is None for row in result.rows)


def test_verdicts_known_early_have_controls_where_asked(many: TaskSpec, pair, run: Path) -> None:
    """On all samples, while rows may rest on fewer."""
    how = {"selection": FEW, "decide": True, "tolerance": WIDE}
    unasked = sweep(*pair, many, run_dir=run, **how)
    assert all(row.zero_drop is None for row in unasked.rows)
    result = sweep(*pair, many, run_dir=run, zero_control=True, **how)
    assert [row.samples for row in result.rows] == [row.samples for row in unasked.rows]
    assert all(row.samples is not None and row.samples < 40 for row in result.rows)
    plain = sweep(*pair, many, run_dir=run.with_name("plain"), selection=FEW, tolerance=WIDE, zero_control=True)
    controls = {row.tensors: row.zero_drop for row in plain.rows}
    for row in result.rows:
        assert row.verdict == "unused"
        assert row.zero_drop == pytest.approx(controls[row.tensors], rel=1e-5)


@pytest.fixture
def many(skip: TaskSpec, own: Path) -> TaskSpec:
    """The same task on 40 groups of one sample."""
    own.write_text(own.read_text().replace("samples=20, group=2", "samples=40, group=1"))
    return skip


def test_replays_found_wrong_at_the_end_are_all_computed_again(
    skip: TaskSpec, pair, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = sweep(*pair, skip, selection=READ, run_dir=run.with_name("right"), tolerance=WIDE, zero_control=True,
                  engine="full")  # fmt: skip
    planned = prepare(*pair, skip, selection=READ, run_dir=run)
    blocks, scorer = planned.scorer.blocks, planned.scorer

    def wrong(wanted):
        for block in blocks(wanted):
            if block.engine == "replay" and block.variant in controls:
                raise ShortcutFailed("a control")
            yield block

    controls = {control.id for cell in planned.plan.cells if (control := planned.plan.control(cell))}
    monkeypatch.setattr(scorer, "blocks", wrong)
    found = ran(planned, tolerance=WIDE, zero_control=True)
    assert [(row.score, row.zero_drop) for row in found.rows] == [(row.score, row.zero_drop) for row in right.rows]


def test_an_executor_is_asked_once_more(skip: TaskSpec, pair, run: Path) -> None:
    """With what has a score already, and controls; real ones are in tests/cluster."""
    asked: list[set[str]] = []

    class Inline:
        def run(self, sweep: Sweep, journal: Journal, progress: BlockProgress) -> None:
            asked.append({variant.id for variant in sweep.variants})
            replace(sweep)._compute(told, journal, progress, None)

    planned = prepare(*pair, skip, selection=READ, run_dir=run)
    told = planned._run_plan(RunOptions(tolerance=WIDE))
    result = ran(planned, tolerance=WIDE, zero_control=True, executor=Inline())
    assert len(asked) == 2
    assert asked[0] < asked[1]
    assert {row.verdict for row in result.rows} == {"unused"}
