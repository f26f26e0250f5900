"""Pictures as pure data: what is drawn, not how. `figures` draws with matplotlib, `drawing` for a page."""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from ckptswap.naming import natural_key
from ckptswap.report.rows import Key, by_blocks, drop_or_least, mark_of, mode_words, row_names, worst_cells
from ckptswap.report.scale import ColourScale
from ckptswap.report.text import named, safe
from ckptswap.sweep.result import Row, SweepResult, widest, window_sizes

Number = float | None
T = TypeVar("T")


@dataclass(frozen=True)
class Series:
    """Points under one name. Where there are any: `low` and `high` are the ends of their intervals, `rows` what
    they stand for."""

    name: str
    x: tuple[float | str, ...]
    y: tuple[Number, ...]
    low: tuple[Number, ...] = ()
    high: tuple[Number, ...] = ()
    rows: tuple[Row, ...] = ()


@dataclass(frozen=True)
class Chart:
    """Axes with series. `bars` lie beside their names, the worst on top; `dots` stand over theirs.

    `x_names` are what whole numbers along x stand for, beginning with 0. `tolerance` is that of the drops, where
    these are what is drawn. `has_ends`: lines show their intervals, too."""

    form: Literal["bars", "dots", "lines", "scatter"]
    title: str
    x_title: str
    y_title: str
    series: tuple[Series, ...]
    is_log_x: bool = False
    x_names: tuple[str, ...] = ()
    tolerance: float | None = None
    has_ends: bool = False


@dataclass(frozen=True)
class Heat:
    """A matrix of drops, rows × columns. `marks` stand where there is no number to colour, `words` say these
    whole, `cells` the rows behind the matrix. Colours tell drops apart from the `tolerance` on."""

    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[Number, ...], ...]
    marks: tuple[tuple[str, ...], ...]
    words: tuple[tuple[str, ...], ...] = ()
    cells: tuple[tuple[Row | None, ...], ...] = ()
    tolerance: float = 0.0
    value: str = "drop"  # what the numbers are

    @property
    def scale(self) -> ColourScale:
        """Which colour a value has."""
        known = (abs(value) for row in self.values for value in row if value is not None and math.isfinite(value))
        return ColourScale(self.tolerance, max(known, default=0.0))


Picture = Chart | Heat
WAITING = "not scored yet"
MARKS = {"identical": "=", "no-effect": "·", "mismatch": "×", "failed": "!", "unused": "u", WAITING: "…"}
"""What stands in a cell without a measured drop, or in one that zeros serve as well."""
MARK_WORDS = {
    MARKS["identical"]: "equal in both",
    MARKS["no-effect"]: "never read",
    MARKS["mismatch"]: "does not fit",
    MARKS["failed"]: "failed",
    MARKS["unused"]: "unused: zeros serve as well",
    MARKS[WAITING]: WAITING,
}
MOST_BARS = 40
MOST_LINES = 8


def heat(result: SweepResult, waiting: Collection[Key] = ()) -> Heat:
    """The drop of every layer × kind, or of every block × kind (`by_blocks`); layers in execution order where the
    run tells it. `waiting` are the cells that are not scored yet.

    >>> rows = (Row("c", "conv.bias", (), 4, "measured", drop=0.5), Row("d", "bn.bias", (), 4, "mismatch"))
    >>> matrix = heat(SweepResult("dice", "max", 0.01, 0.9, None, 8, rows))
    >>> matrix.values, matrix.marks
    (((None, 0.5), (None, None)), (('', ''), ('×', '')))
    """
    merged = by_blocks(result.rows)
    cells = worst_cells(result.rows, merged=merged)
    places = {place for place in [*cells, *waiting] if None not in place}
    layers = result.in_order(layer for layer, _ in places if layer is not None)
    kinds = sorted({kind for _, kind in places if kind})

    def matrix(value: Callable[[Row | None, Key], T]) -> tuple[tuple[T, ...], ...]:
        return tuple(tuple(value(cells.get((layer, kind)), (layer, kind)) for kind in kinds) for layer in layers)

    def word(row: Row | None, place: Key) -> str:
        return mark_of(row) if row else WAITING if place in waiting else ""

    return Heat(
        f"{drop_in(result)}, by {'block' if merged else 'layer'} and kind{_mode(result)}",
        tuple(map(named, layers)),
        tuple(map(safe, kinds)),
        matrix(lambda row, _: row.drop if row and row.status == "measured" else None),
        matrix(lambda row, place: MARKS.get(word(row, place), "")),
        matrix(word),
        matrix(lambda row, _: row),
        result.tolerance,
        drop_in(result),
    )


def bars(result: SweepResult, interval: str = "95 % simultaneous") -> Chart:
    """The worst cells, with their intervals, which are the simultaneous ones unless it is said otherwise."""
    ranked = _ranked(result)
    names, rows = _worst(ranked)
    title = f"the {len(rows)} worst{f' of {len(ranked):,}' if len(ranked) > len(rows) else ''}, {interval}"
    series = (_drops("drop", rows, names),)
    return Chart("bars", title + _mode(result), drop_in(result), "", series, tolerance=result.tolerance)


def scatter(result: SweepResult) -> Chart:
    """RMSE against drop, by kind where rows have one; a distance of 0 has no logarithm."""
    series = tuple(
        Series(kind, tuple(row.rmse or 0.0 for row in rows), tuple(row.drop for row in rows), rows=tuple(rows))
        for kind, rows in _by_kind((row for row in _ranked(result) if row.rmse), "all kinds").items()
    )
    title, x_title = f"does the distance tell?{_mode(result)}", "RMSE of donor and recipient"
    return Chart("scatter", title, x_title, drop_in(result), series, is_log_x=True, tolerance=result.tolerance)


def depth(result: SweepResult) -> Chart:
    """The drop along layers or blocks in execution order, a line a kind; of several tensors at one place the
    worst. Parts by a depth or an expression have no place in that order."""
    cells = list(worst_cells(row for row in _ranked(result) if not row.is_of_parts).values())
    order = result.in_order(row.place for row in cells if row.place is not None)
    title = f"along the layers, in execution order{_mode(result)}"
    return _along(title, order, _by_kind(cells, "all kinds"), result)


def curve(result: SweepResult) -> Chart:
    """The drop as layer after layer is taken, a line a kind: for `--mode prefix` and `suffix`."""
    is_curve = result.mode in ("prefix", "suffix")
    rows = [row for row in result.rows if is_curve and row.place is not None and row.status == "measured"]
    order = result.in_order(row.place or "" for row in rows)
    if result.mode == "suffix":
        order.reverse()
    way = "up to this one" if result.mode == "prefix" else "from this one on"
    return _along(f"all layers {way} from the donor", order, _by_kind(rows, "all kinds"), result)


def overview(result: SweepResult) -> Heat:
    """All of a sweep in one matrix: runs of blocks in a `triangle`, a lattice's `pairs`, places and kinds in a
    `heat`."""
    if result.mode == "lattice":
        return pairs(result)
    return triangle(result) if window_sizes(result.mode) else heat(result)


def triangle(result: SweepResult) -> Heat:
    """The drop of every run of blocks: its first block down, its last one across; of several kinds the worst.

    >>> ends = ("h.0", "h.1")
    >>> rows = [Row(None, None, (), 4, "measured", drop=0.5, block="h.0", last_block=last) for last in ends]
    >>> triangle(SweepResult("dice", "max", 0.01, 0.9, None, 8, tuple(rows), mode="window:1:2")).values
    ((0.5, 0.5), (None, None))
    """
    runs: dict[tuple[str, str], Row] = {}
    for row in result.rows:
        if row.block is not None and row.last_block is not None:
            place = row.block, row.last_block
            runs[place] = max(runs.get(place, row), row, key=drop_or_least)
    blocks = result.in_order(dict.fromkeys(block for place in runs for block in place))

    def matrix(value: Callable[[Row | None], T]) -> tuple[tuple[T, ...], ...]:
        return tuple(tuple(value(runs.get((first, last))) for last in blocks) for first in blocks)

    return Heat(
        f"{drop_in(result)}{_mode(result)}",
        tuple(map(safe, blocks)),
        tuple(map(safe, blocks)),
        matrix(lambda row: row.drop if row and row.status == "measured" else None),
        matrix(lambda row: MARKS.get(mark_of(row), "") if row else ""),
        matrix(lambda row: mark_of(row) if row else ""),
        matrix(lambda row: row),
        result.tolerance,
        drop_in(result),
    )


def pairs(result: SweepResult) -> Heat:
    """The drop of every two parts together, of each by itself on the diagonal: for `--mode lattice`.

    >>> rows = [Row(None, "a", (), 4, "measured", drop=0.5, parts=("a",))]
    >>> pairs(SweepResult("dice", "max", 0.01, 0.9, None, 8, tuple(rows), mode="lattice")).values
    ((0.5,),)
    """
    return _of_pairs(f"{drop_in(result)} of two parts together", drop_in(result), result, lambda row: row.drop)


def interactions(result: SweepResult) -> Heat:
    """How much more two parts cost together than the sum of each by itself."""
    title = f"interaction: {drop_in(result)} beyond the sum of both"
    return _of_pairs(
        title, "interaction", result, lambda row: row.interaction.estimate if row.interaction else None
    )


def _of_pairs(title: str, what: str, result: SweepResult, value: Callable[[Row], Number]) -> Heat:
    rows = {frozenset(row.parts): row for row in result.rows if 0 < len(row.parts) < 3}
    parts = sorted({part for row in rows.values() for part in row.parts}, key=natural_key)

    def matrix(shown: Callable[[Row | None], T]) -> tuple[tuple[T, ...], ...]:
        return tuple(tuple(shown(rows.get(frozenset((first, last)))) for last in parts) for first in parts)

    values = matrix(lambda row: value(row) if row and row.status == "measured" else None)
    names = tuple(map(safe, parts)) if any(number is not None for line in values for number in line) else ()
    marks = matrix(lambda row: MARKS.get(mark_of(row), "") if row else "")
    return Heat(
        title,
        names,
        names,
        values,
        marks,
        matrix(lambda row: mark_of(row) if row else ""),
        matrix(lambda row: row),
        result.tolerance,
        what,
    )


def _along(title: str, order: Sequence[str], rows: Mapping[str, Sequence[Row]], result: SweepResult) -> Chart:
    place = {layer: at for at, layer in enumerate(order)}
    series = []
    for name, of_name in rows.items():
        placed = sorted(of_name, key=lambda row: place[row.place or ""])
        series.append(_drops(name, placed, [place[row.place or ""] for row in placed]))
    names = tuple(map(named, order))
    y_title, tolerance = drop_in(result), result.tolerance
    return Chart("lines", title, "layer", y_title, tuple(series), x_names=names, tolerance=tolerance)


def paths(result: SweepResult) -> Chart:
    """The drop on the way from recipient (0) to donor (1), a line for each of the worst cells that have one."""
    series = []
    for name, row in list(zip(*_worst(row for row in widest(result.rows) if row.path), strict=True))[:MOST_LINES]:
        points = [(point.alpha, point.drop, point.ci_low, point.ci_high) for point in row.path]
        ends = [(0.0, 0.0, None, None), (1.0, row.drop, row.ci_low, row.ci_high)]
        x, y, low, high = zip(*sorted([*ends, *points], key=lambda point: point[0]), strict=True)
        series.append(Series(name, x, y, low, high))
    title = f"on the way from recipient to donor{_mode(result)}"
    return Chart("lines", title, "alpha", drop_in(result), tuple(series), tolerance=result.tolerance)


def race(result: SweepResult, is_race: bool = True) -> Chart:
    """On how many samples each cell was scored: before a race knew whether it is among the worst, or so far."""
    names, rows = _worst(row for row in widest(result.rows) if row.samples)
    if all(row.samples == result.samples for row in rows):
        names, rows = [], []
    series = Series("samples", tuple(names), tuple(row.samples for row in rows), rows=tuple(rows))
    title = "how far the race went" if is_race else "samples scored so far"
    return Chart("bars", title, f"samples scored, of {result.samples}", "", (series,))


def drop_in(result: SweepResult) -> str:
    """What is drawn, in words."""
    return f"drop in {safe(result.metric)}"


def _mode(result: SweepResult) -> str:
    return f", {words}" if (words := mode_words(result)) else ""


def _worst(rows: Iterable[Row]) -> tuple[list[str], list[Row]]:
    """The names and rows of those that cost most, as many as bars have room."""
    ranked = sorted(rows, key=lambda row: -(row.drop or 0.0))
    return row_names(ranked)[:MOST_BARS], ranked[:MOST_BARS]


def _drops(name: str, rows: Sequence[Row], x: Sequence[float | str]) -> Series:
    ends = (tuple(row.sim_low for row in rows), tuple(row.sim_high for row in rows))
    return Series(name, tuple(x), tuple(row.drop for row in rows), *ends, tuple(rows))


def _ranked(result: SweepResult) -> list[Row]:
    """Measured cells; where there are none the measured rows of another split."""
    cells = [row for row in widest(result.rows) if row.status == "measured" and row.drop is not None]
    return [row for row in cells if row.place is not None and row.kind] or cells


def _by_kind(rows: Iterable[Row], whole: str = "") -> dict[str, list[Row]]:
    """The rows of layers by their kinds; those of no kind under the name that `whole` gives, if any."""
    by_kind: dict[str, list[Row]] = {}
    for row in rows:
        if row.place is not None and (row.kind or whole):
            by_kind.setdefault(safe(row.kind or whole), []).append(row)
    return dict(sorted(by_kind.items()))


def is_empty(picture: Picture) -> bool:
    """Whether there is nothing to see.

    >>> is_empty(Heat("t", (), (), (), ()))
    True
    """
    return not (picture.rows if isinstance(picture, Heat) else any(series.y for series in picture.series))
