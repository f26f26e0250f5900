"""A sweep's rows: which belong together, and what they are called."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from ckptswap.report.text import named, number, plural, safe
from ckptswap.sweep.result import Row, SweepResult, widest

Key = tuple[str | None, str | None]
MODES = {
    "only": "",
    "all-but": "all but this from the donor",
    "prefix": "all layers up to this one from the donor",
    "suffix": "all layers from this one on from the donor",
}


def sections(rows: Iterable[Row]) -> list[tuple[str, list[Row]]]:
    """The rows by way of splitting, in their own order."""
    by_way: dict[tuple[bool, bool], list[Row]] = defaultdict(list)
    for row in rows:
        by_way[row.layer is None, row.kind is None].append(row)
    titles = {"whole kinds": (True, False), "whole layers": (False, True), "cells": (False, False)}
    titles["whole selection"] = (True, True)
    return [(title, by_way[way]) for title, way in titles.items() if way in by_way]


def cell_name(row: Row) -> str:
    """Layer and kind in one string, as far as the row has them.

    >>> cell_name(Row("head", "conv.bias", ("head.bias",), 1, "measured"))
    'head conv.bias'
    """
    layer = "" if row.layer is None else named(row.layer)
    return " ".join(filter(None, (layer, safe(row.kind or "")))) or plural(len(row.tensors), "tensor")


def own_names(rows: Sequence[Row]) -> list[str | None]:
    """The tensor's name where others share its layer and kind, or the same tensor came before; else None.

    >>> own_names([Row("l", "rnn.weight", (name,), 4, "measured") for name in ("l.weight_l0", "l.weight_l1")])
    ['l.weight_l0', 'l.weight_l1']
    """
    sharing: dict[object, set[tuple[str, ...]]] = defaultdict(set)
    for row in rows:
        sharing[row.layer, row.kind, row.donor].add(row.tensors)
    seen: set[object] = set()
    names = []
    for row in rows:
        place = row.layer, row.kind, row.donor
        is_tensor = len(row.tensors) == 1 and (len(sharing[place]) > 1 or (place, row.tensors) in seen)
        names.append(safe(row.tensors[0]) if is_tensor else None)
        seen.add((place, row.tensors))
    return names


def row_names(rows: Sequence[Row]) -> list[str]:
    """Layer and kind of each row, or its tensor's own name."""
    return [name or cell_name(row) for name, row in zip(own_names(rows), rows, strict=True)]


def worst_cells(rows: Iterable[Row]) -> dict[Key, Row]:
    """The row behind each cell; where several tensors share one that has no row itself, the worst of them."""
    cells: dict[Key, Row] = {}
    for row in widest(rows):
        key = row.layer, row.kind
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


def better(result: SweepResult) -> str:
    """Which way the metric goes, in words."""
    return f"{'higher' if result.direction == 'max' else 'lower'} is better"
