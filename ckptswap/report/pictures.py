"""Which picture shows a run, a run of several donors, or the means over several runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import PurePath
from typing import TYPE_CHECKING

from ckptswap.naming import natural_key
from ckptswap.report import charts
from ckptswap.report.charts import MARKS, Chart, Heat, Number, Picture, Series
from ckptswap.report.rows import Key, by_blocks, drop_or_least, mark_of, worst_cells
from ckptswap.report.text import named, safe
from ckptswap.sweep.result import Row, SweepResult, widest

if TYPE_CHECKING:
    from ckptswap.sweep.agreement import Agreement

Draw = Callable[[SweepResult], Picture]
PICTURES: Mapping[str, Draw] = {
    "heatmap": charts.overview,
    "bars": charts.bars,
    "depth": charts.depth,
    "scatter": charts.scatter,
}


def picture_of(result: SweepResult, name: str) -> Picture:
    """One run's picture by its name; where it has several donors, these beside each other."""
    if len(result.donors) < 2:
        return PICTURES[name](result)
    if name == "heatmap":
        return _donors_heat(result)
    return _donors_bars(result) if name == "bars" else _donors_lines(result, name)


def donor_names(result: SweepResult) -> list[str]:
    """What donors are called: the last part of their paths where that tells them apart.

    >>> from ckptswap.sweep.result import DonorScore
    >>> donors = (DonorScore("a/x.pt", None), DonorScore("b/x.pt", None), DonorScore("a/y.pt", None))
    >>> donor_names(SweepResult("dice", "max", 0.01, 0.9, None, 8, (), donors=donors))
    ['a/x.pt', 'b/x.pt', 'y.pt']
    """
    return short_names([donor.path for donor in result.donors])


def short_names(paths: list[str]) -> list[str]:
    """The last parts of paths, and of those that share one the whole."""
    last = [PurePath(path).name or path for path in paths]
    known = Counter(last)
    return [safe(name if known[name] == 1 else path) for name, path in zip(last, paths, strict=True)]


def _of_donor(result: SweepResult, donor: int) -> SweepResult:
    return replace(result, rows=tuple(row for row in result.rows if row.donor == donor), donors=())


def _donors_heat(result: SweepResult) -> Heat:
    """Layers (or kinds, where rows have no place) × donors: of several kinds in a layer the worst."""
    merged = by_blocks(result.rows)
    places: list[dict[str, Row]] = [{} for _ in result.donors]
    kinds = {}
    has_place = any(row.place is not None for row in result.rows)
    for at, of_donor in enumerate(places):
        for (place, kind), row in worst_cells(_of_donor(result, at).rows, merged=merged).items():
            name = place if has_place else kind
            if name is not None:
                kinds[kind] = True
                of_donor[name] = max(of_donor.get(name, row), row, key=drop_or_least)
    names = set().union(*places)
    order = result.in_order(names) if has_place else sorted(names, key=natural_key)
    matrix = [[of_donor.get(name) for of_donor in places] for name in order]
    word = ("block" if merged else "layer") if has_place else "kind"
    worst = ", the worst kind of each" if has_place and len(kinds) > 1 else ""
    return Heat(
        f"{charts.drop_in(result)}, by {word} and donor{worst}",
        tuple(map(named, order)),
        tuple(donor_names(result)),
        tuple(tuple(row.drop if row and row.status == "measured" else None for row in line) for line in matrix),
        tuple(tuple(MARKS.get(mark_of(row), "") if row else "" for row in line) for line in matrix),
        tuple(tuple(mark_of(row) if row else "" for row in line) for line in matrix),
        tuple(map(tuple, matrix)),
        result.tolerance,
        charts.drop_in(result),
    )


def _donors_bars(result: SweepResult) -> Chart:
    """The cells that are worst for any donor, a point a donor."""
    by_cell: dict[tuple[object, ...], dict[int, Row]] = {}
    for row in widest(result.rows):
        if row.status == "measured" and row.drop is not None:
            by_cell.setdefault((row.place, row.kind, row.tensors), {})[row.donor] = row
    worst = tuple(max(rows.values(), key=drop_or_least) for rows in by_cell.values())
    chart = charts.bars(replace(result, rows=worst, donors=()))
    rows = [by_cell[row.place, row.kind, row.tensors] for row in chart.series[0].rows]
    series = tuple(
        _series(name, chart.series[0].x, [of_cell.get(at) for of_cell in rows])
        for at, name in enumerate(donor_names(result))
    )
    return replace(chart, title=f"{chart.title}, by donor", series=series)


def _series(name: str, x: tuple[float | str, ...], rows: list[Row | None]) -> Series:
    def numbers(field: str) -> tuple[Number, ...]:
        return tuple(getattr(row, field) if row else None for row in rows)

    return Series(name, x, numbers("drop"), numbers("sim_low"), numbers("sim_high"))


def _donors_lines(result: SweepResult, name: str) -> Chart:
    """A line, or a colour, a donor: along the layers of several kinds in one the worst."""
    is_depth = name == "depth"
    chart = charts.depth(result) if is_depth else charts.scatter(result)
    order = result.in_order(row.place for row in result.rows if row.place is not None)
    place = {layer: float(at) for at, layer in enumerate(order)}
    made = []
    for at, donor in enumerate(donor_names(result)):
        worst: dict[Key, Row] = {}
        for (layer, kind), row in worst_cells(_of_donor(result, at).rows).items():
            key = (layer, None if is_depth else kind)
            if row.status == "measured" and (layer in place if is_depth else row.rmse):
                worst[key] = max(worst.get(key, row), row, key=drop_or_least)
        x = {key: place[key[0] or ""] if is_depth else row.rmse or 0.0 for key, row in worst.items()}
        keys = sorted(worst, key=lambda key: x[key])
        rows = tuple(worst[key] for key in keys)
        made.append(Series(donor, tuple(x[key] for key in keys), tuple(row.drop for row in rows), rows=rows))
    words = ", the worst kind of each" if is_depth else ""
    names = tuple(map(named, order)) if is_depth else ()
    return replace(chart, title=f"{chart.title}{words}, by donor", series=tuple(made), x_names=names)


def means_of(compared: Agreement, name: str) -> Picture:
    """The same of the means over runs, with Student's intervals."""
    runs = len(compared.runs)
    mean = compared.mean
    words = f"mean of {runs} runs with 95 % t interval"
    if name == "bars":
        return _mean_bars(compared, mean, words)
    picture = PICTURES[name](mean)
    if isinstance(picture, Heat):
        title = picture.title.replace("drop", "mean drop", 1)
        marked = _marked(picture, compared)
        return replace(marked, title=f"{title}, of {runs} runs", value=f"mean {picture.value}")
    title = f"{picture.title}, {words}" if name == "depth" else f"{picture.title}, means of {runs} runs"
    return replace(picture, title=title, y_title=f"mean {picture.y_title}", has_ends=name == "depth")


def _marked(heat: Heat, compared: Agreement) -> Heat:
    """With how many runs know a cell, where not all do."""
    runs = len(compared.runs)
    known = {cell.mean_row(): len(cell.drops) for cell in compared.cells}
    marks = tuple(
        tuple(
            f"{known[row]}/{runs}" if row is not None and 0 < known[row] < runs else mark
            for row, mark in zip(rows, marks, strict=True)
        )
        for rows, marks in zip(heat.cells, heat.marks, strict=True)
    )
    return replace(heat, marks=marks)


def _mean_bars(compared: Agreement, mean: SweepResult, words: str) -> Chart:
    """Means with their intervals, and behind them what each run has."""
    chart = charts.bars(mean, words)
    [means] = chart.series
    cells = {cell.mean_row(): cell for cell in compared.cells}
    ordered = [cells[row] for row in means.rows]
    each = (
        Series(name, means.x, tuple(row.drop if (row := cell.rows[at]) else None for cell in ordered))
        for at, name in enumerate(short_names(list(compared.runs)))
    )
    return replace(chart, x_title=f"mean {chart.x_title}", series=(replace(means, name="mean"), *each))
