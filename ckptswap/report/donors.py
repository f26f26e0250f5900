"""A sweep with several donors as one table, a column each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from ckptswap.report.layout import HEADING, QUIET, Cell, Column, grid, paragraph, render
from ckptswap.report.sweep import LOOK, header, labels, sections, unmeasured
from ckptswap.report.text import MISSING, Style, count, decimals, fixed, number, safe

if TYPE_CHECKING:
    from ckptswap.sweep.result import Row, SweepResult


def donors_table(result: SweepResult, style: Style, top: int | None = None) -> str:
    """For each cell the drop that each donor's tensors cause, coloured by its verdict; the worst cell first.

    >>> from ckptswap.sweep.result import DonorScore, Row, SweepResult
    >>> donors = (DonorScore("a.pt", 0.5), DonorScore("zeros", None))
    >>> rows = tuple(Row("c", "conv.bias", ("c.bias",), 4, "measured", drop=0.1 * at, donor=at) for at in (0, 1))
    >>> print(donors_table(SweepResult("dice", "max", 0.01, 0.9, 0.5, 8, rows, donors=donors), Style()), end="")
    dice, higher is better, 8 samples
    baseline 0.9   donor 0.5   tolerance 0.01   ± 95 %, simultaneous
    <BLANKLINE>
    donors
    A  a.pt   0.5
    B  zeros    –
    <BLANKLINE>
    cells, by the worst drop
    layer  kind       numel  drop A    drop B
    c      conv.bias      4     0 –  +0.100 –
    r reusable, s sensitive, ? undecided, = not run: equal in both, or without
    effect
    """
    names = [_letter(at) for at in range(len(result.donors))]
    listed: list[list[Cell]] = [
        [Text(name, style=HEADING), safe(donor.path), number(donor.score)]
        for name, donor in zip(names, result.donors, strict=True)
    ]
    columns = [Column(""), Column("", smallest=20), Column("", right=True)]
    lines = [*header(result, style), Text(), Text("donors", style=HEADING), *grid(columns, listed, style)[1:]]
    for title, rows in sections(result.rows):
        cells = _by_cell(rows, len(names))
        shown = cells[:top]
        lines += [Text(), Text(f"{title}, by the worst drop", style=HEADING), *_pivot(shown, names, style)]
        if len(shown) < len(cells):
            lines.append(Text(f"and {len(cells) - len(shown):,} more", style=QUIET))
    marks = "r reusable, s sensitive, ? undecided, = not run: equal in both, or without effect"
    return render([*lines, *paragraph(marks, style, look=QUIET), *unmeasured(result.rows, style)], style)


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


def _pivot(cells: Sequence[Sequence[Row | None]], names: Sequence[str], style: Style) -> list[Text]:
    firsts = [next(row for row in each if row is not None) for each in cells]
    called = labels(firsts)
    places = decimals((row.drop for each in cells for row in each if row is not None), 3)
    columns = [*(Column(name, smallest=10) for name in called), Column("numel", right=True, spare=1)]
    columns += [Column(f"drop {name}", right=True) for name in names]
    drops = [[_cell(row, places) for row in each] for each in cells]
    texts = list(zip(*called.values(), strict=True))
    rows = [
        [*text, count(first.numel), *of_cell] for text, first, of_cell in zip(texts, firsts, drops, strict=True)
    ]
    return grid(columns, rows, style)


def _cell(row: Row | None, places: int) -> Cell:
    if row is None or row.drop is None:
        return MISSING
    mark = _MARKS.get(row.verdict or "", MISSING) if row.status == "measured" else "="
    return Text(f"{fixed(row.drop, places, signed=True)} {mark}", style=LOOK.get(row.verdict or "", ""))
