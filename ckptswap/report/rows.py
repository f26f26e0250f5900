"""A sweep's rows: which belong together, and what they are called."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from ckptswap.report.text import named, number, plural, safe
from ckptswap.sweep.result import OtherMetric, Row, SweepResult, widest, window_sizes

if TYPE_CHECKING:  # it loads numpy
    from ckptswap.sweep.plan import Cell

Key = tuple[str | None, str | None]
_MODES = {
    "only": "",
    "lattice": "",
    "all-but": "all but this from the donor",
    "prefix": "all {layers} up to this one from the donor",
    "suffix": "all {layers} from this one on from the donor",
}
LATTICE = ("parts by themselves", "two together", "three and more together", "all together")
_SECTIONS = (*LATTICE, "whole kinds", "whole blocks", "whole layers", "parts", "blocks and kinds",
             "parts and kinds", "cells", "whole selection")  # fmt: skip
"""The ways of splitting, coarse ones first."""


def mode_words(result: SweepResult) -> str:
    """What a row takes, where that is not the row alone."""
    if sizes := window_sizes(result.mode):
        some = f"{sizes[0]} to {sizes[-1]}" if len(sizes) > 1 else f"{sizes[0]}"
        return f"runs of {some} consecutive blocks from the donor"
    by_blocks = any("block" in row.by for row in result.rows)
    return _MODES[result.mode].format(layers="blocks" if by_blocks else "layers")


def section_of(row: Row) -> str:
    """Which way of splitting a row belongs to, in words."""
    has_kind = row.kind is not None
    if row.parts:
        return LATTICE[min(len(row.parts), 3) - 1]
    if row.is_of_parts:
        return "parts and kinds" if has_kind else "parts"
    if "block" in row.by:
        return "blocks and kinds" if has_kind else "whole blocks"
    if row.place is None:
        return "whole kinds" if has_kind else "whole selection"
    return "cells" if has_kind else "whole layers"


def sections(rows: Iterable[Row]) -> list[tuple[str, list[Row]]]:
    """The rows by way of splitting, in their own order."""
    by_title: dict[str, list[Row]] = defaultdict(list)
    every = list(rows)
    most = max((len(row.parts) for row in every), default=0)
    for row in every:
        by_title[LATTICE[-1] if 2 < most == len(row.parts) else section_of(row)].append(row)
    return [(title, by_title[title]) for title in _SECTIONS if title in by_title]


def first_of_each(rows: Iterable[Row], top: int) -> list[Row]:
    """So many of the ranked rows of each way of splitting, in their order."""
    seen: Counter[object] = Counter()
    kept = []
    for row in rows:
        way = row.by, section_of(row)
        if row.rank is not None and seen[way] < top:
            seen[way] += 1
            kept.append(row)
    return kept


def cell_name(row: Row) -> str:
    """Layer (or block) and kind in one string, as far as the row has them.

    >>> cell_name(Row("head", "conv.bias", ("head.bias",), 1, "measured"))
    'head conv.bias'
    """
    layer = "" if row.place is None else named(row.place)
    return " ".join(filter(None, (layer, safe(row.kind or "")))) or plural(len(row.tensors), "tensor")


def own_names(rows: Sequence[Row]) -> list[str | None]:
    """The tensor's name where others share its layer and kind, or the same tensor came before; else None.

    >>> own_names([Row("l", "rnn.weight", (name,), 4, "measured") for name in ("l.weight_l0", "l.weight_l1")])
    ['l.weight_l0', 'l.weight_l1']
    """
    sharing: dict[object, set[tuple[str, ...]]] = defaultdict(set)
    for row in rows:
        sharing[row.place, row.kind, row.donor].add(row.tensors)
    seen: set[object] = set()
    names = []
    for row in rows:
        place = row.place, row.kind, row.donor
        is_tensor = len(row.tensors) == 1 and (len(sharing[place]) > 1 or (place, row.tensors) in seen)
        names.append(safe(row.tensors[0]) if is_tensor else None)
        seen.add((place, row.tensors))
    return names


def row_names(rows: Sequence[Row]) -> list[str]:
    """Layer and kind of each row, or its tensor's own name."""
    return [name or cell_name(row) for name, row in zip(own_names(rows), rows, strict=True)]


def by_blocks(rows: Iterable[Row]) -> bool:
    """Whether layers are drawn under their blocks: in a transformer each layer has kinds of its own, and a matrix
    of layers and kinds would be all but empty."""
    cells = [row for row in rows if row.layer is not None and row.kind is not None]
    return any(row.block is not None and (row.kind or "").startswith("attn.") for row in cells)


def cell_key(cell: "Row | Cell", *, merged: bool = False) -> Key:
    """Layer and kind of a cell, or with `merged` its block and kind, where it is in one."""
    return (cell.block if merged and cell.block is not None else cell.place), cell.kind


def worst_cells(rows: Iterable[Row], *, merged: bool = False) -> dict[Key, Row]:
    """The row behind each cell; where several tensors share one that has no row itself, the worst of them, and
    with `merged` of those in a block."""
    cells: dict[Key, Row] = {}
    for row in widest(rows):
        key = cell_key(row, merged=merged)
        if key != (None, None) and (key not in cells or drop_or_least(row) > drop_or_least(cells[key])):
            cells[key] = row
    return cells


def drop_or_least(row: Row | None) -> float:
    """The drop, by which the worst is found; below all others where there is none."""
    return -math.inf if row is None or row.drop is None else row.drop


def largest_drop(rows: Iterable[Row]) -> float:
    """The largest finite |drop|, the scale of bars and heatmap; 0 when there is none."""
    drops = (row.drop for row in rows if row.drop is not None)
    return max((abs(drop) for drop in drops if math.isfinite(drop)), default=0.0)


def distance(row: Row, shown: Callable[[float | None], str]) -> str:
    """The RMSE as it is `shown`, or which sort of value it cannot tell of."""
    kinds = (word for word in ("NaN", "Inf") if word in (row.non_finite or ""))
    return shown(row.rmse) if row.non_finite is None else " ".join(kinds)


def mark_of(row: Row) -> str:
    """What a picture marks a row by: why it was not measured, or that the network does not need it."""
    return "unused" if row.verdict == "unused" else row.status


def is_partial(result: SweepResult, row: Row) -> bool:
    """Whether a row rests on fewer samples than the whole, in a race or so far."""
    return row.samples not in (None, result.samples)


def is_recalibrated(result: SweepResult) -> bool:
    """Whether batch norm's statistics were estimated anew, too."""
    return result.recalibrated_baseline is not None


def facts(result: SweepResult) -> dict[str, str]:
    """What is known before any row: the baseline, the donors' own scores, the tolerance."""
    known = {
        "baseline": number(result.baseline),
        "donor": ", ".join(number(donor.score) for donor in result.donors) or number(result.donor_score),
        "tolerance": number(result.tolerance),
    }
    again = {"recalibrated baseline": number(result.recalibrated_baseline)}
    return known | (again if is_recalibrated(result) else {})


def filtered_words(result: SweepResult) -> tuple[str, ...]:
    """Of how many rows these are a part, and by which flags; nothing of a whole table.

    >>> from ckptswap.sweep.result import Filtered
    >>> part = SweepResult("dice", "max", 0.01, 0.9, None, 8, (), filtered=Filtered("--kind conv.bias", 9))
    >>> filtered_words(part)
    ('0 of 9 rows: --kind conv.bias',)
    """
    if result.filtered is None:
        return ()
    return (f"{len(result.rows):,} of {plural(result.filtered.rows, 'row')}: {result.filtered.flags}",)


def samples_words(result: SweepResult) -> str:
    """How many samples a table rests on, and of what they are a part.

    >>> samples_words(SweepResult("dice", "max", 0.01, 0.9, None, 72, rows=()))
    '72 samples'
    """
    return result.drawn.words(result.samples) if result.drawn else plural(result.samples, "sample")


def better(metric: SweepResult | OtherMetric) -> str:
    """Which way a metric goes, in words."""
    return f"{'higher' if metric.direction == 'max' else 'lower'} is better"
