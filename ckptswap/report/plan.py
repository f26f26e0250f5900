"""What a sweep would run, before it does: cells by status, forward passes, and the cells themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.text import Text

from ckptswap.report.layout import Cell, Column, grid, paragraph, render
from ckptswap.report.tabular import to_csv, to_md
from ckptswap.report.text import Style, count, duration, figure, named, plural, safe, size

if TYPE_CHECKING:
    from ckptswap.scoring.scorer import Cost
    from ckptswap.sweep.plan import Plan

SCHEMA = "ckptswap.plan/1"
FIELDS = ("layer", "kind", "status", "tensors", "numel", "rmse", "rel_l2", "reason")


def plan_json(plan: Plan, folder: str, samples: int, cost: Cost, donors: int = 1) -> dict[str, Any]:
    """The plan as pure data: `variants` are scored, beside baseline and donors, each on `samples`; `share` is the
    part of all full forward passes' FLOPs that is really computed, `seconds` an estimate from one timed batch."""
    plain = [name for name in FIELDS if name != "tensors"]
    rows = [{name: getattr(cell, name) for name in plain} | {"tensors": list(cell.names)} for cell in plan.cells]
    return {
        "schema": SCHEMA,
        "run": folder,
        "samples": samples,
        "cells": len(rows),
        "variants": len(plan.variants()),
        "passes": (len(plan.variants()) + 1 + donors) * samples,
        "engine": cost.engine,
        "share": cost.share,
        "seconds": cost.seconds,
        "peak_bytes": cost.peak,
        "rows": rows,
    }


def plan_table(data: Mapping[str, Any], style: Style) -> str:
    """One line a cell, then what it would cost."""
    texts = [Column("layer", smallest=12), Column("kind", smallest=15), Column("status")]
    numbers = [Column(name, right=True, spare=3 - at) for at, name in enumerate(("numel", "RMSE", "rel. L2"))]
    cost = (
        f"{plural(data['cells'], 'cell')}, {plural(data['variants'], 'variant')} to score, with the baseline and "
        f"{_donors(data)}, on {plural(data['samples'], 'sample')}"
    )
    rows = [_cells(row) for row in data["rows"]]
    said = [
        *paragraph(cost, style),
        *paragraph(_effort(data), style),
        *paragraph(f"run: {safe(data['run'])}", style),
    ]
    return render([*grid([*texts, *numbers, Column("reason", smallest=8)], rows, style), Text(), *said], style)


def _donors(data: Mapping[str, Any]) -> str:
    donors = data["passes"] // data["samples"] - data["variants"] - 1
    return "the donor" if donors == 1 else plural(donors, "donor")


def _effort(data: Mapping[str, Any]) -> str:
    took = f"about {duration(data['seconds'])}, by one timed batch"
    if data["engine"] == "full":
        return f"by full forward passes: {took}"
    memory = f"at most {size(data['peak_bytes'])} of intermediate values"
    return f"by replay: {data['share']:.1%} of the work of full forward passes, {took}; {memory}"


def _cells(row: Mapping[str, Any]) -> list[Cell]:
    layer = "(all)" if row["layer"] is None else named(row["layer"])
    sizes = [count(row["numel"]), figure(row["rmse"]), figure(row["rel_l2"])]
    return [layer, safe(row["kind"] or "(all)"), row["status"], *sizes, safe(row["reason"] or "")]


def plan_csv(data: Mapping[str, Any]) -> str:
    """The cells, one a line."""
    return to_csv(FIELDS, _rows(data))


def plan_md(data: Mapping[str, Any]) -> str:
    """The cells as a table for GitHub."""
    return to_md(FIELDS, _rows(data))


def _rows(data: Mapping[str, Any]) -> list[list[object]]:
    return [[" ".join(row[name]) if name == "tensors" else row[name] for name in FIELDS] for row in data["rows"]]
