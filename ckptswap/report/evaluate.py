"""Checkpoints scored side by side: the `evaluate` JSON as a terminal table, csv and md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rich.text import Text

from ckptswap.report.layout import HEADING, QUIET, Column, field, flow, render, table
from ckptswap.report.tabular import columns_csv, columns_md
from ckptswap.report.text import Style, decimals, fixed, interval, plural, safe

if TYPE_CHECKING:
    from ckptswap.statistics.comparison import Comparison
    from ckptswap.statistics.intervals import Interval

SCHEMA = "ckptswap.evaluate/1"
_EXPORTED = tuple(field(name) for name in ("quantity", "metric", "a", "b", "value", "ci_low", "ci_high"))


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
            {"a": pair.a, "b": pair.b, "metric": pair.metric, "difference": pair.interval.estimate,
             "ci_low": pair.interval.low, "ci_high": pair.interval.high}
            for pair in comparison.differences
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
    last = None
    for metric, columns, rows in scored_tables(data):
        title = flow([Text(safe(metric), style=HEADING)], style) if metric != last else []
        lines += [Text(), *title, *table(columns, rows, style)]
        last = metric
    return render(lines, style)


def scored_tables(data: Mapping[str, Any]) -> Iterator[tuple[str, list[Column], list[dict[str, Any]]]]:
    """For each metric its name over the scores, and again over the differences where there are any."""
    rows = _rows(data)
    for metric in dict.fromkeys(row["metric"] for row in rows):
        scores, differences = (
            [row for row in rows if (row["metric"], row["quantity"]) == (metric, quantity)]
            for quantity in ("score", "difference")
        )
        places = decimals(row["value"] for row in scores)
        yield metric, _score_columns(places), scores
        if differences:
            yield metric, _difference_columns(places), differences


def _score_columns(places: int) -> list[Column]:
    return [
        field("a", safe, "checkpoint", smallest=16),
        field("value", lambda value: fixed(value, places), "score", right=True),
        Column("95 % interval", lambda row: interval(row["ci_low"], row["ci_high"], places), spare=1),
    ]


def _difference_columns(places: int) -> list[Column]:
    ends = "95 % interval, paired"
    return [
        field("a", safe, smallest=12),
        field("b", safe, smallest=12),
        field("value", lambda value: fixed(value, places, signed=True), "a − b", right=True),
        Column(ends, lambda row: interval(row["ci_low"], row["ci_high"], places, signed=True), spare=1),
    ]


def _rows(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Scores (`b` is None) and differences in one form."""
    scores = [
        {"quantity": "score", "metric": metric, "a": scored["path"], "b": None} | score
        for scored in data["checkpoints"]
        for metric, score in scored["scores"].items()
    ]
    return scores + [{"quantity": "difference", "value": row["difference"]} | row for row in data["differences"]]


def evaluate_csv(data: Mapping[str, Any]) -> str:
    """One table of scores (`b` empty) and differences (a − b), told apart by `quantity`.

    >>> evaluate_csv({"checkpoints": [], "differences": []})
    'quantity,metric,a,b,value,ci_low,ci_high\\n'
    """
    return columns_csv(_EXPORTED, _rows(data))


def evaluate_md(data: Mapping[str, Any]) -> str:
    """The same rows as a GitHub table.

    >>> print(evaluate_md({"samples": 72, "checkpoints": [], "differences": []}), end="")
    72 samples; differences are a − b
    <BLANKLINE>
    | quantity | metric | a | b | value | ci_low | ci_high |
    | :--- | :--- | :--- | :--- | :--- | :--- | :--- |
    """
    return f"{plural(data['samples'], 'sample')}; differences are a − b\n\n{columns_md(_EXPORTED, _rows(data))}"
