"""Columns and rows → csv for programs, md for GitHub."""

import csv
import io
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ckptswap.report.layout import Column
from ckptswap.report.text import number, safe, shape

Columns = Iterable[Column] | Callable[[Sequence[Any]], Iterable[Column]]
"""Columns, or what finds those that some rows want."""
_MARKUP = re.compile(r"[&<>|`*\[\]\\~$!#]|(?<![^\W_])_|_(?![^\W_])")
"""In a GitHub table these begin markup or end a cell; as entities they are only characters."""


def columns_csv(columns: Columns, document: Mapping[str, Any]) -> str:
    r"""The rows of a document (of one command's JSON, say) as csv, with the columns that programs know.

    >>> columns_csv([Column(field="n"), Column("for people")], {"rows": [{"n": 1}]})
    'n\n1\n'
    """
    return to_csv(*_chosen(columns, document["rows"], "csv"))


def columns_md(columns: Columns, document: Mapping[str, Any]) -> str:
    """The same as a GitHub table."""
    return to_md(*_chosen(columns, document["rows"], "md"))


def _chosen(columns: Columns, rows: Sequence[Any], form: str) -> tuple[list[str], Iterable[list[Any]]]:
    chosen = [column for column in (columns(rows) if callable(columns) else columns) if column.is_in(form)]
    return [column.field for column in chosen], ([column.of(row) for column in chosen] for row in rows)


def to_csv(columns: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
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


def _field(value: object) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, (list, tuple)):
        value = ("x" if _is_shape(value) else ";").join(map(str, value))
    return _harmless(value) if isinstance(value, str) else repr(value)


def _is_shape(value: Iterable[object]) -> bool:
    return all(isinstance(part, int) for part in value)


def _harmless(text: str) -> str:
    text = safe(text)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def to_md(columns: Sequence[str], rows: Iterable[Iterable[object]], right: Sequence[bool] = ()) -> str:
    r"""A GitHub table; numbers (or the columns that are said to stand `right`) to the right, to four digits, a
    missing one as –.

    >>> print(to_md(["name", "drop"], [["a|b", 0.5], ["c", None]]), end="")
    | name | drop |
    | :--- | ---: |
    | a&#124;b | 0.5 |
    | c | – |
    """
    table = [list(row) for row in rows]
    there = [{type(row[i]) for row in table} - {type(None)} for i in range(len(columns))]
    numbers = right or [bool(types) and types <= {int, float, bool} for types in there]
    rules = ["---:" if is_number else ":---" for is_number in numbers]
    lines = [map(md_text, columns), rules, *(map(_md, row) for row in table)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _md(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return shape(value) if _is_shape(value) else md_text(", ".join(map(str, value)))
    if isinstance(value, str):
        return md_text(value)
    return number(value) if value is None or isinstance(value, float) else str(value)


def md_text(text: str) -> str:
    """Any text as text in Markdown, on one line.

    >>> md_text("<b>bn.running_mean</b>")
    '&#60;b&#62;bn.running_mean&#60;/b&#62;'
    """
    return _MARKUP.sub(lambda mark: f"&#{ord(mark[0])};", safe(text))
