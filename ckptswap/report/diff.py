"""Two checkpoints compared: the `diff` JSON as a terminal table in git's colours, csv and md."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.text import Text

from ckptswap.errors import non_finite_words
from ckptswap.report.layout import HEADING, QUIET, Cell, Column, flow, grid, paragraph, render
from ckptswap.report.tabular import md_text, to_csv, to_md
from ckptswap.report.text import MISSING, Style, bar, count, figure, named, plural, safe, shape, size

if TYPE_CHECKING:
    from ckptswap.diff import Diff, Side, TensorDiff

SCHEMA = "ckptswap.diff/1"
STATUSES = ("identical", "changed", "shape", "dtype", "only_a", "only_b", "unread")
FIELDS = (
    "name", "layer", "kind", "status", "shape_a", "shape_b", "dtype_a", "dtype_b", "numel", "changed",
    "rmse", "max_abs", "rel_l2", "cosine", "nan_a", "nan_b", "mean_abs", "inf_a", "inf_b", "flips",
)  # fmt: skip
_MARK = {"changed": "~", "shape": "!", "dtype": "!", "only_a": "-", "only_b": "+", "unread": "?", "identical": "="}
_LOOK = {
    "only_a": "red",
    "only_b": "green",
    "shape": "yellow",
    "dtype": "yellow",
    "identical": QUIET,
    "unread": QUIET,
}
_WORDS = {
    "changed": "changed",
    "shape": "of another shape",
    "dtype": "of another dtype",
    "only_a": "only in a",
    "only_b": "only in b",
    "identical": "identical",
    "unread": "not compared",
}
_MEANING = {**_WORDS, "shape": "other shape or dtype", "dtype": "other shape or dtype"}


def diff_json(diff: Diff) -> dict[str, Any]:
    """The JSON contract, `docs/schemas/diff.schema.json`; groups have `name` null and a count under `tensors`.

    >>> from ckptswap.checkpoint import Checkpoint
    >>> from ckptswap.diff import diff
    >>> import numpy as np
    >>> before, after = (Checkpoint.from_arrays({"w": np.full(2, value)}) for value in (1.0, 1.5))
    >>> row = diff_json(diff(before, after))["rows"][0]
    >>> row["status"], row["changed"], row["rel_l2"]
    ('changed', 2, 0.5)
    """
    return {
        "schema": SCHEMA,
        **{name: _side_json(side) for name, side in (("a", diff.a), ("b", diff.b))},
        "summary": {status: diff.summary[status] for status in STATUSES},
        "rows": [_row_json(row) for row in diff.rows],
    }


def _side_json(side: Side) -> dict[str, Any]:
    return {"path": side.path, "tensors": side.tensors, "bytes": side.bytes}


def _row_json(row: TensorDiff) -> dict[str, Any]:
    found = {name: getattr(row, name) for name in FIELDS[:9]}
    found |= {name: None if found[name] is None else list(found[name]) for name in ("shape_a", "shape_b")}
    found |= {name: getattr(row.distance, name, None) for name in FIELDS[9:]}
    return found if row.name is not None else {**found, "tensors": row.tensors}


def diff_table(data: Mapping[str, Any], style: Style, *, every: bool = False) -> str:
    """What differs, one line a tensor (or a group, with --by), and a last line like diffstat's.

    A tensor with NaN or Inf shows how many in place of distances, which leave these out and tell only of the rest.

    `data` is the `diff` JSON, `docs/schemas/diff.schema.json`; `every` shows the unchanged ones too.

    >>> row = {"name": "c.bias", "kind": "conv.bias", "status": "changed", "shape_a": [4], "numel": 4}
    >>> row |= {"changed": 2, "rmse": 0.5, "max_abs": 1.0, "rel_l2": 0.1, "cosine": 0.99}
    >>> side = {"path": "a.pt", "tensors": 1, "bytes": 16}
    >>> print(diff_table({"a": side, "b": side, "summary": {"changed": 1}, "rows": [row]}, Style()), end="")
    a  a.pt  1 tensor  16 B
    b  a.pt  1 tensor  16 B
    <BLANKLINE>
       name    shape  elements  changed   RMSE   max  cosine  rel. L2
    ~  c.bias  4             4     50 %  0.500  1.00  0.9900    0.100  ██████
    <BLANKLINE>
     1 tensor changed
    """
    rows = [row for row in data["rows"] if every or not _is_quiet(row)]
    lines = _sides(data, style)
    if rows:
        lines += [Text(), *_table(rows, style), *_key(rows, style)]
    hidden = [] if every else [row for row in data["rows"] if _is_quiet(row) and non_finite(row)]
    return render([*lines, Text(), *_stat_line(data["summary"], style), *_hidden(hidden, style)], style)


def non_finite(row: Mapping[str, Any]) -> str | None:
    """A row's NaN and infinities in words; None where it has none, or was not read.

    >>> non_finite({"nan_a": 0, "inf_a": 0, "nan_b": 1, "inf_b": 1})
    'b 1 NaN, 1 Inf'
    """
    return non_finite_words({side: (row.get(f"nan_{side}") or 0, row.get(f"inf_{side}") or 0) for side in "ab"})


def _hidden(rows: Sequence[Mapping[str, Any]], style: Style) -> list[Text]:
    """That what is equal on both sides holds NaN or Inf, too, where the table does not show it."""
    tensors = sum(row.get("tensors", 1) for row in rows)
    if not tensors:
        return []
    said = f"{plural(tensors, 'identical tensor')} with NaN or Inf on both sides: --all shows which"
    return paragraph(said, style, indent=1, look="yellow")


def _is_quiet(row: Mapping[str, Any]) -> bool:
    """Whether a row is left out of tables: the same on both sides, or not looked at since only headers were."""
    status = row.get("status")
    return status == "identical" or (status == "unread" and row.get("numel") is not None)


def _sides(data: Mapping[str, Any], style: Style) -> list[Text]:
    rows: list[list[Cell]] = [
        [
            Text(side, style=look),
            safe(data[side]["path"]),
            plural(data[side]["tensors"], "tensor"),
            size(data[side]["bytes"]),
        ]
        for side, look in (("a", "red"), ("b", "green"))
    ]
    columns = [
        Column(""),
        Column("", smallest=20),
        Column("", right=True, spare=1),
        Column("", right=True, spare=2),
    ]
    return grid(columns, rows, style)[1:]


def _table(rows: Sequence[Mapping[str, Any]], style: Style) -> list[Text]:
    ways, marks = _ways(rows), [non_finite(row) or "" for row in rows]
    marked = [Column("not finite")] if any(marks) else []
    columns = [Column(""), *_name_columns(ways), *marked, *_NUMBERS]
    told = (row["rel_l2"] for row, mark in zip(rows, marks, strict=True) if not mark)
    scale = max((value for value in told if value is not None), default=0.0)
    width = 6 if style.width < 100 else 16
    cells = (
        [_mark(row), *_names(row, ways), *([Text(mark, style="yellow")] if marked else []), *_numbers(row),
         bar(None if mark else row.get("rel_l2"), scale, width, style.ascii)]
        for row, mark in zip(rows, marks, strict=True)
    )  # fmt: skip
    return grid([*columns, Column("", spare=1)], cells, style)


_NUMBERS = (
    Column("elements", right=True, spare=5),
    Column("changed", right=True, spare=3),
    Column("RMSE", right=True, spare=2),
    Column("max", right=True, spare=4),
    Column("cosine", right=True, spare=6),
    Column("rel. L2", right=True),
)


def _is_grouped(rows: Iterable[Mapping[str, Any]]) -> bool:
    return any(row.get("name") is None for row in rows)


def _ways(rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...] | None:
    """By what the rows are grouped; None where each is one tensor. Asked once, not once a row."""
    if not _is_grouped(rows):
        return None
    return tuple(way for way in ("layer", "kind") if any(row.get(way) is not None for row in rows))


def _name_columns(ways: tuple[str, ...] | None) -> list[Column]:
    if ways is None:
        return [Column("name", smallest=28), Column("shape", smallest=11)]
    return [*(Column(way, smallest=22) for way in ways), Column("tensors", right=True)]


def _names(row: Mapping[str, Any], ways: tuple[str, ...] | None) -> list[Cell]:
    look = _LOOK.get(row.get("status") or "", "")
    if ways is None:
        return [Text(safe(row["name"]), style=look), Text(_what(row), style=look or QUIET)]
    cells: list[Cell] = []
    if "layer" in ways:
        cells.append(Text(MISSING if row.get("layer") is None else named(row["layer"]), style=look))
    if "kind" in ways:
        cells.append(Text(safe(row.get("kind") or MISSING), style=look))
    return [*cells, count(row.get("tensors"))]


def _what(row: Mapping[str, Any]) -> str:
    """The shape, and what changed of it: 64×3 → 64×1, or F32 → F16."""
    sides = [row.get("shape_a"), row.get("shape_b")]
    if row.get("status") == "shape":
        return " → ".join(shape(side) for side in sides)
    if row.get("status") == "dtype":
        return " → ".join(safe(row.get(side) or MISSING) for side in ("dtype_a", "dtype_b"))
    return shape(sides[0] if sides[0] is not None else sides[1])


def _mark(row: Mapping[str, Any]) -> Cell:
    status = row.get("status") or ""
    return Text(_MARK.get(status, " "), style=_LOOK.get(status, ""))


def _numbers(row: Mapping[str, Any]) -> list[Cell]:
    counts = [count(row.get("numel")), _share(row.get("changed"), row.get("numel"))]
    if non_finite(row):
        return [*counts, *[MISSING] * 4]
    return [
        *counts,
        figure(row.get("rmse")),
        figure(row.get("max_abs")),
        MISSING if row.get("cosine") is None else f"{row['cosine']:.4f}",
        figure(row.get("rel_l2")),
    ]


def _share(changed: int | None, numel: int | None) -> str:
    if changed is None or not numel:
        return MISSING
    return f"{100 * changed / numel:.3g} %" if changed != numel else "all"


def _key(rows: Iterable[Mapping[str, Any]], style: Style) -> list[Text]:
    """What the marks mean, unless all of them are plain changes."""
    present = {row.get("status") for row in rows}
    looks = {
        _MARK[status]: (meaning, _LOOK.get(status, ""))
        for status, meaning in _MEANING.items()
        if status in present
    }
    parts = [Text(f"{mark} {meaning}", style=look) for mark, (meaning, look) in looks.items()]
    return [Text(), *flow(parts, style, gap=3)] if present - {"changed", None} else []


def _stat_line(summary: Mapping[str, int], style: Style) -> list[Text]:
    """' 12 tensors changed, 3 only in a, 45 identical': what is there, and always the changed ones."""
    parts = [f"{plural(summary.get('changed', 0), 'tensor')} changed"]
    parts += [
        f"{summary[status]:,} {word}"
        for status, word in _WORDS.items()
        if status != "changed" and summary.get(status)
    ]
    pieces = [Text(f"{part},", style=HEADING) for part in parts[:-1]] + [Text(parts[-1], style=HEADING)]
    return flow(pieces, style, gap=1, indent=1)


def diff_csv(data: Mapping[str, Any]) -> str:
    """Every row of the JSON, changed or not; grouped rows have their count under `tensors`.

    >>> diff_csv({"rows": []})[:23]
    'name,layer,kind,status,'
    """
    fields = _fields(data["rows"])
    return to_csv(fields, ([row.get(name) for name in fields] for row in data["rows"]))


def diff_md(data: Mapping[str, Any], *, every: bool = False) -> str:
    """What differs as a GitHub table, between the two paths and the last line.

    >>> side = {"path": "a.pt", "tensors": 1, "bytes": 16}
    >>> print(diff_md({"a": side, "b": side, "summary": {"changed": 0, "identical": 1}, "rows": []}), end="")
    **a**: a.pt (1 tensor, 16 B)
    **b**: a.pt (1 tensor, 16 B)
    <BLANKLINE>
    0 tensors changed, 1 identical
    """
    rows = [row for row in data["rows"] if every or not _is_quiet(row)]
    fields = _fields(rows)
    sides = [f"**{side}**: {_side_md(data[side])}\n" for side in ("a", "b")]
    table = to_md(fields, [[row.get(name) for name in fields] for row in rows]) + "\n" if rows else ""
    last = " ".join(line.plain.strip() for line in _stat_line(data["summary"], Style(width=1000)))
    return f"{''.join(sides)}\n{table}{last}\n"


def _side_md(side: Mapping[str, Any]) -> str:
    return f"{md_text(side['path'])} ({plural(side['tensors'], 'tensor')}, {size(side['bytes'])})"


def _fields(rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    return ("tensors", *FIELDS[1:]) if _is_grouped(rows) else FIELDS
