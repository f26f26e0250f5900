"""What is in a checkpoint (the `show` JSON as a terminal table, csv and md), and what `verify` found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import chain
from math import prod
from typing import TYPE_CHECKING, Any

from rich.text import Text

from ckptswap.naming import natural_key
from ckptswap.report.latex import columns_latex, tables_latex
from ckptswap.report.layout import HEADING, QUIET, Column, field, flow, render, table_lines
from ckptswap.report.tabular import columns_csv, columns_md, md_text
from ckptswap.report.text import MISSING, Style, count, figure, plural, safe, shape, size

if TYPE_CHECKING:
    from ckptswap.checkpoint import Checkpoint
    from ckptswap.entries import Entry, Unread
    from ckptswap.moments import Moments
    from ckptswap.verify import Report

SCHEMA, VERIFY_SCHEMA = "ckptswap.show/1", "ckptswap.verify/1"
STATS = ("min", "max", "mean", "std", "nan", "inf")


def show_json(
    checkpoint: Checkpoint,
    entries: Sequence[Entry] | None = None,
    moments: Mapping[str, Moments] | None = None,
    unread: Sequence[Entry] | None = None,
) -> dict[str, Any]:
    """The JSON contract, `docs/schemas/show.schema.json`, for all entries or some, and those that are not read;
    statistics where given by name.

    >>> import numpy as np
    >>> from ckptswap.checkpoint import Checkpoint
    >>> show_json(Checkpoint.from_arrays({"c.bias": np.zeros(4, np.float32)}))["rows"][0]["nbytes"]
    16
    """
    shown = list(checkpoint.values()) if entries is None else list(entries)
    odd = list(checkpoint.unread_entries.values()) if unread is None else list(unread)
    told = [{"name": entry.name, "what": str(checkpoint.unread[entry.name])} for entry in odd]
    rows = [_row_json(entry, moments) for entry in shown]
    rows += [_unread_json(entry, checkpoint.unread[entry.name], moments is not None) for entry in odd]
    return {
        "schema": SCHEMA,
        "path": checkpoint.path,
        "format": checkpoint.format,
        "tensors": len(shown),
        "bytes": sum(entry.nbytes for entry in shown),
        "rows": sorted(rows, key=lambda row: natural_key(row["name"])) if odd else rows,
        **({"unread": told} if told else {}),
    }


def _row_json(entry: Entry, moments: Mapping[str, Moments] | None) -> dict[str, Any]:
    row = {name: getattr(entry, name) for name in FIELDS} | {"shape": list(entry.shape)}
    if moments is None:
        return row
    measured = moments[entry.name]
    low, high = (measured.minimum, measured.maximum) if measured.count else (None, None)
    return row | {"min": low, "max": high} | {name: getattr(measured, name) for name in STATS[2:]}


def _unread_json(entry: Entry, held: Unread, with_stats: bool) -> dict[str, Any]:
    """What is not read: its name, and a tensor's shape and dtype."""
    shape_of = None if held.shape is None else list(held.shape)
    numel = None if held.shape is None else prod(held.shape)
    row = {name: getattr(entry, name) for name in ("name", "layer", "block", "kind")}
    row |= {"shape": shape_of, "dtype": held.dtype, "numel": numel, "nbytes": None}
    return row | (dict.fromkeys(STATS) if with_stats else {})


def show_columns(rows: Sequence[Mapping[str, Any]]) -> list[Column]:
    """With statistics where the rows have them; what is NaN or infinite somewhere is never spared.

    >>> [column.field for column in show_columns([])]
    ['name', 'layer', 'block', 'kind', 'shape', 'dtype', 'numel', 'nbytes']
    """
    stats = STATS if any("min" in row for row in rows) else ()
    later = 5 if stats else 0
    columns = [
        field("name", safe, smallest=16),
        field("layer"),
        field("block"),
        field("kind", lambda kind: Text(safe(kind), style=QUIET), smallest=15, spare=2 + later),
        field("shape", shape),
        field("dtype", lambda dtype: MISSING if dtype is None else safe(dtype), spare=6, minor=True),
        field("numel", count, right=True, spare=4 + later, minor=True),
        field("nbytes", size, "bytes", right=True, spare=3 + later, minor=True),
    ]
    there = {name for name in ("nan", "inf") if any(row.get(name) for row in rows)}
    spares = {name: 0 if name in there else at for at, name in enumerate(stats)}
    return columns + [field(name, figure, right=True, spare=spare) for name, spare in spares.items()]


FIELDS = tuple(column.field for column in show_columns([]))


def show_table(data: Mapping[str, Any], style: Style) -> str:
    """The tensors of a checkpoint, of the `show` JSON, with statistics where there are some; sums by kind below.

    >>> row = {"name": "c.bias", "layer": "c", "kind": "conv.bias", "shape": [4], "dtype": "F32"}
    >>> row |= {"numel": 4, "nbytes": 16}
    >>> data = {"path": "a.safetensors", "format": "safetensors", "tensors": 1, "bytes": 16, "rows": [row]}
    >>> show_table(data, Style()).splitlines()[:2]
    ['name    kind       shape  dtype  numel  bytes', 'c.bias  conv.bias  4      F32        4   16 B']
    """
    rows = data["rows"]
    lines = chain(table_lines(show_columns(rows), rows, style), [Text()]) if rows else ()
    path = Text.assemble((safe(data["path"]), HEADING), (f"  {safe(data['format'])}", QUIET))
    kinds = sorted(Counter(row["kind"] for row in rows).items())
    parts = [Text.assemble((f"{safe(kind)} ", QUIET), f"{tensors:,}") for kind, tensors in kinds]
    below = [*flow([path], style), *flow(_totals(data), style), *flow(parts, style, gap=3)]
    return render(chain(lines, below), style)


def _totals(data: Mapping[str, Any]) -> list[str]:
    parameters = sum(row["numel"] for row in data["rows"] if row["nbytes"] is not None)
    unread = [f"{len(data['unread']):,} not read"] if data.get("unread") else []
    return [plural(data["tensors"], "tensor"), f"{count(parameters)} elements", size(data["bytes"]), *unread]


show_csv = partial(columns_csv, show_columns)  # the fields of the JSON contract; a shape is written 64x3x7x7


def show_md(data: Mapping[str, Any]) -> str:
    """The same as a GitHub table under a line with the sums.

    >>> data = {"path": "a.pt", "format": "torch", "tensors": 0, "bytes": 0, "rows": []}
    >>> show_md(data).splitlines()[0]
    '**a.pt** (torch): 0 tensors, 0 elements, 0 B'
    """
    head = f"**{md_text(data['path'])}** ({md_text(data['format'])}): {', '.join(_totals(data))}\n\n"
    return head + columns_md(show_columns, data)


def show_latex(data: Mapping[str, Any]) -> str:
    """The same as a table for papers."""
    caption = f"{data['path']} ({data['format']}): {', '.join(_totals(data))}"
    return tables_latex([columns_latex(show_columns(data["rows"]), data["rows"], caption)])


def verify_json(report: Report) -> dict[str, Any]:
    """`format` is null where the checkpoint could not be opened, a `place` where the fault is the whole's."""
    head = {name: getattr(report, name) for name in ("path", "format", "tensors", "bytes", "ok")}
    return {"schema": VERIFY_SCHEMA, **head, "findings": [asdict(finding) for finding in report.findings]}


def verify_text(data: Mapping[str, Any]) -> str:
    """A line a finding, or one that says that there is none.

    >>> verify_text({"path": "a.npz", "format": "npz", "tensors": 1, "bytes": 8, "ok": True, "findings": []})
    'a.npz: sound (npz, 1 tensor, 8 B)'
    """
    path = safe(data["path"])
    if data["ok"]:
        return f"{path}: sound ({data['format']}, {plural(data['tensors'], 'tensor')}, {size(data['bytes'])})"
    faults = [(fault["place"], fault["text"]) for fault in data["findings"]]
    lines = [": ".join(safe(part) for part in fault if part) for fault in faults]
    return "\n".join(f"{path}: {line}" if not line.startswith(path) else line for line in lines)
