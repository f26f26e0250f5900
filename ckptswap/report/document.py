"""A report of several tables with words between them, for a terminal, GitHub and LaTeX."""

from dataclasses import dataclass

from rich.text import Text

from ckptswap.report.latex import tables_latex, to_latex
from ckptswap.report.layout import HEADING, QUIET, Cell, Column, grid, paragraph, render
from ckptswap.report.sweep import LOOK
from ckptswap.report.tabular import md_text, to_md
from ckptswap.report.text import Style, number, safe
from ckptswap.statistics import Interval


@dataclass(frozen=True)
class Written:
    """A number as it is to be written, with the decimals of its column."""

    text: str


Value = str | int | float | Interval | Written | None


@dataclass(frozen=True)
class Table:
    """Rows under headings. `is_long`: left out on a terminal, where `note` says where it is. Of the last `spare`
    columns a narrow terminal has as many as there is room for."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]
    note: str = ""
    is_long: bool = False
    spare: int = 0

    @property
    def is_number(self) -> list[bool]:
        """Of which columns the values are numbers, which stand to the right."""
        types = [{type(row[at]) for row in self.rows} - {type(None)} for at in range(len(self.columns))]
        return [bool(of_column) and str not in of_column for of_column in types]


@dataclass(frozen=True)
class Document:
    """A title, what is said first (of which the first `answer` sentences are the answer), then tables."""

    title: str
    lead: tuple[str, ...]
    tables: tuple[Table, ...]
    answer: int = 0


def document_text(document: Document, style: Style) -> str:
    """For a terminal: means without their intervals, which the other forms have.

    >>> table = Table("drops", ("kind", "share"), (("conv.bias", Interval(0.5, 0.4, 0.6)), ("bn.bias", None)))
    >>> document_text(Document("it", ("One brain.",), (table,)), Style()).splitlines()[4:]
    ['kind       share', 'conv.bias  0.500', 'bn.bias        –']
    """
    lines = [Text(safe(document.title), style=HEADING)]
    for text in document.lead:
        lines += paragraph(safe(text), style)
    for table in document.tables:
        if not table.is_long:
            rows = [list(map(_cell, row)) for row in table.rows]
            lines += [Text(), Text(safe(table.title), style=HEADING), *grid(_columns(table), rows, style)]
            lines += paragraph(safe(table.note), style, look=QUIET) if table.note else []
    return render(lines, style)


def _columns(table: Table) -> list[Column]:
    first = len(table.columns) - table.spare
    return [
        Column(title, right=is_number, smallest=0 if is_number else 10, spare=max(0, at - first + 1))
        for at, (title, is_number) in enumerate(zip(table.columns, table.is_number, strict=True))
    ]


def cell_text(value: Value) -> str:
    """A value on one line: means with their intervals, what is missing as –.

    >>> cell_text(Interval(0.5, 0.4, 0.6)), cell_text(None), cell_text("a")
    ('0.500 (0.400 … 0.600)', '–', 'a')
    """
    shown = _md(value)
    return safe(shown) if isinstance(shown, str) else number(shown)  # type: ignore[arg-type]


def _cell(value: Value) -> Cell:
    if isinstance(value, Interval):
        return _plain(value.estimate)
    if isinstance(value, Written):
        return value.text
    return Text(safe(value), style=LOOK.get(value, "")) if isinstance(value, str) else number(value)


def document_md(document: Document) -> str:
    """For GitHub: every table, means with their intervals.

    >>> table = Table("drops", ("kind", "share"), (("conv.bias", Interval(0.5, 0.4, 0.6)),))
    >>> document_md(Document("it", ("One brain.",), (table,))).splitlines()[-1]
    '| conv.bias | 0.500 (0.400 … 0.600) |'
    """
    blocks = [f"# {md_text(document.title)}\n", *(f"{md_text(text)}\n" for text in document.lead)]
    for table in document.tables:
        blocks += [
            f"## {md_text(table.title)}\n",
            to_md(table.columns, (map(_md, row) for row in table.rows), table.is_number),
        ]
        blocks += [f"{md_text(table.note)}\n"] if table.note else []
    return "\n".join(blocks)


def document_latex(document: Document) -> str:
    """For papers: every table, means with their intervals."""
    return tables_latex(
        to_latex(
            table.columns, [list(map(cell_text, row)) for row in table.rows], table.is_number, _caption(table)
        )
        for table in document.tables
        if table.rows
    )


def _caption(table: Table) -> str:
    return f"{table.title}. {table.note}" if table.note else table.title


def _md(value: Value) -> object:
    if not isinstance(value, Interval):
        return value.text if isinstance(value, Written) else value
    ends = "" if value.low is None or value.high is None else f" ({_plain(value.low)} … {_plain(value.high)})"
    return _plain(value.estimate) + ends


def _plain(value: float) -> str:
    """Three decimals, however small: rounding is not a finding. Exact zero is 0."""
    return "0" if value == 0 else f"{value:.3f}"
