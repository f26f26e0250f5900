"""From a run folder to its table: rows with ranks, intervals and verdicts, without torch, model or data."""

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from typing import Any, NamedTuple

import numpy as np

from ckptswap.errors import CkptswapError, UsageError
from ckptswap.scoring.variant import BASELINE, Variant
from ckptswap.statistics import Interval, Tails, bootstrap, intervals, totals, verdicts
from ckptswap.statistics.exact import unseen_share
from ckptswap.statistics.totals import Form, Sample
from ckptswap.statistics.verdicts import RowIntervals
from ckptswap.sweep.lattice import with_interactions
from ckptswap.sweep.plan import Cell, cell_key
from ckptswap.sweep.result import (
    Barrier,
    DonorScore,
    MetricScore,
    OtherMetric,
    Point,
    Recalibrated,
    Row,
    SweepResult,
    Verdict,
)
from ckptswap.sweep.run_folder.blocks import DONOR, donor_id
from ckptswap.sweep.run_folder.folder import RunFolder
from ckptswap.sweep.scored_run import ScoredRun
from ckptswap.sweep.screened import screen_notes, screened
from ckptswap.sweep.spec import Judging
from ckptswap.sweep.warnings import notes, unproven
from ckptswap.sweep.zero_control import controlled

FREE = ("identical", "no-effect")  # cells that need no run: their score is the baseline's
Path_ = str | os.PathLike[str]
NOT_APPLICABLE = "not applicable: a new estimate writes over what was swapped"


@dataclass(frozen=True)
class Analysis:
    """A sweep's table with what it rests on, so that contrasts between rows can be drawn with paired intervals.

    `columns` maps the index of a row to its column in `sample`, and to that of the baseline on the same samples; a
    row without drop has none. An `identical` row shares column 0, which is the baseline on all samples.
    `is_decided`: its p-values are those of the look at which `--decide` stopped.
    """

    result: SweepResult
    sample: Sample
    columns: Mapping[int, tuple[int, int]]
    is_decided: bool = False

    def contrast(self, weights: Mapping[int, float]) -> Interval:
        """Σ weight × drop over rows (by their index in `result.rows`), with a plain paired 95 % interval. `low`
        and `high` are None with fewer than 8 groups. Raises `UsageError` for a row that has no drop."""
        return intervals.contrast(self.sample, self._form(weights))

    def tails(self, weights: Mapping[int, float], bound: float = 0.0) -> Tails:
        """The p-values of the same sum against a bound, one-sided. Raises as `contrast` does."""
        return verdicts.tails(self.sample, self._form(weights), bound)

    def _form(self, weights: Mapping[int, float]) -> Form:
        sign = 1.0 if self.result.direction == "max" else -1.0
        form = {0: 0.0}
        for index, weight in weights.items():
            if index not in self.columns:
                row = self.result.rows[index]
                raise UsageError(
                    f"row {index} ({row.place}, {row.kind}) is {row.status} and has no drop", remedy="leave it out"
                )
            column, baseline = self.columns[index]
            form[baseline] = form.get(baseline, 0.0) + sign * weight
            form[column] = form.get(column, 0.0) - sign * weight
        return form


class _Others(NamedTuple):
    """A run's other metrics; of each cell the scores by them; and why a metric is not among them."""

    metrics: tuple[OtherMetric, ...]
    by_cell: Sequence[tuple[MetricScore, ...]]
    faults: tuple[str, ...]


def load_result(run_dir: Path_, metric: str | None = None, **judging: Any) -> SweepResult:
    """The table of `load_analysis`. Raises as that does."""
    return load_analysis(run_dir, metric, **judging).result


def load_analysis(run_dir: Path_, metric: str | None = None, **judging: Any) -> Analysis:
    """The table of a run folder, of what is scored so far, for its first metric or the named one; `judging`
    (`tolerance`, `error`, `se`) overrides the run's own.

    Raises `RunError` for a folder that is no run, is damaged, or has no baseline yet, `MetricError` for a metric
    that it does not hold, and `UsageError` for a tolerance that is no number or below 0.
    """
    return analysed(ScoredRun.read(RunFolder(run_dir), metric, Judging(**judging)))


def analysed(run: ScoredRun) -> Analysis:
    """The table of a run's scores. Raises `UsageError` where there is nothing to set a tolerance by."""
    cells = [cell for cell in run.plan.cells if run.is_known(cell)]
    variants = list(dict.fromkeys(cell.variant for cell in cells if run.is_scored(cell)))
    limit, why = run.tolerance()
    sample, drops, paired = _drops(run, variants, None if run.decisions else limit)
    if run.decisions:  # verdicts are those by which scoring stopped
        judgements = run.decisions.judgements
        drops = {variant: replace(drop, **judgements[variant].told) for variant, drop in drops.items()}
    paths, again = _paths(run, cells), _recalibrated(run, cells, limit)
    others = _others(run, cells, variants)
    rows = [
        replace(_row(cell, run, drops, limit), recalibrated=new, others=scores, **path)
        for cell, new, path, scores in zip(cells, again, paths, others.by_cell, strict=True)
    ]
    rows = controlled(run, cells, rows, partial(_judged_together, run, limit))
    order = _order(cells, rows, run)
    ranked = list(_ranked(order, cells, rows))
    first = len(sample.columns) - len(variants)
    places = {variant: (first + at, paired[at]) for at, variant in enumerate(variants)}
    columns = {
        index: (0, 0) if rows[at].status in FREE else places[cells[at].variant]
        for index, at in enumerate(order)
        if rows[at].drop is not None
    }
    guessed = screened(run, ranked)
    remarks = [why, *notes(run, cells, drops, limit), *others.faults, *screen_notes(run, guessed)]
    result = replace(_result(run, ranked, limit, remarks), others=others.metrics, screen=guessed)
    table = Analysis(result, sample, columns, run.decisions is not None)
    if run.plan.mode != "lattice":
        return table
    return replace(table, result=replace(result, rows=with_interactions(ranked, columns, table.contrast)))


def _drops(
    run: ScoredRun, variants: Sequence[str], tolerance: float | None = None, reference: str = BASELINE
) -> tuple[Sample, dict[str, RowIntervals], list[int]]:
    """Each variant's drop from the baseline on the samples that it was scored on itself, held against a tolerance.
    Columns are the baseline on all samples, on each other set of them, then the variants; `paired` with which."""
    baseline = run.statistics(reference)
    everything = totals.scored(baseline)
    columns, places = [baseline], {everything.tobytes(): 0}
    own = [run.statistics(variant) for variant in variants]
    for statistics_of in own:
        there = totals.scored(statistics_of)
        if there.tobytes() not in places:
            places[there.tobytes()] = len(columns)
            columns.append(np.where(there[:, None], baseline, np.nan))
    paired = [places[totals.scored(statistics_of).tobytes()] for statistics_of in own]
    sample = _sample(run, [*columns, *own])
    drops = verdicts.table(sample, run.metric.direction, paired, tolerance, run.error)
    return sample, dict(zip(variants, drops, strict=True)), paired


def _others(run: ScoredRun, cells: Sequence[Cell], variants: Sequence[str]) -> _Others:
    """The run's other metrics, each cell's scores by them, and why one is left out where it cannot be added up
    here."""
    known, scores, faults = [], [], []
    for other in run.others:
        try:
            baseline = other.baseline
            drops = _drops(other, [variant for variant in variants if other.is_there(variant)])[1]
        except CkptswapError as error:
            faults.append(f"{other.metric.name} is not shown: {error}")
            continue
        known.append(OtherMetric(other.metric.name, other.metric.direction, baseline, other.value(DONOR)))
        scores.append([_other_score(cell, other, drops) for cell in cells])
    by_cell = list(zip(*scores, strict=True)) if scores else [()] * len(cells)
    return _Others(tuple(known), by_cell, tuple(faults))


def _other_score(cell: Cell, run: ScoredRun, drops: Mapping[str, RowIntervals]) -> MetricScore:
    if cell.status in FREE:
        return MetricScore(run.value(BASELINE), 0.0)
    if cell.status == "mismatch" or cell.variant not in drops:
        return MetricScore()
    drop = drops[cell.variant]
    return MetricScore(run.value(cell.variant), drop.drop, drop.ci_low, drop.ci_high)


def _sample(run: ScoredRun, columns: Sequence[np.ndarray]) -> Sample:
    how = {"bounds": run.bounds, "is_successive": run.se == "successive", "draws": run.draws}
    return Sample.of(columns, run.groups, run.reduce, **how)


def _paths(run: ScoredRun, cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """The fields of each cell's row that speak of the points between recipient and donor."""
    paths = [run.plan.path(cell) if run.is_scored(cell) else [] for cell in cells]
    there = list(dict.fromkeys(point.id for path in paths for point in path if run.is_there(point.id)))
    drops = _drops(run, there)[1] if there else {}

    def fields(cell: Cell, path: Sequence[Variant]) -> dict[str, Any]:
        points = [point for point in path if point.id in drops]
        scored = tuple(_point(run, point, drops[point.id]) for point in points)
        return {"path": scored, "barrier": _barrier(run, cell, points)} if points else {}

    return list(map(fields, cells, paths))


def _point(run: ScoredRun, point: Variant, drop: RowIntervals) -> Point:
    score = run.value(point.id)
    assert score is not None
    return Point(point.alpha, score, drop.drop, drop.ci_low, drop.ci_high)


def _barrier(run: ScoredRun, cell: Cell, inner: Sequence[Variant]) -> Barrier | None:
    """Entezari et al., arXiv:2110.06296: the most that lies above the line between the ends."""
    variants = [cell.variant, *(point.id for point in inner)]
    if any(run.scores.done(variant) < run.scores.samples for variant in variants):
        return None
    columns = [run.statistics(variant) for variant in [BASELINE, *variants]]
    sample = _sample(run, columns)
    sign = 1.0 if run.metric.direction == "max" else -1.0
    forms = [{0: sign * (1 - point.alpha), 1: sign * point.alpha, 2 + at: -sign} for at, point in enumerate(inner)]
    at = int(np.argmax([bootstrap.value_of(sample, form) for form in forms]))
    height = intervals.contrast(sample, forms[at])
    return Barrier(inner[at].alpha, height.estimate, height.low, height.high)


def _recalibrated(run: ScoredRun, cells: Sequence[Cell], tolerance: float) -> list[Recalibrated | None]:
    reference = run.plan.recalibrated_baseline
    if reference is None or not run.is_there(reference.id):
        return [None] * len(cells)
    variants = [run.plan.recalibrated(cell) for cell in cells]
    there = list(dict.fromkeys(variant.id for variant in variants if variant and run.is_there(variant.id)))
    drops = _drops(run, there, tolerance, reference.id)[1] if there else {}

    def again(cell: Cell, variant: Variant | None) -> Recalibrated | None:
        if cell.status in FREE:
            return Recalibrated(score=run.value(reference.id), drop=0.0, verdict="reusable")
        if variant is None:
            return Recalibrated(reason=NOT_APPLICABLE) if cell.status == "measured" else None
        if variant.id not in drops:
            return Recalibrated(reason=run.failed(variant.id))
        drop = drops[variant.id]
        verdict, why = _judged(run, drop, tolerance)
        return Recalibrated(**drop.numbers, score=run.value(variant.id), verdict=verdict, reason=why)

    return list(map(again, cells, variants))


def _judged(run: ScoredRun, drop: RowIntervals, tolerance: float) -> tuple[Verdict, str | None]:
    if drop.verdict != "undecided" or drop.few is None:
        return drop.verdict, None
    return drop.verdict, unproven(drop.few, run.metric.name, tolerance, drop.error)


def _given_up(run: ScoredRun, cell: Cell) -> str | None:
    """Why a row is left undecided before all groups are scored; None for another one."""
    if run.decisions is None:
        return None
    own, groups = run.decisions.judgements[cell.variant], run.decisions.looks[-1]
    is_left = own.is_given_up and own.groups < groups
    return (
        f"left after {own.groups} groups: by how it looks, not even all {groups} would tell" if is_left else None
    )


def _judged_together(
    run: ScoredRun, tolerance: float, variants: Sequence[str]
) -> dict[str, tuple[float, Verdict]]:
    drops = _drops(run, variants, tolerance)[1]
    return {variant: (drop.drop, _judged(run, drop, tolerance)[0]) for variant, drop in drops.items()}


def _result(run: ScoredRun, rows: Sequence[Row], tolerance: float, notes: Sequence[str]) -> SweepResult:
    again = run.plan.recalibrated_baseline
    beside = [variant for variant in run.beside if run.failed(variant.id) is not None]
    return SweepResult(
        metric=run.metric.name,
        direction=run.metric.direction,
        tolerance=tolerance,
        baseline=run.baseline,
        donor_score=run.value(DONOR),
        samples=run.scores.samples,
        groups=len(set(run.run.groups)),
        rows=tuple(rows),
        notes=tuple(notes),
        mode=run.plan.mode,
        donors=tuple(DonorScore(path, run.value(donor_id(at))) for at, path in enumerate(run.run.spec.donors)),
        recalibrated_baseline=run.value(again.id) if again else None,
        beside=len(run.beside),
        layers=run.run.layers,
        trivial=run.metric.trivial,
        failed=sum(row.status == "failed" for row in rows) + len(beside),
        error=run.error,
        se=run.se,
        complete=run.is_finished,
        drawn=run.run.drawn,
    )


def _row(cell: Cell, run: ScoredRun, drops: Mapping[str, RowIntervals], tolerance: float) -> Row:
    where: dict[str, Any] = {name: getattr(cell, name) for name in ("block", "last_block", "by", "parts")}
    told: dict[str, Any] = {"reason": cell.reason, "donor": cell.donor, **where}
    row = Row(cell.layer, cell.kind, cell.names, cell.numel, cell.status, **told)
    if cell.status == "mismatch":
        return row
    known: dict[str, Any] = {"rmse": cell.rmse, "rel_l2": cell.rel_l2, "non_finite": cell.non_finite}
    row = replace(row, **known, guess=run.guess.get(cell.variant))
    if cell.status in FREE:
        return replace(row, score=run.value(BASELINE), drop=0.0, verdict="reusable")
    if cell.variant not in drops:
        reason = "; ".join(filter(None, (run.failed(cell.variant), cell.reason))) or None
        return replace(row, status="failed", rmse=None, rel_l2=None, reason=reason)
    drop = drops[cell.variant]
    verdict, why = _judged(run, drop, tolerance)
    return replace(
        row,
        **drop.numbers,
        score=run.value(cell.variant),
        samples=run.scores.done(cell.variant),
        verdict=verdict,
        unseen=unseen_share(drop.groups) if verdict == "reusable" else None,
        reason="; ".join(filter(None, (why, _given_up(run, cell), cell.reason))) or None,
        is_unproven=why is not None,
    )


def _order(cells: Sequence[Cell], rows: Sequence[Row], run: ScoredRun) -> list[int]:
    """Split by split: measured rows with the worst drop first, those that lead a race before the others, whose
    drops rest on fewer samples; then the rest in natural order."""
    statuses = ("measured", "identical", "no-effect", "failed", "mismatch")
    leaders = {(split.by, variant) for split in run.races for variant in split.leaders}

    def key(at: int) -> tuple[Any, ...]:
        cell, row = cells[at], rows[at]
        worst = -row.drop if row.drop is not None else 0.0
        follows = (cell.by, cell.variant) not in leaders
        return run.plan.by.index(cell.by), statuses.index(row.status), follows, worst, cell_key(cell), cell.donor

    return sorted(range(len(cells)), key=key)


def _ranked(order: Sequence[int], cells: Sequence[Cell], rows: Sequence[Row]) -> Iterator[Row]:
    """The rows in this order, measured ones with rank 1, 2, … within each split."""
    ranks: dict[Any, Iterator[int]] = defaultdict(lambda: count(1))
    for at in order:
        yield replace(rows[at], rank=next(ranks[cells[at].by])) if rows[at].status == "measured" else rows[at]
