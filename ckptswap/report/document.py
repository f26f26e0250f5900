"""A report of several tables with words between them, for a terminal and for GitHub."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

from ckptswap.report.layout import HEADING, QUIET, Cell, Column, grid, paragraph, render
from ckptswap.report.sweep import LOOK
from ckptswap.report.tabular import md_text, to_md
from ckptswap.report.text import MISSING, Style, number, safe


@dataclass(frozen=True)
class Mean:
    """A mean over seeds with its interval (None where there is none)."""

    value: float
    low: float | None
    high: float | None


Value = str | int | float | Mean | None


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

    >>> table = Table("drops", ("kind", "share"), (("conv.bias", Mean(0.5, 0.4, 0.6)), ("bn.bias", None)))
    >>> print(document_text(Document("it", ("One brain.",), (table,)), Style()), end="")
    it
    One brain.
    <BLANKLINE>
    drops
    kind       share
    conv.bias  0.500
    bn.bias        –
    """
    lines = [Text(safe(document.title), style=HEADING)]
    for text in document.lead:
        lines += paragraph(safe(text), style)
    for table in document.tables:
        if table.is_long:
            continue
        lines += [Text(), Text(safe(table.title), style=HEADING), *_grid(table, style)]
        if table.note:
            lines += paragraph(safe(table.note), style, look=QUIET)
    return render(lines, style)


def _grid(table: Table, style: Style) -> list[Text]:
    by_column = list(zip(*table.rows, strict=True)) if table.rows else [() for _ in table.columns]
    columns = [
        Column(title, right=_is_number(values), smallest=0 if _is_number(values) else 10)
        for title, values in zip(table.columns, by_column, strict=True)
    ]
    return grid(columns, [[_cell(value) for value in row] for row in table.rows], style)


def _is_number(values: Sequence[Value]) -> bool:
    known = [value for value in values if value is not None]
    return bool(known) and not any(isinstance(value, str) for value in known)


def _cell(value: Value) -> Cell:
    if isinstance(value, Mean):
        return _plain(value.value)
    if isinstance(value, str):
        return Text(safe(value), style=LOOK.get(value, ""))
    return MISSING if value is None else number(value)


def document_md(document: Document) -> str:
    """For GitHub: every table, means with their intervals.

    >>> table = Table("drops", ("kind", "share"), (("conv.bias", Mean(0.5, 0.4, 0.6)),))
    >>> print(document_md(Document("it", ("One brain.",), (table,))), end="")
    # it
    <BLANKLINE>
    One brain.
    <BLANKLINE>
    ## drops
    <BLANKLINE>
    | kind | share |
    | :--- | :--- |
    | conv.bias | 0.500 (0.400 … 0.600) |
    """
    blocks = [f"# {md_text(document.title)}\n", *(f"{md_text(text)}\n" for text in document.lead)]
    for table in document.tables:
        rows = [[_md(value) for value in row] for row in table.rows]
        blocks.append(f"## {md_text(table.title)}\n")
        blocks.append(to_md(table.columns, rows))
        blocks += [f"{md_text(table.note)}\n"] if table.note else []
    return "\n".join(blocks)


def _md(value: Value) -> object:
    if not isinstance(value, Mean):
        return value
    if value.low is None or value.high is None:
        return _plain(value.value)
    return f"{_plain(value.value)} ({_plain(value.low)} … {_plain(value.high)})"


def _plain(value: float) -> str:
    """Three decimals, however small: rounding is not a finding. Exact zero is 0."""
    return "0" if value == 0 else f"{value:.3f}"
