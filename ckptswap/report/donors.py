"""A sweep with several donors as one table, a column each."""

from collections.abc import Callable, Sequence

from rich.text import Text

from ckptswap.report.layout import HEADING, QUIET, Cell, Column, grid, left_out, paragraph
from ckptswap.report.rows import drop_or_least, is_recalibrated, sections
from ckptswap.report.sweep import LOOK, barrier_of, name_columns, recalibrated_drop
from ckptswap.report.text import MISSING, Style, count, decimals, fixed, letters_of, number, safe
from ckptswap.sweep.result import Row, SweepResult

Value = Callable[[Row], tuple[float | None, str | None]]  # from a row to a number and its verdict
_MARKS = {"reusable": "r", "unused": "u", "sensitive": "s", "undecided": "?"}


def donor_lines(result: SweepResult, style: Style, top: int | None = None) -> list[Text]:
    """The donors; for each cell the drop that each donor's tensors cause, coloured by its verdict, the worst cell
    first; and what the marks mean.

    >>> from ckptswap.sweep.result import DonorScore
    >>> donors = (DonorScore("a.pt", 0.5), DonorScore("zeros", None))
    >>> rows = tuple(Row("c", "conv.bias", ("c.bias",), 4, "measured", drop=0.1 * at, donor=at) for at in (0, 1))
    >>> result = SweepResult("dice", "max", 0.01, 0.9, 0.5, 8, rows, donors=donors)
    >>> print("\\n".join(line.plain for line in donor_lines(result, Style())[5:7]))
    layer  kind       numel  A       B
    c      conv.bias      4  0  +0.100
    """
    names = letters_of(result.donors)
    donors: list[list[Cell]] = [
        [Text(name, style=HEADING), safe(donor.path), number(donor.score)]
        for name, donor in zip(names, result.donors, strict=True)
    ]
    columns = [Column(), Column(smallest=20), Column(right=True)]
    lines = [Text("donors", style=HEADING), *grid(columns, donors, style)[1:]]
    asked: dict[str, Value] = {", by the worst drop": lambda row: (row.drop, row.verdict)}
    if is_recalibrated(result):
        asked[": drop with new batch norm statistics"] = lambda row: (
            recalibrated_drop(row),
            row.recalibrated.verdict if row.recalibrated else None,
        )
    if any(row.path for row in result.rows):
        asked[": barrier on the way to the donor"] = lambda row: (barrier_of(row), None)
    for title, rows in sections(result.rows):
        cells = _by_cell(rows, len(names))
        for what, value in asked.items():
            lines += [Text(), Text(f"{title}{what}", style=HEADING), *_pivot(cells[:top], names, value, style)]
        lines += left_out(len(cells) - len(cells[:top]))
    marks = "r reusable, u unused, s sensitive, ? undecided, = not run: equal in both, or without effect"
    return [*lines, *paragraph(marks, style, look=QUIET)]


def _by_cell(rows: Sequence[Row], donors: int) -> list[list[Row | None]]:
    """One list a cell, with a place for each donor."""
    cells: dict[tuple[object, ...], list[Row | None]] = {}
    for row in rows:
        cells.setdefault((row.place, row.kind, row.tensors), [None] * donors)[row.donor] = row
    return sorted(cells.values(), key=lambda of_cell: -max(map(drop_or_least, of_cell)))


def _pivot(cells: Sequence[Sequence[Row | None]], names: Sequence[str], value: Value, style: Style) -> list[Text]:
    firsts = [next(row for row in of_cell if row is not None) for of_cell in cells]
    places = decimals((value(row)[0] for of_cell in cells for row in of_cell if row is not None), 3)
    columns = [*name_columns(firsts), Column("numel", lambda row: count(row.numel), right=True, spare=1)]
    heads = [[column.shown(first) for column in columns if column.shown] for first in firsts]
    drops = [[_marked(row, value, places) for row in of_cell] for of_cell in cells]
    rows = [[*head, *marked] for head, marked in zip(heads, drops, strict=True)]
    return grid([*columns, *(Column(name, right=True) for name in names)], rows, style)


def _marked(row: Row | None, value: Value, places: int) -> Cell:
    drop, verdict = (None, None) if row is None else value(row)
    if row is None or drop is None:
        return MISSING
    mark = _MARKS.get(verdict or "", "") if row.status == "measured" else "="
    return Text(f"{fixed(drop, places, signed=True)} {mark}".rstrip(), style=LOOK.get(verdict or "", ""))
