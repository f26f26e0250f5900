"""Several runs side by side, cell by cell: what a cell costs on the mean and how much that varies, whether they
rank alike, and where they differ beyond their intervals. They may have other donors, seeds or samples, and even
other networks as far as these share names."""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import fmean, stdev
from typing import get_args

from ckptswap.errors import UsageError, near
from ckptswap.statistics import Interval
from ckptswap.statistics.ranks import spearman, tau
from ckptswap.statistics.seeds import seeds_interval
from ckptswap.sweep.filtering import SPREAD, Order, shown
from ckptswap.sweep.result import Row, SweepResult, widest

COPY = "a copy is no second observation"
"""So ends the note to a run that holds the scores of another."""
Cell = tuple[str | None, str | None, str | None]
"""Layer (or block), kind, and the tensor where others of the run share these two."""


@dataclass(frozen=True)
class Shared:
    """One cell in every run (None where a run has no such row)."""

    layer: str | None
    kind: str | None
    rows: tuple[Row | None, ...]
    tensor: str | None = None

    @property
    def drops(self) -> list[float]:
        """The drops that are known; what was not run since it changes nothing has 0."""
        return [row.drop for row in self.rows if row is not None and row.drop is not None]

    @property
    def mean(self) -> Interval | None:
        """The mean of the drops with Student's 95 % interval over runs; None where none is known.

        >>> rows = [Row("c", "conv.bias", (), 4, "measured", drop=drop) for drop in (0.1, 0.3)]
        >>> Shared("c", "conv.bias", (*rows, None)).mean
        Interval(estimate=0.2, low=-1.07..., high=1.47...)
        """
        drops = self.drops
        if not all(map(math.isfinite, drops)):
            return Interval(math.fsum(drops), None, None)  # ±inf, of which there is no interval, or NaN
        return seeds_interval(drops) if drops else None

    @property
    def sd(self) -> float | None:
        """The standard deviation over runs (n − 1); None for fewer than two."""
        drops = self.drops
        return stdev(drops) if len(drops) > 1 and all(map(math.isfinite, drops)) else None

    @property
    def differs(self) -> bool | None:
        """Whether two intervals of it do not meet; None where no two runs have one."""
        rows = [row for row in self.rows if row is not None]
        ends = [(row.sim_low, row.sim_high) if row.status == "measured" else (row.drop, row.drop) for row in rows]
        known = [(low, high) for low, high in ends if low is not None and high is not None]
        return any(a[1] < b[0] or b[1] < a[0] for a, b in combinations(known, 2)) if len(known) > 1 else None

    @property
    def split(self) -> str:
        """Which way of splitting it belongs to; drops of different ones are not ranked together."""
        return ",".join(word for word, part in (("layer", self.layer), ("kind", self.kind)) if part is not None)

    @property
    def spread(self) -> float:
        """Largest drop minus smallest, 0 where fewer than two runs have one."""
        return max(self.drops) - min(self.drops) if len(self.drops) > 1 else 0.0

    def mean_row(self) -> Row:
        """The cell as one row: means over the runs that have it, `sim_*` the ends of Student's interval."""
        rows = [row for row in self.rows if row is not None]
        scored = [row for row in rows if row.drop is not None] or rows
        first = next((row for row in scored if row.status == "measured"), scored[0])
        mean = self.mean or Interval(None, None, None)  # type: ignore[arg-type]
        return Row(
            first.layer, first.kind, first.tensors, first.numel, first.status,
            rmse=_mean(row.rmse for row in rows), rel_l2=_mean(row.rel_l2 for row in rows),
            score=_mean(row.score for row in rows), drop=mean.estimate, sim_low=mean.low, sim_high=mean.high,
            block=first.block, last_block=first.last_block, by=first.by, parts=first.parts,
        )  # fmt: skip


@dataclass(frozen=True)
class Ranks:
    """How alike two runs (by number) rank the cells of one way of splitting that both measured; None where that
    says nothing."""

    a: int
    b: int
    by: str
    cells: int
    kendall: float | None
    spearman: float | None


@dataclass(frozen=True)
class Agreement:
    """Runs in the order given, how alike they rank, and the cells."""

    runs: tuple[str, ...]
    results: tuple[SweepResult, ...]
    ranks: tuple[Ranks, ...]
    cells: tuple[Shared, ...]

    @property
    def mean(self) -> SweepResult:
        """One table of means over runs, for which tolerance, baseline and samples are means as well. Its intervals
        are Student's, and stand where a run has simultaneous ones."""
        first = self.results[0]
        return SweepResult(
            first.metric,
            first.direction,
            fmean(result.tolerance for result in self.results),
            fmean(result.baseline for result in self.results),
            _mean(result.donor_score for result in self.results),
            min(result.samples for result in self.results),
            tuple(cell.mean_row() for cell in self.cells),
            mode=first.mode,
            layers=max((result.layers for result in self.results), key=len),
        )


def agreement(
    results: Mapping[str, SweepResult], chosen: Collection[Cell] | None = None, order: str = "drop"
) -> Agreement:
    """Compare runs by name, all cells or those `chosen`; the largest mean drop first, or by `order`: `spread`, or
    one of `ckptswap.sweep.filtering`. Raises `UsageError` for fewer than two, for runs of several donors, and for
    runs whose metrics or modes differ."""
    _refuse(results)
    runs = list(_told_of_copies(results).values())
    known = [cells_of(result) for result in runs]
    places = list(dict.fromkeys(place for cells in known for place in cells))
    cells = [
        Shared(layer, kind, tuple(cells.get((layer, kind, tensor)) for cells in known), tensor)
        for layer, kind, tensor in places
        if chosen is None or (layer, kind, tensor) in chosen
    ]
    ranks = tuple(
        _ranks(a, b, split, [cell for cell in cells if cell.split == split])
        for a, b in combinations(range(len(runs)), 2)
        for split in dict.fromkeys(cell.split for cell in cells)
    )
    compared = Agreement(tuple(results), tuple(runs), ranks, tuple(cells))
    return replace(compared, cells=tuple(_ordered(compared, order)))


def _refuse(results: Mapping[str, SweepResult]) -> None:
    if len(results) < 2:
        raise UsageError("there is one run only", remedy="name two or more")
    first = next(iter(results.values()))
    for name, result in results.items():
        if len(result.donors) > 1:
            raise UsageError(f"{name} has several donors", remedy="compare runs of one donor each")
        own, others = (f"{it.metric} ({it.direction}) and mode {it.mode}" for it in (result, first))
        if own != others:
            remedy = "compare runs of one metric (--metric NAME), one direction and one mode"
            raise UsageError(f"{name} is by {own}, the first run by {others}", remedy=remedy)


def _told_of_copies(results: Mapping[str, SweepResult]) -> dict[str, SweepResult]:
    """The runs, with a note to each that holds the very scores of one before."""
    first: dict[object, str] = {}
    told = {}
    for name, result in results.items():
        scores = result.baseline, tuple((row.place, row.kind, row.tensors, row.score) for row in result.rows)
        note = f"holds the same scores as {first.setdefault(scores, name)}: {COPY}"
        is_copy = first[scores] != name and any(row.status == "measured" for row in result.rows)
        told[name] = replace(result, notes=(*result.notes, note)) if is_copy else result
    return told


def cells_of(result: SweepResult) -> dict[Cell, Row]:
    """The row of each cell."""
    rows = widest(result.rows)
    sharing = Counter((row.place, row.kind) for row in rows)
    names = {row: row.tensors[0] if sharing[row.place, row.kind] > 1 and row.tensors else None for row in rows}
    cells: dict[Cell, Row] = {}
    for row, name in names.items():
        cells.setdefault((row.place, row.kind, name), row)
    return cells


def _ranks(a: int, b: int, split: str, cells: Sequence[Shared]) -> Ranks:
    pairs = [(_measured(cell.rows[a]), _measured(cell.rows[b])) for cell in cells]
    known = [(x, y) for x, y in pairs if x is not None and y is not None]
    return Ranks(a, b, split, len(known), tau(known), spearman([x for x, _ in known], [y for _, y in known]))


def _ordered(compared: Agreement, order: str) -> list[Shared]:
    """The cells by what their means say; of what is missing, last."""
    if order == SPREAD:
        return sorted(compared.cells, key=lambda cell: -cell.spread)
    if order == "drop":
        return sorted(compared.cells, key=lambda cell: -cell.mean.estimate if cell.mean else math.inf)
    if order not in (known := get_args(Order)):
        raise UsageError(f"{order!r:.40} is no order", remedy=near(order, (*known, SPREAD)) or "leave it out")
    mean = compared.mean
    of_row = dict(zip(mean.rows, compared.cells, strict=True))
    return [of_row[row] for row in shown(mean, order=order).rows]  # type: ignore[arg-type]


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _measured(row: Row | None) -> float | None:
    return row.drop if row is not None and row.status == "measured" else None
