"""Several runs side by side, cell by cell: whether they rank alike, and where they differ beyond their intervals.
They may have other donors, seeds or samples, and even other networks as far as these share names."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

from ckptswap.errors import UsageError
from ckptswap.statistics.ranks import tau
from ckptswap.sweep.result import Row, SweepResult, widest

Cell = tuple[str | None, str | None]


@dataclass(frozen=True)
class Shared:
    """One cell in every run (None where a run has no such row)."""

    layer: str | None
    kind: str | None
    rows: tuple[Row | None, ...]

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
        drops = [row.drop for row in self.rows if row is not None and row.drop is not None]
        return max(drops) - min(drops) if len(drops) > 1 else 0.0


@dataclass(frozen=True)
class Agreement:
    """Runs in the order given; `kendall[a, b, split]` over the cells of one way of splitting that both measured,
    None where that says nothing."""

    runs: tuple[str, ...]
    results: tuple[SweepResult, ...]
    kendall: Mapping[tuple[int, int, str], float | None]
    cells: tuple[Shared, ...]


def agreement(results: Mapping[str, SweepResult]) -> Agreement:
    """Compare runs by name; cells with the largest spread first. Raises `UsageError` for fewer than two, for runs
    of several donors, and for runs whose metrics or modes differ."""
    _refuse(results)
    runs = list(results.values())
    known = [_cells(result) for result in runs]
    places = list(dict.fromkeys(place for cells in known for place in cells))
    cells = [Shared(*place, tuple(cells.get(place) for cells in known)) for place in places]
    kendall = {
        (a, b, split): tau([(_drop(cell.rows[a]), _drop(cell.rows[b])) for cell in cells if cell.split == split])
        for a, b in combinations(range(len(runs)), 2)
        for split in dict.fromkeys(cell.split for cell in cells)
    }
    ordered = sorted(cells, key=lambda cell: -cell.spread)
    return Agreement(tuple(results), tuple(runs), kendall, tuple(ordered))


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


def _cells(result: SweepResult) -> dict[Cell, Row]:
    """The row of each layer and kind: where several tensors share one, the first, which is the worst."""
    rows_of: dict[Cell, Row] = {}
    for row in widest(result.rows):
        rows_of.setdefault((row.place, row.kind), row)
    return rows_of


def _drop(row: Row | None) -> float | None:
    return row.drop if row is not None and row.status == "measured" else None
