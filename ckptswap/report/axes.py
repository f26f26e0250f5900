"""Charts and matrices on matplotlib's axes: sizes that let every name stand whole, then what is drawn."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ckptswap.report.charts import MARK_WORDS, Chart, Heat, Number, Picture, Series
from ckptswap.report.lettering import LINE, NO_NAMES, POINTS, SIZES, TickNames, fitted, inches, plain, wrapped
from ckptswap.report.scale import ColourScale

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")
"""Okabe and Ito's, which colour-blind readers tell apart (https://jfly.uni-koeln.de/color/)."""
BETTER, NOTHING, WORSE, GREY, EDGE = "#0072b2", "#ffffff", "#d55e00", "#e2e2e2", "#cccccc"
SHAPES = "osD^vP*X"
SMALL = SIZES[2]
CELL, NARROW_CELL = 0.42, 0.16  # inches of a matrix's column: as it is liked, and at the least
BESIDE = 0.9  # inches that the words along y take
PLOT = 1.2  # inches that axes have at the least
BAR = 1.3  # inches from which on a matrix has its colours beside it, not below


@dataclass(frozen=True)
class PanelSize:
    """How large a panel is, in inches, and the names along its axes."""

    width: float
    height: float
    down: TickNames = NO_NAMES
    across: TickNames = NO_NAMES
    turn: int = 0  # degrees by which the names across stand


def laid_out(panel: Picture, room: float, *, is_fixed: bool) -> PanelSize:
    """The size of a panel in `room` inches; unless that `is_fixed`, it may be narrower."""
    if isinstance(panel, Heat):
        return _heat_layout(panel, room, is_fixed)
    if panel.form == "bars":
        return _bars_layout(panel, room)
    height = 2.6 if room < 5 else 3.0
    if panel.form == "dots":
        names = tuple(map(str, panel.series[0].x)) if panel.series else ()
        return PanelSize(room, height, across=fitted(names, 1.5), turn=40)
    names = _some(panel.x_names, room - BESIDE)
    pitch = (room - BESIDE) / max(len(names), 1) * POINTS / LINE
    size = next((size for size in SIZES if size <= pitch), SIZES[-1])
    across = TickNames(names, size)
    legend = _legend_rows(panel, room) * SMALL * 1.5 / POINTS
    return PanelSize(room, height - 0.3 + across.wide + legend, across=across, turn=90)


def drawn(place: Any, panel: Picture, layout: PanelSize) -> None:
    """Draw a panel on a (sub)figure of matplotlib."""
    axes = place.subplots()
    axes.tick_params(labelsize=SMALL)
    if isinstance(panel, Heat):
        _heat(place, axes, panel, layout)
    elif panel.form == "bars":
        _bars(axes, panel, layout)
    else:
        _chart(axes, panel, layout)
    if isinstance(panel, Chart) and _labels(panel):
        handles, labels = axes.get_legend_handles_labels()
        known = dict(zip(labels, handles, strict=True))
        labels = [name for name in map(plain, _labels(panel)) if name in known]
        columns = _legend_columns(panel, layout.width)
        where = {"loc": "outside lower center", "ncols": columns, "frameon": False, "fontsize": SMALL}
        place.legend([known[name] for name in labels], labels, handletextpad=0.3, columnspacing=1.0, **where)


# Matrices


def _heat_layout(heat: Heat, room: float, is_fixed: bool) -> PanelSize:
    columns = len(heat.columns)
    beside = 0.75 if _is_beside(heat) else 0.1
    down = fitted(heat.rows, max(room - beside - columns * NARROW_CELL, 0.25 * room))
    free = room - beside - down.wide
    cell = free / columns if is_fixed else min(free / columns, CELL)
    width = room if is_fixed else max(down.wide + columns * cell + beside, min(room, 3.0))
    across = fitted(heat.columns, 1.8)
    turn = 0 if across.wide < 0.9 * cell else 90 if cell < 0.3 else 45
    names = {0: across.high, 45: 0.75 * across.wide, 90: across.wide}[turn]
    rows = len(heat.rows) * max(1.15 * down.high, 0.13)
    key = _key(heat, width).count("\n") + 1 if _key(heat, width) else 0
    extra = 0.45 + key * LINE * SMALL / POINTS + (0 if _is_beside(heat) else 0.5)
    return PanelSize(width, rows + names + extra, down, across, turn)


def _is_beside(heat: Heat) -> bool:
    return len(heat.rows) * 0.13 > BAR


def _heat(place: Any, axes: Any, heat: Heat, layout: PanelSize) -> None:
    """Blue is better, orange worse, white nothing: centred at zero, linear within the tolerance, then by the
    logarithm. A cell without a number is grey, with a mark; where none is, nothing is drawn."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.collections import PatchCollection
    from matplotlib.colors import LinearSegmentedColormap, Normalize
    from matplotlib.patches import Rectangle

    mapped: Any = ScalarMappable(
        Normalize(-1, 1), LinearSegmentedColormap.from_list("drop", [BETTER, NOTHING, WORSE])
    )
    cells = [
        ((x, y), GREY if value is None else mapped.to_rgba(heat.scale.place(value)))
        for y, (values, marks) in enumerate(zip(heat.values, heat.marks, strict=True))
        for x, (value, mark) in enumerate(zip(values, marks, strict=True))
        if mark or value is not None
    ]
    squares = [Rectangle(corner, 1, 1) for corner, _ in cells]
    colours = [colour for _, colour in cells]
    axes.add_collection(PatchCollection(squares, facecolors=colours, edgecolors=EDGE, linewidths=0.4))
    axes.set_xlim(0, len(heat.columns))
    axes.set_ylim(len(heat.rows), 0)
    _names_beside(axes, heat, layout)
    for y, row in enumerate(heat.marks):
        for x, mark in enumerate(row):
            axes.text(
                x + 0.5, y + 0.5, plain(mark), ha="center", va="center", fontsize=min(SMALL, layout.down.size)
            )
    _colour_bar(place, axes, mapped, heat, layout)
    if key := _key(heat, layout.width):
        place.supxlabel(plain(key), fontsize=SMALL)


def _names_beside(axes: Any, heat: Heat, layout: PanelSize) -> None:
    """Rows to the left, columns above, where they are found however long the matrix is."""
    axes.set_yticks(
        np.arange(len(heat.rows)) + 0.5, list(map(plain, layout.down.shown)), fontsize=layout.down.size
    )
    how: dict[str, Any] = {"rotation": layout.turn, "fontsize": layout.across.size}
    how |= {"ha": "left", "rotation_mode": "anchor"} if layout.turn == 45 else {}
    axes.xaxis.tick_top()
    axes.set_xticks(np.arange(len(heat.columns)) + 0.5, list(map(plain, layout.across.shown)), **how)
    axes.tick_params(length=0, pad=2)
    for edge in axes.spines.values():
        edge.set_visible(False)


def _colour_bar(place: Any, axes: Any, mapped: Any, heat: Heat, layout: PanelSize) -> None:
    """The colours that may occur, with lines at the tolerance; as many ticks as stand apart."""
    beside = _is_beside(heat)
    high = layout.height - layout.across.wide
    long = min(high, 3.0) if beside else layout.width - layout.down.wide
    how: dict[str, Any] = {"shrink": min(1.0, 3.0 / high), "aspect": 25, "pad": 0.02, "anchor": (0, 1)}
    how = how if beside else {"location": "bottom", "aspect": 25, "pad": 0.03, "fraction": 0.2}
    bar = place.colorbar(mapped, ax=axes, **how)
    scale = heat.scale
    lowest = min((v for row in heat.values for v in row if v is not None), default=0.0)
    low = max(-1.0, min(scale.place(lowest), 2 * scale.place(-scale.unit)))
    along = bar.ax.yaxis if beside else bar.ax.xaxis
    (bar.ax.set_ylim if beside else bar.ax.set_xlim)(low, 1)
    ticks = _apart(scale, low, long, is_across=not beside)
    along.set_ticks([scale.place(tick) for tick in ticks], [_tick(tick) for tick in ticks], fontsize=SMALL)
    if heat.tolerance:
        mark = bar.ax.axhline if beside else bar.ax.axvline
        for end in (-heat.tolerance, heat.tolerance):
            mark(scale.place(end), color="black", linewidth=0.6)
    words = f"{heat.value} (lines: tolerance ±{_tick(heat.tolerance)})" if heat.tolerance else heat.value
    bar.set_label(plain(wrapped(words, SMALL, long)), fontsize=SMALL)
    bar.outline.set_linewidth(0.4)


def _apart(scale: ColourScale, low: float, long: float, *, is_across: bool) -> list[float]:
    """Ticks whose words do not touch, the ends first, then 0, the tolerance, powers of ten."""
    order = sorted(scale.ticks, key=lambda tick: (abs(tick) != scale.end, tick != 0, -abs(tick)))
    kept: list[float] = []
    for tick in order:
        at = scale.place(tick)
        if low <= at and all(
            abs(at - scale.place(k)) * long / (1 - low) > _room(tick, k, is_across) for k in kept
        ):
            kept.append(tick)
    return sorted(kept)


def _room(one: float, other: float, is_across: bool) -> float:
    if not is_across:
        return LINE * SMALL / POINTS
    return (inches(_tick(one), SMALL) + inches(_tick(other), SMALL)) / 2 + 0.06


def _tick(value: float) -> str:
    """Two digits, without an exponent where that is short.

    >>> _tick(-0.0063), _tick(234.0), _tick(1e-5)
    ('−0.0063', '230', '1e−5')
    """
    shown = float(f"{value:.2g}")
    if shown == 0 or 1e-4 <= abs(shown) < 1e5:
        text = np.format_float_positional(shown, trim="-")
    else:
        text = np.format_float_scientific(shown, trim="-", exp_digits=1)
    return text.replace("-", "−")


def _key(heat: Heat, width: float) -> str:
    """What the marks that occur mean, in words."""
    present = dict.fromkeys(mark for row in heat.marks for mark in row if mark)
    words = [f"{mark} {MARK_WORDS[mark]}" for mark in present if mark in MARK_WORDS]
    words += [f"{mark} known of so many runs" for mark in present if "/" in mark][:1]
    return wrapped(" · ".join(words), SMALL, width - 0.2)


# Axes with series


def _bars_layout(chart: Chart, room: float) -> PanelSize:
    names = tuple(map(str, chart.series[0].x)) if chart.series else ()
    down = fitted(names, room - max(PLOT, 0.35 * room))
    extra = 0.75 + _legend_rows(chart, room) * SMALL * 1.5 / POINTS
    several = 1 + 0.12 * (len(_ranged(chart)) - 1)
    return PanelSize(room, len(names) * max(1.2 * down.high, 0.13) * several + extra, down)


def _ranged(chart: Chart) -> list[Series]:
    """Those that have intervals, or are alone; others are points beside them."""
    return [each for each in chart.series if any(end is not None for end in each.low)] or list(chart.series)


def _bars(axes: Any, chart: Chart, layout: PanelSize) -> None:
    """One series as bars, several as points side by side; what has no intervals lies pale behind the first."""
    ranged = _ranged(chart)
    places = np.arange(len(layout.down.shown))
    for at, series in enumerate(chart.series):
        if len(chart.series) == 1:
            _bar(axes, series, places)
        elif series in ranged:
            shift = (ranged.index(series) - (len(ranged) - 1) / 2) * 0.7 / len(ranged)
            colour = "black" if len(ranged) == 1 else COLOURS[ranged.index(series) % len(COLOURS)]
            _points(axes, series, places + shift, colour, SHAPES[ranged.index(series) % len(SHAPES)])
        else:
            _points(axes, series, places, COLOURS[at % len(COLOURS)], "|", is_behind=True)
    axes.set_yticks(places, list(map(plain, layout.down.shown)), fontsize=layout.down.size)
    axes.set_ylim(len(places) - 0.4, -0.6)
    _drop_axis(axes, chart, "x", layout.width - layout.down.wide - 0.3)


def _bar(axes: Any, series: Series, places: np.ndarray) -> None:
    values = [np.nan if value is None else value for value in series.y]
    colours = [WORSE if value > 0 else BETTER for value in values]
    axes.barh(places, values, color=colours, height=0.7)
    ends = _ends(series, range(len(values)))
    axes.errorbar(values, places, xerr=ends, linestyle="", color="black", elinewidth=0.7)


def _points(
    axes: Any, series: Series, places: np.ndarray, colour: str, shape: str, *, is_behind: bool = False
) -> None:
    known = [i for i, value in enumerate(series.y) if value is not None]
    look: dict[str, Any] = {"color": colour, "marker": shape, "linestyle": "", "label": plain(series.name)}
    x, y = [series.y[i] for i in known], places[known]
    if is_behind:
        axes.plot(x, y, markersize=5, markeredgewidth=0.9, zorder=2, **look)
    else:
        axes.errorbar(x, y, xerr=_ends(series, known), elinewidth=0.7, markersize=2.8, zorder=3, **look)


def _drop_axis(axes: Any, chart: Chart, way: str, long: float) -> None:
    """Drops along `x` or `y`: linear within the tolerance and by the logarithm beyond, as the colours; where a
    chart is of no drops, linear."""
    axis, title = (axes.xaxis, chart.x_title) if way == "x" else (axes.yaxis, chart.y_title)
    line, band = (axes.axvline, axes.axvspan) if way == "x" else (axes.axhline, axes.axhspan)
    line(0, color="#888888", linewidth=0.6, zorder=1)
    words = title
    if chart.tolerance is not None:
        _by_logarithm(axes, axis, chart, way, long)
        words = f"{title} (logarithmic)"
    if chart.tolerance:
        band(-chart.tolerance, chart.tolerance, color="#000000", alpha=0.08, linewidth=0, zorder=0)
        words = f"{title} (grey: tolerance ±{_tick(chart.tolerance)}; beyond it logarithmic)"
    axis.set_label_text(plain(wrapped(words, SMALL + 0.5, long)), fontsize=SMALL + 0.5)


def _by_logarithm(axes: Any, axis: Any, chart: Chart, way: str, long: float) -> None:
    sides = [s.y for s in chart.series]
    if chart.form in ("bars", "dots") or chart.has_ends:
        sides += [side for s in chart.series for side in (s.low, s.high)]
    known = [end for side in sides for end in side if end is not None and np.isfinite(end)]
    top, low = max([*known, 0.0]), min([*known, 0.0])
    scale = ColourScale(chart.tolerance or 0.0, max(top, -low))
    unit = scale.unit

    def forth(x: Any) -> Any:
        return np.sign(x) * np.log1p(np.abs(x) / unit)

    def back(y: Any) -> Any:
        return np.sign(y) * unit * np.expm1(np.abs(y))

    (axes.set_xscale if way == "x" else axes.set_yscale)("function", functions=(forth, back))
    pad = 0.03 * (forth(top) - forth(low))
    start, stop = min(back(forth(low) - pad), -2 * unit), max(back(forth(top) + pad), 2 * unit)
    (axes.set_xlim if way == "x" else axes.set_ylim)(start, stop)
    share = (forth(stop) - forth(start)) / forth(scale.end)
    within = [
        tick for tick in _apart(scale, -1.0, 2 * long / share, is_across=way == "x") if start <= tick <= stop
    ]
    axis.set_ticks(within, [_tick(tick) for tick in within], fontsize=SMALL)
    axis.set_ticks([], minor=True)


def _ends(series: Series, known: Sequence[int]) -> list[list[float]]:
    """How far down and up the intervals go; nothing where there is none."""

    def gaps(lows: Sequence[Number], highs: Sequence[Number]) -> list[float]:
        ends = [(lows[i], highs[i]) for i in known] if lows and highs else [(None, None)] * len(known)
        return [0.0 if low is None or high is None else max(high - low, 0.0) for low, high in ends]

    return [gaps(series.low, series.y), gaps(series.y, series.high)]


def _chart(axes: Any, chart: Chart, layout: PanelSize) -> None:
    for at, series in enumerate(chart.series):
        _series(axes, chart, series, at)
    if chart.is_log_x:
        axes.set_xscale("log")
    words, how = chart.x_title, {"fontsize": layout.across.size, "rotation": layout.turn}
    if chart.form == "dots":
        axes.set_xticks(range(len(layout.across.shown)), list(map(plain, layout.across.shown)), ha="right", **how)
    elif chart.x_names:
        step = -(-len(chart.x_names) // len(layout.across.shown))
        axes.set_xticks(range(0, len(chart.x_names), step), list(map(plain, layout.across.shown)), **how)
        words += f" (one in {step} named)" if step > 1 else ""
    axes.set_xlabel(plain(wrapped(words, SMALL + 0.5, layout.width - 0.8)), fontsize=SMALL + 0.5)
    _drop_axis(axes, chart, "y", 1.6 if layout.width < 5 else 2.0)


def _series(axes: Any, chart: Chart, series: Series, at: int) -> None:
    known = [i for i, y in enumerate(series.y) if y is not None]
    shift = 0.08 * (at - (len(chart.series) - 1) / 2) if chart.form == "dots" else 0
    x = [i + shift if chart.form == "dots" else float(series.x[i]) for i in known]
    shape = SHAPES[(at + at // len(COLOURS)) % len(SHAPES)]  # no colour has one shape twice
    style: dict[str, Any] = {"marker": shape, "color": COLOURS[at % len(COLOURS)]}
    style |= {"label": plain(series.name), "markersize": 3}
    y = [series.y[i] for i in known]
    style |= {"linestyle": "-" if chart.form == "lines" else "", "linewidth": 0.9}
    if series.low and (chart.form == "dots" or chart.has_ends):
        axes.errorbar(x, y, yerr=_ends(series, known), elinewidth=0.6, **style)
    else:
        axes.plot(x, y, **style)


def _some(names: Sequence[str], room: float) -> tuple[str, ...]:
    """As many of the names, evenly, as stand side by side in so many inches."""
    most = max(int(room / (SIZES[-1] * LINE / POINTS)), 1)
    return tuple(names[:: -(-len(names) // most) or 1])


def _labels(chart: Chart) -> list[str]:
    return [series.name for series in chart.series] if len(chart.series) > 1 else []


def _legend_columns(chart: Chart, width: float) -> int:
    widest = max((inches(label, SMALL) for label in _labels(chart)), default=1.0) + 0.42
    return max(1, min(int((width - 0.2) / widest), len(chart.series)))


def _legend_rows(chart: Chart, width: float) -> int:
    return -(-len(_labels(chart)) // _legend_columns(chart, width))
