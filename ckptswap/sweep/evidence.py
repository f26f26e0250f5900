"""From a run folder to its table: rows with ranks, intervals and verdicts, without torch, model or data.

`Evidence` keeps the per-group statistics beside the rows, so that contrasts between rows can be drawn with paired
intervals afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ckptswap.errors import MetricError, RunError, UsageError, near
from ckptswap.sweep import statistics
from ckptswap.sweep.journal import BASELINE, DONOR, JOURNAL, Record, read_plan, read_records
from ckptswap.sweep.plan import Cell, Plan, cell_key
from ckptswap.sweep.result import Row, SweepResult
from ckptswap.sweep.statistics import Interval, RowIntervals, Sample

DEFAULT_TOLERANCE = 0.01
"""Of the distance between the baseline and a trivial prediction."""


@dataclass(frozen=True)
class Evidence:
    """A sweep's table with what it rests on.

    `columns` maps the index of a row to its column in `sample`; a row without drop has none. Column 0 is the
    baseline, which an `identical` row shares.
    """

    result: SweepResult
    sample: Sample
    columns: Mapping[int, int]

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
            form[0] += sign * weight
            form[self.columns[index]] = form.get(self.columns[index], 0.0) - sign * weight
        return statistics.contrast(self.sample, form)


@dataclass(frozen=True)
class Scored:
    """What a run folder holds for one metric: its entry in `plan.json`, the plan, the finished variants."""

    metric: Mapping[str, Any]
    plan: Plan
    records: Mapping[str, Record]
    groups: np.ndarray
    tolerance: float | None

    @property
    def reduce(self) -> statistics.Reduce:
        return reduction(self.metric["name"])

    def value(self, variant: str) -> float | None:
        """The score of a finished variant, the baseline or the donor; None when it failed."""
        record = self.records.get(variant)
        if record is None or record.failed is not None:
            return None
        return statistics.whole(self.statistics(variant), self.reduce)

    def statistics(self, variant: str) -> np.ndarray:
        return self.records[variant].statistics[self.metric["name"]]


def reduction(metric: str) -> statistics.Reduce:
    """How a metric's summed statistics become its value, by its name: all are means but the pooled overlaps.

    >>> reduction("own.py:loss") is statistics.mean, reduction("iou") is statistics.mean
    (True, True)
    >>> float(reduction("iou:pooled")(np.array([2.0, 1.0, 1.0, 0.0]), np.array(3.0)))
    0.5
    """
    plain = metric.removesuffix(":pooled")
    if plain == metric or plain not in ("iou", "dice", "accuracy"):
        return statistics.mean
    from ckptswap.task import metrics

    score = getattr(metrics, plain)
    return lambda sums, count: score(sums.reshape(*sums.shape[:-1], -1, 4))


def load_result(run_dir: str | Path, metric: str | None = None, tolerance: float | None = None) -> SweepResult:
    """The table of a run folder, for its first metric or the named one. Raises as `load_evidence` does."""
    return load_evidence(run_dir, metric, tolerance).result


def load_evidence(run_dir: str | Path, metric: str | None = None, tolerance: float | None = None) -> Evidence:
    """The table of a run folder, and what is needed for contrasts between its rows.

    Variants that are not scored yet have no row; a note counts them. `tolerance` overrides the run's own.
    Raises `RunError` for a folder that is no run, is damaged, or has no baseline yet, and `MetricError` for a
    metric that it does not hold.
    """
    scored = _read(Path(run_dir), metric, tolerance)
    cells = [cell for cell in scored.plan.cells if _is_known(cell, scored.records)]
    variants = list(dict.fromkeys(cell.variant for cell in cells if _is_scored(cell, scored.records)))
    totals = [scored.statistics(each) for each in (BASELINE, *variants)]
    sample = Sample.of(totals, scored.groups, scored.reduce)
    drops = statistics.table(sample, scored.metric["direction"])
    limit, why = _tolerance(scored)
    places = {variant: column for column, variant in enumerate(variants, start=1)}
    rows = [_row(cell, scored, drops, places, limit) for cell in cells]
    order = _order(cells, rows, scored.plan)
    ranked = _ranked([cells[at] for at in order], [rows[at] for at in order])
    columns = {
        index: 0 if rows[at].status in ("identical", "no-effect") else places[cells[at].variant]
        for index, at in enumerate(order)
        if rows[at].drop is not None
    }
    return Evidence(_result(scored, ranked, limit, [why, *_notes(scored, cells)]), sample, columns)


def _result(scored: Scored, rows: Sequence[Row], tolerance: float, notes: Sequence[str]) -> SweepResult:
    baseline = scored.value(BASELINE)
    assert baseline is not None
    return SweepResult(
        metric=scored.metric["name"],
        direction=scored.metric["direction"],
        tolerance=tolerance,
        baseline=baseline,
        donor_score=scored.value(DONOR),
        samples=len(scored.groups),
        rows=tuple(rows),
        notes=tuple(notes),
    )


def _read(folder: Path, metric: str | None, tolerance: float | None) -> Scored:
    contents = read_plan(folder)
    records, _ = read_records(folder / JOURNAL)
    if BASELINE not in records:
        raise RunError(f"{folder} has no scores yet", remedy="run the same `ckptswap sweep` again to continue")
    try:
        known = {each["name"]: each for each in contents["metrics"]}
        chosen = metric or contents["metrics"][0]["name"]
        plan, groups = Plan.from_json(contents["plan"]), np.array(contents["groups"], dtype=np.int64)
        own = contents["tolerance"]
    except (KeyError, TypeError, IndexError) as error:
        raise RunError(f"{folder} holds a damaged plan ({error!r})", remedy="run the sweep again") from None
    if chosen not in known:
        raise MetricError(
            f"{folder} has no scores by {chosen!r}",
            remedy=near(chosen, known) or f"it has {', '.join(known)}",
        )
    return Scored(known[chosen], plan, records, groups, own if tolerance is None else tolerance)


def _is_scored(cell: Cell, records: Mapping[str, Record]) -> bool:
    record = records.get(cell.variant)
    return cell.status == "measured" and record is not None and record.failed is None


def _is_known(cell: Cell, records: Mapping[str, Record]) -> bool:
    return cell.status != "measured" or cell.variant in records


def _row(
    cell: Cell, scored: Scored, drops: Sequence[RowIntervals], places: Mapping[str, int], tolerance: float
) -> Row:
    row = Row(cell.layer, cell.kind, cell.names, cell.numel, cell.status, reason=cell.reason)
    if cell.status == "mismatch":
        return row
    row = replace(row, rmse=cell.rmse, rel_l2=cell.rel_l2)
    if cell.status in ("identical", "no-effect"):
        return replace(row, score=scored.value(BASELINE), drop=0.0, verdict="reusable")
    if cell.variant not in places:
        return replace(row, status="failed", rmse=None, rel_l2=None, reason=scored.records[cell.variant].failed)
    found = drops[places[cell.variant] - 1]
    return replace(
        row,
        **vars(found),
        score=scored.value(cell.variant),
        samples=len(scored.groups),
        verdict=statistics.verdict(found.sim_low, found.sim_high, tolerance),
    )


def _order(cells: Sequence[Cell], rows: Sequence[Row], plan: Plan) -> list[int]:
    """Split by split: measured rows with the worst drop first, then the others in natural order."""
    statuses = ("measured", "identical", "no-effect", "failed", "mismatch")

    def key(at: int) -> tuple[Any, ...]:
        cell, row = cells[at], rows[at]
        worst = -row.drop if row.drop is not None else 0.0
        return plan.by.index(cell.by), statuses.index(row.status), worst, cell_key(cell)

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


def _tolerance(scored: Scored) -> tuple[float, str]:
    """The drop that we are ready to ignore, and in words where it comes from."""
    name = scored.metric["name"]
    if scored.tolerance is not None:
        return scored.tolerance, f"tolerance {scored.tolerance:g} as given"
    baseline, trivial = scored.value(BASELINE), scored.metric["trivial"]
    if trivial is None or baseline is None:
        raise UsageError(f"{name} has no trivial score to set a tolerance by", remedy="give --tolerance")
    tolerance = DEFAULT_TOLERANCE * abs(baseline - trivial)
    return tolerance, (
        f"tolerance {tolerance:.4g} = {DEFAULT_TOLERANCE:g} × |baseline {baseline:.4g} − "
        f"{trivial:.4g} of a trivial prediction|"
    )


def _notes(scored: Scored, cells: Sequence[Cell]) -> list[str]:
    notes = list(scored.records[BASELINE].warnings)
    groups = len(np.unique(scored.groups))
    if groups < statistics.LEAST_GROUPS:
        notes.append(
            f"{groups} groups of samples, fewer than {statistics.LEAST_GROUPS}: no intervals, and every "
            "measured row is undecided"
        )
    donor = scored.records.get(DONOR)
    if donor is not None and donor.failed is not None:
        notes.append(f"the donor has no score on this task: {donor.failed}")
    waiting = len(scored.plan.cells) - len(cells)
    if waiting:
        notes.append(f"{waiting} of {len(scored.plan.cells)} rows are not scored yet: the same command continues")
    return notes
