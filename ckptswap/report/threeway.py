"""A three-way comparison as JSON, terminal table, csv and md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.text import Text

from ckptswap.errors import non_finite_words
from ckptswap.report.layout import Cell, Column, flow, grid, render
from ckptswap.report.tabular import md_text, to_csv, to_md
from ckptswap.report.text import Style, figure, plural, safe

if TYPE_CHECKING:
    from ckptswap.diff import Side, TensorDiff
    from ckptswap.threeway import ThreeWay, ThreeWayRow

SCHEMA = "ckptswap.diff3/1"
COUNTS = ("nan_base", "inf_base", "nan_a", "inf_a", "nan_b", "inf_b")
FIELDS = ("name", "layer", "kind", "status", "change_a", "rel_l2_a", "change_b", "rel_l2_b", *COUNTS)
_WORDS = {
    "a": "a",
    "b": "b",
    "both": "both, differently",
    "same": "both, the same",
    "unchanged": "unchanged",
    "unread": "not compared",
}
_LOOKS = {"a": "red", "b": "green", "both": "bold yellow", "same": "", "unread": "yellow"}


def threeway_json(found: ThreeWay) -> dict[str, Any]:
    """`status` is `unchanged`, `a`, `b`, `same` (both sides made the same change), `both` (different ones) or
    `unread`; `change_*` is that side's status against the base, as in a diff, `rel_l2_*` relative to the base."""
    return {
        "schema": SCHEMA,
        **{name: _side(side) for name, side in (("base", found.base), ("a", found.a), ("b", found.b))},
        "summary": found.summary,
        "rows": [
            {"name": row.name, "layer": row.layer, "kind": row.kind, "status": row.status,
             **_change("a", row.a), **_change("b", row.b), **_non_finite(row)}
            for row in found.rows
        ],
    }  # fmt: skip


def _side(side: Side) -> dict[str, Any]:
    return {"path": side.path, "tensors": side.tensors, "bytes": side.bytes}


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
    shown = [_cells(row) for row in data["rows"] if every or row["status"] != "unchanged"]
    amounts = [Column(f"{side}: rel. L2", right=True, spare=1) for side in "ab"]
    columns = [Column("changed by"), Column("name", smallest=16), Column("kind", spare=2), *amounts]
    counts = [f"{count:,} {_WORDS[status]}" for status, count in data["summary"].items() if count]
    last = flow([*(f"{count}," for count in counts[:-1]), *counts[-1:]], style, gap=1)
    body = [Text(), *grid(columns, shown, style)] if shown else []
    return render([*_sides(data, style), *body, Text(), *last], style)


def _sides(data: Mapping[str, Any], style: Style) -> list[Text]:
    rows: list[list[Cell]] = [
        [name, safe(data[name]["path"]), plural(data[name]["tensors"], "tensor")] for name in ("base", "a", "b")
    ]
    return grid([Column(""), Column("", smallest=12), Column("")], rows, style)


def _cells(row: Mapping[str, Any]) -> list[Cell]:
    who = Text(_WORDS[row["status"]], style=_LOOKS.get(row["status"], ""))
    return [who, safe(row["name"]), safe(row["kind"]), *(_amount(row, side) for side in "ab")]


def _amount(row: Mapping[str, Any], side: str) -> str:
    change = row[f"change_{side}"]
    if change not in ("changed", "identical", None):
        return change
    counts = {each: (row.get(f"nan_{each}", 0), row.get(f"inf_{each}", 0)) for each in ("base", side)}
    return non_finite_words(counts) or figure(row[f"rel_l2_{side}"])


def threeway_csv(data: Mapping[str, Any]) -> str:
    """Every tensor, one a line."""
    return to_csv(FIELDS, _rows(data))


def threeway_md(data: Mapping[str, Any]) -> str:
    """Every tensor as a table for GitHub."""
    heads = [f"{name}: {md_text(data[name]['path'])}" for name in ("base", "a", "b")]
    return "\n".join([*heads, "", to_md(FIELDS, _rows(data))])


def _rows(data: Mapping[str, Any]) -> list[list[object]]:
    return [[row.get(name) for name in FIELDS] for row in data["rows"]]
