"""A report of several tables with words between them, for a terminal and for GitHub."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

from ckptswap.report.layout import HEADING, QUIET, Cell, Column, grid, paragraph, render
from ckptswap.report.sweep import LOOK
from ckptswap.report.tabular import md_text, to_md
from ckptswap.report.text import Style, number, safe
from ckptswap.statistics import Interval

Value = str | int | float | Interval | None


@dataclass(frozen=True)
class Table:
    """Rows under headings. `is_long`: left out on a terminal, where `note` says where it is."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]
    note: str = ""
    is_long: bool = False


@dataclass(frozen=True)
class Document:
    """A title, what is said first, then tables."""

    title: str
    lead: tuple[str, ...]
    tables: tuple[Table, ...]


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
            columns = [_column(title, [row[at] for row in table.rows]) for at, title in enumerate(table.columns)]
            lines += [Text(), Text(safe(table.title), style=HEADING), *grid(columns, rows, style)]
            lines += paragraph(safe(table.note), style, look=QUIET) if table.note else []
    return render(lines, style)


def _column(title: str, values: Sequence[Value]) -> Column:
    types = {type(value) for value in values if value is not None}
    is_number = bool(types) and str not in types
    return Column(title, right=is_number, smallest=0 if is_number else 10)


def _cell(value: Value) -> Cell:
    if isinstance(value, Interval):
        return _plain(value.estimate)
    return Text(safe(value), style=LOOK.get(value, "")) if isinstance(value, str) else number(value)


def document_md(document: Document) -> str:
    """For GitHub: every table, means with their intervals.

    >>> table = Table("drops", ("kind", "share"), (("conv.bias", Interval(0.5, 0.4, 0.6)),))
    >>> document_md(Document("it", ("One brain.",), (table,))).splitlines()[-1]
    '| conv.bias | 0.500 (0.400 … 0.600) |'
    """
    blocks = [f"# {md_text(document.title)}\n", *(f"{md_text(text)}\n" for text in document.lead)]
    for table in document.tables:
        blocks += [f"## {md_text(table.title)}\n", to_md(table.columns, (map(_md, row) for row in table.rows))]
        blocks += [f"{md_text(table.note)}\n"] if table.note else []
    return "\n".join(blocks)


def _md(value: Value) -> object:
    if not isinstance(value, Interval):
        return value
    ends = "" if value.low is None or value.high is None else f" ({_plain(value.low)} … {_plain(value.high)})"
    return _plain(value.estimate) + ends


def _plain(value: float) -> str:
    """Three decimals, however small: rounding is not a finding. Exact zero is 0."""
    return "0" if value == 0 else f"{value:.3f}"
