"""From a run folder with any part of its blocks to a table: rows on the samples that they have, fairly paired."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from sweeping import plan_json, sweep, write_plan_json

from ckptswap.errors import MetricError, RunError, UsageError
from ckptswap.scoring.scorer import Block
from ckptswap.scoring.variant import BASELINE
from ckptswap.selection import Selection
from ckptswap.statistics import totals, verdicts
from ckptswap.statistics.totals import Sample, mean
from ckptswap.statistics.verdicts import RowIntervals
from ckptswap.sweep.analysis import Analysis, analysed, load_analysis, load_result
from ckptswap.sweep.plan import variant_id
from ckptswap.sweep.result import MetricScore, Row
from ckptswap.sweep.run_folder.blocks import DONOR
from ckptswap.sweep.run_folder.folder import RunFolder
from ckptswap.sweep.run_folder.journal import decode, encode, journal_files
from ckptswap.sweep.run_folder.plan_file import RunMetric
from ckptswap.sweep.scored_run import ScoredRun, reduction
from ckptswap.sweep.spec import Judging
from ckptswap.sweep.warnings import judging_notes
from ckptswap.task import TaskSpec

ONLY = Selection.parse(only=["head.*", "norm.weight", "unused.bias"])
HEAD, NORM = ("head.weight",), ("norm.weight",)
Chosen = Callable[[Block], bool]


@pytest.fixture
def finished(skip: TaskSpec, save, tmp_path: Path) -> Path:
    """A run on 60 samples in 30 groups, ten batches."""
    spec = replace(skip, data_args={"samples": 60}, metrics=(*skip.metrics, "iou:pooled"))
    sweep(save(1, "Skip"), save(0, "Skip"), spec, run_dir=tmp_path / "run", selection=ONLY)
    return tmp_path / "run"


def test_what_verdicts_keep_and_presume_is_remembered_but_no_condition(
    skip: TaskSpec, save, tmp_path: Path
) -> None:
    run, pair = tmp_path / "run", (save(1, "Skip"), save(0, "Skip"))
    spec = replace(skip, data_args={"samples": 60})
    first = sweep(*pair, spec, run_dir=run, selection=ONLY, tolerance=0.01, error="fdr")
    assert (first.error, first.se, load_analysis(run).result.error) == ("fdr", "cluster", "fdr")
    assert load_analysis(run, error="fwer").result.error == "fwer"
    again = sweep(*pair, spec, run_dir=run, selection=ONLY, tolerance=0.01, se="successive")
    assert (again.error, again.se, again.groups) == ("fwer", "successive", 30)
    assert [row.drop for row in again.rows] == [row.drop for row in first.rows]
    assert [row.ci_high for row in again.rows] != [row.ci_high for row in first.rows]
    with pytest.raises(UsageError, match="--error is 'most': use fwer or fdr"):
        load_analysis(run, error="most")


@pytest.mark.parametrize(
    ("label", "said"),
    [(lambda groups: np.where(groups < 16, 0, groups), "one group has 5"), (lambda groups: groups, None)],
)
def test_one_group_with_most_samples_decides_nothing_and_is_said(finished: Path, label, said: str | None) -> None:
    """The 60 samples in 30 groups, of which the first sixteen become one."""
    run = ScoredRun.read(RunFolder(finished), judging=Judging(tolerance=10.0))
    groups = label(np.array(run.run.groups))
    analysis = analysed(replace(run, run=replace(run.run, groups=tuple(groups.tolist()))))
    measured = [row for row in analysis.result.rows if row.status == "measured"]
    assert {row.verdict for row in measured} <= ({"undecided"} if said else {"reusable", "unused"})
    assert measured
    assert {row.p_reusable is None for row in measured} == {said is not None}
    assert any(note.startswith(said or "one group has") for note in analysis.result.notes) == (said is not None)


def test_neighbours_that_are_alike_are_said() -> None:
    rows = {str(at): RowIntervals(0.1, lag_one=lag) for at, lag in enumerate((0.1, 0.3, 0.9, None))}
    whole = SimpleNamespace(spec=SimpleNamespace(decide=False))
    run = SimpleNamespace(error="fwer", se="cluster", run=whole)
    assert "0.30, the median of 3 rows" in next(judging_notes(run, rows))
    assert list(judging_notes(run, {"0": rows["0"]})) == []
    successive = list(judging_notes(SimpleNamespace(error="fdr", se="successive", run=whole), rows))
    assert [note.split(":")[0] for note in successive] == [
        "verdicts at a false discovery rate", "standard errors by the differences of neighbouring groups",
    ]  # fmt: skip


def parts(run: Path) -> tuple[bytes, list[Block]]:
    """The journal's head, and its blocks."""
    head, *lines = journal_files(run)[0].read_bytes().splitlines(True)
    return head, list(map(decode, lines))


def rewritten(run: Path, folder: Path, chosen: Chosen, writers: int = 1, turn: int = 1) -> Path:
    """A copy of the run whose journal has only the chosen blocks, spread over so many files."""
    shutil.copytree(run, folder)
    head, blocks = parts(run)
    for path in journal_files(folder):
        path.unlink()
    lines = [encode(block) for block in blocks if chosen(block)][::turn]
    for writer in range(writers):
        (folder / "journal" / f"w{writer}.jsonl").write_bytes(head + b"".join(lines[writer::writers]))
    return folder


def scores(run: Path, variant: str, metric: str, batches: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """A variant's statistics (n, K) on some batches, and the samples' groups (n,), batch by batch."""
    plan, found = RunFolder(run).read_plan(), {(each.variant, each.batch): each for each in parts(run)[1]}
    places = [place for number in batches for place in plan.walk[number]]
    return (
        np.concatenate([found[variant, number].statistics[metric] for number in batches]),
        np.array(plan.groups)[places],
    )


def row_of(analysis: Analysis, names: tuple[str, ...]) -> Row:
    return next(row for row in analysis.result.rows if row.tensors == names)


def begun(batches: int, *variants: tuple[str, ...]) -> Chosen:
    """The baseline, and the first batches of these variants."""
    ids = [variant_id(names) for names in variants]
    return lambda block: block.variant == BASELINE or (block.variant in ids and block.batch < batches)


@pytest.mark.parametrize("metric", ["own", "iou", "iou:pooled"])
@pytest.mark.parametrize("batches", [8, 10])
def test_a_row_rests_on_its_own_samples(finished: Path, tmp_path: Path, metric: str, batches: int) -> None:
    """As if the data had no others: the drop exactly, and the interval where each group is there."""
    run = rewritten(finished, tmp_path / "part", begun(batches, HEAD))
    metrics = RunFolder(run).read_plan().metrics
    known = next(known for known in metrics if known.name == metric) if metric != "own" else metrics[0]
    name = known.name
    analysis = load_analysis(run, name)
    row = row_of(analysis, HEAD)
    there = range(batches)
    baseline, label = scores(finished, BASELINE, name, there)
    variant, _ = scores(finished, variant_id(HEAD), name, there)
    reduce = reduction(known)
    direction = analysis.result.direction
    [alone] = verdicts.table(Sample.of([baseline, variant], label, reduce), direction)
    assert row.drop == pytest.approx(alone.drop, rel=1e-12)
    assert row.score == pytest.approx(totals.whole(variant, reduce), rel=1e-12)
    assert row.samples == len(label) == 6 * batches
    assert row.ci_low < row.drop < row.ci_high
    if len(set(label.tolist())) == 30:
        assert (row.ci_low, row.ci_high) == pytest.approx((alone.ci_low, alone.ci_high), rel=1e-9)
    whole, _ = scores(finished, BASELINE, name, range(10))
    assert analysis.result.baseline == pytest.approx(totals.whole(whole, reduce), rel=1e-12)
    assert analysis.result.samples == 60


def test_rows_on_unequal_samples_beside_each_other(finished: Path, tmp_path: Path) -> None:
    ids = {variant_id(HEAD): 4, variant_id(NORM): 10}
    run = rewritten(
        finished, tmp_path / "part", lambda each: each.variant == BASELINE or each.batch < ids.get(each.variant, 0)
    )
    analysis, whole = load_analysis(run), load_analysis(finished)
    few, many = row_of(analysis, HEAD), row_of(analysis, NORM)
    assert (few.samples, many.samples) == (24, 60)
    assert replace(many, rank=None, sim_low=None, sim_high=None) == replace(
        row_of(whole, NORM), rank=None, sim_low=None, sim_high=None
    )
    notes = analysis.result.notes
    left = "1 of 4 rows are not scored yet; 1 row rests on 24 of 60 samples so far: the same command continues"
    assert [note for note in notes if "continues" in note] == [left]
    assert (analysis.result.complete, whole.result.complete) == (False, True)
    assert {row.tensors for row in analysis.result.rows} == {HEAD, NORM, ("unused.bias",)}
    assert analysis.result.donor_score is None


def test_contrasts_of_partial_rows(finished: Path, tmp_path: Path) -> None:
    run = rewritten(finished, tmp_path / "part", begun(5, HEAD, NORM))
    analysis = load_analysis(run)
    index = {row.tensors: at for at, row in enumerate(analysis.result.rows)}
    assert {analysis.result.rows[index[names]].samples for names in (HEAD, NORM)} == {30}
    found = analysis.contrast({index[HEAD]: 1.0, index[NORM]: -1.0})
    expected = analysis.result.rows[index[HEAD]].drop - analysis.result.rows[index[NORM]].drop
    assert found.estimate == pytest.approx(expected, rel=1e-9)
    idle = index["unused.bias",]
    assert analysis.contrast({idle: 1.0}).estimate == 0.0
    assert analysis.contrast({index[HEAD]: 1.0, idle: 1.0}) == analysis.contrast({index[HEAD]: 1.0})


@pytest.mark.parametrize("batches", [1, 5])
def test_a_contrast_of_one_row_is_its_drop(finished: Path, tmp_path: Path, batches: int) -> None:
    analysis = load_analysis(rewritten(finished, tmp_path / "part", begun(batches, HEAD)))
    at = next(at for at, row in enumerate(analysis.result.rows) if row.tensors == HEAD)
    row, found = analysis.result.rows[at], analysis.contrast({at: 1.0})
    assert (found.low, found.high) == (row.ci_low, row.ci_high)
    assert found.estimate == pytest.approx(row.drop, rel=1e-12)
    assert analysis.tails({at: 1.0}, analysis.result.tolerance) == (row.p_reusable, row.p_sensitive)


def test_too_few_groups_so_far_have_no_interval(finished: Path, tmp_path: Path) -> None:
    """Six samples of one batch: five or six groups."""
    run = rewritten(finished, tmp_path / "part", begun(1, HEAD))
    row = row_of(load_analysis(run), HEAD)
    assert row.samples == 6
    assert row.drop is not None
    assert (row.ci_low, row.ci_high, row.sim_low, row.sim_high) == (None,) * 4
    assert row.verdict == "undecided"


@pytest.mark.parametrize(("writers", "turn"), [(1, -1), (3, 1), (7, -1)])
def test_the_order_of_blocks_and_who_wrote_them_change_nothing(finished, tmp_path: Path, writers, turn) -> None:
    run = rewritten(finished, tmp_path / "other", lambda block: True, writers, turn)
    assert load_result(run) == load_result(finished)


def test_a_failure_anywhere_is_a_failed_row(finished: Path, tmp_path: Path) -> None:
    run = rewritten(finished, tmp_path / "part", lambda block: True)
    path = run / "journal" / "z.jsonl"
    head, _ = parts(finished)
    later = Block(variant_id(HEAD), 7, {}, "out of luck")
    path.write_bytes(head + encode(later))
    assert row_of(load_analysis(run), HEAD).status == "measured", "a score is better than a failure"
    run = rewritten(finished, tmp_path / "less", lambda each: (each.variant, each.batch) != later[:2])
    (run / "journal" / "z.jsonl").write_bytes(head + encode(later) + encode(later._replace(variant=DONOR)))
    analysis = load_analysis(run)
    row = row_of(analysis, HEAD)
    assert (row.status, row.reason, row.drop, row.samples) == ("failed", "out of luck", None, None)
    assert analysis.result.donor_score is not None, "of the donor, too"
    with pytest.raises(UsageError, match="is failed and has no drop"):
        analysis.contrast({analysis.result.rows.index(row): 1.0})


def test_a_baseline_on_some_batches_pairs_with_what_it_has(finished: Path, tmp_path: Path) -> None:
    """A run that was stopped while its baseline was being written."""
    run = rewritten(finished, tmp_path / "part", lambda block: block.variant == BASELINE and block.batch < 4)
    result = load_result(run)
    assert {row.status for row in result.rows} == {"no-effect"}
    assert any("3 of 4 rows are not scored yet" in note for note in result.notes)
    run = rewritten(finished, tmp_path / "none", lambda block: block.variant != BASELINE)
    with pytest.raises(RunError, match="has no scores yet"):
        load_result(run)


def test_the_other_metrics_are_those_of_a_table_that_they_rank(finished: Path, tmp_path: Path) -> None:
    """Also where a row is on fewer samples, or failed."""
    fewer = rewritten(finished, tmp_path / "fewer", begun(8, HEAD))
    for run in (finished, fewer):
        first = load_result(run)
        names = [first.metric, *(other.name for other in first.others)]
        assert len(names) == 3
        results = {name: load_result(run, name) for name in names}
        for result in results.values():
            for at, other in enumerate(result.others):
                ranked = results[other.name]
                assert (other.baseline, other.donor_score) == (ranked.baseline, ranked.donor_score)
                twins = {(row.by, row.tensors): row for row in ranked.rows}
                for row in result.rows:
                    twin = twins[row.by, row.tensors]
                    assert row.others[at] == MetricScore(twin.score, twin.drop, twin.ci_low, twin.ci_high)


def test_pooled_and_plain_reductions() -> None:
    sums = np.array([2.0, 1.0, 1.0, 0.0])
    iou, own, pooled, dice = (
        RunMetric(name, "max", None, (None, None), is_mean)
        for name, is_mean in (("iou", True), ("own:pooled", True), ("iou:pooled", False), ("dice:pooled", False))
    )
    assert reduction(iou) is mean
    assert reduction(own) is mean, "a function of the user's that is called pooled"
    assert float(reduction(pooled)(sums, np.array(3.0))) == 0.5
    assert float(reduction(dice)(sums, np.array(3.0))) == pytest.approx(2 / 3)
    with pytest.raises(MetricError, match="there is no metric 'plugin'"):
        reduction(RunMetric("plugin", "max", None, (None, None), False))
    with pytest.raises(MetricError, match=r"there is no metric 'own\.py:loss'"):  # it would run the file's code
        reduction(RunMetric("own.py:loss", "max", None, (None, None), False))


def test_damaged_plans_are_refused(finished: Path, tmp_path: Path) -> None:
    for word in ("walk", "groups", "plan", "tolerance"):
        run, plan = shutil.copytree(finished, tmp_path / word), plan_json(finished)
        del plan[word]
        write_plan_json(run, plan)
        with pytest.raises(RunError, match=f"is damaged, or no sweep's plan .its part '{word}' is missing"):
            load_result(run)
    with pytest.raises(MetricError, match=r"has no scores by 'dice': it has .*iou"):
        load_result(finished, "dice")
