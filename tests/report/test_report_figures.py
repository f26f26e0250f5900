"""Charts from a sweep's rows, and pictures of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from xml.etree import ElementTree

import pytest
import report_samples as samples

from ckptswap.errors import UsageError
from ckptswap.report import charts
from ckptswap.report.charts import Chart, Heat, Picture, Series
from ckptswap.report.figures import draw, form_of
from ckptswap.sweep.result import Row, SweepResult

RESULT = samples.sweep()
LAYERS = list(dict.fromkeys(row.layer for row in RESULT.rows if row.layer is not None))
HOSTILE = "a$\\frac{1}{0}$<script>alert(1)</script>\x1b[31m&"


def test_a_heat_has_every_cell_once_and_marks_what_was_not_measured() -> None:
    found = charts.heat(replace(RESULT, layers=tuple(LAYERS[::-1])))
    assert found.rows == tuple(LAYERS[::-1])
    for row in RESULT.rows:
        if row.layer is None or row.kind is None:
            continue
        at = found.rows.index(row.layer), found.columns.index(row.kind)
        assert found.values[at[0]][at[1]] == (row.drop if row.status == "measured" else None)
        assert bool(found.marks[at[0]][at[1]]) == (row.status != "measured" or row.verdict == "unused")


def test_bars_stand_worst_first_and_depth_in_execution_order() -> None:
    (series,) = charts.bars(RESULT).series
    assert list(series.y) == sorted(series.y, reverse=True)
    for line in charts.depth(replace(RESULT, layers=tuple(LAYERS))).series:
        assert list(line.x) == sorted(line.x)
    for kind in charts.scatter(RESULT).series:
        assert all(y is not None for y in kind.y)


def tensors(*cells: tuple[tuple[str, ...], float]) -> SweepResult:
    rows = tuple(
        Row("lstm", "rnn.weight_ih", names, 4, "measured", rmse=0.1, score=0.9, drop=drop) for names, drop in cells
    )
    return SweepResult("dice", "max", 0.01, 0.9, None, 8, rows)


def test_the_tensors_of_a_cell_that_is_there_are_left_out() -> None:
    both = tensors((("a",), 0.0038), (("b",), 0.0001), (("a", "b"), 0.0003))
    assert charts.heat(both).values == ((0.0003,),)
    assert charts.bars(both).series[0].x == ("lstm rnn.weight_ih",)
    assert charts.depth(both).series[0].y == charts.scatter(both).series[0].y == (0.0003,)


def test_tensors_alone_go_by_their_own_names_and_the_worst_stands_for_their_place() -> None:
    alone = tensors((("a",), 0.1), (("b",), 0.3))
    assert charts.heat(alone).values == ((0.3,),)
    assert charts.bars(alone).series[0].x == ("b", "a")
    assert charts.depth(alone).series[0].y == (0.3,)
    assert charts.scatter(alone).series[0].y == (0.1, 0.3)


def test_a_cell_that_waits_has_its_own_sign() -> None:
    found = charts.heat(RESULT, waiting={("later", "conv.bias"), (None, "conv.bias")})
    at = found.rows.index("later"), found.columns.index("conv.bias")
    assert found.marks[at[0]][at[1]] == charts.MARKS[found.words[at[0]][at[1]]] == "…"
    assert [mark for mark in found.marks[at[0]] if mark] == ["…"]


def test_titles_say_what_a_cell_takes() -> None:
    for draw_one in (charts.heat, charts.bars, charts.scatter, charts.depth):
        assert draw_one(replace(RESULT, mode="all-but")).title.endswith(", all but this from the donor")
        assert "donor" not in draw_one(RESULT).title


def test_only_a_race_is_called_one() -> None:
    partly = replace(RESULT, rows=tuple(replace(row, samples=8) for row in RESULT.rows))
    assert charts.race(partly, is_race=True).title == "how far the race went"
    assert charts.race(partly, is_race=False).title == "samples scored so far"


@pytest.mark.parametrize(("form", "start"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")])
@pytest.mark.parametrize("kind", ["heat", "bars", "depth", "scatter"])
def test_pictures_are_drawn_and_the_same_each_time(form: str, start: bytes, kind: str) -> None:
    made = {
        "heat": charts.heat(RESULT),
        "bars": charts.bars(RESULT),
        "depth": charts.depth(replace(RESULT, layers=tuple(LAYERS))),
        "scatter": charts.scatter(RESULT),
    }[kind]
    first = draw([made], form)
    assert first.startswith(start)
    assert draw([made], form) == first


def test_an_svg_keeps_its_words_as_text_whatever_they_say() -> None:
    rows = tuple(replace(row, layer=HOSTILE if row.layer else row.layer) for row in RESULT.rows)
    text = draw([charts.bars(replace(RESULT, rows=rows))], "svg").decode()
    tree = ElementTree.fromstring(text)
    assert not [each for each in tree.iter() if each.tag.endswith("script")]
    assert "\x1b" not in text


def test_names_stay_apart_when_they_are_cut() -> None:
    layers = [f"encoder.blocks.{block}.{part}_conv" for block in range(20) for part in ("depthwise", "project")]
    rows = tuple(Row(each, "conv.weight", (f"{each}.weight",), 4, "measured", drop=0.1) for each in layers)
    text = draw([charts.heat(replace(RESULT, rows=rows))], "svg").decode()
    names = re.findall(r">([^<>]*conv)<", text)
    assert len(set(names)) == len(names) == 40


@pytest.mark.parametrize("panel", [charts.heat, charts.depth, charts.scatter])
def test_no_name_is_read_as_mathematics(panel: Callable[[SweepResult], Picture]) -> None:
    rows = tuple(replace(row, kind=r"w$\foo$") for row in RESULT.rows if row.layer)
    extra = tuple(replace(row, kind=r"v$\bar{$") for row in rows)
    text = draw([panel(replace(RESULT, rows=rows + extra, metric=r"$\m$"))], "svg").decode()
    assert r"w$\foo$" in text


def test_points_without_a_number_or_an_interval_are_left_out() -> None:
    chart = Chart("dots", "t", "", "y", (Series("s", ("a", "b"), (None, 1.0), (None, None), (None, None)),))
    assert draw([chart, Heat("h", ("l",), ("k",), ((None,),), (("=",),))], "svg")


@pytest.mark.parametrize("path", ["drops", "drops.gif", "svg"])
def test_another_ending_is_refused(path: str) -> None:
    with pytest.raises(UsageError, match=r"\.png, \.svg, \.pdf"):
        form_of(path)
