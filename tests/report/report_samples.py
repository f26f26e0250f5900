"""Plausible results, made by formula, with every status in them; `rename` puts other names in their place."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from rich.text import Text

from ckptswap.report.heatmap import heat_lines
from ckptswap.report.layout import render
from ckptswap.report.screen import finding_lines, kind_lines
from ckptswap.report.text import Style
from ckptswap.sweep.result import Finding, MetricScore, OtherMetric, Row, SweepResult

Rename = Callable[[str], str]
SIZES = {
    "conv.weight": 0.5,
    "bn.running_mean": 0.3,
    "bn.running_var": 0.1,
    "bn.bias": 0.01,
    "conv.bias": 0.004,
    "bn.weight": 0.001,
}
HOSTILE = [
    "a\nb",
    "\x1b[31mred\x1b[0m",
    "\x9b31m",
    "[red]x[/red]",
    "<script>alert(1)</script>",
    "a|b",
    "../../etc/passwd",
    "safe\u202egnp.exe",
    "`x`",
    "=1+1",
    "tab\there\r",
    "\u200bhidden\u2028line",
    "\ud800",
    "\x00\x7f",
    "🎉层",
    "e\u0301" * 5,
    "long." * 60 + "end",
    "",
]


def text_of(lines_of: Callable[[SweepResult, Style], list[Text]]) -> Callable[[SweepResult, Style], str]:
    """A part of a sweep's report as text."""
    return lambda result, style: render(lines_of(result, style), style)


heatmap, kind_summary, findings_text = map(text_of, (heat_lines, kind_lines, finding_lines))


def same(name: str) -> str:
    return name


def _measured(layer: str | None, kind: str, drop: float, tensors: tuple[str, ...], numel: int) -> Row:
    width = 0.004 if kind in ("bn.weight", "conv.bias") else 0.017
    low, high = drop - width, drop + width
    tolerance = 0.0091
    verdict = "sensitive" if low > tolerance else "reusable" if high < tolerance else "undecided"
    zeros = None if verdict != "reusable" else 0.31 if kind == "conv.bias" else 0.002
    verdict = "unused" if zeros == 0.002 else verdict
    return Row(
        layer, kind, tensors, numel, "measured", rmse=0.05 + drop / 10, rel_l2=0.4, score=0.9312 - drop, drop=drop,
        ci_low=drop - width / 2, ci_high=drop + width / 2, sim_low=low, sim_high=high, samples=72, verdict=verdict,
        zero_drop=zeros,
    )  # fmt: skip


def _cell(layer: str, place: int, kind: str, size: float, rename: Rename) -> Row:
    name = rename(f"{layer}.{kind.partition('.')[2]}")
    shown = rename(layer), rename(kind)
    if kind == "conv.bias" and place > 5:
        return Row(*shown, (name,), 64, "no-effect", rmse=0.1, score=0.9312, drop=0.0, verdict="reusable")
    if kind == "bn.weight" and place < 2:
        return Row(*shown, (name,), 64, "identical", rmse=0.0, score=0.9312, drop=0.0, verdict="reusable")
    drop = size * (1 + (place * 7 + len(kind)) % 9) / 8 - 0.001
    drop = -3 * drop if kind == "bn.bias" and place in (4, 5) else drop
    return _measured(*shown, drop, (name,), 64 * 4 ** (place // 2) * (9 if kind == "conv.weight" else 1))


def _ranked(rows: list[Row]) -> list[Row]:
    rows = sorted(rows, key=lambda row: -(row.drop or 0))
    return [dataclasses.replace(row, rank=at) for at, row in enumerate(rows, 1)]


def sweep(layer: str = "encoder.{}.conv{}", rename: Rename = same) -> SweepResult:
    wholes = [
        _measured(None, rename(kind), 1.2 * size, (rename(f"x.{kind}"),), 123456) for kind, size in SIZES.items()
    ]
    places = [layer.format(i, j) for i in range(4) for j in (1, 2)]
    cells = [_cell(name, at, kind, size, rename) for at, name in enumerate(places) for kind, size in SIZES.items()]
    measured = _ranked([row for row in cells if row.status == "measured"])
    rest = [row for row in cells if row.status != "measured"]
    head = rename("head")
    why = f"{rename('head.weight')} has shape [1, 16, 3, 3] in the donor, [2, 16, 3, 3] in the recipient"
    rest.append(
        Row(head, rename("conv.bias"), (rename("head.bias"),), 2, "failed", reason="3 outputs are not finite")
    )
    rest.append(Row(head, rename("conv.weight"), (rename("head.weight"),), 288, "mismatch", reason=why))
    findings = (
        Finding(
            "bn-affine-reusable",
            "The weight and bias of batch norm can be reused.",
            "bn.weight and bn.bias, as whole kinds and in every cell: supported when all are reusable at the "
            "tolerance, not supported when any is sensitive (simultaneous intervals)",
            {"whole.bn.weight": 0.0012, "whole.bn.bias": 0.012, "cells": 14, "worst": None},
            "undecided",
        ),
        Finding(
            rename("conv-weight"),
            "The network is very sensitive to convolution weights.",
            "the simultaneous interval of the whole kind lies above 10 × tolerance",
            {rename("whole.conv.weight"): 0.6},
            "supported",
        ),
    )
    rows = (*_ranked(wholes), *measured, *rest)
    note = "tolerance 0.0091 = 0.01 × |baseline 0.9312 − 0.02 of a trivial prediction|"
    return SweepResult(rename("dice"), "max", 0.0091, 0.9312, 0.0213, 72, rows, findings, (note,))


def several() -> SweepResult:
    """Scored by two metrics more, which do not rank."""
    result = sweep()
    others = (OtherMetric("mse", "min", 0.0123, 0.5), OtherMetric("torchmetrics:F1Score", "max", 0.9, None))

    def scores(row: Row) -> tuple[MetricScore, ...]:
        if row.drop is None:
            return MetricScore(), MetricScore()
        ends = (row.drop / 10 - 0.001, row.drop / 10 + 0.001) if row.rank else (None, None)
        return MetricScore(0.0123 + row.drop / 10, row.drop / 10, *ends), MetricScore(0.9 - row.drop, row.drop)

    rows = tuple(dataclasses.replace(row, others=scores(row)) for row in result.rows)
    return dataclasses.replace(result, rows=rows, others=others)


_SHAPES = {"conv.weight": [64, 3, 7, 7], "conv.bias": [64], "bn.running_mean": [64], "bn.num_batches_tracked": []}


def show(*, stats: bool = False, rename: Rename = same) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    for block in range(3):
        for kind, shape in _SHAPES.items():
            family, role = kind.split(".")
            numel = 64 * 147 if role == "weight" else 64 if shape else 1
            layer = f"encoder.layer{block}.0.{family}1"
            row = {
                "name": rename(f"{layer}.{role}"), "layer": rename(layer), "block": None,
                "kind": rename(kind), "shape": shape,
                "dtype": "F32" if shape else "I64", "numel": numel, "nbytes": numel * (4 if shape else 8),
            }  # fmt: skip
            rows.append(row | (_stats(block, shape) if stats else {}))
    total = sum(row["nbytes"] for row in rows)
    path = rename("runs/brain/segment.safetensors")
    return {
        "schema": "ckptswap.show/1",
        "path": path,
        "format": "safetensors",
        "tensors": 12,
        "bytes": total,
        "rows": rows,
    }


def _stats(block: int, shape: list[int]) -> dict[str, Any]:
    if not shape:
        return {"min": 1500, "max": 1500, "mean": 1500.0, "std": 0.0, "nan": 0, "inf": 0}
    if block == 2:
        return {"min": None, "max": None, "mean": None, "std": None, "nan": 64, "inf": 0}
    return {"min": -0.0123, "max": 3.2, "mean": -1.5e-05, "std": 0.0412, "nan": 0, "inf": block * 20000}


_STATUSES = ["changed", "changed", "shape", "dtype", "only_a", "only_b", "identical", "unread", *["changed"] * 4]


def diff(rename: Rename = same) -> dict[str, Any]:
    rows = [
        _diff_row(at, row, status)
        for at, (row, status) in enumerate(zip(show(rename=rename)["rows"], _STATUSES, strict=True))
    ]
    statuses = ("identical", "changed", "shape", "dtype", "only_a", "only_b", "unread")
    return {
        "schema": "ckptswap.diff/1",
        "a": {"path": rename("segment.safetensors"), "tensors": 11, "bytes": 4_467_000},
        "b": {"path": rename("runs/some/where/reconstruct.safetensors"), "tensors": 11, "bytes": 4_467_000},
        "summary": {status: _STATUSES.count(status) for status in statuses},
        "rows": rows,
    }


def _diff_row(at: int, row: dict[str, Any], status: str) -> dict[str, Any]:
    a, b = status != "only_b", status != "only_a"
    known = status in ("changed", "identical")
    gap = 0.11 * at if status == "changed" else 0.0
    return {
        "name": row["name"], "layer": row["layer"], "kind": row["kind"], "status": status,
        "shape_a": row["shape"] if a else None,
        "shape_b": None if not b else [128] if status == "shape" else row["shape"],
        "dtype_a": "F32" if a else None,
        "dtype_b": None if not b else "F16" if status == "dtype" else "F32",
        "numel": row["numel"],
        "changed": None if not known else (row["numel"] + 1) // 2 if status == "changed" else 0,
        "rmse": gap / 9 if known else None,
        "max_abs": gap * 2 if known else None,
        "rel_l2": gap if known else None,
        "cosine": 1 - gap / 3 if known else None,
        "nan_a": 0 if known else None,
        "nan_b": 0 if known else None,
        "mean_abs": 0.0 if known else None,
        "inf_a": 0 if known else None,
        "inf_b": 0 if known else None,
        "flips": 0 if known else None,
    }  # fmt: skip


def grouped(rename: Rename = same) -> dict[str, Any]:
    data = diff(rename)
    nothing = dict.fromkeys(("name", "shape_a", "shape_b", "dtype_a", "dtype_b"))
    rows = [row | nothing | {"kind": None, "tensors": 4} for row in data["rows"][:3]]
    return data | {"rows": rows}


def threeway(rename: Rename = same) -> dict[str, Any]:
    sides = {
        side: {"path": rename(f"runs/{side}.safetensors"), "tensors": 11, "bytes": 44}
        for side in ("base", "a", "b")
    }
    statuses = ("unchanged", "a", "b", "same", "both", "both", *["a"] * 6)
    changes = {"unchanged": ("identical", "identical"), "a": ("changed", None), "b": ("identical", "only_b")}
    rows = []
    for at, (row, status) in enumerate(zip(show(rename=rename)["rows"], statuses, strict=True)):
        change_a, change_b = changes.get(status, ("changed", "changed"))
        kept = {name: row[name] for name in ("name", "layer", "kind")}
        numbers = {"rel_l2_a": 0.11 * at, "rel_l2_b": None if change_b != "changed" else 0.2}
        rows.append(kept | {"status": status, "change_a": change_a, "change_b": change_b} | numbers)
    summary = {status: statuses.count(status) for status in ("unchanged", "a", "b", "same", "both")}
    return {"schema": "ckptswap.diff3/1", **sides, "summary": summary, "rows": rows}


def plan(rename: Rename = same) -> dict[str, Any]:
    """What `plan_json` gives."""
    rows = [
        {name: row[name] for name in ("layer", "block", "kind", "numel")}
        | {
            "status": "mismatch" if at == 3 else "measured",
            "tensors": [row["name"]],
            "rmse": 0.01 * at,
            "rel_l2": 0.5,
        }
        | {"reason": f"{row['name']}: missing in the donor" if at == 3 else None}
        for at, row in enumerate(show(rename=rename)["rows"])
    ]
    facts = {"run": rename("runs/x"), "samples": 72, "cells": 12, "variants": 11, "passes": 936}
    facts |= {"engine": "replay", "share": 0.587, "seconds": 83.0, "peak_bytes": 14_200_000}
    return {"schema": "ckptswap.plan/1", **facts, "rows": rows}


def evaluate(rename: Rename = same) -> dict[str, Any]:
    a, b = rename("segment.safetensors"), rename("runs/x/segment+conv.bias@reconstruct.safetensors")
    dice = rename("dice")
    return {
        "schema": "ckptswap.evaluate/1",
        "samples": 72,
        "checkpoints": [
            {"path": a, "scores": {dice: _score(0.9312), "psnr": _score(31.5)}},
            {
                "path": b,
                "scores": {dice: _score(0.9012), "psnr": {"value": None, "ci_low": None, "ci_high": None}},
            },
        ],
        "differences": [
            {"a": a, "b": b, "metric": dice, "difference": 0.03, "ci_low": 0.021, "ci_high": 0.04},
            {"a": a, "b": b, "metric": "psnr", "difference": None, "ci_low": None, "ci_high": None},
        ],
    }


def explain(rename: Rename = same) -> dict[str, Any]:
    look = {"name": rename("image"), "shape": [3, 96, 96], "dtype": "float32", "low": -2.1179, "high": 2.64}
    return {
        "schema": "ckptswap.explain/1",
        "below_trivial": [rename("iou")],
        "checkpoint": rename("runs/x/segment.safetensors"),
        "model": rename("smp:Unet"),
        "model_args": {"encoder_name": "resnet18", "classes": 3},
        "parameters": 14_328_354,
        "dtype": "float32",
        "data": rename("scans/val"),
        "samples": 72,
        "groups": 9,
        "batch_size": 8,
        "normalize": "0.485,0.456,0.406/0.229,0.224,0.225",
        "resize": "96x96",
        "ignore": 255,
        "reads": "logits",
        "inputs": [look],
        "targets": [{"name": "target", "shape": [96, 96], "dtype": "int64", "low": 0, "high": 2}],
        "output": {"name": "output", "shape": [3, 96, 96], "dtype": "float32", "low": None, "high": None},
        "classes": [{"class": number, "share": 0.1} for number in range(10)],
        "metrics": [
            {"name": rename("iou"), "direction": "max", "score": 0.1031, "trivial": 0.3122},
            {"name": "mse", "direction": "min", "score": 0.25, "trivial": None},
        ],
        "notes": [rename("mask value 255 is not scored, as the layout of the folder says")],
        "warnings": ["a batch norm without running statistics makes scores depend on the batch size"],
    }


def _score(value: float) -> dict[str, float]:
    return {"value": value, "ci_low": value - 0.01, "ci_high": value + 0.01}
