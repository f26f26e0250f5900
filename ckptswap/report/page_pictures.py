"""Which pictures a page has, and what is written below each."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from ckptswap.report import charts
from ckptswap.report.drawing import DrawnBars, DrawnChart, DrawnHeat, Lines, drawn
from ckptswap.report.rows import by_blocks, cell_key
from ckptswap.sweep.plan import Cell
from ckptswap.sweep.result import SweepResult, goes_by_order, window_sizes

FIRST = ("heatmap", "triangle", "pairs", "curve")
"""The pictures that stand above the table."""


@dataclass(frozen=True)
class Shown:
    """A picture in the page: its element, its title, what it shows in words, and whether it comes first."""

    id: str
    drawn: DrawnHeat | DrawnBars | DrawnChart
    title: str
    caption: str
    is_first: bool


_CAPTIONS = {
    "triangle": "What a run of blocks costs: its first block down, its last one across.",
    "pairs": "What two parts cost together, and on the diagonal each by itself.",
    "interactions": "Blue: two parts cost less together than the sum of each by itself; orange: more.",
    "curve": "What the network loses as layer after layer comes from the donor.",
    "heatmap": "Orange costs, blue helps, the stronger the more. = equal in both, · never read, × does not fit, "
    "! failed, u unused, … not scored yet; an empty place is no such cell. Layers in execution order.",
    "bars": "The worst drops with their simultaneous 95 % intervals.",
    "scatter": "Each cell's drop against how far apart the two networks' values are.",
    "depth": "The same drops by place in the network, a line a kind.",
    "paths": "The drop between recipient (0) and donor (1), with plain 95 % intervals.",
    "race": "How many samples each cell was scored on before the race had decided.",
    "scored": "How many samples each cell is scored on so far.",
}


def pictures(result: SweepResult, waiting: Collection[Cell], lines: Lines, is_race: bool) -> Iterator[Shown]:
    """Those that this run has something for, donor by donor. Cells of `prefix` and `suffix` hold each other:
    none has a place of its own."""
    several = len(result.donors) > 1
    for at in range(max(1, len(result.donors))):
        part = replace(result, rows=tuple(row for row in result.rows if row.donor == at)) if several else result
        merged = by_blocks(part.rows)
        places = {cell_key(cell, merged=merged) for cell in waiting if cell.donor == at}
        named: dict[str, charts.Picture]
        if window_sizes(result.mode):
            named = {"triangle": charts.triangle(part), "bars": charts.bars(part)}
        elif result.mode == "lattice":
            named = {"pairs": charts.pairs(part), "interactions": charts.interactions(part)}
            named["bars"] = charts.bars(part)
        elif goes_by_order(result.mode):
            named = {"curve": charts.curve(part), "bars": charts.bars(part)}
        else:
            named = {"heatmap": charts.heat(part, places), "bars": charts.bars(part)}
            named |= {"scatter": charts.scatter(part), "depth": charts.depth(part)}
        named |= {"paths": charts.paths(part), "race" if is_race else "scored": charts.race(part, is_race)}
        for name, picture in named.items():
            if not charts.is_empty(picture):
                title = f"{picture.title}{from_donor(result, at)}"
                yield Shown(f"{name}-{at}", drawn(picture, lines), title, _CAPTIONS[name], name in FIRST)


def from_donor(result: SweepResult, donor: int) -> str:
    """Which donor it is, where there are several."""
    return f", from {result.donors[donor].path}" if len(result.donors) > 1 else ""
