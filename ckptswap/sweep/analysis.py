"""From a run folder to its table: rows with ranks, intervals and verdicts, without torch, model or data.

`Analysis` keeps the per-group statistics beside the rows, so that contrasts between rows can be drawn with paired
intervals afterwards.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ckptswap.errors import UsageError
from ckptswap.scoring.variant import BASELINE, Variant
from ckptswap.statistics import bootstrap, intervals, totals, verdicts
from ckptswap.statistics.intervals import Interval
from ckptswap.statistics.totals import Sample
from ckptswap.statistics.verdicts import RowIntervals
from ckptswap.sweep.plan import Cell, cell_key
from ckptswap.sweep.result import Barrier, DonorScore, Point, Recalibrated, Row, SweepResult, Verdict
from ckptswap.sweep.run_folder.blocks import DONOR, donor_id
from ckptswap.sweep.run_folder.folder import RunFolder
from ckptswap.sweep.scored_run import ScoredRun
from ckptswap.sweep.spec import checked_tolerance
from ckptswap.sweep.warnings import notes, unseen

NOT_APPLICABLE = "not applicable: a new estimate writes over what was swapped"


@dataclass(frozen=True)
class Analysis:
    """A sweep's table with what it rests on.

    `columns` maps the index of a row to its column in `sample`, and to that of the baseline on the same samples; a
    row without drop has none. An `identical` row shares column 0, which is the baseline on all samples.
    """

    result: SweepResult
    sample: Sample
    columns: Mapping[int, tuple[int, int]]

    def contrast(self, weights: Mapping[int, float]) -> Interval:
        """Σ weight × drop over rows (by their index in `result.rows`), with a plain paired 95 % interval.

        `low` and `high` are None with fewer than 8 groups. Raises `UsageError` for a row that has no drop.
        """
        sign = 1.0 if self.result.direction == "max" else -1.0
        form = {0: 0.0}
        for index, weight in weights.items():
            if index not in self.columns:
                row = self.result.rows[index]
                raise UsageError(
                    f"row {index} ({row.layer}, {row.kind}) is {row.status} and has no drop",
                    remedy="leave it out",
                )
            column, baseline = self.columns[index]
            form[baseline] = form.get(baseline, 0.0) + sign * weight
            form[column] = form.get(column, 0.0) - sign * weight
        return intervals.contrast(self.sample, form)


def load_result(
    run_dir: str | os.PathLike[str], metric: str | None = None, tolerance: float | None = None
) -> SweepResult:
    """The table of a run folder, for its first metric or the named one. Raises as `load_analysis` does."""
    return load_analysis(run_dir, metric, tolerance).result


def load_analysis(
    run_dir: str | os.PathLike[str], metric: str | None = None, tolerance: float | None = None
) -> Analysis:
    """The table of a run folder, and what is needed for contrasts between its rows.

    Variants that are not scored yet have no row; a note counts them. `tolerance` overrides the run's own.
    Raises `RunError` for a folder that is no run, is damaged, or has no baseline yet, `MetricError` for a metric
    that it does not hold, and `UsageError` for a tolerance that is no number or below 0.
    """
    return analysed(ScoredRun.read(RunFolder(run_dir), metric, checked_tolerance(tolerance)))


def analysed(run: ScoredRun) -> Analysis:
    """The table of a run's scores. Raises `UsageError` where there is nothing to set a tolerance by."""
    cells = [cell for cell in run.plan.cells if run.is_known(cell)]
    variants = list(dict.fromkeys(cell.variant for cell in cells if run.is_scored(cell)))
    sample, drops, paired = _drops(run, variants)
    limit, why = run.tolerance()
    paths, again = _Paths(run, cells), _recalibrated(run, cells, limit)
    rows = [
        replace(_row(cell, run, drops, limit), recalibrated=new, **paths.of(cell))
        for cell, new in zip(cells, again, strict=True)
    ]
    order = _order(cells, rows, run)
    ranked = _ranked([cells[at] for at in order], [rows[at] for at in order])
    first = len(sample.columns) - len(variants)
    places = {variant: (first + at, paired[at]) for at, variant in enumerate(variants)}
    columns = {
        index: (0, 0) if rows[at].status in ("identical", "no-effect") else places[cells[at].variant]
        for index, at in enumerate(order)
        if rows[at].drop is not None
    }
    return Analysis(_result(run, ranked, limit, [why, *notes(run, cells, drops, limit)]), sample, columns)


def _drops(
    run: ScoredRun, variants: Sequence[str], reference: str = BASELINE
) -> tuple[Sample, dict[str, RowIntervals], list[int]]:
    """Each variant's drop from the baseline on the samples that it was scored on itself.

    The sample's columns are the baseline, the baseline on each other set of samples, then the variants; the last
    result tells for each variant which of the baselines it is paired with.
    """
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
    sample = Sample.of([*columns, *own], run.groups, run.reduce, bounds=run.bounds)
    drops = verdicts.table(sample, run.metric.direction, paired)
    return sample, dict(zip(variants, drops, strict=True)), paired


class _Paths:
    """The points between recipient and donor, where the sweep scores them."""

    def __init__(self, run: ScoredRun, cells: Sequence[Cell]) -> None:
        self._run = run
        wanted = [point for cell in cells if run.is_scored(cell) for point in run.plan.path(cell)]
        points = list(dict.fromkeys(point.id for point in wanted if run.is_there(point.id)))
        self._drops = _drops(run, points)[1] if points else {}

    def of(self, cell: Cell) -> dict[str, Any]:
        """The fields of a row that speak of its path."""
        points = [point for point in self._run.plan.path(cell) if point.id in self._drops]
        if not points or not self._run.is_scored(cell):
            return {}
        return {"path": tuple(map(self._point, points)), "barrier": self._barrier(cell, points)}

    def _point(self, point: Variant) -> Point:
        drop, score = self._drops[point.id], self._run.value(point.id)
        assert score is not None
        return Point(point.alpha, score, drop.drop, drop.ci_low, drop.ci_high)

    def _barrier(self, cell: Cell, points: Sequence[Variant]) -> Barrier | None:
        """Entezari et al., arXiv:2110.06296: the most that lies above the line between the ends."""
        run, inner = self._run, [point for point in points if 0 < point.alpha < 1]
        if not inner or any(
            run.scores.done(variant) < run.scores.samples for variant in [cell.variant, *self._ids(inner)]
        ):
            return None
        columns = [run.statistics(variant) for variant in [BASELINE, cell.variant, *self._ids(inner)]]
        sample = Sample.of(columns, run.groups, run.reduce, bounds=run.bounds)
        sign = 1.0 if run.metric.direction == "max" else -1.0
        forms = [
            {0: sign * (1 - point.alpha), 1: sign * point.alpha, 2 + at: -sign} for at, point in enumerate(inner)
        ]
        values = [bootstrap.value_of(sample, form) for form in forms]
        at = int(np.argmax(values))
        height = intervals.contrast(sample, forms[at])
        return Barrier(inner[at].alpha, height.estimate, height.low, height.high)

    @staticmethod
    def _ids(points: Sequence[Variant]) -> list[str]:
        return [point.id for point in points]


def _recalibrated(run: ScoredRun, cells: Sequence[Cell], tolerance: float) -> list[Recalibrated | None]:
    """For each cell its variant with statistics estimated anew, against the baseline with the same."""
    reference = run.plan.recalibrated_baseline
    if reference is None or not run.is_there(reference.id):
        return [None] * len(cells)
    variants = [run.plan.recalibrated(cell) for cell in cells]
    there = list(dict.fromkeys(variant.id for variant in variants if variant and run.is_there(variant.id)))
    drops = _drops(run, there, reference.id)[1] if there else {}
    free = Recalibrated(score=run.value(reference.id), drop=0.0, verdict="reusable")
    return [
        free if cell.status in ("identical", "no-effect") else _again(run, cell, variant, drops, tolerance)
        for cell, variant in zip(cells, variants, strict=True)
    ]


def _again(
    run: ScoredRun, cell: Cell, variant: Variant | None, drops: Mapping[str, RowIntervals], tolerance: float
) -> Recalibrated | None:
    if variant is None:
        return Recalibrated(reason=NOT_APPLICABLE) if cell.status == "measured" else None
    if variant.id not in drops:
        return Recalibrated(reason=run.scores.failed(variant.id))
    drop = drops[variant.id]
    verdict, why = _judged(run, drop, tolerance)
    return Recalibrated(**drop.numbers, score=run.value(variant.id), verdict=verdict, reason=why)


def _judged(run: ScoredRun, drop: RowIntervals, tolerance: float) -> tuple[Verdict, str | None]:
    """The verdict, and why too few groups moved for another than 'undecided'."""
    verdict = verdicts.verdict(drop.sim_low, drop.sim_high, tolerance)
    if verdict != "undecided" or drop.few is None:
        return verdict, None
    return verdict, unseen(drop.few, run.metric.name, tolerance, drop.error)


def _result(run: ScoredRun, rows: Sequence[Row], tolerance: float, notes: Sequence[str]) -> SweepResult:
    baseline, again = run.value(BASELINE), run.plan.recalibrated_baseline
    assert baseline is not None
    return SweepResult(
        metric=run.metric.name,
        direction=run.metric.direction,
        tolerance=tolerance,
        baseline=baseline,
        donor_score=run.value(DONOR),
        samples=run.scores.samples,
        rows=tuple(rows),
        notes=tuple(notes),
        mode=run.plan.mode,
        donors=tuple(DonorScore(path, run.value(donor_id(at))) for at, path in enumerate(run.run.spec.donors)),
        recalibrated_baseline=run.value(again.id) if again else None,
        beside=len(run.beside),
        layers=run.run.layers,
        trivial=run.metric.trivial,
        failed=sum(row.status == "failed" for row in rows)
        + sum(run.scores.failed(variant.id) is not None for variant in run.beside),
    )


def _row(cell: Cell, run: ScoredRun, drops: Mapping[str, RowIntervals], tolerance: float) -> Row:
    row = Row(cell.layer, cell.kind, cell.names, cell.numel, cell.status, reason=cell.reason, donor=cell.donor)
    if cell.status == "mismatch":
        return row
    row = replace(row, rmse=cell.rmse, rel_l2=cell.rel_l2, non_finite=cell.non_finite)
    if cell.status in ("identical", "no-effect"):
        return replace(row, score=run.value(BASELINE), drop=0.0, verdict="reusable")
    if cell.variant not in drops:
        why = _joined(run.scores.failed(cell.variant), cell.reason)
        return replace(row, status="failed", rmse=None, rel_l2=None, reason=why)
    drop = drops[cell.variant]
    verdict, why = _judged(run, drop, tolerance)
    return replace(
        row,
        **drop.numbers,
        score=run.value(cell.variant),
        samples=run.scores.done(cell.variant),
        verdict=verdict,
        reason=_joined(why, cell.reason),
        is_unproven=why is not None,
    )


def _joined(*reasons: str | None) -> str | None:
    return "; ".join(filter(None, reasons)) or None


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


def _ranked(cells: Sequence[Cell], rows: Sequence[Row]) -> list[Row]:
    """Rank 1, 2, … within each split, for measured rows."""
    reached: dict[Any, int] = {}
    ranked = []
    for cell, row in zip(cells, rows, strict=True):
        if row.status == "measured":
            reached[cell.by] = reached.get(cell.by, 0) + 1
            row = replace(row, rank=reached[cell.by])
        ranked.append(row)
    return ranked
