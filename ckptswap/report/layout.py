"""Cells → lines → one string: columns aligned, names cut in the middle or folded where they must. No boxes."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from io import StringIO
from itertools import zip_longest
from typing import Any

from rich.text import Text

from ckptswap.report.text import Style, asciify, cells, fold, keeps_numbers, shorten_all

QUIET = "dim"
HEADING = "bold"
WORSE = "color(202)"  # orange and blue: told apart by colour-blind readers too
BETTER = "color(33)"
WIDE, WIDEST = 100, 130  # columns from which on a terminal has room for more digits, and for both intervals
_TINY = 5
ENOUGH = 20  # cells of a name that minor columns leave it
WHOLE = sys.maxsize  # columns that a pipe has
Cell = str | Text


@dataclass(frozen=True)
class Column:
    """A column, declared once for every form: its `title` over cells that are `shown` to people, and the `field`
    under which programs know its values.

    Without `shown` it is for programs alone, without `field` for people alone; `forms` may narrow it further
    ("json", "csv", "md", "narrow" and "wide" terminals, "page", "latex"). Names may be cut down to `smallest`
    cells (0: never). When that is not enough, or two names would look alike, columns with `spare` are left out,
    the largest first; a `minor` one, worth less than a name's letters, also where names are whole without it.
    """

    title: str = ""
    shown: Callable[[Any], Cell] | None = None
    right: bool = False  # where numbers stand
    smallest: int = 0
    spare: int = 0
    minor: bool = False
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


def table(columns: Iterable[Column], rows: Sequence[Any], style: Style) -> list[Text]:
    """Rows under the columns that a terminal of this width has.

    >>> lines = table([field("n", str, right=True), field("only-for-programs")], [{"n": 10}], Style())
    >>> [line.plain for line in lines]
    [' n', '10']
    """
    return list(table_lines(columns, rows, style))


def table_lines(columns: Iterable[Column], rows: Iterable[Any], style: Style) -> Iterator[Text]:
    """The same, a line at a time: of 200,000 not all are kept."""
    chosen = [column for column in columns if column.is_in("wide" if style.width >= WIDEST else "narrow")]
    return _laid_out(chosen, ([column.shown(row) for column in chosen if column.shown] for row in rows), style)


def grid(columns: Sequence[Column], rows: Iterable[Sequence[Cell]], style: Style) -> list[Text]:
    """Lines of an aligned table, headings first, at most `style.width` cells wide; for a pipe as wide as it is.

    Different names never look alike, nor lose their numbers: where no cut does that, they are folded over several
    lines.

    >>> columns = [Column("name"), Column("n", right=True)]
    >>> [line.plain for line in grid(columns, [["a", "10"], ["bcd", "2"]], Style())]
    ['name   n', 'a     10', 'bcd    2']
    """
    return list(_laid_out(columns, rows, style))


def _laid_out(columns: Sequence[Column], rows: Iterable[Sequence[Cell]], style: Style) -> Iterator[Text]:
    """Cells are kept by column, plain where no colour is wanted, and one text for short ones that are alike: there
    may be 200,000 rows."""
    by_column: list[list[Cell]] = [[_drawn(Text(column.title, style=QUIET), style)] for column in columns]
    alike: dict[str, str] = {}
    for row in rows:
        for above, cell in zip(by_column, row, strict=True):
            drawn = _drawn(cell, style)
            if isinstance(drawn, str) and len(drawn) <= ENOUGH:
                drawn = alike.setdefault(drawn, drawn)
            above.append(drawn)
    best, room = None, WHOLE if style.whole else style.width
    widths = [max(map(cells, {_plain(cell) for cell in column})) for column in by_column]
    for kept in _ways(columns, widths, room):
        chosen, table = [columns[i] for i in kept], [by_column[i] for i in kept]
        layout = _Layout(chosen, table, [widths[i] for i in kept], room, ascii=style.ascii)
        if layout.is_roomy and layout.is_apart:
            return layout.lines()
        best = layout if best is None and layout.is_roomy else best
    return (best or layout).lines()


def _ways(columns: Sequence[Column], widths: Sequence[int], room: int) -> Sequence[list[int]]:
    """Which columns a table may have: the most with which all names are whole, where only minor ones have to go
    for that; else all, and then ever fewer, the minor ones as long as names keep `ENOUGH` beside them."""
    ways, minor = list(_fewer(columns)), {i for i, column in enumerate(columns) if column.minor}
    enough = [
        min(width, ENOUGH) if column.smallest else width for column, width in zip(columns, widths, strict=True)
    ]

    def fits(kept: list[int], widths: Sequence[int]) -> bool:
        return sum(widths[i] + 1 for i in kept) - 1 <= room

    whole = (kept for kept in ways if fits(kept, widths) and {*kept} | minor >= {*ways[0]})
    if (best := next(whole, None)) is not None:
        return [best]
    return [kept for kept in ways if fits(kept, enough) or not minor & {*kept}]


def _fewer(columns: Sequence[Column]) -> Iterator[list[int]]:
    """All columns, then ever fewer, as long as one can be spared."""
    kept = list(range(len(columns)))
    yield list(kept)
    while spare := max((columns[i].spare for i in kept), default=0):
        kept.remove(next(i for i in kept if columns[i].spare == spare))
        yield list(kept)


class _Layout:
    """A table, by column, whose names are cut where that keeps them apart. `is_roomy`: none below its column's
    smallest; `is_apart`: no two look alike, and all have their numbers."""

    def __init__(
        self,
        columns: Sequence[Column],
        table: Sequence[Sequence[Cell]],
        widths: Sequence[int],
        room: int,
        *,
        ascii: bool,
    ) -> None:
        self.columns, self.table, self.widths, self.is_apart = columns, list(table), list(widths), True
        gaps = len(columns) - 1
        self.gap = 2 if sum(self.widths) + 2 * gaps <= room else 1
        smallest = {i: column.smallest for i, column in enumerate(columns) if column.smallest}
        self.is_roomy = self._cut(room - self.gap * gaps, smallest)
        self._cut(room - self.gap * gaps, dict.fromkeys(smallest, _TINY))
        for i in smallest:
            title, *below = table[i]
            names = [_plain(cell) for cell in below]
            shown = shorten_all(names, self.widths[i], ascii=ascii)
            if len(set(shown)) < len(set(names)) or not all(map(keeps_numbers, names, shown)):
                self.is_apart = False
            else:
                self.table[i] = [title, *map(_like, below, shown)]

    def _cut(self, room: int, smallest: dict[int, int]) -> bool:
        """Take from the widest name column, cell by cell; whether the line fits before all are at their least."""
        while sum(self.widths) > room:
            if not (able := [i for i, least in smallest.items() if self.widths[i] > least]):
                return False
            self.widths[max(able, key=lambda i: self.widths[i])] -= 1
        return True

    def lines(self) -> Iterator[Text]:
        """A line a row, or several where a name is too long still."""
        return (line for row in zip(*self.table, strict=True) for line in self._row(row))

    def _row(self, row: Sequence[Cell]) -> list[Text]:
        if all(cells(_plain(cell)) <= width for cell, width in zip(row, self.widths, strict=True)):
            return [self._line(row)]
        return [self._line(parts) for parts in zip_longest(*map(_pieces, row, self.widths), fillvalue="")]

    def _line(self, row: Sequence[Cell]) -> Text:
        padded = list(map(_padded, row, self.widths, (column.right for column in self.columns)))
        plain = [cell for cell in padded if isinstance(cell, str)]
        gap = " " * self.gap
        return Text(gap.join(plain)) if len(plain) == len(padded) else Text(gap).join(map(_text, padded))


def _padded(cell: Cell, width: int, right: bool) -> Cell:
    """The cell in all of its room, which a look covers up to its right end."""
    pad = " " * (width - cells(_plain(cell)))
    if isinstance(cell, str):
        return pad + cell if right else cell + pad
    return Text.assemble(pad, cell) if right else Text(cell.plain + pad, cell.style, spans=cell.spans)


def _drawn(cell: Cell, style: Style) -> Cell:
    """The cell as the terminal gets it: its letters alone, where it has no colours."""
    plain = asciify(_plain(cell)) if style.ascii else _plain(cell)
    return _like(cell, plain) if style.colour else plain


def _plain(cell: Cell) -> str:
    return cell if isinstance(cell, str) else cell.plain


def _text(cell: Cell) -> Text:
    return Text(cell) if isinstance(cell, str) else cell


def _like(cell: Cell, plain: str) -> Cell:
    """Other letters in the same look; a cell whose letters stay keeps all of its looks."""
    if isinstance(cell, str):
        return plain
    return cell if cell.plain == plain else Text(plain, style=cell.style)


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
        for piece in _pieces(_drawn(part, style), WHOLE if style.whole else style.width - indent):
            if lines and cells(lines[-1].plain) + gap + cells(_plain(piece)) <= style.width:
                lines[-1] = Text.assemble(lines[-1], " " * gap, piece)
            else:
                lines.append(Text.assemble(" " * indent, piece))
    return lines


def _pieces(cell: Cell, width: int) -> list[Cell]:
    plain = _plain(cell)
    return [cell] if cells(plain) <= width else [_like(cell, part) for part in fold(plain, width)]


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
    drawn = (_drawn(line, style) for line in lines)
    return _coloured(drawn, style) if style.colour else "".join(f"{_plain(line).rstrip()}\n" for line in drawn)


def _coloured(lines: Iterable[Cell], style: Style) -> str:
    from rich.console import Console  # only here: it takes as long as numpy

    out = StringIO()
    off: Any = dict.fromkeys(("legacy_windows", "force_jupyter", "highlight", "markup", "emoji"), False)
    off["_environ"] = {}  # the caller has decided: NO_COLOR, COLUMNS and TERM are not read twice
    console = Console(file=out, width=max(style.width, 1), force_terminal=True, color_system="256", **off)
    for text in map(_text, lines):
        line = text.copy()
        line.rstrip()
        console.print(line, soft_wrap=True)
    return out.getvalue()
