"""Columns and rows → csv for programs, md for GitHub. Used by every command."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Iterator, Sequence

from ckptswap.report.layout import Column
from ckptswap.report.text import MISSING, number, safe, shape

# In a GitHub table these begin markup or end a cell; as entities they are only characters.
_MARKUP = re.compile(r"[&<>|`*\[\]\\~$!#]|(?<![^\W_])_|_(?![^\W_])")


def to_csv(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    r"""RFC 4180 with `\n`; numbers in full, a missing or non-finite one empty.

    Lists are joined, shapes by `x`, names by `;`. Control characters are escaped, and a text that a spreadsheet
    would take for a formula gets a leading `'`, headings too.

    >>> print(to_csv(["name", "drop"], [["a,b", 0.5], ["c", None]]), end="")
    name,drop
    "a,b",0.5
    c,
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(map(_harmless, columns))  # where runs are compared, headings are their paths
    writer.writerows([_field(value) for value in row] for row in rows)
    return out.getvalue()


def columns_csv(columns: Iterable[Column], rows: Iterable[object]) -> str:
    """The columns that programs know, a line a row."""
    return to_csv(*_chosen(columns, rows, "csv"))


def columns_md(columns: Iterable[Column], rows: Iterable[object]) -> str:
    """The same as a GitHub table."""
    return to_md(*_chosen(columns, rows, "md"))


def _chosen(
    columns: Iterable[Column], rows: Iterable[object], form: str
) -> tuple[list[str], Iterator[list[object]]]:
    chosen = [column for column in columns if column.is_in(form)]
    return [column.field for column in chosen], ([column.of(row) for column in chosen] for row in rows)


def _field(value: object) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, (list, tuple)):
        separator = "x" if all(isinstance(part, int) for part in value) else ";"
        return _harmless(separator.join(str(part) for part in value))
    return _harmless(value) if isinstance(value, str) else repr(value)


def _harmless(text: str) -> str:
    text = safe(text)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def to_md(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    r"""A GitHub table; numbers to the right, to four digits, a missing one as –.

    >>> print(to_md(["name", "drop"], [["a|b", 0.5], ["c", None]]), end="")
    | name | drop |
    | :--- | ---: |
    | a&#124;b | 0.5 |
    | c | – |
    """
    table = [list(row) for row in rows]
    rules = ["---:" if _numeric([row[i] for row in table]) else ":---" for i in range(len(columns))]
    lines = [[md_text(column) for column in columns], rules, *[[_md(value) for value in row] for row in table]]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _numeric(values: Sequence[object]) -> bool:
    present = [value for value in values if value is not None]
    return bool(present) and all(isinstance(value, (int, float)) for value in present)


def _md(value: object) -> str:
    if value is None:
        return MISSING
    if isinstance(value, (list, tuple)):
        return (
            shape(value) if all(isinstance(part, int) for part in value) else md_text(", ".join(map(str, value)))
        )
    if isinstance(value, str):
        return md_text(value)
    return number(value) if isinstance(value, float) else str(value)


def md_text(text: str) -> str:
    """Any text as text in Markdown, on one line.

    >>> md_text("<b>bn.running_mean</b>")
    '&#60;b&#62;bn.running_mean&#60;/b&#62;'
    """
    return _MARKUP.sub(lambda found: f"&#{ord(found[0])};", safe(text))
