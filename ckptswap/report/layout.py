"""Cells → lines → one string: columns aligned, names cut in the middle until the line fits. No boxes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from io import StringIO

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from ckptswap.report.text import Style, asciify, shorten, shorten_all

QUIET = "dim"
HEADING = "bold"
WORSE = "color(202)"  # orange and blue: told apart by colour-blind readers too
BETTER = "color(33)"
_TINY = 5


@dataclass(frozen=True)
class Column:
    """A heading, and how the column behaves.

    Numbers stand to the `right`. Names may be cut down to `smallest` cells (0: never). When that is not enough,
    columns with `spare` above 0 are left out, the largest first.
    """

    title: str
    right: bool = False
    smallest: int = 0
    spare: int = 0


Cell = str | Text


def grid(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], style: Style) -> list[Text]:
    """Lines of an aligned table, headings first, at most `style.width` cells wide.

    >>> columns = [Column("name"), Column("n", right=True)]
    >>> [line.plain for line in grid(columns, [["a", "10"], ["bcd", "2"]], Style())]
    ['name   n', 'a     10', 'bcd    2']
    """
    table = [[_cell(cell, style) for cell in row] for row in rows]
    table.insert(0, [_cell(Text(column.title, style=QUIET), style) for column in columns])
    while (fitted := _fit(columns, table, style)) is None:
        out = max(range(len(columns)), key=lambda i: columns[i].spare)
        columns = [column for i, column in enumerate(columns) if i != out]
        table = [[cell for i, cell in enumerate(row) if i != out] for row in table]
    widths, gap = fitted
    for i, column in enumerate(columns):
        if column.smallest:
            _shorten(table, i, widths[i], style)
    return [_line(columns, row, widths, gap) for row in table]


def _cell(cell: Cell, style: Style) -> Text:
    text = Text(cell) if isinstance(cell, str) else cell
    return Text(asciify(text.plain), style=text.style) if style.ascii else text


def _fit(columns: Sequence[Column], table: list[list[Text]], style: Style) -> tuple[list[int], int] | None:
    """Widths and gap with which a line fits; None when a spare column has to go first."""
    widths = [max(cell_len(row[i].plain) for row in table) for i in range(len(columns))]
    for gap in (2, 1):
        if (room := style.width - gap * (len(columns) - 1)) >= sum(widths):
            return widths, gap
    _cut(widths, room, {i: column.smallest for i, column in enumerate(columns) if column.smallest})
    if sum(widths) > room and any(column.spare for column in columns):
        return None
    _cut(widths, room, {i: _TINY for i, column in enumerate(columns) if column.smallest})
    return widths, 1


def _cut(widths: list[int], room: int, smallest: dict[int, int]) -> None:
    """Take from the widest name column, cell by cell, until the line fits or all are at their smallest."""
    while sum(widths) > room:
        able = [i for i, least in smallest.items() if widths[i] > least]
        if not able:
            return
        widths[max(able, key=lambda i: widths[i])] -= 1


def _shorten(table: list[list[Text]], i: int, width: int, style: Style) -> None:
    names = shorten_all([row[i].plain for row in table[1:]], width, ascii=style.ascii)
    for row, name in zip(table[1:], names, strict=True):
        row[i] = Text(name, style=row[i].style)


def _line(columns: Sequence[Column], row: Sequence[Text], widths: Sequence[int], gap: int) -> Text:
    line = Text()
    for i, (column, cell, width) in enumerate(zip(columns, row, widths, strict=True)):
        pad = " " * (width - cell_len(cell.plain))
        line.append(" " * gap if i else "")
        line.append_text(Text(pad) + cell if column.right else cell + Text(pad))
    return line


def flow(parts: Iterable[Cell], style: Style, *, gap: int = 2, indent: int = 0) -> list[Text]:
    """Short pieces side by side, broken between pieces where the line is full; one that is longer is cut.

    >>> [line.plain for line in flow(["one", "two", "three"], Style(width=10), indent=1)]
    [' one  two', ' three']
    """
    lines: list[Text] = []
    for part in parts:
        piece = _within(_cell(part, style), style.width - indent, style)
        if lines and cell_len(lines[-1].plain) + gap + cell_len(piece.plain) <= style.width:
            lines[-1] = Text.assemble(lines[-1], " " * gap, piece)
        else:
            lines.append(Text.assemble(" " * indent, piece))
    return lines


def _within(text: Text, width: int, style: Style) -> Text:
    """`text` as it is, or cut in the middle and plain."""
    if cell_len(text.plain) <= width:
        return text
    return Text(shorten(text.plain, width, ascii=style.ascii), style=text.style)


def paragraph(text: str, style: Style, *, indent: int = 0, label: str = "", look: str = "") -> list[Text]:
    """`text` wrapped behind a label and a hanging indent.

    >>> [line.plain for line in paragraph("as we agreed before", Style(width=18), indent=6, label=" rule")]
    [' rule as we agreed', '      before']
    """
    wrapped = flow(text.split(), replace(style, width=style.width - indent), gap=1) or [Text()]
    leads = [label.ljust(indent)] + [" " * indent] * (len(wrapped) - 1)
    return [Text.assemble(lead, (line.plain, look)) for lead, line in zip(leads, wrapped, strict=True)]


def render(lines: Iterable[Text], style: Style) -> str:
    r"""Lines as one string, ending with a newline; ANSI colours only with `style.colour`.

    >>> render([Text("a", style="bold"), Text("b  ")], Style())
    'a\nb\n'
    """
    out = StringIO()
    console = Console(
        file=out,
        width=max(style.width, 1),
        force_terminal=style.colour,
        color_system="256" if style.colour else None,
        no_color=not style.colour,
        legacy_windows=False,
        force_jupyter=False,
        highlight=False,
        markup=False,
        emoji=False,
        _environ={},  # the caller has decided: NO_COLOR, COLUMNS and TERM are not read twice
    )
    for line in lines:
        text = _cell(line, style) if style.ascii and not line.plain.isascii() else line.copy()
        text.rstrip()
        console.print(text, soft_wrap=True)
    return out.getvalue()
