"""Two checkpoints compared, or two with what they came from: JSON, a terminal table in git's colours, csv, md."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from rich.text import Text

from ckptswap.errors import non_finite_words
from ckptswap.report.latex import columns_latex, tables_latex
from ckptswap.report.layout import (
    HEADING,
    QUIET,
    WIDE,
    Cell,
    Column,
    field,
    flow,
    grid,
    paragraph,
    render,
    table_lines,
)
from ckptswap.report.tabular import columns_csv, columns_md, md_text
from ckptswap.report.text import MISSING, Style, bar, count, figure, named, plural, safe, shape, size

if TYPE_CHECKING:
    from ckptswap.diff import Diff, TensorDiff
    from ckptswap.threeway import ThreeWay

SCHEMA, SCHEMA_OF_THREE = "ckptswap.diff/1", "ckptswap.diff3/1"
_TENSOR = ("name", "layer", "kind", "status", "shape_a", "shape_b", "dtype_a", "dtype_b", "numel")
_DISTANCE = (
    "changed", "rmse", "max_abs", "rel_l2", "cosine", "nan_a", "nan_b", "mean_abs", "inf_a", "inf_b", "flips",
)  # fmt: skip
_SHOWN = {  # status: its mark, its look, in words, what the mark means
    "changed": ("~", "", "changed", "changed"),
    "shape": ("!", "yellow", "of another shape", "other shape or dtype"),
    "dtype": ("!", "yellow", "of another dtype", "other shape or dtype"),
    "only_a": ("-", "red", "only in a", "only in a"),
    "only_b": ("+", "green", "only in b", "only in b"),
    "identical": ("=", QUIET, "identical", "identical"),
    "unread": ("?", QUIET, "not compared", "not compared"),
}


def diff_json(diff: "Diff") -> dict[str, Any]:
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
        "a": asdict(diff.a),
        "b": asdict(diff.b),
        "summary": dict(diff.summary),
        "rows": [_row_json(row) for row in diff.rows],
    }


def _row_json(row: "TensorDiff") -> dict[str, Any]:
    fields = {name: getattr(row, name) for name in _TENSOR}
    fields |= {name: None if fields[name] is None else list(fields[name]) for name in ("shape_a", "shape_b")}
    fields |= {name: getattr(row.distance, name, None) for name in _DISTANCE}
    if row.name is not None:
        return fields
    return {**fields, **({} if row.block is None else {"block": row.block}), "tensors": row.tensors}


def diff_table(data: Mapping[str, Any], style: Style, *, every: bool = False) -> str:
    """What differs, one line a tensor (or a group, with --by), and a last line like diffstat's.

    `data` is the `diff` JSON, `docs/schemas/diff.schema.json`; `every` shows the unchanged ones too. A tensor with
    NaN or Inf shows how many in place of distances, which leave these out and tell only of the rest.

    >>> row = {"name": "c.bias", "kind": "conv.bias", "status": "changed", "shape_a": [4], "numel": 4}
    >>> row |= {"changed": 2, "rmse": 0.5, "max_abs": 1.0, "rel_l2": 0.1, "cosine": 0.99}
    >>> side = {"path": "a.pt", "tensors": 1, "bytes": 16}
    >>> text = diff_table({"a": side, "b": side, "summary": {"changed": 1}, "rows": [row]}, Style())
    >>> print("\\n".join(text.splitlines()[3:5]))
       name    shape  elements  changed   RMSE   max  cosine  rel. L2
    ~  c.bias  4             4     50 %  0.500  1.00  0.9900    0.100  ██████
    """
    rows = [row for row in data["rows"] if every or not _is_quiet(row)]
    above = [*_side_lines(data, "ab", style), *([Text()] if rows else [])]
    body = table_lines(diff_columns(rows, style), rows, style) if rows else ()
    below = [*_key(rows, style), Text(), *_stat_line(data["summary"], style)]
    hidden = [row for row in data["rows"] if not every and _is_quiet(row) and non_finite(row)]
    if tensors := sum(row.get("tensors", 1) for row in hidden):
        text = f"{plural(tensors, 'identical tensor')} with NaN or Inf on both sides: --all shows which"
        below += paragraph(text, style, indent=1, look="yellow")
    return render(chain(above, body, below), style)


def non_finite(row: Mapping[str, Any]) -> str | None:
    """A row's NaN and infinities in words; None where it has none, or was not read.

    >>> non_finite({"nan_a": 0, "inf_a": 0, "nan_b": 1, "inf_b": 1})
    'b 1 NaN, 1 Inf'
    """
    if not any(map(row.get, ("nan_a", "nan_b", "inf_a", "inf_b"))):  # most rows; and a table asks for all cells
        return None
    return non_finite_words({side: (row.get(f"nan_{side}") or 0, row.get(f"inf_{side}") or 0) for side in "ab"})


def _is_quiet(row: Mapping[str, Any]) -> bool:
    """Whether a row is left out of tables: the same on both sides, or not looked at since only headers were."""
    status = row.get("status")
    return status == "identical" or (status == "unread" and row.get("numel") is not None)


def _side_lines(data: Mapping[str, Any], names: Sequence[str], style: Style) -> list[Text]:
    columns = [Column(), Column(smallest=20), Column(right=True, spare=1), Column(right=True, spare=2)]
    looks, sides = {"base": "", "a": "red", "b": "green"}, [data[name] for name in names]
    rows: list[list[Cell]] = [
        [Text(name, style=looks[name]), safe(side["path"]), plural(side["tensors"], "tensor"), size(side["bytes"])]
        for name, side in zip(names, sides, strict=True)
    ]
    return grid(columns, rows, style)[1:]


def diff_columns(rows: Sequence[Mapping[str, Any]], style: Style = Style()) -> list[Column]:
    """Those of tensors, or of groups of them; a row that holds NaN or Inf shows how many, and no distances."""
    marks = any(map(non_finite, rows))
    largest = max((row.get("rel_l2") or 0.0 for row in rows if not (marks and non_finite(row))), default=0.0)
    width = 6 if style.width < WIDE else 16

    def drawn(row: Mapping[str, Any]) -> Cell:
        return "" if marks and non_finite(row) else bar(row.get("rel_l2"), largest, width, style.ascii)

    return [
        Column("", lambda row: _looked(_shown(row)[0], row), forms="narrow wide"),
        *(_group_columns(rows) if any(row.get("name") is None for row in rows) else _NAME_COLUMNS),
        *([Column("not finite", lambda row: Text(non_finite(row) or "", style="yellow"))] if marks else []),
        field("status", str, forms="csv md page latex"),
        *(Column(field=name) for name in _TENSOR[4:8]),
        field("numel", count, "elements", right=True, spare=5, minor=True),
        Column("changed", _share, right=True, spare=3, field="changed"),
        Column("RMSE", _finite("rmse", figure), right=True, spare=2, field="rmse"),
        Column("max", _finite("max_abs", figure), right=True, spare=4, minor=True, field="max_abs"),
        Column(field="rel_l2"),
        Column("cosine", _finite("cosine", "{:.4f}".format), right=True, spare=6, minor=True, field="cosine"),
        *(Column(field=name) for name in _DISTANCE[5:]),
        Column("rel. L2", _finite("rel_l2", figure), right=True),
        *([] if style.whole else [Column("", drawn, spare=1, forms="narrow wide")]),
    ]


_NAME_COLUMNS = (
    Column("name", lambda row: _looked(safe(row["name"]), row), smallest=28, field="name"),
    Column(field="layer"),
    Column(field="kind"),
    Column("shape", lambda row: _looked(_what(row), row, QUIET), smallest=11),
)


def _group_columns(rows: Sequence[Mapping[str, Any]]) -> list[Column]:
    blocks = any(row.get("block") is not None for row in rows)

    def place(row: Mapping[str, Any]) -> Text:
        """What is in no block goes by its layer."""
        name = row.get("block") if row.get("layer") is None else row["layer"]
        return _looked(MISSING if name is None else named(name), row)

    def there(name: str) -> bool:
        return any(row.get(name) is not None for row in rows)

    columns = [
        Column(
            "block" if blocks else "layer", place if blocks or there("layer") else None, smallest=22, field="layer"
        ),
        *([Column(field="block")] if blocks else []),
        Column("kind", _kind if there("kind") else None, smallest=22, field="kind"),
    ]
    amount = Column("tensors", lambda row: count(row.get("tensors")), right=True)
    return [Column(field="tensors"), *columns, amount]


def _kind(row: Mapping[str, Any]) -> Text:
    return _looked(safe(row.get("kind") or MISSING), row)


def _finite(name: str, shown: Callable[[float], str]) -> Callable[[Mapping[str, Any]], str]:
    """A distance as it is shown, where there is one and it tells of the whole tensor."""
    return lambda row: MISSING if row.get(name) is None or non_finite(row) else shown(row[name])


def _what(row: Mapping[str, Any]) -> str:
    """The shape, and what changed of it: 64×3 → 64×1, or F32 → F16."""
    shapes = [row.get("shape_a"), row.get("shape_b")]
    if row.get("status") == "shape":
        return " → ".join(map(shape, shapes))
    if row.get("status") == "dtype":
        return " → ".join(safe(row.get(side) or MISSING) for side in ("dtype_a", "dtype_b"))
    return shape(shapes[0] if shapes[0] is not None else shapes[1])


def _shown(row: Mapping[str, Any]) -> tuple[str, str, str, str]:
    return _SHOWN.get(row.get("status") or "", (" ", "", "", ""))


def _looked(text: str, row: Mapping[str, Any], look: str = "") -> Text:
    return Text(text, style=_shown(row)[1] or look)


def _share(row: Mapping[str, Any]) -> str:
    changed, numel = row.get("changed"), row.get("numel")
    if changed is None or not numel:
        return MISSING
    return f"{100 * changed / numel:.3g} %" if changed != numel else "all"


def _key(rows: Iterable[Mapping[str, Any]], style: Style) -> list[Text]:
    """What the marks mean, unless all of them are plain changes."""
    present = {row.get("status") for row in rows}
    looks = {f"{mark} {meaning}": look for name, (mark, look, _, meaning) in _SHOWN.items() if name in present}
    parts = [Text(meaning, style=look) for meaning, look in looks.items()]
    return [Text(), *flow(parts, style, gap=3)] if present - {"changed", None} else []


def _stat_line(summary: Mapping[str, int], style: Style) -> list[Text]:
    """' 12 tensors changed, 3 only in a, 45 identical': what is there, and always the changed ones."""
    parts = [f"{plural(summary.get('changed', 0), 'tensor')} changed"]
    for status, (_, _, words, _) in _SHOWN.items():
        if status != "changed" and summary.get(status):
            parts[-1] += ","
            parts.append(f"{summary[status]:,} {words}")
    return flow([Text(part, style=HEADING) for part in parts], style, gap=1, indent=1)


diff_csv = partial(columns_csv, diff_columns)
"""Every row of the JSON, changed or not; grouped rows have their count under `tensors`."""


def diff_md(data: Mapping[str, Any], *, every: bool = False) -> str:
    """What differs as a GitHub table, between the two paths and the last line.

    >>> side = {"path": "a.pt", "tensors": 1, "bytes": 16}
    >>> diff_md({"a": side, "b": side, "summary": {"changed": 0, "identical": 1}, "rows": []}).splitlines()[1:]
    ['**b**: a.pt (1 tensor, 16 B)', '', '0 tensors changed, 1 identical']
    """
    rows = [row for row in data["rows"] if every or not _is_quiet(row)]
    sides = [f"**{name}**: {md_text(side['path'])} ({plural(side['tensors'], 'tensor')}, {size(side['bytes'])})\n"
             for name, side in (("a", data["a"]), ("b", data["b"]))]  # fmt: skip
    changed = columns_md(diff_columns, {"rows": rows}) + "\n" if rows else ""
    last = " ".join(line.plain.strip() for line in _stat_line(data["summary"], Style(width=1000)))
    return f"{''.join(sides)}\n{changed}{last}\n"


def diff_latex(data: Mapping[str, Any], *, every: bool = False) -> str:
    """What differs as a table for papers."""
    rows = [row for row in data["rows"] if every or not _is_quiet(row)]
    counts = " ".join(line.plain.strip() for line in _stat_line(data["summary"], Style(width=1000)))
    caption = f"From {data['a']['path']} to {data['b']['path']}: {counts}"
    return tables_latex([columns_latex(diff_columns(rows), rows, caption)])


# Two with what they came from ------------------------------------------------------------------------------------

_CHANGED_BY = {  # status: in words, its look
    "a": ("a", "red"),
    "b": ("b", "green"),
    "both": ("both, differently", "bold yellow"),
    "same": ("both, the same", ""),
    "unchanged": ("unchanged", ""),
    "unread": ("not compared", "yellow"),
}


def threeway_json(compared: "ThreeWay") -> dict[str, Any]:
    """`status` is `unchanged`, `a`, `b`, `same` (both sides made the same change), `both` (different ones) or
    `unread`; `change_*` is that side's status against the base, as in a diff, `rel_l2_*` relative to the base.
    NaN and infinities are counted for each file that has some: of these no distance tells."""
    rows = []
    for row in compared.rows:
        fields = {name: getattr(row, name) for name in ("name", "layer", "kind", "status")}
        rows.append(fields | _change("a", row.a) | _change("b", row.b))
        for side, (nan, inf) in row.non_finite.items():
            rows[-1] |= {f"nan_{side}": nan, f"inf_{side}": inf}
    sides = {name: asdict(getattr(compared, name)) for name in ("base", "a", "b")}
    return {"schema": SCHEMA_OF_THREE, **sides, "summary": compared.summary, "rows": rows}


def _change(side: str, row: "TensorDiff | None") -> dict[str, Any]:
    distance = row.distance if row else None
    return {f"change_{side}": row.status if row else None, f"rel_l2_{side}": distance.rel_l2 if distance else None}


def threeway_table(data: Mapping[str, Any], style: Style, *, every: bool = False) -> str:
    """Who changed what, and by how much relative to the base; a last line counts."""
    rows = [row for row in data["rows"] if every or row["status"] != "unchanged"]
    counts = [f"{count:,} {_CHANGED_BY[status][0]}" for status, count in data["summary"].items() if count]
    last = flow([*(f"{count}," for count in counts[:-1]), *counts[-1:]], style, gap=1)
    body = chain([Text()], table_lines(THREEWAY_COLUMNS, rows, style)) if rows else ()
    return render(chain(_side_lines(data, ("base", "a", "b"), style), body, [Text()], last), style)


def _amount(row: Mapping[str, Any], side: str) -> str:
    change = row[f"change_{side}"]
    if change not in ("changed", "identical", None):
        return change
    counts = {file: (row.get(f"nan_{file}", 0), row.get(f"inf_{file}", 0)) for file in ("base", side)}
    return non_finite_words(counts) or figure(row[f"rel_l2_{side}"])


THREEWAY_COLUMNS = (
    Column("changed by", lambda row: Text(*_CHANGED_BY[row["status"]])),
    field("name", safe, smallest=16),
    field("layer"),
    field("kind", safe, spare=2),
    *map(field, ("status", "change_a", "rel_l2_a", "change_b", "rel_l2_b")),
    *map(field, ("nan_base", "inf_base", "nan_a", "inf_a", "nan_b", "inf_b")),
    *(Column(f"{side}: rel. L2", partial(_amount, side=side), right=True, spare=1) for side in "ab"),
)
threeway_csv = partial(columns_csv, THREEWAY_COLUMNS)


def threeway_latex(data: Mapping[str, Any]) -> str:
    """Every tensor as a table for papers."""
    base, a, b = (data[name]["path"] for name in ("base", "a", "b"))
    return tables_latex(
        [columns_latex(THREEWAY_COLUMNS, data["rows"], f"What a ({a}) and b ({b}) made of {base}")]
    )


def threeway_md(data: Mapping[str, Any]) -> str:
    """Every tensor as a table for GitHub."""
    heads = [f"{name}: {md_text(data[name]['path'])}" for name in ("base", "a", "b")]
    return "\n".join([*heads, "", columns_md(THREEWAY_COLUMNS, data)])
