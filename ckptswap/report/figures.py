"""Pictures for papers, by matplotlib (the extra `plot`): png, svg or pdf, the same bytes each time."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ckptswap.errors import DependencyError, UsageError
from ckptswap.report.charts import Chart, Heat, Number, Picture, Series
from ckptswap.report.text import shorten_all

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMS = ("png", "svg", "pdf")
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")
"""Okabe and Ito's, which colour-blind readers tell apart (https://jfly.uni-koeln.de/color/)."""
POINTS = "osD^vP*X"
_MARKS: dict[str, Any] = {
    "png": {"Software": "ckptswap"},
    "svg": {"Title": "ckptswap", "Date": None},
    "pdf": {"Creator": "ckptswap", "CreationDate": None},
}
"""By these a picture is known to be ours, and may be replaced by a newer one."""
LONG = 24  # a name is cut in the middle beyond so many letters


def form_of(path: str) -> str:
    """Which form a file name asks for; raises `UsageError` for another ending.

    >>> form_of("drops.svg")
    'svg'
    """
    ending = Path(path).suffix.removeprefix(".").lower()
    if ending not in FORMS:
        endings = ", ".join(f".{form}" for form in FORMS)
        raise UsageError(f"{path} says no form of picture", remedy=f"end it with {endings}")
    return ending


def draw(panels: Sequence[Picture], form: str) -> bytes:
    """Panels side by side. Raises `DependencyError` without matplotlib."""
    try:
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise DependencyError("pictures need matplotlib", remedy="pip install 'ckptswap[plot]'") from None
    how: dict[Any, Any] = {"svg.hashsalt": "ckptswap", "svg.fonttype": "none", "font.size": 8}
    with matplotlib.rc_context(how):
        widths, heights = zip(*map(_size, panels), strict=True)
        figure = Figure(figsize=(sum(widths), max(heights)), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for panel, place in zip(panels, axes, strict=True):
            place.set_title(_plain(panel.title))
            if isinstance(panel, Heat):
                _heat(place, panel)
            else:
                _chart(place, panel)
        out = io.BytesIO()
        figure.savefig(out, format=form, dpi=200, metadata=_MARKS[form])
        return out.getvalue()


def _size(panel: Picture) -> tuple[float, float]:
    """Width and height in inches."""
    if isinstance(panel, Heat):
        return 2.5 + 0.55 * len(panel.columns), max(2.5, 1.2 + 0.17 * len(panel.rows))
    return 5.0, max(3.2, 0.8 + 0.17 * len(panel.series[0].x)) if panel.form == "bars" and panel.series else 3.4


def _chart(axes: "Axes", chart: Chart) -> None:
    axes.set_xlabel(_plain(chart.x_title))
    axes.set_ylabel(_plain(chart.y_title))
    if chart.form == "bars":
        _bars(axes, chart.series[0])
        return
    axes.axhline(0, color="#888888", linewidth=0.6)
    for at, series in enumerate(chart.series):
        _series(axes, chart, series, at)
    if chart.is_log_x:
        axes.set_xscale("log")
    if chart.form == "dots" and chart.series:
        names = chart.series[0].x
        axes.set_xticks(range(len(names)), _cut(names), rotation=30, ha="right")
    if len(chart.series) > 1:
        axes.legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))


def _series(axes: "Axes", chart: Chart, series: Series, at: int) -> None:
    known = [i for i, y in enumerate(series.y) if y is not None]
    if chart.form == "dots":
        x = [i + 0.08 * (at - (len(chart.series) - 1) / 2) for i in known]
    else:
        x = [float(series.x[i]) for i in known]
    y = [series.y[i] for i in known]
    style: dict[str, Any] = {"marker": POINTS[at % len(POINTS)], "color": COLOURS[at % len(COLOURS)]}
    style |= {"label": _plain(series.name), "markersize": 3.5}
    if chart.form == "dots" and series.low:
        axes.errorbar(x, y, yerr=_ends(series, known), linestyle="", elinewidth=0.8, **style)  # type: ignore[arg-type]
    else:
        axes.plot(x, y, linestyle="-" if chart.form == "lines" else "", linewidth=1, **style)  # type: ignore[arg-type]


def _ends(series: Series, known: Sequence[int]) -> list[list[float]]:
    """How far down and up the intervals go; nothing where there is none."""

    def gaps(lows: Sequence[Number], highs: Sequence[Number]) -> list[float]:
        ends = [(lows[i], highs[i]) for i in known] if lows and highs else [(None, None)] * len(known)
        return [0.0 if low is None or high is None else max(high - low, 0.0) for low, high in ends]

    return [gaps(series.low, series.y), gaps(series.y, series.high)]


def _bars(axes: "Axes", series: Series) -> None:
    places = range(len(series.x))
    values = [value or 0.0 for value in series.y]
    axes.barh(places, values, color=COLOURS[0], height=0.7)
    axes.errorbar(values, places, xerr=_ends(series, places), linestyle="", color="black", elinewidth=0.7)
    axes.set_yticks(places, _cut(series.x, 44))
    axes.invert_yaxis()
    axes.axvline(0, color="#888888", linewidth=0.6)


def _heat(axes: "Axes", heat: Heat) -> None:
    """Blue is better, orange worse, white nothing: centred at zero."""
    import numpy as np
    from matplotlib.colors import LinearSegmentedColormap, TwoSlopeNorm

    values = np.array([[np.nan if v is None else v for v in row] for row in heat.values], dtype=float)
    scale = LinearSegmentedColormap.from_list("drop", ["#0072b2", "#ffffff", "#d55e00"])
    colours = scale.with_extremes(bad="#dddddd")
    image = axes.imshow(values, cmap=colours, norm=TwoSlopeNorm(0, -heat.scale.end, heat.scale.end), aspect="auto")
    axes.set_xticks(range(len(heat.columns)), [_plain(name) for name in heat.columns], rotation=40, ha="right")
    axes.set_yticks(range(len(heat.rows)), _cut(heat.rows))
    for y, row in enumerate(heat.marks):
        for x, mark in enumerate(row):
            axes.text(x, y, mark, ha="center", va="center", fontsize=6)
    axes.figure.colorbar(image, ax=axes, label="drop")


def _cut(names: Sequence[object], most: int = LONG) -> list[str]:
    return [_plain(name) for name in shorten_all(list(map(str, names)), most)]


def _plain(text: str) -> str:
    """Keeps matplotlib from reading what stands between two $ as mathematics."""
    return text.replace("$", r"\$")
