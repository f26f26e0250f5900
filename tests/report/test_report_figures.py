"""Charts from a sweep's rows, and pictures of them."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

import pytest
import report_samples as samples

from ckptswap.errors import UsageError
from ckptswap.report import charts
from ckptswap.report.charts import Chart, Heat, Series
from ckptswap.report.figures import draw, form_of

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
        assert bool(found.marks[at[0]][at[1]]) == (row.status != "measured")


def test_bars_stand_worst_first_and_depth_in_execution_order() -> None:
    (series,) = charts.bars(RESULT).series
    assert list(series.y) == sorted(series.y, reverse=True)
    for line in charts.depth(replace(RESULT, layers=tuple(LAYERS))).series:
        assert list(line.x) == sorted(line.x)
    for kind in charts.scatter(RESULT).series:
        assert all(y is not None for y in kind.y)


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


def test_points_without_a_number_or_an_interval_are_left_out() -> None:
    chart = Chart("dots", "t", "", "y", (Series("s", ("a", "b"), (None, 1.0), (None, None), (None, None)),))
    assert draw([chart, Heat("h", ("l",), ("k",), ((None,),), (("=",),))], "svg")


@pytest.mark.parametrize("path", ["drops", "drops.gif", "svg"])
def test_another_ending_is_refused(path: str) -> None:
    with pytest.raises(UsageError, match=r"\.png, \.svg, \.pdf"):
        form_of(path)
