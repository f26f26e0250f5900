"""Two checkpoints compared: the `diff` JSON as a terminal table in git's colours, csv and md."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rich.text import Text

from ckptswap.errors import non_finite_words
from ckptswap.report.layout import HEADING, QUIET, WIDE, Cell, Column, field, flow, paragraph, render, table
from ckptswap.report.tabular import columns_csv, columns_md, md_text
from ckptswap.report.text import MISSING, Style, bar, count, figure, named, plural, safe, shape, size

if TYPE_CHECKING:
    from ckptswap.diff import Diff, Side, TensorDiff

SCHEMA = "ckptswap.diff/1"
STATUSES = ("identical", "changed", "shape", "dtype", "only_a", "only_b", "unread")
_TENSOR = ("name", "layer", "kind", "status", "shape_a", "shape_b", "dtype_a", "dtype_b", "numel")
_DISTANCE = (
    "changed", "rmse", "max_abs", "rel_l2", "cosine", "nan_a", "nan_b", "mean_abs", "inf_a", "inf_b", "flips",
)  # fmt: skip
_COUNTS = ("nan_a", "nan_b", "inf_a", "inf_b")
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
        **{name: side_json(side) for name, side in (("a", diff.a), ("b", diff.b))},
        "summary": {status: diff.summary[status] for status in STATUSES},
        "rows": [_row_json(row) for row in diff.rows],
    }


def side_json(side: Side) -> dict[str, Any]:
    """A file by its path and what it holds."""
    return {"path": side.path, "tensors": side.tensors, "bytes": side.bytes}


def _row_json(row: TensorDiff) -> dict[str, Any]:
    fields = {name: getattr(row, name) for name in _TENSOR}
    fields |= {name: None if fields[name] is None else list(fields[name]) for name in ("shape_a", "shape_b")}
    fields |= {name: getattr(row.distance, name, None) for name in _DISTANCE}
    return fields if row.name is not None else {**fields, "tensors": row.tensors}


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
    lines = side_lines(data, "ab", style)
    if rows:
        lines += [Text(), *table(diff_columns(rows, style), rows, style), *_key(rows, style)]
    hidden = [] if every else [row for row in data["rows"] if _is_quiet(row) and non_finite(row)]
    return render([*lines, Text(), *_stat_line(data["summary"], style), *_hidden(hidden, style)], style)


def non_finite(row: Mapping[str, Any]) -> str | None:
    """A row's NaN and infinities in words; None where it has none, or was not read.

    >>> non_finite({"nan_a": 0, "inf_a": 0, "nan_b": 1, "inf_b": 1})
    'b 1 NaN, 1 Inf'
    """
    if not any(row.get(count) for count in _COUNTS):  # most rows; and a table asks for each of its cells
        return None
    return non_finite_words({side: (row.get(f"nan_{side}") or 0, row.get(f"inf_{side}") or 0) for side in "ab"})


def _hidden(rows: Sequence[Mapping[str, Any]], style: Style) -> list[Text]:
    """That what is equal on both sides holds NaN or Inf, too, where the table does not show it."""
    tensors = sum(row.get("tensors", 1) for row in rows)
    if not tensors:
        return []
    text = f"{plural(tensors, 'identical tensor')} with NaN or Inf on both sides: --all shows which"
    return paragraph(text, style, indent=1, look="yellow")


def _is_quiet(row: Mapping[str, Any]) -> bool:
    """Whether a row is left out of tables: the same on both sides, or not looked at since only headers were."""
    status = row.get("status")
    return status == "identical" or (status == "unread" and row.get("numel") is not None)


def side_lines(data: Mapping[str, Any], names: Sequence[str], style: Style) -> list[Text]:
    """Each file by its letter or name, with what it holds."""
    looks = {"a": "red", "b": "green"}
    columns = [
        Column("", lambda name: Text(name, style=looks.get(name, ""))),
        Column("", lambda name: safe(data[name]["path"]), smallest=20),
        Column("", lambda name: plural(data[name]["tensors"], "tensor"), right=True, spare=1),
        Column("", lambda name: size(data[name]["bytes"]), right=True, spare=2),
    ]
    return table(columns, names, style)[1:]


def diff_columns(rows: Sequence[Mapping[str, Any]], style: Style = Style()) -> list[Column]:
    """Those of tensors, or of groups of them; a row that holds NaN or Inf shows how many, and no distances."""
    marks = any(map(non_finite, rows))
    largest = max((row.get("rel_l2") or 0.0 for row in rows if not (marks and non_finite(row))), default=0.0)
    width = 6 if style.width < WIDE else 16

    def drawn(row: Mapping[str, Any]) -> Cell:
        return "" if marks and non_finite(row) else bar(row.get("rel_l2"), largest, width, style.ascii)

    return [
        Column("", lambda row: _looked(_MARK.get(row.get("status") or "", " "), row), forms="narrow wide"),
        *(_group_columns(rows) if _is_grouped(rows) else _NAME_COLUMNS),
        *([Column("not finite", lambda row: Text(non_finite(row) or "", style="yellow"))] if marks else []),
        field("status", str, forms="csv md page"),
        *(Column(field=name) for name in _TENSOR[4:8]),
        field("numel", count, "elements", right=True, spare=5),
        Column("changed", _share, right=True, spare=3, field="changed"),
        Column("RMSE", _finite("rmse", figure), right=True, spare=2, field="rmse"),
        Column("max", _finite("max_abs", figure), right=True, spare=4, field="max_abs"),
        Column(field="rel_l2"),
        Column("cosine", _finite("cosine", "{:.4f}".format), right=True, spare=6, field="cosine"),
        *(Column(field=name) for name in _DISTANCE[5:]),
        Column("rel. L2", _finite("rel_l2", figure), right=True),
        Column("", drawn, spare=1, forms="narrow wide"),
    ]


_NAME_COLUMNS = (
    Column("name", lambda row: _looked(safe(row["name"]), row), smallest=28, field="name"),
    Column(field="layer"),
    Column(field="kind"),
    Column("shape", lambda row: _looked(_what(row), row, QUIET), smallest=11),
)


def _group_columns(rows: Sequence[Mapping[str, Any]]) -> list[Column]:
    """By what the rows are grouped: layer, kind, or both."""
    layer = Column("layer", lambda row: _looked(MISSING if row.get("layer") is None else named(row["layer"]), row))
    kind = Column("kind", lambda row: _looked(safe(row.get("kind") or MISSING), row))
    there = [way for way in ("layer", "kind") if any(row.get(way) is not None for row in rows)]
    return [
        Column(field="tensors"),
        *(
            replace(way, field=way.title, smallest=22, shown=way.shown if way.title in there else None)
            for way in (layer, kind)
        ),
        Column("tensors", lambda row: count(row.get("tensors")), right=True),
    ]


def _is_grouped(rows: Iterable[Mapping[str, Any]]) -> bool:
    return any(row.get("name") is None for row in rows)


def _finite(name: str, shown: Callable[[float], str]) -> Callable[[Mapping[str, Any]], str]:
    """A distance as it is shown, where there is one and it tells of the whole tensor."""
    return lambda row: MISSING if row.get(name) is None or non_finite(row) else shown(row[name])


def _what(row: Mapping[str, Any]) -> str:
    """The shape, and what changed of it: 64×3 → 64×1, or F32 → F16."""
    sides = [row.get("shape_a"), row.get("shape_b")]
    if row.get("status") == "shape":
        return " → ".join(shape(side) for side in sides)
    if row.get("status") == "dtype":
        return " → ".join(safe(row.get(side) or MISSING) for side in ("dtype_a", "dtype_b"))
    return shape(sides[0] if sides[0] is not None else sides[1])


def _looked(text: str, row: Mapping[str, Any], look: str = "") -> Text:
    """A text in the colour of the row's status."""
    return Text(text, style=_LOOK.get(row.get("status") or "", "") or look)


def _share(row: Mapping[str, Any]) -> str:
    changed, numel = row.get("changed"), row.get("numel")
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
    return columns_csv(diff_columns(data["rows"]), data["rows"])


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
    sides = [f"**{side}**: {_side_md(data[side])}\n" for side in ("a", "b")]
    changed = columns_md(diff_columns(rows), rows) + "\n" if rows else ""
    last = " ".join(line.plain.strip() for line in _stat_line(data["summary"], Style(width=1000)))
    return f"{''.join(sides)}\n{changed}{last}\n"


def _side_md(side: Mapping[str, Any]) -> str:
    return f"{md_text(side['path'])} ({plural(side['tensors'], 'tensor')}, {size(side['bytes'])})"
