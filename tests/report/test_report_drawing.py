"""What a page draws, as places: odd numbers, odd names, few and many; and the commands below."""

from __future__ import annotations

import dataclasses
import math
import re
import shlex
from itertools import pairwise

import pytest
import report_samples as samples

from ckptswap.report import charts, page_axes
from ckptswap.report.charts import Chart, Heat, Series
from ckptswap.report.drawing import DrawnBars, DrawnChart, DrawnHeat, drawn
from ckptswap.report.next_steps import next_steps
from ckptswap.report.verdicts import meanings
from ckptswap.sweep.provenance import FROM_PYTHON, Provenance
from ckptswap.sweep.result import Row, SweepResult

ORIGIN = Provenance("b.pt", ("a.pt",), {"command": "ckptswap sweep --run 'my run'"})


def heat_of(*values: float | None, tolerance: float = 0.01) -> DrawnHeat:
    names = tuple(map(str, range(len(values))))
    marks = (tuple("" if value is not None else "=" for value in values),)
    picture = drawn(Heat("t", ("l",), names, (values,), marks, tolerance=tolerance))
    assert isinstance(picture, DrawnHeat)
    return picture


def chart_of(values: tuple[float | None, ...], **more: object) -> DrawnChart:
    x = tuple(float(at + 1) for at in range(len(values)))
    picture = drawn(Chart("lines", "t", "x", "y", (Series("s", x, values),), **more))  # type: ignore[arg-type]
    assert isinstance(picture, DrawnChart)
    return picture


def bars_of(*values: float | None) -> DrawnBars:
    names = tuple(map(str, range(len(values))))
    picture = drawn(Chart("bars", "t", "x", "", (Series("drop", names, values),), tolerance=0.01))
    assert isinstance(picture, DrawnBars)
    return picture


@pytest.mark.parametrize(
    "values", [(0.5,), (0.5, -0.5), (0.0,), (0.0, 0.0), (None, 0.1), (-1e-9, 1e9), (math.inf, 0.1)]
)
def test_everything_lies_within_its_picture(values: tuple[float | None, ...]) -> None:
    for tolerance in (0.0, 0.01):
        heat = heat_of(*values, tolerance=tolerance)
        assert all(0 <= cell.share <= 1 for _, cells in heat.rows for cell in cells)
        assert all(0 <= tick.at <= 100 for tick in heat.ticks)
        places = sorted(tick.at for tick in heat.ticks)
        assert all(b - a >= 9 for a, b in pairwise(places))
        chart = chart_of(values, tolerance=tolerance)
        numbers = [float(number) for number in re.findall(r"[ML](?:-?[\d.]+) (-?[\d.]+)", chart.series[0].points)]
        assert len(numbers) == sum(value is not None and math.isfinite(value) for value in values)
        assert all(0 <= number <= chart.height for number in (*numbers, *(tick.at for tick in chart.y_ticks)))
    for bar in bars_of(*values).bars:
        assert 0 <= bar.start <= bar.start + bar.length <= 100.01


def test_what_is_missing_is_no_zero_and_what_is_infinite_says_so() -> None:
    [(_, (missing, zero, endless))] = heat_of(None, 0.0, math.inf).rows
    assert (missing.look, missing.text) == ("marked", "=")
    assert (zero.look, zero.text, zero.share) == ("costs", "0", 0.0)
    assert (endless.text, endless.share) == ("+inf", 1.0)
    missing, zero, endless = bars_of(None, 0.0, math.inf).bars  # type: ignore[assignment]
    assert [bar.text for bar in (missing, zero, endless)] == ["–", "0", "+inf"]


def test_colours_go_one_way_where_nothing_helps() -> None:
    assert (heat_of(0.1, 0.2).low, heat_of(0.1, -0.2).low) == (0, -1)
    assert len(heat_of(0.1).tolerances) == 1
    assert len(heat_of(0.1, -0.2).tolerances) == 2
    assert heat_of(0.1, tolerance=0.0).tolerances == ()


def test_a_point_that_is_missing_leaves_no_place() -> None:
    chart = chart_of((0.1, None, 0.3))
    assert chart.series[0].points.count("M") - chart.series[0].points.count("m0-") == 2
    assert [told.splitlines()[1] for told in chart.series[0].told] == ["x 1", "x 3"]


@pytest.mark.parametrize(
    "axis",
    [
        page_axes.linear([]), page_axes.linear([5.0]), page_axes.linear([-3.0, 1e6]),
        page_axes.logarithmic([]), page_axes.logarithmic([3.0]), page_axes.logarithmic([1e-9, 1e9]),
        page_axes.symmetric_log([], 0.01), page_axes.symmetric_log([0.001], 0.01),
    ],
)  # fmt: skip
def test_every_axis_has_ticks_that_rise_within_it(axis: page_axes.Axis) -> None:
    shares = list(map(axis.share, axis.ticks))
    assert 1 < len(shares) < 40
    assert shares == sorted(set(shares))
    assert -1e-9 <= shares[0] <= shares[-1] <= 1 + 1e-9


# What to do next -------------------------------------------------------------------------------------------------


def commands(result: SweepResult, origin: Provenance = ORIGIN, *, is_own: bool = True) -> list[list[str]]:
    return [shlex.split(step.command) for step in next_steps(result, origin, "my run", is_own=is_own)]


def test_commands_are_words_of_a_shell_and_fit_the_run() -> None:
    result = samples.sweep()
    found = commands(result)
    assert [words[1] for words in found] == ["select", "transplant", "report", "report", "plot", "report"]
    assert all(words[0] == "ckptswap" for words in found)
    assert found[0] == ["ckptswap", "select", "my run"]
    unfinished = dataclasses.replace(result, complete=False)
    assert commands(unfinished)[0] == ["ckptswap", "sweep", "--run", "my run"]
    assert ["select"] not in [words[1:2] for words in commands(dataclasses.replace(result, mode="all-but"))]


def test_a_strangers_folder_gives_no_command_of_its_own_and_runs_no_code() -> None:
    unfinished = dataclasses.replace(samples.sweep(), complete=False)
    found = {words[1] for words in commands(unfinished, is_own=False)}
    assert found == {"transplant", "report", "plot"}


def test_what_no_shell_should_read_is_no_command() -> None:
    row = Row("a", "conv.bias", ("a\x1b[201~rm",), 8, "measured", rank=1, drop=0.0, verdict="reusable")
    result = SweepResult("dice", "max", 0.01, 0.9, None, 8, (row,))
    assert "transplant" not in {words[1] for words in commands(result)}
    python = Provenance("b.pt", ("zeros",), {"command": FROM_PYTHON})
    assert {words[1] for words in commands(dataclasses.replace(result, complete=False), python)} == {
        "select", "plot", "report"
    }  # fmt: skip
    assert next_steps(result, python, "", is_own=True) == []


def test_the_largest_reusable_row_with_a_short_command_is_taken() -> None:
    many = tuple(f"t{at}" for at in range(40))
    rows = tuple(
        Row(None if len(names) > 1 else "l", kind, names, numel, "measured", rank=1, drop=0.0, verdict="reusable")
        for kind, names, numel in (("k", many, 900), ("k", ("small",), 1), ("k", ("it's large",), 100))
    )
    [words] = [words for words in commands(SweepResult("d", "max", 0.01, 0.9, None, 8, rows)) if "--to" in words]
    assert words[-2:] == ["--only", "=it's large"]


def test_meanings_hold_the_tolerance_and_what_verdicts_keep() -> None:
    result = samples.sweep()
    assert list(meanings(result)) == ["reusable", "unused", "sensitive", "undecided"]
    assert all("0.0091" in meanings(result)[word] for word in ("reusable", "sensitive", "undecided"))
    assert "are expected to be wrong" in meanings(dataclasses.replace(result, error="fdr"))["reusable"]


def test_the_samples_of_a_report_are_all_drawn() -> None:
    result = samples.sweep()
    for picture in (charts.heat(result), charts.bars(result), charts.scatter(result), charts.depth(result)):
        assert drawn(picture).form in ("heat", "bars", "chart")
