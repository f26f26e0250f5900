"""Pictures as plotly's figures: plain JSON objects, small enough for thousands of cells.

`page.js` fills in colours by theme, a heatmap's matrices from the list of its cells, and what is told under the
mouse from the table of rows, where `lines` says which. Text from files is escaped twice: against terminals and
readers by `safe`, and against plotly's own HTML here.
"""

import html
from collections.abc import Mapping
from typing import Any

from ckptswap.report.charts import MARKS, Chart, Heat, Picture, Series
from ckptswap.report.text import shorten
from ckptswap.sweep.result import Row

Lines = Mapping[Row, int]

TALLEST = 3000  # pixels of a heatmap at the most
LONG = 34  # letters of a name along an axis; hovering shows it whole
DIGITS = 6  # significant ones of a number that is only drawn


def figure(picture: Picture, lines: Lines | None = None) -> dict[str, Any]:
    """`data` and `layout` for `Plotly.newPlot`, and a heatmap's cells: row, column, drop, mark, line of the table.

    >>> figure(Heat("drop", ("conv1",), ("conv.bias",), ((0.5,),), (("",),)))["cells"]
    [[0, 0, 0.5, '', None]]
    """
    return _heat(picture, lines or {}) if isinstance(picture, Heat) else _chart(picture, lines or {})


def _drawn(value: float | str | None) -> float | str | None:
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def _text(name: str) -> str:
    """Neither HTML nor mathematics, which is what plotly reads between dollars."""
    return html.escape(name, quote=False).replace("$", "&#36;")


def _axis(title: str, names: tuple[str, ...] = (), most: int = 150, **more: Any) -> dict[str, Any]:
    """An axis; with names whole numbers from 0 on stand for them, since two cut names may be alike. Of more than
    `most` every n-th is written: a thousand labels would keep a browser busy for a minute."""
    step = -(-len(names) // most) or 1
    shown = range(0, len(names), step)
    texts = [_text(shorten(names[at], LONG)) for at in shown]
    ticks = {"tickvals": list(shown), "ticktext": texts} if names else {}
    return {"title": {"text": _text(title)}, "automargin": True, **ticks, **more}


def _heat(heat: Heat, lines: Lines) -> dict[str, Any]:
    """Measured cells by colour, centred at zero; the others by a letter on grey; no cell at all stays empty."""
    shared = {"hoverinfo": "text", "xgap": 1, "ygap": 1, "type": "heatmap"}
    measured = {**shared, "name": "drop", "zmid": 0, "zmin": -heat.scale.end, "zmax": heat.scale.end}
    measured["colorbar"] = {"title": {"text": "drop"}, "thickness": 12}
    marked = {**shared, "name": "not measured", "texttemplate": "%{text}", "showscale": False}
    return {
        "data": [measured, marked] if any(map(any, heat.marks)) else [measured],
        "layout": {
            "height": min(max(260, 140 + 17 * len(heat.rows)), TALLEST),
            "xaxis": _axis("", heat.columns, tickangle=-40, side="top", showgrid=False, zeroline=False),
            "yaxis": _axis("", heat.rows, autorange="reversed", showgrid=False, zeroline=False),
        },
        "rows": heat.rows,
        "columns": heat.columns,
        "cells": _cells(heat, lines),
        "words": {mark: word for word, mark in MARKS.items()},
    }


def _cells(heat: Heat, lines: Lines) -> list[list[Any]]:
    """Only those that are there: most layers have few of all kinds."""
    cells: list[list[Any]] = []
    for y, (values, marks) in enumerate(zip(heat.values, heat.marks, strict=True)):
        for x, (value, mark) in enumerate(zip(values, marks, strict=True)):
            row = heat.cells[y][x] if heat.cells else None
            if row or mark or value is not None:
                cells.append([y, x, _drawn(value), mark, lines.get(row) if row else None])
    return cells


def _chart(chart: Chart, lines: Lines) -> dict[str, Any]:
    if chart.form == "bars":
        return _bars(chart, lines)
    traces = [_trace(chart, series, at, lines) for at, series in enumerate(chart.series)]
    x = _axis(chart.x_title, chart.x_names, most=24, type="log" if chart.is_log_x else "linear")
    x |= {"tickangle": -40} if chart.x_names else {}
    return {"data": traces, "layout": {"height": 420, "xaxis": x, "yaxis": _axis(chart.y_title, zeroline=True)}}


def _bars(chart: Chart, lines: Lines) -> dict[str, Any]:
    [series] = chart.series
    trace = {
        "type": "bar",
        "name": series.name,
        "orientation": "h",
        "y": list(range(len(series.x))),
        "x": [_drawn(value) for value in series.y],
        **_told(series, lines),
        **_ends(series, "error_x"),
    }
    names = tuple(map(str, series.x))
    axes = {
        "xaxis": _axis(chart.x_title, zeroline=True),
        "yaxis": _axis(chart.y_title, names, autorange="reversed", showgrid=False),
    }
    return {"data": [trace], "layout": {"height": max(260, 110 + 19 * len(names)), **axes, "showlegend": False}}


def _trace(chart: Chart, series: Series, at: int, lines: Lines) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines+markers" if chart.form == "lines" else "markers",
        "name": _text(shorten(series.name, LONG)),
        "x": [_drawn(value) for value in series.x],
        "y": [_drawn(value) for value in series.y],
        "marker": {"symbol": at % 8, "size": 7},
        "line": {"dash": ("solid", "dash", "dot", "dashdot")[at // 8 % 4]},
        **_told(series, lines),
        **(_ends(series, "error_y") if chart.form != "scatter" else {}),
    }


def _told(series: Series, lines: Lines) -> dict[str, Any]:
    """Where the table tells of each point; a point of a path has no row, and tells its own numbers."""
    return {"lines": [lines.get(row) for row in series.rows], "hoverinfo": "text"} if series.rows else {}


def _ends(series: Series, name: str) -> dict[str, Any]:
    if all(end is None for end in (*series.low, *series.high)):
        return {}
    above, below = (
        [None if low is None or high is None else _drawn(high - low) for low, high in zip(*sides, strict=True)]
        for sides in ((series.y, series.high), (series.low, series.y))
    )
    bars = {"type": "data", "symmetric": False, "array": above, "arrayminus": below, "thickness": 1, "width": 2}
    return {name: bars}
