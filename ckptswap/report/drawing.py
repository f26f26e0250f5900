"""Pictures laid out for a page: values become places in tables and in SVG, which `pictures.html.j2` writes.

A heatmap and bars are tables, whose cells have colours and lengths; the other charts are SVG, in which each series
is a few paths, however many points it has. `lines` says in which line of the page's table a row stands, by which
the page's script tells of it under the mouse.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ckptswap.report.charts import Chart, Heat, Number, Picture, Series
from ckptswap.report.page_axes import Axis, linear, logarithmic, symmetric_log
from ckptswap.report.text import number, shorten
from ckptswap.sweep.result import Row

Lines = Mapping[Row, int]
WIDTH, HEIGHT = 760, 300  # of a chart's inner part, in SVG's units
LONG = 34  # letters of a name below an axis
MOST_NAMES = 30  # names below an axis
LETTER = 6.2  # units that a letter takes
DENSE = 12  # columns of a heatmap from which on its cells have no room for numbers
GAP = 9  # percent of a key's width between two numbers
SHAPES = (
    "m-3.2 0a3.2 3.2 0 1 0 6.4 0a3.2 3.2 0 1 0-6.4 0", "m-3-3h6v6h-6z", "m-4 0l4-4 4 4-4 4z",
    "m-3.5 3h7l-3.5-6.5z", "m-3.5-3h7l-3.5 6.5z", "m-3.5-3.5l7 7m0-7l-7 7", "m-4 0h8m-4-4v8", "m-2-4h4v8h-4z",
)  # fmt: skip
"""What stands at each point of a series, so that colours are not all that tells series apart."""


@dataclass(frozen=True)
class HeatCell:
    """Of a heatmap: `look` is costs, helps, marked (by a letter, having no colour) or empty, `share` how much of
    the colour it has, `word` what its letter means."""

    look: str = ""
    share: float = 0.0
    text: str = ""
    word: str = ""
    line: int | None = None


@dataclass(frozen=True)
class Tick:
    """Something written at a place: in percent, or in a chart's units."""

    at: float
    text: str


@dataclass(frozen=True)
class DrawnHeat:
    """A table of coloured cells under its key: `ticks` along the colours and the tolerance's own places; `low` is
    -1 where colours go both ways, else 0."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[HeatCell, ...]], ...]
    ticks: tuple[Tick, ...]
    tolerances: tuple[float, ...]
    tolerance: str
    low: int
    form: str = "heat"

    @property
    def is_dense(self) -> bool:
        """Whether its cells have no room for numbers."""
        return len(self.columns) > DENSE


@dataclass(frozen=True)
class Bar:
    """From `start` over `length`, in percent, as the ends of its interval."""

    name: str
    look: str
    text: str
    start: float
    length: float
    ends: tuple[float, float] | None
    line: int | None


@dataclass(frozen=True)
class DrawnBars:
    """Bars beside their names; in percent, where 0 is and from where to where a drop is within the tolerance."""

    title: str
    bars: tuple[Bar, ...]
    zero: float
    band: tuple[float, float]
    tolerance: str
    form: str = "bars"


@dataclass(frozen=True)
class DrawnSeries:
    """A series as paths: its points, the line through them, their intervals; `lines`, `told` are of each point."""

    name: str
    points: str
    line: str
    ends: str
    lines: tuple[int | None, ...]
    told: tuple[str, ...]


@dataclass(frozen=True)
class DrawnChart:
    """Axes and series in units of SVG; `band` is from where to where drops are within the tolerance."""

    x_title: str
    y_title: str
    series: tuple[DrawnSeries, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    zero: float
    band: tuple[float, float] | None
    left: float
    below: float
    is_named: bool
    width: float = WIDTH
    height: float = HEIGHT
    form: str = "chart"


def drawn(picture: Picture, lines: Lines | None = None) -> DrawnHeat | DrawnBars | DrawnChart:
    """Lay a picture out.

    >>> heat = drawn(Heat("drop", ("conv1",), ("conv.bias",), ((0.5,),), (("",),), tolerance=0.01))
    >>> heat.rows
    (('conv1', (HeatCell(look='costs', share=1.0, text='+0.5', word='', line=None),)),)
    """
    if isinstance(picture, Heat):
        return _heat(picture, lines or {})
    return _bars(picture, lines or {}) if picture.form == "bars" else _chart(picture, lines or {})


def _heat(heat: Heat, lines: Lines) -> DrawnHeat:
    scale = heat.scale
    values = [value for row in heat.values for value in row if value is not None]

    def cell(y: int, x: int) -> HeatCell:
        value, mark = heat.values[y][x], heat.marks[y][x]
        row = heat.cells[y][x] if heat.cells else None
        line = lines.get(row) if row else None
        word = heat.words[y][x] if heat.words and mark else ""
        if value is None or math.isnan(value):
            return HeatCell("marked" if mark else "", 0.0, mark, word, line)
        share = round(scale.place(value), 2)
        return HeatCell("helps" if value < 0 else "costs", abs(share), mark or _short(value), word, line)

    low = -1 if any(value < 0 for value in values) else 0

    def key(value: float) -> float:
        return _percent((scale.place(value) - low) / (1 - low))

    columns = range(len(heat.columns))
    return DrawnHeat(
        heat.columns,
        tuple((name, tuple(cell(y, x) for x in columns)) for y, name in enumerate(heat.rows)),
        tuple(
            Tick(at, number(tick, 2))
            for tick, at in _apart({t: key(t) for t in scale.ticks if t >= low * scale.end})
        ),
        tuple(key(side * heat.tolerance) for side in (low, 1) if side * heat.tolerance),
        number(heat.tolerance),
        low,
    )


def _apart(ticks: Mapping[float, float]) -> Iterator[tuple[float, float]]:
    """Those that have room beside each other on a small screen: 0 and the ends first, then from these inwards."""
    ends = (min(ticks), max(ticks), 0.0)
    written: list[float] = []
    for tick, at in sorted(ticks.items(), key=lambda pair: (pair[0] not in ends, -abs(pair[0]))):
        if all(abs(at - other) >= GAP for other in written):
            written.append(at)
            yield tick, at


def _short(value: float) -> str:
    """A drop beside others: they differ by orders of magnitude, so that each has digits of its own.

    >>> _short(4.4251), _short(0.00015), _short(1.3e10), _short(0.0), _short(234.2)
    ('+4.43', '+0.00015', '+1.3e+10', '0', '+234')
    """
    digits = 3 if 1 <= abs(value) < 1000 else 2
    return number(value, digits, signed=bool(value))


def _percent(share: float) -> float:
    return round(100 * share, 2)


def _finite(values: Iterable[Number]) -> list[float]:
    return [value for value in values if value is not None and math.isfinite(value)]


def _bars(chart: Chart, lines: Lines) -> DrawnBars:
    """What is infinite goes to the end of its axis; its text says so."""
    [series] = chart.series
    axis = _drop_axis(chart)
    is_drop = series.name == "drop"

    def share(value: float) -> float:
        return _percent(axis.share(min(max(value, axis.low), axis.high)))

    zero = share(0.0)
    bars = []
    for at, value in enumerate(series.y):
        text = _short(value) if value is not None and is_drop else number(value)
        end = share(value or 0.0)
        low, high = (side[at] if side else None for side in (series.low, series.high))
        ends = None if low is None or high is None else (share(low), share(high))
        look = ("costs" if (value or 0) > 0 else "helps") if is_drop else "plain"
        line = lines.get(series.rows[at]) if series.rows else None
        length = round(abs(end - zero), 2)
        bars.append(Bar(str(series.x[at]), look, text, min(end, zero), length, ends, line))
    bound = chart.tolerance or 0.0
    return DrawnBars(
        chart.x_title, tuple(bars), zero, (share(-bound), share(bound)), number(bound) if bound else ""
    )


def _chart(chart: Chart, lines: Lines) -> DrawnChart:
    """Points that are not finite are in the table alone."""
    down = _drop_axis(chart)
    along = _along_axis(chart)
    x_ticks = [Tick(round(along.share(at) * WIDTH, 1), _x_name(chart, at)) for at in along.ticks]
    turned = 0.766 if chart.x_names else 0.0  # the cosine of 40°
    over = max((LETTER * len(tick.text) * turned - tick.at for tick in x_ticks), default=0.0)
    longest = max((len(tick.text) for tick in x_ticks), default=0)
    bound = chart.tolerance or 0.0
    band = (_y(down, min(bound, down.high)), _y(down, max(-bound, down.low))) if bound else None
    return DrawnChart(
        chart.x_title,
        chart.y_title,
        tuple(_series(chart, series, at, along, down, lines) for at, series in enumerate(chart.series)),
        tuple(x_ticks),
        tuple(Tick(_y(down, tick), number(tick, 3)) for tick in down.ticks),
        _y(down, min(max(0.0, down.low), down.high)),
        band,
        round(max(64.0, over + 12), 1),
        round(44 + (LETTER * longest * 0.643 if chart.x_names else 0), 1),
        bool(chart.x_names),
    )


def _drop_axis(chart: Chart) -> Axis:
    values = _finite(value for series in chart.series for value in (*series.y, *series.low, *series.high))
    return symmetric_log(values, chart.tolerance) if chart.tolerance else linear(values)


def _along_axis(chart: Chart) -> Axis:
    """By the numbers along x; of names every n-th is written where all are too many."""
    if chart.x_names:
        count = len(chart.x_names)
        step = -(-count // MOST_NAMES)
        return Axis(-0.5, count - 0.5, tuple(map(float, range(0, count, step))))
    values = _finite(float(x) for series in chart.series for x in series.x)
    return logarithmic(x for x in values if x > 0) if chart.is_log_x else linear(values)


def _x_name(chart: Chart, at: float) -> str:
    return shorten(chart.x_names[int(at)], LONG) if chart.x_names else number(at, 3)


def _y(axis: Axis, value: float) -> float:
    return round((1 - axis.share(value)) * HEIGHT, 1)


def _series(chart: Chart, series: Series, at: int, along: Axis, down: Axis, lines: Lines) -> DrawnSeries:
    known = [i for i, y in enumerate(series.y) if y is not None and math.isfinite(y)]
    places = [(round(along.share(float(series.x[i])) * WIDTH, 1), _y(down, series.y[i] or 0.0)) for i in known]
    shape = SHAPES[at % len(SHAPES)]
    has_lines = chart.form == "lines" and len(places) > 1
    told = () if series.rows else tuple(_told(chart, series, i) for i in known)
    return DrawnSeries(
        series.name,
        "".join(f"M{x:g} {y:g}{shape}" for x, y in places),
        "M" + "L".join(f"{x:g} {y:g}" for x, y in places) if has_lines else "",
        _ends(series, known, places, down) if chart.form != "scatter" else "",
        tuple(lines.get(series.rows[i]) for i in known) if series.rows else (),
        told,
    )


def _told(chart: Chart, series: Series, at: int) -> str:
    """What a point says of itself, which no row of the table does."""
    x = float(series.x[at])
    place = chart.x_names[int(x)] if chart.x_names else f"{chart.x_title} {number(x)}"
    return f"{series.name}\n{place}\n{chart.y_title} {number(series.y[at], signed=True)}"


def _ends(series: Series, known: Sequence[int], places: Sequence[tuple[float, float]], down: Axis) -> str:
    if not series.low or not series.high:
        return ""
    path = []
    for (x, _), i in zip(places, known, strict=True):
        low, high = series.low[i], series.high[i]
        if low is not None and high is not None and math.isfinite(low) and math.isfinite(high):
            path.append(f"M{x:g} {_y(down, low):g}V{_y(down, high):g}")
    return "".join(path)
