"""Which rows of a table are shown, and in which order. Verdicts stay those of the whole table."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

from ckptswap.entries import Entry
from ckptswap.errors import SelectionError, UsageError, near
from ckptswap.naming import natural_key, split_name
from ckptswap.selection import Selection
from ckptswap.shell import joined
from ckptswap.sources import MemorySource
from ckptswap.statistics import Verdict
from ckptswap.sweep.result import Filtered, Row, SweepResult

Order = Literal["drop", "rmse", "rel_l2", "numel", "name", "layer"]
"""Largest first, or by the name, or in the order in which layers run."""
SPREAD = "spread"
"""The order that only several runs have: the largest difference between two of them first."""
VERDICTS: tuple[str, ...] = get_args(Verdict)


def shown(
    result: SweepResult, selection: Selection = Selection(), verdicts: Sequence[str] = (), order: Order = "drop"
) -> SweepResult:
    """The rows that take any selected tensor and have one of the verdicts, if some are given, in this order.

    Raises `UsageError` for a verdict or an order that does not exist, `SelectionError` for a selection that leaves
    no row, with near names.

    >>> rows = (Row("c", "conv.bias", ("c.bias",), 4, "measured", verdict="reusable"),)
    >>> part = shown(SweepResult("dice", "max", 0.01, 0.9, None, 72, rows), verdicts=["sensitive"])
    >>> part.rows, part.filtered
    ((), Filtered(flags='--verdict sensitive', rows=1))
    """
    key = _key(result, order)
    for word in verdicts:
        if word not in VERDICTS:
            remedy = near(word, VERDICTS) or f"use {', '.join(VERDICTS)}"
            raise UsageError(f"{word!r:.40} is no verdict", remedy=remedy)
    rows = _selected(result.rows, selection) if selection else list(result.rows)
    rows = [row for row in rows if not verdicts or row.verdict in verdicts]
    rows = sorted(rows, key=key) if key else rows
    sort = [] if order == "drop" else ["--sort", order]
    words = [*selection.flags(), *(word for verdict in verdicts for word in ("--verdict", verdict)), *sort]
    if not words:
        return result
    return replace(result, rows=tuple(rows), filtered=Filtered(joined(words), len(result.rows)))


def _key(result: SweepResult, order: str) -> Callable[[Row], Any] | None:
    """By what rows are sorted; None: as they stand. What is missing comes last."""
    if order == "drop":
        return None
    if order in ("rmse", "rel_l2", "numel"):
        return lambda row: (getattr(row, order) is None, -(getattr(row, order) or 0))
    if order == "name":
        return lambda row: (natural_key(row.place or ""), row.kind or "", row.tensors)
    if order == "layer":
        places = result.in_order(row.place for row in result.rows if row.place is not None)
        at = {place: number for number, place in enumerate(places)}
        return lambda row: (at.get(row.place or "", -1), row.kind or "")
    if order == SPREAD:
        raise UsageError("'spread' is of several runs", remedy="name two or more, or sort by something else")
    raise UsageError(f"{order!r:.40} is no order", remedy=near(order, get_args(Order)) or "leave it out")


def _selected(rows: Sequence[Row], selection: Selection) -> list[Row]:
    entries = _entries(rows)
    rows = [row for row in rows if any(entries[name] in selection for name in row.tensors)]
    if not rows:
        missed = selection.missed(list(entries.values()), "the table")
        raise SelectionError(str(missed[0]) if missed else f"no row of the table takes {selection}")
    return rows


def _entries(rows: Sequence[Row]) -> dict[str, Entry]:
    """What is known of the tensors in a table: where no row has their kind, or their layer, it is "" or what their
    name says."""
    kinds, layers = {}, {}
    for row in rows:
        for name in row.tensors:
            if row.kind is not None and len(row.parts) < 2:
                kinds[name] = row.kind
            if row.layer is not None and not row.is_of_parts:
                layers[name] = row.layer
    nothing = MemorySource(memoryview(b""))
    return {
        name: Entry(name, (), "F32", nothing, layers.get(name, split_name(name)[0]), kinds.get(name, ""))
        for row in rows
        for name in row.tensors
    }
