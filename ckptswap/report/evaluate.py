"""Checkpoints scored side by side: the `evaluate` JSON as a terminal table, csv and md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.text import Text

from ckptswap.report.layout import HEADING, QUIET, Cell, Column, flow, grid, render
from ckptswap.report.tabular import to_csv, to_md
from ckptswap.report.text import Style, decimals, fixed, interval, plural, safe

if TYPE_CHECKING:
    from ckptswap.statistics.intervals import Interval
    from ckptswap.sweep.comparison import Comparison

SCHEMA = "ckptswap.evaluate/1"
_CSV = ("quantity", "metric", "a", "b", "value", "ci_low", "ci_high")


def evaluate_json(comparison: Comparison) -> dict[str, Any]:
    """The JSON contract, `docs/schemas/evaluate.schema.json`; a score that does not exist is null."""
    return {
        "schema": SCHEMA,
        "samples": comparison.samples,
        "checkpoints": [
            {"path": path, "scores": {metric: _score_json(score) for metric, score in scores.items()}}
            for path, scores in zip(comparison.paths, comparison.scores, strict=True)
        ],
        "differences": [
            {"a": each.a, "b": each.b, "metric": each.metric, "difference": each.interval.estimate,
             "ci_low": each.interval.low, "ci_high": each.interval.high}
            for each in comparison.differences
        ],
    }  # fmt: skip


def _score_json(score: Interval | None) -> dict[str, float | None]:
    if score is None:
        return {"value": None, "ci_low": None, "ci_high": None}
    return {"value": score.estimate, "ci_low": score.low, "ci_high": score.high}


def evaluate_table(data: Mapping[str, Any], style: Style) -> str:
    """Each metric with every checkpoint's score and 95 % interval, then the paired differences, a − b.

    `data` is the `evaluate` JSON, `docs/schemas/evaluate.schema.json`.

    >>> score = {"value": 0.93, "ci_low": 0.91, "ci_high": 0.95}
    >>> data = {"samples": 72, "checkpoints": [{"path": "a.pt", "scores": {"dice": score}}], "differences": []}
    >>> print(evaluate_table(data, Style()), end="")
    72 samples
    <BLANKLINE>
    dice
    checkpoint   score  95 % interval
    a.pt        0.9300  [0.9100, 0.9500]
    """
    lines: list[Text] = [Text(plural(data["samples"], "sample"), style=QUIET)]
    for metric in _metrics(data):
        scores = [
            (each["path"], each["scores"][metric]) for each in data["checkpoints"] if metric in each["scores"]
        ]
        differences = [each for each in data["differences"] if each["metric"] == metric]
        places = decimals(score["value"] for _, score in scores)
        lines += [Text(), *flow([Text(safe(metric), style=HEADING)], style), *_scores(scores, places, style)]
        lines += [Text(), *_differences(differences, places, style)] if differences else []
    return render(lines, style)


def _metrics(data: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(metric for each in data["checkpoints"] for metric in each["scores"]))


def _scores(scores: Sequence[tuple[str, Mapping[str, Any]]], places: int, style: Style) -> list[Text]:
    rows: list[list[Cell]] = [
        [safe(path), fixed(score["value"], places), interval(score["ci_low"], score["ci_high"], places)]
        for path, score in scores
    ]
    columns = [Column("checkpoint", smallest=16), Column("score", right=True), Column("95 % interval", spare=1)]
    return grid(columns, rows, style)


def _differences(differences: Sequence[Mapping[str, Any]], places: int, style: Style) -> list[Text]:
    rows: list[list[Cell]] = [
        [
            safe(each["a"]),
            safe(each["b"]),
            fixed(each["difference"], places, signed=True),
            interval(each["ci_low"], each["ci_high"], places, signed=True),
        ]
        for each in differences
    ]
    columns = [
        Column("a", smallest=12),
        Column("b", smallest=12),
        Column("a − b", right=True),
        Column("95 % interval, paired", spare=1),
    ]
    return grid(columns, rows, style)


def _rows(data: Mapping[str, Any]) -> list[list[object]]:
    scores: list[list[object]] = [
        ["score", metric, each["path"], None, score["value"], score["ci_low"], score["ci_high"]]
        for each in data["checkpoints"]
        for metric, score in each["scores"].items()
    ]
    differences: list[list[object]] = [
        ["difference", each["metric"], each["a"], each["b"], each["difference"], each["ci_low"], each["ci_high"]]
        for each in data["differences"]
    ]
    return scores + differences


def evaluate_csv(data: Mapping[str, Any]) -> str:
    """One table of scores (`b` empty) and differences (a − b), told apart by `quantity`.

    >>> evaluate_csv({"checkpoints": [], "differences": []})
    'quantity,metric,a,b,value,ci_low,ci_high\\n'
    """
    return to_csv(_CSV, _rows(data))


def evaluate_md(data: Mapping[str, Any]) -> str:
    """The same rows as a GitHub table.

    >>> print(evaluate_md({"samples": 72, "checkpoints": [], "differences": []}), end="")
    72 samples; differences are a − b
    <BLANKLINE>
    | quantity | metric | a | b | value | ci_low | ci_high |
    | :--- | :--- | :--- | :--- | :--- | :--- | :--- |
    """
    return f"{plural(data['samples'], 'sample')}; differences are a − b\n\n{to_md(_CSV, _rows(data))}"
