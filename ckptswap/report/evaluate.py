"""Checkpoints scored side by side: the `evaluate` JSON as a terminal table, csv and md."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

from rich.text import Text

from ckptswap.report.latex import columns_latex, tables_latex
from ckptswap.report.layout import HEADING, QUIET, Column, field, flow, render, table
from ckptswap.report.tabular import columns_csv, columns_md
from ckptswap.report.text import Style, decimals, fixed, interval, plural, safe
from ckptswap.statistics import Comparison, Interval

SCHEMA = "ckptswap.evaluate/1"
_EXPORTED = tuple(field(name) for name in ("quantity", "metric", "a", "b", "value", "ci_low", "ci_high"))


def evaluate_json(comparison: Comparison) -> dict[str, Any]:
    """The JSON contract, `docs/schemas/evaluate.schema.json`; a score that does not exist is null."""
    return {
        "schema": SCHEMA,
        "samples": comparison.samples,
        **({"drawn": asdict(comparison.drawn)} if comparison.drawn else {}),
        "checkpoints": [
            {"path": path, "scores": {metric: _json("value", score) for metric, score in scores.items()}}
            for path, scores in zip(comparison.paths, comparison.scores, strict=True)
        ],
        "differences": [
            {"a": pair.a, "b": pair.b, "metric": pair.metric} | _json("difference", pair.interval)
            for pair in comparison.differences
        ],
    }


def _json(name: str, score: Interval | None) -> dict[str, float | None]:
    numbers = (score.estimate, score.low, score.high) if score else (None, None, None)
    return dict(zip((name, "ci_low", "ci_high"), numbers, strict=True))


def evaluate_table(data: Mapping[str, Any], style: Style) -> str:
    """Each metric with every checkpoint's score and 95 % interval, then the paired differences, a − b.

    `data` is the `evaluate` JSON, `docs/schemas/evaluate.schema.json`.

    >>> score = {"value": 0.93, "ci_low": 0.91, "ci_high": 0.95}
    >>> data = {"samples": 72, "checkpoints": [{"path": "a.pt", "scores": {"dice": score}}], "differences": []}
    >>> evaluate_table(data, Style()).splitlines()[3:]
    ['checkpoint   score  95 % interval', 'a.pt        0.9300  [0.9100, 0.9500]']
    """
    lines, last = [Text(plural(data["samples"], "sample"), style=QUIET)], None
    for metric, columns, rows in scored_tables(data):
        title = flow([Text(safe(metric), style=HEADING)], style) if metric != last else []
        lines += [Text(), *title, *table(columns, rows, style)]
        last = metric
    return render(lines, style)


def scored_tables(data: Mapping[str, Any]) -> Iterator[tuple[str, list[Column], list[dict[str, Any]]]]:
    """For each metric its name over the scores, and again over the differences where there are any."""
    rows = _rows(data)
    for metric in dict.fromkeys(row["metric"] for row in rows):
        of_metric = [row for row in rows if row["metric"] == metric]
        scores = [row for row in of_metric if row["quantity"] == "score"]
        places = decimals(row["value"] for row in scores)
        yield metric, [field("a", safe, "checkpoint", smallest=16), *_numbers("score", "", places)], scores
        if differences := [row for row in of_metric if row["quantity"] == "difference"]:
            sides = [field(side, safe, smallest=12) for side in "ab"]
            yield metric, [*sides, *_numbers("a − b", ", paired", places, signed=True)], differences


def _numbers(title: str, paired: str, places: int, *, signed: bool = False) -> list[Column]:
    def ends(row: Mapping[str, Any]) -> str:
        return interval(row["ci_low"], row["ci_high"], places, signed=signed)

    value = field("value", partial(fixed, places=places, signed=signed), title, right=True)
    return [value, Column(f"95 % interval{paired}", ends, spare=1)]


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
    return columns_csv(_EXPORTED, {"rows": _rows(data)})


def evaluate_latex(data: Mapping[str, Any]) -> str:
    """The same for papers: of each metric a table of scores, and one of differences."""
    words = f", {plural(data['samples'], 'sample')}, 95 % intervals"
    return tables_latex(
        columns_latex(columns, rows, metric + words) for metric, columns, rows in scored_tables(data)
    )


def evaluate_md(data: Mapping[str, Any]) -> str:
    """The same rows as a GitHub table.

    >>> evaluate_md({"samples": 72, "checkpoints": [], "differences": []}).splitlines()[2]
    '| quantity | metric | a | b | value | ci_low | ci_high |'
    """
    head = f"{plural(data['samples'], 'sample')}; differences are a − b"
    return f"{head}\n\n{columns_md(_EXPORTED, {'rows': _rows(data)})}"
