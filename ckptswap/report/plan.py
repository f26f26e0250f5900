"""What a sweep would run, before it does: cells by status, forward passes, and the cells themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.text import Text

from ckptswap.report.layout import Cell, Column, grid, paragraph, render
from ckptswap.report.tabular import to_csv, to_md
from ckptswap.report.text import Style, count, figure, named, plural, safe

if TYPE_CHECKING:
    from ckptswap.sweep.plan import Plan

SCHEMA = "ckptswap.plan/1"
FIELDS = ("layer", "kind", "status", "tensors", "numel", "rmse", "rel_l2", "reason")


def plan_json(plan: Plan, folder: str, samples: int) -> dict[str, Any]:
    """The plan as pure data: `variants` are scored, each on `samples`; `passes` are samples through the model."""
    plain = [name for name in FIELDS if name != "tensors"]
    rows = [{name: getattr(cell, name) for name in plain} | {"tensors": list(cell.names)} for cell in plan.cells]
    return {
        "schema": SCHEMA,
        "run": folder,
        "samples": samples,
        "cells": len(rows),
        "variants": len(plan.variants()),
        "passes": plan.cost(samples),
        "rows": rows,
    }


def plan_table(data: Mapping[str, Any], style: Style) -> str:
    """One line a cell, then what it would cost."""
    texts = [Column("layer", smallest=12), Column("kind", smallest=15), Column("status")]
    numbers = [Column(name, right=True, spare=3 - at) for at, name in enumerate(("numel", "RMSE", "rel. L2"))]
    cost = (
        f"{plural(data['cells'], 'cell')}, {plural(data['variants'], 'variant')} to score, with the baseline and "
        f"the donor, on {plural(data['samples'], 'sample')}: {data['passes']:,} forward passes of one sample"
    )
    rows = [_cells(row) for row in data["rows"]]
    said = [*paragraph(cost, style), *paragraph(f"run: {safe(data['run'])}", style)]
    return render([*grid([*texts, *numbers, Column("reason", smallest=8)], rows, style), Text(), *said], style)


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
