"""A three-way comparison as JSON, terminal table, csv and md."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from rich.text import Text

from ckptswap.errors import non_finite_words
from ckptswap.report.diff import side_json, side_lines
from ckptswap.report.layout import Column, field, flow, render, table
from ckptswap.report.tabular import columns_csv, columns_md, md_text
from ckptswap.report.text import Style, figure, safe

if TYPE_CHECKING:
    from ckptswap.diff import TensorDiff
    from ckptswap.threeway import ThreeWay, ThreeWayRow

SCHEMA = "ckptswap.diff3/1"
COUNTS = ("nan_base", "inf_base", "nan_a", "inf_a", "nan_b", "inf_b")
_WORDS = {
    "a": "a",
    "b": "b",
    "both": "both, differently",
    "same": "both, the same",
    "unchanged": "unchanged",
    "unread": "not compared",
}
_LOOKS = {"a": "red", "b": "green", "both": "bold yellow", "same": "", "unread": "yellow"}


def threeway_json(compared: ThreeWay) -> dict[str, Any]:
    """`status` is `unchanged`, `a`, `b`, `same` (both sides made the same change), `both` (different ones) or
    `unread`; `change_*` is that side's status against the base, as in a diff, `rel_l2_*` relative to the base."""
    return {
        "schema": SCHEMA,
        **{name: side_json(getattr(compared, name)) for name in ("base", "a", "b")},
        "summary": compared.summary,
        "rows": [
            {"name": row.name, "layer": row.layer, "kind": row.kind, "status": row.status,
             **_change("a", row.a), **_change("b", row.b), **_non_finite(row)}
            for row in compared.rows
        ],
    }  # fmt: skip


def _change(side: str, row: TensorDiff | None) -> dict[str, Any]:
    distance = row.distance if row else None
    return {f"change_{side}": row.status if row else None, f"rel_l2_{side}": distance.rel_l2 if distance else None}


def _non_finite(row: ThreeWayRow) -> dict[str, int]:
    """Counts for each file that has some: of these no distance tells."""
    return {
        f"{word}_{side}": count
        for side, counts in row.non_finite.items()
        for word, count in zip(("nan", "inf"), counts, strict=True)
    }


def threeway_table(data: Mapping[str, Any], style: Style, *, every: bool = False) -> str:
    """Who changed what, and by how much relative to the base; a last line counts."""
    shown = [row for row in data["rows"] if every or row["status"] != "unchanged"]
    counts = [f"{count:,} {_WORDS[status]}" for status, count in data["summary"].items() if count]
    last = flow([*(f"{count}," for count in counts[:-1]), *counts[-1:]], style, gap=1)
    body = [Text(), *table(COLUMNS, shown, style)] if shown else []
    return render([*side_lines(data, ("base", "a", "b"), style), *body, Text(), *last], style)


def _amount(row: Mapping[str, Any], side: str) -> str:
    change = row[f"change_{side}"]
    if change not in ("changed", "identical", None):
        return change
    counts = {file: (row.get(f"nan_{file}", 0), row.get(f"inf_{file}", 0)) for file in ("base", side)}
    return non_finite_words(counts) or figure(row[f"rel_l2_{side}"])


COLUMNS = (
    Column("changed by", lambda row: Text(_WORDS[row["status"]], style=_LOOKS.get(row["status"], ""))),
    field("name", safe, smallest=16),
    field("layer"),
    field("kind", safe, spare=2),
    field("status"),
    field("change_a"),
    field("rel_l2_a"),
    field("change_b"),
    field("rel_l2_b"),
    *(field(name) for name in COUNTS),
    *(Column(f"{side}: rel. L2", partial(_amount, side=side), right=True, spare=1) for side in "ab"),
)


def threeway_csv(data: Mapping[str, Any]) -> str:
    """Every tensor, one a line."""
    return columns_csv(COLUMNS, data["rows"])


def threeway_md(data: Mapping[str, Any]) -> str:
    """Every tensor as a table for GitHub."""
    heads = [f"{name}: {md_text(data[name]['path'])}" for name in ("base", "a", "b")]
    return "\n".join([*heads, "", columns_md(COLUMNS, data["rows"])])
