"""What is in a checkpoint: the `show` JSON as a terminal table, csv and md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.text import Text

from ckptswap.report.layout import HEADING, QUIET, Cell, Column, flow, grid, render
from ckptswap.report.tabular import md_text, to_csv, to_md
from ckptswap.report.text import Style, count, figure, plural, safe, shape, size

if TYPE_CHECKING:
    from ckptswap.checkpoint import Checkpoint, Entry
    from ckptswap.moments import Moments

SCHEMA = "ckptswap.show/1"
FIELDS = ("name", "layer", "kind", "shape", "dtype", "numel", "nbytes")
STATS = ("min", "max", "mean", "std", "nan", "inf")


def show_json(
    checkpoint: Checkpoint, entries: Sequence[Entry] | None = None, moments: Mapping[str, Moments] | None = None
) -> dict[str, Any]:
    """The JSON contract, `docs/schemas/show.schema.json`, for all entries or some; statistics where given by name.

    >>> import numpy as np
    >>> from ckptswap.checkpoint import Checkpoint
    >>> show_json(Checkpoint.from_arrays({"c.bias": np.zeros(4, np.float32)}))["rows"][0]["nbytes"]
    16
    """
    shown = list(checkpoint.values()) if entries is None else list(entries)
    return {
        "schema": SCHEMA,
        "path": checkpoint.path,
        "format": checkpoint.format,
        "tensors": len(shown),
        "bytes": sum(entry.nbytes for entry in shown),
        "rows": [_row_json(entry, moments) for entry in shown],
    }


def _row_json(entry: Entry, moments: Mapping[str, Moments] | None) -> dict[str, Any]:
    row = {name: getattr(entry, name) for name in FIELDS} | {"shape": list(entry.shape)}
    if moments is None:
        return row
    found = moments[entry.name]
    low, high = (found.minimum, found.maximum) if found.count else (None, None)
    return row | {"min": low, "max": high} | {name: getattr(found, name) for name in STATS[2:]}


def show_table(data: Mapping[str, Any], style: Style) -> str:
    """The tensors of a checkpoint, with statistics where the rows have them; sums by kind below.

    `data` is the `show` JSON, `docs/schemas/show.schema.json`.

    >>> row = {"name": "c.bias", "layer": "c", "kind": "conv.bias", "shape": [4], "dtype": "F32"}
    >>> row |= {"numel": 4, "nbytes": 16}
    >>> data = {"path": "a.safetensors", "format": "safetensors", "tensors": 1, "bytes": 16, "rows": [row]}
    >>> print(show_table(data, Style()), end="")
    name    kind       shape  dtype  numel  bytes
    c.bias  conv.bias  4      F32        4   16 B
    <BLANKLINE>
    a.safetensors  safetensors
    1 tensor  4 elements  16 B
    conv.bias 1
    """
    rows = data["rows"]
    stats = _has_stats(rows)
    lines = grid(_columns(stats), (_row(row, stats) for row in rows), style) if rows else []
    return render([*lines, *([Text()] if lines else []), *_summary(data, style)], style)


def _has_stats(rows: Sequence[Mapping[str, Any]]) -> bool:
    return any("min" in row for row in rows)


def _columns(stats: bool) -> list[Column]:
    columns = [
        Column("name", smallest=16),
        Column("kind", smallest=15, spare=7 if stats else 2),
        Column("shape"),
        Column("dtype", spare=6),
        Column("numel", right=True, spare=8 if stats else 4),
        Column("bytes", right=True, spare=9 if stats else 3),
    ]
    return columns + [Column(name, right=True, spare=at) for at, name in enumerate(STATS)] if stats else columns


def _row(row: Mapping[str, Any], stats: bool) -> list[Cell]:
    cells: list[Cell] = [
        safe(row["name"]),
        Text(safe(row["kind"]), style=QUIET),
        shape(row["shape"]),
        safe(row["dtype"]),
        count(row["numel"]),
        size(row["nbytes"]),
    ]
    return cells + [figure(row.get(name)) for name in STATS] if stats else cells


def _summary(data: Mapping[str, Any], style: Style) -> list[Text]:
    kinds = Counter(row["kind"] for row in data["rows"])
    path = Text.assemble((safe(data["path"]), HEADING), (f"  {safe(data['format'])}", QUIET))
    parts = [Text.assemble((f"{safe(kind)} ", QUIET), f"{tensors:,}") for kind, tensors in sorted(kinds.items())]
    return [*flow([path], style), *flow(_totals(data), style), *flow(parts, style, gap=3)]


def _totals(data: Mapping[str, Any]) -> list[str]:
    parameters = sum(row["numel"] for row in data["rows"])
    return [plural(data["tensors"], "tensor"), f"{count(parameters)} elements", size(data["bytes"])]


def show_csv(data: Mapping[str, Any]) -> str:
    """One line a tensor, with the fields of the JSON contract; a shape is written 64x3x7x7.

    >>> show_csv({"rows": []})
    'name,layer,kind,shape,dtype,numel,nbytes\\n'
    """
    fields = _fields(data)
    return to_csv(fields, ([row.get(name) for name in fields] for row in data["rows"]))


def show_md(data: Mapping[str, Any]) -> str:
    """The same as a GitHub table under a line with the sums.

    >>> data = {"path": "a.pt", "format": "torch", "tensors": 0, "bytes": 0, "rows": []}
    >>> show_md(data).splitlines()[0]
    '**a.pt** (torch): 0 tensors, 0 elements, 0 B'
    """
    fields = _fields(data)
    head = f"**{md_text(data['path'])}** ({md_text(data['format'])}): {', '.join(_totals(data))}\n\n"
    return head + to_md(fields, [[row.get(name) for name in fields] for row in data["rows"]])


def _fields(data: Mapping[str, Any]) -> tuple[str, ...]:
    return FIELDS + STATS if _has_stats(data["rows"]) else FIELDS
