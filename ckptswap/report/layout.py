"""Cells → lines → one string: columns aligned, names cut in the middle or folded where they must. No boxes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from io import StringIO
from itertools import zip_longest
from typing import Any

from rich.cells import cell_len
from rich.text import Span, Text

from ckptswap.report.text import Style, asciify, cells, fold, shorten_all

QUIET = "dim"
HEADING = "bold"
WORSE = "color(202)"  # orange and blue: told apart by colour-blind readers too
BETTER = "color(33)"
WIDE, WIDEST = 100, 130
"""Columns from which on a terminal has room for more digits, and for both intervals."""
_TINY = 5


Cell = str | Text


@dataclass(frozen=True)
class Column:
    """A column, declared once for every form: its `title` over cells that are `shown` to people, and the `field`
    under which programs know its values.

    Without `shown` it is for programs alone, without `field` for people alone; `forms` may narrow it further
    ("json", "csv", "md", "narrow" and "wide" terminals, "page"). Numbers stand to the `right`. Names may be cut
    down to `smallest` cells (0: never). When that is not enough, or when two names would look alike, columns with
    `spare` above 0 are left out, the largest first.
    """

    title: str = ""
    shown: Callable[[Any], Cell] | None = None
    right: bool = False
    smallest: int = 0
    spare: int = 0
    field: str = ""
    value: Callable[[Any], Any] | None = None
    forms: str = ""

    def of(self, row: Any) -> Any:
        """The value that programs get of a row."""
        if self.value is not None:
            return self.value(row)
        return row.get(self.field) if isinstance(row, Mapping) else getattr(row, self.field)

    def is_in(self, form: str) -> bool:
        """Whether a form has it."""
        if self.forms and form not in self.forms.split():
            return False
        return bool(self.field) if form in ("json", "csv", "md") else self.shown is not None


def field(name: str, shown: Callable[[Any], Cell] | None = None, title: str | None = None, **look: Any) -> Column:
    """A column of a field, with `shown` from its value; without it, it is for programs alone.

    >>> field("numel", str, right=True).shown({"numel": 4})
    '4'
    """
    column = Column(name if title is None else title, field=name, **look)
    return column if shown is None else replace(column, shown=lambda row: shown(column.of(row)))


def table(columns: Iterable[Column], rows: Sequence[Any], style: Style, form: str = "") -> list[Text]:
    """Rows under the columns that the form has: by its width where none is named.

    >>> lines = table([field("n", str, right=True), field("only-for-programs")], [{"n": 10}], Style())
    >>> [line.plain for line in lines]
    [' n', '10']
    """
    form = form or ("wide" if style.width >= WIDEST else "narrow")
    chosen = [column for column in columns if column.is_in(form)]
    return grid(chosen, [[column.shown(row) for column in chosen if column.shown] for row in rows], style)


def grid(columns: Sequence[Column], rows: Iterable[Sequence[Cell]], style: Style) -> list[Text]:
    """Lines of an aligned table, headings first, at most `style.width` cells wide.

    Different names never look alike: where no cut keeps them apart, they are folded over several lines. Cells are
    kept by column, and plain where no colour is wanted: there may be 200,000 rows.

    >>> columns = [Column("name"), Column("n", right=True)]
    >>> [line.plain for line in grid(columns, [["a", "10"], ["bcd", "2"]], Style())]
    ['name   n', 'a     10', 'bcd    2']
    """
    table: list[list[Cell]] = [[_drawn(Text(column.title, style=QUIET), style)] for column in columns]
    for row in rows:
        for column, cell in zip(table, row, strict=True):
            column.append(_drawn(cell, style))
    tried = []
    for kept in _fewer(columns):
        tried.append(_layout([columns[i] for i in kept], [table[i] for i in kept], style))
        if tried[-1].is_roomy and tried[-1].is_apart:
            return tried[-1].lines()
    return next((layout for layout in tried if layout.is_roomy), tried[-1]).lines()


def _fewer(columns: Sequence[Column]) -> Iterator[list[int]]:
    """All columns, then ever fewer, as long as one can be spared."""
    kept = list(range(len(columns)))
    yield list(kept)
    while spare := max((columns[i].spare for i in kept), default=0):
        kept.remove(next(i for i in kept if columns[i].spare == spare))
        yield list(kept)


@dataclass(frozen=True)
class _Layout:
    """A table, by column, whose names are cut. `is_roomy`: none below its column's smallest; `is_apart`: no two
    look alike."""

    columns: Sequence[Column]
    table: Sequence[Sequence[Cell]]
    widths: Sequence[int]
    gap: int
    is_roomy: bool
    is_apart: bool

    def lines(self) -> list[Text]:
        """A line a row, or several where a name is too long still."""
        return [line for row in zip(*self.table, strict=True) for line in self._row(row)]

    def _row(self, row: Sequence[Cell]) -> list[Text]:
        if all(cells(_plain(cell)) <= width for cell, width in zip(row, self.widths, strict=True)):
            return [self._line(row)]
        folded: list[Sequence[Cell]] = [
            _pieces(_text(cell), width) for cell, width in zip(row, self.widths, strict=True)
        ]
        return [self._line(list(parts)) for parts in zip_longest(*folded, fillvalue="")]

    def _line(self, row: Sequence[Cell]) -> Text:
        parts: list[str] = []
        spans: list[Span] = []
        at = 0
        for column, cell, width in zip(self.columns, row, self.widths, strict=True):
            plain = _plain(cell)
            pad = " " * (width - cells(plain))
            parts.append(pad + plain if column.right else plain + pad)
            end = at + len(parts[-1])
            spans += _spans(cell, at + len(pad) * column.right, end)
            at = end + self.gap
        return Text((" " * self.gap).join(parts), spans=spans)


def _layout(columns: Sequence[Column], table: Sequence[Sequence[Cell]], style: Style) -> _Layout:
    """Cut the names of each column where that keeps them apart."""
    widths, gap, is_roomy = _fit(columns, table, style)
    drawn, is_apart = list(table), True
    for i in (i for i, column in enumerate(columns) if column.smallest):
        names = [_plain(cell) for cell in table[i][1:]]
        shown = shorten_all(names, widths[i], ascii=style.ascii)
        if len(set(shown)) < len(set(names)):
            is_apart = False
            continue
        cut = (_like(cell, name) for cell, name in zip(table[i][1:], shown, strict=True))
        drawn[i] = [table[i][0], *cut]
    return _Layout(columns, drawn, widths, gap, is_roomy, is_apart)


def _drawn(cell: Cell, style: Style) -> Cell:
    """The cell as the terminal gets it: its letters alone, where it has no colours."""
    drawn = _ascii(cell, style)
    return drawn if style.colour else _plain(drawn)


def _ascii(cell: Cell, style: Style) -> Cell:
    return _like(cell, asciify(_plain(cell))) if style.ascii else cell


def _plain(cell: Cell) -> str:
    return cell if isinstance(cell, str) else cell.plain


def _like(cell: Cell, plain: str) -> Cell:
    """Other letters in the same look; a cell whose letters stay keeps all of its looks."""
    if isinstance(cell, str):
        return plain
    return cell if cell.plain == plain else Text(plain, style=cell.style)


def _text(cell: Cell) -> Text:
    return Text(cell) if isinstance(cell, str) else cell


def _spans(cell: Cell, at: int, end: int) -> list[Span]:
    """The looks of a cell whose letters begin at `at` in their line, and whose room goes to `end`."""
    if isinstance(cell, str):
        return []
    whole = [Span(at, end, cell.style)] if cell.style else []
    return whole + [span.move(at) for span in cell.spans]


def _fit(columns: Sequence[Column], table: Sequence[Sequence[Cell]], style: Style) -> tuple[list[int], int, bool]:
    """Widths and gap with which a line fits, and whether no name column is below its smallest."""
    widths = [max(map(cells, {_plain(cell) for cell in column})) for column in table]
    for gap in (2, 1):
        if (room := style.width - gap * (len(columns) - 1)) >= sum(widths):
            return widths, gap, True
    _cut(widths, room, {i: column.smallest for i, column in enumerate(columns) if column.smallest})
    is_roomy = sum(widths) <= room
    _cut(widths, room, {i: _TINY for i, column in enumerate(columns) if column.smallest})
    return widths, 1, is_roomy


def _cut(widths: list[int], room: int, smallest: dict[int, int]) -> None:
    """Take from the widest name column, cell by cell, until the line fits or all are at their smallest."""
    while sum(widths) > room:
        able = [i for i, least in smallest.items() if widths[i] > least]
        if not able:
            return
        widths[max(able, key=lambda i: widths[i])] -= 1


def left_out(rows: int) -> list[Text]:
    """A line that says how many rows are not shown, where there are any."""
    return [Text(f"and {rows:,} more", style=QUIET)] if rows > 0 else []


def flow(parts: Iterable[Cell], style: Style, *, gap: int = 2, indent: int = 0) -> list[Text]:
    """Short pieces side by side, broken between pieces where the line is full; one that is longer is folded.

    >>> [line.plain for line in flow(["one", "two", "three"], Style(width=10), indent=1)]
    [' one  two', ' three']
    """
    lines: list[Text] = []
    for part in parts:
        for piece in _pieces(_text(_ascii(part, style)), style.width - indent):
            if lines and cell_len(lines[-1].plain) + gap + cell_len(piece.plain) <= style.width:
                lines[-1] = Text.assemble(lines[-1], " " * gap, piece)
            else:
                lines.append(Text.assemble(" " * indent, piece))
    return lines


def _pieces(text: Text, width: int) -> list[Text]:
    """`text` as it is, or in several pieces and plain."""
    if cell_len(text.plain) <= width:
        return [text]
    return [Text(part, style=text.style) for part in fold(text.plain, width)]


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
    texts = [_text(_ascii(line, style)) for line in lines]
    if style.colour:
        return _coloured(texts, style)
    return "".join(f"{text.plain.rstrip()}\n" for text in texts)


def _coloured(texts: Iterable[Text], style: Style) -> str:
    """By rich's console, which is loaded only here: it takes as long as numpy."""
    from rich.console import Console

    out = StringIO()
    console = Console(
        file=out,
        width=max(style.width, 1),
        force_terminal=True,
        color_system="256",
        legacy_windows=False,
        force_jupyter=False,
        highlight=False,
        markup=False,
        emoji=False,
        _environ={},  # the caller has decided: NO_COLOR, COLUMNS and TERM are not read twice
    )
    for text in texts:
        line = text.copy()
        line.rstrip()
        console.print(line, soft_wrap=True)
    return out.getvalue()
