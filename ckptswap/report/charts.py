"""Pictures as pure data: what is drawn, not how. `figures` draws with matplotlib, `interactive` with plotly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ckptswap.report.heatmap import worst_cells
from ckptswap.report.sweep import cell_name
from ckptswap.report.text import MISSING, count, interval, named, number, safe

if TYPE_CHECKING:
    from ckptswap.sweep.result import Row, SweepResult

Number = float | None


@dataclass(frozen=True)
class Series:
    """Points under one name. Where there are any: `low` and `high` are the ends of their intervals, `notes` their
    own names."""

    name: str
    x: tuple[float | str, ...]
    y: tuple[Number, ...]
    low: tuple[Number, ...] = ()
    high: tuple[Number, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Chart:
    """Axes with series. `bars` lie beside their names, the worst on top; `dots` stand over theirs.

    `x_names` are what whole numbers along x stand for, beginning with 0."""

    form: Literal["bars", "dots", "lines", "scatter"]
    title: str
    x_title: str
    y_title: str
    series: tuple[Series, ...]
    is_log_x: bool = False
    x_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Heat:
    """A matrix of drops, rows × columns. `marks` stand where there is no number to colour, `said` are these in
    words, `notes` what else is known of a cell, in lines."""

    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[Number, ...], ...]
    marks: tuple[tuple[str, ...], ...]
    said: tuple[tuple[str, ...], ...] = ()
    notes: tuple[tuple[str, ...], ...] = ()


Picture = Chart | Heat
MARKS = {"identical": "=", "no-effect": "·", "mismatch": "×", "failed": "!"}
"""What stands in a cell without a measured drop."""
MOST_BARS = 40
MOST_LINES = 8


def heat(result: SweepResult) -> Heat:
    """The drop of every layer × kind; layers in execution order where the run tells it.

    >>> from ckptswap.sweep.result import Row, SweepResult
    >>> rows = (Row("c", "conv.bias", (), 4, "measured", drop=0.5), Row("d", "bn.bias", (), 4, "mismatch"))
    >>> found = heat(SweepResult("dice", "max", 0.01, 0.9, None, 8, rows))
    >>> found.values, found.marks
    (((None, 0.5), (None, None)), (('', ''), ('×', '')))
    """
    cells = {place: row for place, row in worst_cells(result.rows).items() if None not in place}
    layers = result.in_order(layer for layer, _ in cells if layer is not None)
    kinds = sorted({kind for _, kind in cells if kind})
    table = [[cells.get((layer, kind)) for kind in kinds] for layer in layers]
    return Heat(
        f"drop in {safe(result.metric)}, by layer and kind",
        tuple(named(layer or "") for layer in layers),
        tuple(map(safe, kinds)),
        tuple(tuple(_measured(row) for row in line) for line in table),
        tuple(tuple(MARKS.get(row.status, "") if row else "" for row in line) for line in table),
        tuple(tuple(row.status if row else "" for row in line) for line in table),
        tuple(tuple(_note(row) for row in line) for line in table),
    )


def _note(row: Row | None) -> str:
    """Interval, verdict, distance and size of a measured cell; of another why it is none."""
    if row is None:
        return ""
    if row.status != "measured":
        return safe(row.reason or "")
    ends = interval(row.sim_low, row.sim_high, 4, signed=True)
    return f"{ends} simultaneous\n{row.verdict or MISSING}\nRMSE {number(row.rmse)}, {count(row.numel)} values"


def _measured(row: Row | None) -> Number:
    return row.drop if row and row.status == "measured" else None


def bars(result: SweepResult) -> Chart:
    """The worst cells, with their simultaneous intervals."""
    ranked = sorted(_ranked(result), key=lambda row: -(row.drop or 0.0))[:MOST_BARS]
    series = Series(
        "drop",
        tuple(cell_name(row) for row in ranked),
        tuple(row.drop for row in ranked),
        tuple(row.sim_low for row in ranked),
        tuple(row.sim_high for row in ranked),
    )
    return Chart(
        "bars", f"the {len(ranked)} worst, 95 % simultaneous", f"drop in {safe(result.metric)}", "", (series,)
    )


def scatter(result: SweepResult) -> Chart:
    """RMSE against drop, by kind."""
    return Chart(
        "scatter",
        "does the distance tell?",
        "RMSE of donor and recipient",
        f"drop in {safe(result.metric)}",
        tuple(
            Series(
                safe(kind),
                tuple(row.rmse or 0.0 for row in far),
                tuple(row.drop for row in far),
                notes=tuple(cell_name(row) for row in far),
            )
            for kind, rows in _by_kind(result).items()
            if (far := [row for row in rows if row.rmse])  # a distance of 0 has no logarithm
        ),
        is_log_x=True,
    )


def depth(result: SweepResult) -> Chart:
    """The drop along the layers in execution order, a line a kind."""
    order = result.in_order(row.layer for row in _ranked(result) if row.layer is not None)
    place = {layer: at for at, layer in enumerate(order)}
    series = []
    for kind, rows in _by_kind(result).items():
        placed = sorted(rows, key=lambda row: place[row.layer or ""])
        series.append(
            Series(
                safe(kind),
                tuple(place[row.layer or ""] for row in placed),
                tuple(row.drop for row in placed),
                tuple(row.sim_low for row in placed),
                tuple(row.sim_high for row in placed),
            )
        )
    title = "along the layers, in execution order"
    axis = tuple(map(named, order))
    return Chart("lines", title, "layer", f"drop in {safe(result.metric)}", tuple(series), x_names=axis)


def paths(result: SweepResult) -> Chart:
    """The drop on the way from recipient (0) to donor (1), a line for each of the worst cells that have one."""
    rows = sorted((row for row in result.rows if row.path), key=lambda row: -(row.drop or 0.0))[:MOST_LINES]
    series = []
    for row in rows:
        points = [(point.alpha, point.drop, point.ci_low, point.ci_high) for point in row.path]
        ends = [(0.0, 0.0, None, None), (1.0, row.drop, row.ci_low, row.ci_high)]
        x, y, low, high = zip(*sorted([*ends, *points], key=lambda point: point[0]), strict=True)
        series.append(Series(cell_name(row), x, y, low, high))
    title = "on the way from recipient to donor"
    return Chart("lines", title, "alpha", f"drop in {safe(result.metric)}", tuple(series))


def curve(result: SweepResult) -> Chart:
    """The drop as layer after layer is taken, a line a kind: for `--mode prefix` and `suffix`."""
    taken: dict[str, list[Row]] = {}
    for row in result.rows if result.mode in ("prefix", "suffix") else ():
        if row.layer is not None and row.status == "measured":
            taken.setdefault(row.kind or "all kinds", []).append(row)
    order = result.in_order(row.layer or "" for rows in taken.values() for row in rows)
    order = order[::-1] if result.mode == "suffix" else order
    place = {layer: at for at, layer in enumerate(order)}
    series = []
    for kind, rows in sorted(taken.items()):
        rows.sort(key=lambda row: place[row.layer or ""])
        x, y = tuple(place[row.layer or ""] for row in rows), tuple(row.drop for row in rows)
        low, high = tuple(row.sim_low for row in rows), tuple(row.sim_high for row in rows)
        series.append(Series(safe(kind), x, y, low, high))
    way = "up to this one" if result.mode == "prefix" else "from this one on"
    axis = tuple(named(layer) for layer in order)
    title = f"all layers {way} from the donor"
    return Chart("lines", title, "layer", f"drop in {safe(result.metric)}", tuple(series), x_names=axis)


def race(result: SweepResult) -> Chart:
    """On how many samples each cell was scored before it was known to be among the worst, or not to be."""
    ranked = sorted((row for row in result.rows if row.samples), key=lambda row: -(row.drop or 0.0))[:MOST_BARS]
    if all(row.samples == result.samples for row in ranked):
        ranked = []
    series = Series("samples", tuple(map(cell_name, ranked)), tuple(row.samples for row in ranked))
    return Chart("bars", "how far the race went", f"samples scored, of {result.samples}", "", (series,))


def _ranked(result: SweepResult) -> list[Row]:
    cells = [row for row in result.rows if row.status == "measured" and row.drop is not None]
    return [row for row in cells if row.layer is not None and row.kind] or cells


def _by_kind(result: SweepResult) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in _ranked(result):
        if row.kind and row.layer is not None:
            found.setdefault(row.kind, []).append(row)
    return dict(sorted(found.items()))


def is_empty(picture: Picture) -> bool:
    """Whether there is nothing to see.

    >>> is_empty(Heat("t", (), (), (), ()))
    True
    """
    if isinstance(picture, Heat):
        return not picture.rows
    return not any(series.y for series in picture.series)
