"""From a run folder to its table: rows with ranks, intervals and verdicts, without torch, model or data.

`Analysis` keeps the per-group statistics beside the rows, so that contrasts between rows can be drawn with paired
intervals afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ckptswap.errors import MetricError, RunError, UsageError, near
from ckptswap.scoring.scorer import Block
from ckptswap.scoring.variant import BASELINE, Variant
from ckptswap.statistics import bootstrap, intervals, totals, verdicts
from ckptswap.statistics.intervals import Interval
from ckptswap.statistics.totals import Sample
from ckptswap.statistics.verdicts import RowIntervals
from ckptswap.sweep.heats import Heat, Race, heats
from ckptswap.sweep.plan import Cell, Plan, cell_key
from ckptswap.sweep.result import Barrier, DonorScore, Point, Recalibrated, Row, SweepResult, Verdict
from ckptswap.sweep.run_folder.blocks import Blocks
from ckptswap.sweep.run_folder.contents import refuse_odd_run
from ckptswap.sweep.run_folder.journal import DONOR, PLAN, donor_id, key_of, read_blocks, read_plan
from ckptswap.sweep.scores import Scores
from ckptswap.sweep.spec import checked_tolerance
from ckptswap.sweep.warnings import notes, unseen
from ckptswap.task.metrics import recorded_metric

DEFAULT_TOLERANCE = 0.01
"""Of the distance between the baseline and a trivial prediction."""
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


@dataclass(frozen=True)
class Run:
    """What a run folder holds, read for one metric: its entry in `plan.json`, the plan, the scores so far."""

    metric: Mapping[str, Any]
    plan: Plan
    scores: Scores
    groups: np.ndarray
    tolerance: float | None
    donors: tuple[str, ...]
    donor_misfits: tuple[str | None, ...]
    warnings: tuple[str, ...]
    race: Race | None
    heats: tuple[Heat, ...]
    screen: Mapping[str, Any] | None
    layers: tuple[str, ...]

    @property
    def reduce(self) -> totals.Reduce:
        return reduction(self.metric["name"])

    @property
    def bounds(self) -> totals.Bounds:
        """Between which one sample's score lies."""
        low, high = self.metric.get("bounds", (None, None))  # runs of earlier versions do not say
        return -math.inf if low is None else low, math.inf if high is None else high

    def value(self, variant: str) -> float | None:
        """The score of a variant, the baseline or the donor, on all that it was scored on; None when it failed."""
        if self.scores.failed(variant) is not None or not self.scores.done(variant):
            return None
        return totals.whole(self.statistics(variant), self.reduce)

    def statistics(self, variant: str) -> np.ndarray:
        return self.scores.statistics(variant, self.metric["name"])

    def is_there(self, variant: str) -> bool:
        """Whether a variant has a score, if only on some samples."""
        return self.scores.done(variant) > 0 and self.scores.failed(variant) is None

    def is_scored(self, cell: Cell) -> bool:
        """Whether a row has a drop that was measured, if only on some samples."""
        return cell.status == "measured" and self.is_there(cell.variant)

    @property
    def beside(self) -> list[Variant]:
        """What is scored beside the rows: points of paths, and variants with new statistics."""
        return [each for each in self.plan.variants() if each.recalibrated or each.alpha != 1.0]

    def is_known(self, cell: Cell) -> bool:
        """Whether there is a row to show."""
        return cell.status != "measured" or self.scores.is_begun(cell.variant)


def reduction(metric: str) -> totals.Reduce:
    """How a metric's summed statistics become its value, by its name.

    >>> float(reduction("iou:pooled")(np.array([2.0, 1.0, 1.0, 0.0]), np.array(3.0)))
    0.5
    """
    recorded = recorded_metric(metric)
    return totals.mean if recorded.is_mean else recorded.reduce


def load_result(run_dir: str | Path, metric: str | None = None, tolerance: float | None = None) -> SweepResult:
    """The table of a run folder, for its first metric or the named one. Raises as `load_analysis` does."""
    return load_analysis(run_dir, metric, tolerance).result


def is_complete(run_dir: str | Path) -> bool:
    """Whether a run folder has a score, or a failure, for everything in its plan on every sample.

    Raises `RunError` for a folder that is no run, or is damaged.
    """
    try:
        run = read_run(Path(run_dir))
    except RunError:
        if (Path(run_dir) / PLAN).exists():
            return False  # begun, without a baseline yet
        raise
    wanted = [BASELINE, *(variant.id for variant in run.plan.variants())]
    scores = run.scores
    return all(scores.failed(each) is not None or scores.done(each) == scores.samples for each in wanted)


def load_analysis(run_dir: str | Path, metric: str | None = None, tolerance: float | None = None) -> Analysis:
    """The table of a run folder, and what is needed for contrasts between its rows.

    Variants that are not scored yet have no row; a note counts them. `tolerance` overrides the run's own.
    Raises `RunError` for a folder that is no run, is damaged, or has no baseline yet, `MetricError` for a metric
    that it does not hold, and `UsageError` for a tolerance that is no number or below 0.
    """
    run = read_run(Path(run_dir), metric, checked_tolerance(tolerance))
    cells = [cell for cell in run.plan.cells if run.is_known(cell)]
    variants = list(dict.fromkeys(cell.variant for cell in cells if run.is_scored(cell)))
    sample, drops, paired = _drops(run, variants)
    limit, why = _tolerance(run)
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
    run: Run, variants: Sequence[str], reference: str = BASELINE
) -> tuple[Sample, dict[str, RowIntervals], list[int]]:
    """Each variant's drop from the baseline on the samples that it was scored on itself.

    The sample's columns are the baseline, the baseline on each other set of samples, then the variants; the last
    result tells for each variant which of the baselines it is paired with.
    """
    baseline = run.statistics(reference)
    everything = totals.scored(baseline)
    columns, places = [baseline], {everything.tobytes(): 0}
    own = [run.statistics(variant) for variant in variants]
    for each in own:
        there = totals.scored(each)
        if there.tobytes() not in places:
            places[there.tobytes()] = len(columns)
            columns.append(np.where(there[:, None], baseline, np.nan))
    paired = [places[totals.scored(each).tobytes()] for each in own]
    sample = Sample.of([*columns, *own], run.groups, run.reduce, bounds=run.bounds)
    found = verdicts.table(sample, run.metric["direction"], paired)
    return sample, dict(zip(variants, found, strict=True)), paired


class _Paths:
    """The points between recipient and donor, where the sweep scores them."""

    def __init__(self, run: Run, cells: Sequence[Cell]) -> None:
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
        found, score = self._drops[point.id], self._run.value(point.id)
        assert score is not None
        return Point(point.alpha, score, found.drop, found.ci_low, found.ci_high)

    def _barrier(self, cell: Cell, points: Sequence[Variant]) -> Barrier | None:
        """Entezari et al., arXiv:2110.06296: the most that lies above the line between the ends."""
        run, inner = self._run, [point for point in points if 0 < point.alpha < 1]
        if not inner or any(
            run.scores.done(each) < run.scores.samples for each in [cell.variant, *self._ids(inner)]
        ):
            return None
        columns = [run.statistics(each) for each in [BASELINE, cell.variant, *self._ids(inner)]]
        sample = Sample.of(columns, run.groups, run.reduce, bounds=run.bounds)
        sign = 1.0 if run.metric["direction"] == "max" else -1.0
        forms = [
            {0: sign * (1 - point.alpha), 1: sign * point.alpha, 2 + at: -sign} for at, point in enumerate(inner)
        ]
        values = [bootstrap.value_of(sample, form) for form in forms]
        at = int(np.argmax(values))
        found = intervals.contrast(sample, forms[at])
        return Barrier(inner[at].alpha, found.estimate, found.low, found.high)

    @staticmethod
    def _ids(points: Sequence[Variant]) -> list[str]:
        return [point.id for point in points]


def _recalibrated(run: Run, cells: Sequence[Cell], tolerance: float) -> list[Recalibrated | None]:
    """For each cell its variant with statistics estimated anew, against the baseline with the same."""
    reference = run.plan.recalibrated_baseline
    if reference is None or not run.is_there(reference.id):
        return [None] * len(cells)
    variants = [run.plan.recalibrated(cell) for cell in cells]
    there = list(dict.fromkeys(each.id for each in variants if each and run.is_there(each.id)))
    drops = _drops(run, there, reference.id)[1] if there else {}
    free = Recalibrated(score=run.value(reference.id), drop=0.0, verdict="reusable")
    return [
        free if cell.status in ("identical", "no-effect") else _again(run, cell, each, drops, tolerance)
        for cell, each in zip(cells, variants, strict=True)
    ]


def _again(
    run: Run, cell: Cell, variant: Variant | None, drops: Mapping[str, RowIntervals], tolerance: float
) -> Recalibrated | None:
    if variant is None:
        return Recalibrated(reason=NOT_APPLICABLE) if cell.status == "measured" else None
    if variant.id not in drops:
        return Recalibrated(reason=run.scores.failed(variant.id))
    found = drops[variant.id]
    verdict, why = _judged(run, found, tolerance)
    return Recalibrated(**found.numbers, score=run.value(variant.id), verdict=verdict, reason=why)


def _judged(run: Run, found: RowIntervals, tolerance: float) -> tuple[Verdict, str | None]:
    """The verdict, and why too few groups moved for another than 'undecided'."""
    verdict = verdicts.verdict(found.sim_low, found.sim_high, tolerance)
    if verdict != "undecided" or found.few is None:
        return verdict, None
    return verdict, unseen(found.few, run.metric["name"], tolerance, found.error)


def _result(run: Run, rows: Sequence[Row], tolerance: float, notes: Sequence[str]) -> SweepResult:
    baseline, again = run.value(BASELINE), run.plan.recalibrated_baseline
    assert baseline is not None
    return SweepResult(
        metric=run.metric["name"],
        direction=run.metric["direction"],
        tolerance=tolerance,
        baseline=baseline,
        donor_score=run.value(DONOR),
        samples=run.scores.samples,
        rows=tuple(rows),
        notes=tuple(notes),
        mode=run.plan.mode,
        donors=tuple(DonorScore(path, run.value(donor_id(at))) for at, path in enumerate(run.donors)),
        recalibrated_baseline=run.value(again.id) if again else None,
        beside=len(run.beside),
        layers=run.layers,
        failed=sum(row.status == "failed" for row in rows)
        + sum(run.scores.failed(each.id) is not None for each in run.beside),
    )


def read_run(folder: Path, metric: str | None = None, tolerance: float | None = None) -> Run:
    """What a run folder holds, for its first metric or the named one. Raises as `load_analysis` does."""
    contents = read_plan(folder)
    try:
        blocks = read_blocks(folder, key=key_of(contents["key"]))
        refuse_odd_run(contents, blocks.values())
        known = {each["name"]: each for each in contents["metrics"]}
        chosen = metric or contents["metrics"][0]["name"]
        plan, groups = Plan.from_json(contents["plan"]), np.array(contents["groups"], dtype=np.int64)
        scores = Scores(_with_baseline(blocks), contents["walk"])
        own, warnings = contents["tolerance"], tuple(contents["warnings"])
        donors, misfits = tuple(contents["donors"]), tuple(contents["donor_misfits"])
        race = Race.from_json(contents["race"]) if contents["race"] else None
        units, screen = contents["units"], contents["screen"]
        layers = tuple(contents.get("layers", ()))  # runs of earlier versions do not say
    except KeyError as error:
        raise RunError(f"{folder} holds a plan without {error}", remedy="run the sweep again") from None
    except (TypeError, IndexError, ValueError, OverflowError) as error:
        raise RunError(f"{folder} holds a damaged plan ({error})", remedy="run the sweep again") from None
    if not scores.done(BASELINE):
        raise RunError(f"{folder} has no scores yet", remedy="run the same `ckptswap sweep` again to continue")
    if chosen not in known:
        raise MetricError(
            f"{folder} has no scores by {chosen!r}",
            remedy=near(chosen, known) or f"it has {', '.join(known)}",
        )
    limit = own if tolerance is None else tolerance
    raced = race if race and race.metric == chosen else None
    found = tuple(heats(raced, plan, scores, units)) if raced else ()
    return Run(known[chosen], plan, scores, groups, limit, donors, misfits, warnings, raced, found, screen, layers)


def _with_baseline(blocks: Blocks) -> list[Block]:
    """What can be compared: without its baseline a batch's scores say nothing."""
    there = {block.batch for block in blocks.values() if block.variant == BASELINE and block.failed is None}
    return [block for block in blocks.values() if block.batch in there]


def _row(cell: Cell, run: Run, drops: Mapping[str, RowIntervals], tolerance: float) -> Row:
    row = Row(cell.layer, cell.kind, cell.names, cell.numel, cell.status, reason=cell.reason, donor=cell.donor)
    if cell.status == "mismatch":
        return row
    row = replace(row, rmse=cell.rmse, rel_l2=cell.rel_l2, non_finite=cell.non_finite)
    if cell.status in ("identical", "no-effect"):
        return replace(row, score=run.value(BASELINE), drop=0.0, verdict="reusable")
    if cell.variant not in drops:
        why = _joined(run.scores.failed(cell.variant), cell.reason)
        return replace(row, status="failed", rmse=None, rel_l2=None, reason=why)
    found = drops[cell.variant]
    verdict, why = _judged(run, found, tolerance)
    return replace(
        row,
        **found.numbers,
        score=run.value(cell.variant),
        samples=run.scores.done(cell.variant),
        verdict=verdict,
        reason=_joined(why, cell.reason),
        is_unproven=why is not None,
    )


def _joined(*reasons: str | None) -> str | None:
    return "; ".join(filter(None, reasons)) or None


def _order(cells: Sequence[Cell], rows: Sequence[Row], run: Run) -> list[int]:
    """Split by split: measured rows with the worst drop first, those that lead a race before the others, whose
    drops
    rest on fewer samples; then the rest in natural order."""
    statuses = ("measured", "identical", "no-effect", "failed", "mismatch")
    leaders = {(heat.by, variant) for heat in run.heats for variant in heat.leaders}

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


def _tolerance(run: Run) -> tuple[float, str]:
    return limit_of(run.metric, run.scores, run.tolerance)


def limit_of(metric: Mapping[str, Any], scores: Scores, given: float | None) -> tuple[float, str]:
    """The drop that we are ready to ignore, and in words where it comes from.

    Raises `UsageError` where none was given and a trivial prediction has no score to measure by.
    """
    if given is not None:
        return given, f"tolerance {given:g} as given"
    name, trivial = metric["name"], metric["trivial"]
    if trivial is None:
        raise UsageError(f"{name} has no trivial score to set a tolerance by", remedy="give --tolerance")
    baseline = totals.whole(scores.statistics(BASELINE, name), reduction(name))
    tolerance = DEFAULT_TOLERANCE * abs(baseline - trivial)
    return tolerance, (
        f"tolerance {tolerance:.4g} = {DEFAULT_TOLERANCE:g} × |baseline {baseline:.4g} − "
        f"{trivial:.4g} of a trivial prediction|"
    )
