"""A sweep with several donors as one table, a column each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from ckptswap.report.layout import HEADING, QUIET, Cell, Column, grid, paragraph, render
from ckptswap.report.sweep import LOOK, header, labels, left_out, sections, unmeasured
from ckptswap.report.text import MISSING, Style, count, decimals, fixed, number, safe
from ckptswap.sweep.result import Row

if TYPE_CHECKING:
    from ckptswap.sweep.result import SweepResult


def donors_table(result: SweepResult, style: Style, top: int | None = None) -> str:
    """For each cell the drop that each donor's tensors cause, coloured by its verdict; the worst cell first.

    >>> from ckptswap.sweep.result import DonorScore, Row, SweepResult
    >>> donors = (DonorScore("a.pt", 0.5), DonorScore("zeros", None))
    >>> rows = tuple(Row("c", "conv.bias", ("c.bias",), 4, "measured", drop=0.1 * at, donor=at) for at in (0, 1))
    >>> print(donors_table(SweepResult("dice", "max", 0.01, 0.9, 0.5, 8, rows, donors=donors), Style()), end="")
    dice, higher is better, 8 samples
    baseline 0.9   tolerance 0.01   ± 95 %, simultaneous
    <BLANKLINE>
    donors
    A  a.pt   0.5
    B  zeros    –
    <BLANKLINE>
    cells, by the worst drop
    layer  kind       numel  A       B
    c      conv.bias      4  0  +0.100
    r reusable, s sensitive, ? undecided, = not run: equal in both, or without
    effect
    """
    lines, _ = donor_lines(result, style, top)
    return render([*header(result, style), *lines, *unmeasured(result.rows, style)], style)


def donor_lines(result: SweepResult, style: Style, top: int | None = None) -> tuple[list[Text], int]:
    """The donors, the cells below them, and what the marks mean; and how many cells are left out."""
    names, hidden = [_letter(at) for at in range(len(result.donors))], 0
    listed: list[list[Cell]] = [
        [Text(name, style=HEADING), safe(donor.path), number(donor.score)]
        for name, donor in zip(names, result.donors, strict=True)
    ]
    columns = [Column(""), Column("", smallest=20), Column("", right=True)]
    lines = [Text(), Text("donors", style=HEADING), *grid(columns, listed, style)[1:]]
    for title, rows in sections(result.rows):
        cells = _by_cell(rows, len(names))
        for what, value in _asked(result).items():
            lines += [Text(), Text(f"{title}{what}", style=HEADING), *_pivot(cells[:top], names, value, style)]
        fewer = len(cells) - len(cells[:top])
        lines += left_out(fewer)
        hidden += fewer
    marks = "r reusable, s sensitive, ? undecided, = not run: equal in both, or without effect"
    return [*lines, *paragraph(marks, style, look=QUIET)], hidden


Value = Callable[[Row], tuple[float | None, str | None]]
"""From a row to a number and its verdict."""


def _asked(result: SweepResult) -> dict[str, Value]:
    """What is shown of each cell: its drop, and what else the sweep was asked for."""
    found: dict[str, Value] = {", by the worst drop": lambda row: (row.drop, row.verdict)}
    if result.recalibrated_baseline is not None:
        found[": drop with new batch norm statistics"] = lambda row: (
            (row.recalibrated.drop, row.recalibrated.verdict) if row.recalibrated else (None, None)
        )
    if any(row.path for row in result.rows):
        found[": barrier on the way to the donor"] = lambda row: (
            row.barrier.height if row.barrier else None,
            None,
        )
    return found


def _letter(at: int) -> str:
    return chr(ord("A") + at) if at < 26 else str(at)


def _by_cell(rows: Sequence[Row], donors: int) -> list[list[Row | None]]:
    """One list a cell, with a place for each donor."""
    found: dict[tuple[object, ...], list[Row | None]] = {}
    for row in rows:
        of_cell = found.setdefault((row.layer, row.kind, row.tensors), [None] * donors)
        of_cell[row.donor] = row
    return sorted(found.values(), key=lambda each: -max(_drop(row) for row in each))


def _drop(row: Row | None) -> float:
    return row.drop if row is not None and row.drop is not None else float("-inf")


_MARKS = {"reusable": "r", "sensitive": "s", "undecided": "?"}


def _pivot(cells: Sequence[Sequence[Row | None]], names: Sequence[str], value: Value, style: Style) -> list[Text]:
    firsts = [next(row for row in each if row is not None) for each in cells]
    called = labels(firsts)
    known = [[None if row is None else (row, *value(row)) for row in each] for each in cells]
    places = decimals((each[1] for found in known for each in found if each is not None), 3)
    columns = [*(Column(name, smallest=10) for name in called), Column("numel", right=True, spare=1)]
    columns += [Column(name, right=True) for name in names]
    texts = list(zip(*called.values(), strict=True))
    rows = [
        [*text, count(first.numel), *(_cell(each, places) for each in found)]
        for text, first, found in zip(texts, firsts, known, strict=True)
    ]
    return grid(columns, rows, style)


def _cell(found: tuple[Row, float | None, str | None] | None, places: int) -> Cell:
    if found is None or found[1] is None:
        return MISSING
    row, number, verdict = found
    mark = _MARKS.get(verdict or "", "") if row.status == "measured" else "="
    return Text(f"{fixed(number, places, signed=True)} {mark}".rstrip(), style=LOOK.get(verdict or "", ""))
