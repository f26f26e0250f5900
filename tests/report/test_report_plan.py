"""`sweep --dry-run`: what would run and what it costs, as JSON, csv, md and a table."""

from __future__ import annotations

import copy
import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator, ValidationError
from rich.cells import cell_len

from ckptswap.checkpoint import Checkpoint
from ckptswap.report.plan import FIELDS, plan_csv, plan_json, plan_md, plan_table
from ckptswap.report.text import Style, dump_json
from ckptswap.scoring.scorer import Cost
from ckptswap.selection import Selection
from ckptswap.sweep.plan import make_plan

SCHEMA = Path(__file__).parents[2] / "docs" / "schemas" / "plan.schema.json"
REPLAY = Cost("replay", share=0.587, seconds=83.0, peak=14_200_000)
FULL = Cost("full", share=1.0, seconds=7320.0, peak=None)
BEFORE = {
    "encoder.conv.weight": np.ones((2, 1, 3, 3), np.float32),
    "encoder.conv.bias": np.ones(2, np.float32),
    "encoder.bn.weight": np.ones(2, np.float32),
    "encoder.bn.running_mean": np.ones(2, np.float32),
    "encoder.bn.running_var": np.ones(2, np.float32),
    "encoder.bn.num_batches_tracked": np.array(3),
    "head.bias": np.zeros(2, np.float32),
}


def plan(cost: Cost = REPLAY) -> dict[str, Any]:
    """A cell of every status."""
    after = {name: array + 1 for name, array in BEFORE.items()}
    after |= {"encoder.bn.weight": BEFORE["encoder.bn.weight"], "head.bias": np.zeros(3, np.float32)}
    found = make_plan(*map(Checkpoint.from_arrays, (after, BEFORE)), Selection(), [("layer", "kind"), ("kind",)])
    return plan_json(found.without_effect({"encoder.bn.num_batches_tracked"}), "runs/x", 72, cost)


def validate(data: dict[str, Any]) -> None:
    Draft202012Validator(json.loads(SCHEMA.read_text("utf-8"))).validate(json.loads(dump_json(data)))


@pytest.mark.parametrize("cost", [REPLAY, FULL], ids=lambda cost: cost.engine)
def test_json_says_what_runs_and_what_it_costs(cost: Cost) -> None:
    data = plan(cost)
    validate(data)
    assert {row["status"] for row in data["rows"]} == {"measured", "identical", "no-effect", "mismatch"}
    assert (data["run"], data["samples"], data["cells"], data["variants"]) == ("runs/x", 72, 14, 4)
    assert data["passes"] == (4 + 2) * 72
    assert (data["engine"], data["share"], data["seconds"], data["peak_bytes"]) == (
        cost.engine, cost.share, cost.seconds, cost.peak,
    )  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"engine": "auto"}, {"engine": None}, {"share": None}, {"share": -0.1}, {"seconds": -1},
        {"seconds": "soon"}, {"peak_bytes": -1}, {"peak_bytes": 1.5}, {"schema": "ckptswap.plan/0"},
    ],
    ids=str,
)  # fmt: skip
def test_the_schema_refuses(change: dict[str, Any]) -> None:
    validate(plan())
    with pytest.raises(ValidationError):
        validate(plan() | change)


@pytest.mark.parametrize("change", [{"status": "failed"}, {"numel": -1}, {"tensors": "a"}, {"score": 1}], ids=str)
def test_the_schema_refuses_rows(change: dict[str, Any]) -> None:
    data = copy.deepcopy(plan())
    data["rows"][0] |= change
    with pytest.raises(ValidationError):
        validate(data)


@pytest.mark.parametrize("style", [Style(160), Style(100), Style(80), Style(80, ascii=True)], ids=str)
@pytest.mark.parametrize("cost", [REPLAY, FULL], ids=lambda cost: cost.engine)
def test_the_table_ends_with_its_cost(style: Style, cost: Cost) -> None:
    text = plan_table(plan(cost), style)
    assert max(cell_len(line) for line in text.splitlines()) <= style.width
    assert text.isascii() or not style.ascii
    said = " ".join(text.split("\n\n")[-1].split())
    assert said.startswith(
        "14 cells, 4 variants to score, with the baseline and the donor, on 72 samples; of the cells "
    )
    assert said.endswith(" run: runs/x --all: every cell")
    if cost is FULL:
        assert text.startswith("about 2 h 2 min\n\n")
        assert "by full forward passes" in said
        assert "%" not in said
    else:
        assert (
            "by replay: 58.7% of the work of full forward passes; at most 14.2 MB of intermediate values" in said
        )
        assert text.startswith("about 1 min 23 s\n\n")


def test_what_is_long_is_told_first_with_what_takes_less() -> None:
    ways = [{"flags": "--decide", "seconds": 300.0}, {"flags": "--by kind --limit 40", "seconds": 590.0}]
    data = plan(FULL) | {"preparation": 20.0, "alternatives": ways}
    validate(data)
    assert plan_table(data, Style(160)).splitlines()[:2] == [
        "about 2 h 2 min, of which 20 s to prepare",
        "the same question for less: --decide (about 5 min 0 s) or --by kind --limit 40 (about 9 min 50 s)",
    ]
    with pytest.raises(ValidationError):
        validate(data | {"alternatives": []})


@pytest.mark.parametrize(
    ("screen", "words"),
    [
        (
            {"by": "sample:4", "samples": 4, "share": 0.0556},
            "screen by sample:4: every variant on 4 samples first, 5.6% of",
        ),
        (
            {"by": "curvature", "samples": None, "share": 0.03},
            "screen by curvature: about 3.0% of the work beside it",
        ),
        ({"by": "rmse", "samples": None, "share": 0.0}, "screen by rmse: no work"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_a_screen_takes_is_told(screen: dict[str, Any], words: str) -> None:
    data = plan() | {"screen": screen}
    validate(data)
    assert words in " ".join(plan_table(data, Style(100)).split())
    with pytest.raises(ValidationError):
        validate(data | {"screen": {"by": "rmse"}})


@pytest.mark.parametrize(
    ("name", "cost", "style"),
    [
        ("plan-100", REPLAY, Style(100)),
        ("plan-160", REPLAY, Style(160)),
        ("plan-100-ascii", REPLAY, Style(100, ascii=True)),
        ("plan-full-160", FULL, Style(160)),
    ],
)
def test_the_table_letter_by_letter(
    name: str, cost: Cost, style: Style, golden: Callable[[str, str], None]
) -> None:
    golden(name, plan_table(plan(cost), style))


def test_the_table_has_a_line_a_cell() -> None:
    head, *lines = plan_table(plan(), Style(160), every=True).split("\n\n")[1].splitlines()
    assert head.split() == ["layer", "kind", "status", "numel", "RMSE", "rel.", "L2", "reason"]
    assert len(lines) == 14
    found = {tuple(line.split()[:2]): line for line in lines}
    assert "measured" in found["encoder.conv", "conv.weight"]
    assert "identical" in found["encoder.bn", "bn.weight"]
    assert "no-effect" in found["encoder.bn", "bn.num_batches_tracked"]
    assert "mismatch" in found["head", "other.bias"]
    assert "F32 [3] in the donor, F32 [2] in the recipient" in found["head", "other.bias"]
    assert "measured" in found["(all)", "conv.weight"]


def test_a_long_plan_is_a_screen_and_has_what_runs_or_does_not_fit() -> None:
    """Sixty lines of what is equal in both said nothing: their number stands below."""
    data = plan()
    rows = [row | {"kind": f"{row['kind']}{at}"} for at in range(40) for row in data["rows"]]
    text = plan_table(data | {"rows": rows, "cells": len(rows)}, Style(160))
    assert len(text.splitlines()) <= 20
    assert {line.split()[2] for line in text.split("\n\n")[1].splitlines()[1:-1]} == {"measured", "mismatch"}
    running = sum(row["status"] in ("measured", "mismatch") for row in rows)
    assert f"\nand {running - 10} more\n" in text
    assert text.endswith("\n--all: every cell\n")
    assert "--all" not in plan_table(data, Style(160), every=True)


def test_exports_are_the_cells() -> None:
    data = plan()
    rows = list(csv.DictReader(io.StringIO(plan_csv(data))))
    assert tuple(rows[0]) == FIELDS
    assert [row["tensors"] for row in rows] == [" ".join(row["tensors"]) for row in data["rows"]]
    assert [row["status"] for row in rows] == [row["status"] for row in data["rows"]]
    assert [float(row["rmse"]) if row["rmse"] else None for row in rows] == [row["rmse"] for row in data["rows"]]
    assert plan_md(data).count("\n") == 2 + 14
