"""Pictures as plotly's figures: plain JSON objects, whose colours `page.js` fills in by theme.

Text from files is escaped twice: against terminals and readers by `safe`, and against plotly's own HTML here.
"""

from __future__ import annotations

import html
import math
from typing import Any

from ckptswap.report.charts import Chart, Heat, Picture, Series
from ckptswap.report.text import fixed, number, shorten

TALLEST = 3000
"""Pixels of a heatmap at the most."""
LONG = 34
"""Letters of a name along an axis; hovering shows it whole."""
STATUSES = ("identical", "no-effect", "mismatch", "failed")


def figure(picture: Picture) -> dict[str, Any]:
    """`data` and `layout` for `Plotly.newPlot`.

    >>> figure(Heat("drop", ("conv1",), ("conv.bias",), ((0.5,),), (("",),)))["data"][0]["z"]
    [[0.5]]
    """
    return _heat(picture) if isinstance(picture, Heat) else _chart(picture)


def _text(name: str) -> str:
    """Neither HTML nor mathematics, which is what plotly reads between dollars."""
    return html.escape(name, quote=False).replace("$", "&#36;")


def _short(name: str) -> str:
    return _text(shorten(name, LONG))


def _axis(title: str, names: tuple[str, ...] = (), most: int = 150, **more: Any) -> dict[str, Any]:
    """An axis; with names whole numbers from 0 on stand for them, since two cut names may be alike. Of more than
    `most` every n-th is written: a thousand labels would keep a browser busy for a minute."""
    step = -(-len(names) // most) or 1
    shown = range(0, len(names), step)
    ticks = {"tickvals": list(shown), "ticktext": [_short(names[at]) for at in shown]} if names else {}
    return {"title": {"text": _text(title)}, "automargin": True, **ticks, **more}


# Heatmap ---------------------------------------------------------------------------------------------------------


def _heat(heat: Heat) -> dict[str, Any]:
    """Measured cells by colour, centred at zero; the others by a letter on grey; no cell at all stays empty."""
    most = max((abs(v) for row in heat.values for v in row if v is not None and math.isfinite(v)), default=0) or 1
    shared = {"hoverinfo": "text", "xgap": 1, "ygap": 1, "type": "heatmap"}
    measured = {
        **shared,
        "name": "drop",
        "z": [list(row) for row in heat.values],
        "hovertext": [
            [_about(heat, y, x, fixed(value, 4, signed=True)) for x, value in enumerate(row)]
            for y, row in enumerate(heat.values)
        ],
        "zmid": 0,
        "zmin": -most,
        "zmax": most,
        "colorbar": {"title": {"text": "drop"}, "thickness": 12},
    }
    marked = {
        **shared,
        "name": "not measured",
        "z": [[1 if mark else None for mark in row] for row in heat.marks],
        "text": [list(row) for row in heat.marks],
        "texttemplate": "%{text}",
        "hovertext": [
            [_about(heat, y, x, heat.said[y][x] if heat.said else mark) for x, mark in enumerate(row)]
            for y, row in enumerate(heat.marks)
        ],
        "showscale": False,
    }
    layout = {
        "height": min(max(260, 140 + 17 * len(heat.rows)), TALLEST),
        "xaxis": _axis("", heat.columns, tickangle=-40, side="top", showgrid=False, zeroline=False),
        "yaxis": _axis("", heat.rows, autorange="reversed", showgrid=False, zeroline=False),
    }
    is_marked = any(mark for row in heat.marks for mark in row)
    return {"data": [measured, marked] if is_marked else [measured], "layout": layout}


def _about(heat: Heat, y: int, x: int, what: str) -> str:
    more = heat.notes[y][x] if heat.notes else ""
    lines = [heat.rows[y], heat.columns[x], what, *more.split("\n")]
    return "<br>".join(_text(line) for line in lines if line)


# Bars, lines, points ---------------------------------------------------------------------------------------------


def _chart(chart: Chart) -> dict[str, Any]:
    if chart.form == "bars":
        return _bars(chart)
    traces = [_trace(chart, series, at) for at, series in enumerate(chart.series)]
    x = _axis(chart.x_title, chart.x_names, most=24, type="log" if chart.is_log_x else "linear")
    x |= {"tickangle": -40} if chart.x_names else {}
    return {"data": traces, "layout": {"height": 420, "xaxis": x, "yaxis": _axis(chart.y_title, zeroline=True)}}


def _bars(chart: Chart) -> dict[str, Any]:
    [series] = chart.series
    places = list(range(len(series.x)))
    trace = {
        "type": "bar",
        "name": series.name,
        "orientation": "h",
        "y": places,
        "x": list(series.y),
        "hovertext": [_point(series, at) for at in places],
        "hoverinfo": "text",
        **_errors(series, "error_x"),
    }
    names = tuple(map(str, series.x))
    layout = {
        "height": max(260, 110 + 19 * len(places)),
        "xaxis": _axis(chart.x_title, zeroline=True),
        "yaxis": _axis(chart.y_title, names, autorange="reversed", showgrid=False),
        "showlegend": False,
    }
    return {"data": [trace], "layout": layout}


def _trace(chart: Chart, series: Series, at: int) -> dict[str, Any]:
    mode = {"lines": "lines+markers", "scatter": "markers", "dots": "markers"}[chart.form]
    names = chart.x_names
    return {
        "type": "scatter",
        "mode": mode,
        "name": _short(series.name),
        "x": list(series.x),
        "y": list(series.y),
        "marker": {"symbol": at % 8, "size": 7},
        "line": {"dash": ("solid", "dash", "dot", "dashdot")[at // 8 % 4]},
        "hovertext": [_point(series, i, names) for i in range(len(series.x))],
        "hoverinfo": "text",
        **(_errors(series, "error_y") if chart.form != "scatter" else {}),
    }


def _point(series: Series, at: int, names: tuple[str, ...] = ()) -> str:
    x = series.x[at]
    where = names[int(x)] if names else x if isinstance(x, str) else number(x)
    said = series.notes[at] if series.notes else ""
    ends = (
        f"{fixed(series.low[at], 4, signed=True)} … {fixed(series.high[at], 4, signed=True)}"
        if series.low and series.low[at] is not None
        else ""
    )
    lines = [series.name, said or where, f"{number(series.y[at])}", ends]
    return "<br>".join(_text(line) for line in lines if line)


def _errors(series: Series, name: str) -> dict[str, Any]:
    """Intervals as what lies above and below each point."""
    if not any(each is not None for each in (*series.low, *series.high)):
        return {}
    ends = list(zip(series.y, series.low, series.high, strict=True))
    above = [None if y is None or high is None else high - y for y, _, high in ends]
    below = [None if y is None or low is None else y - low for y, low, _ in ends]
    bars = {"type": "data", "symmetric": False, "array": above, "arrayminus": below, "thickness": 1, "width": 2}
    return {name: bars}
