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
from ckptswap.report.figures import draw, form_of, width_of
from ckptswap.report.pictures import means_of, picture_of
from ckptswap.sweep.agreement import agreement
from ckptswap.sweep.result import DonorScore, Row, SweepResult

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


@pytest.mark.parametrize(
    ("kind", "form", "start"),
    [
        ("heat", "png", b"\x89PNG"),
        ("bars", "pdf", b"%PDF"),
        ("depth", "svg", b"<?xml"),
        ("scatter", "svg", b"<?xml"),
    ],
)
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


def words_of(svg: bytes) -> list[str]:
    """The lines of text in a picture."""
    return [each.strip() for each in re.findall(r">([^<>]+)<", svg.decode()) if each.strip()]


def donors() -> SweepResult:
    """The sample's rows from two donors; the second costs twice as much, and lacks the last row."""
    twice = (replace(row, donor=1, drop=None if row.drop is None else 2 * row.drop) for row in RESULT.rows[:-1])
    return replace(
        RESULT, rows=(*RESULT.rows, *twice), donors=(DonorScore("a/x.pt", 0.9), DonorScore("zeros", None))
    )


def test_several_donors_stand_beside_each_other() -> None:
    found = picture_of(donors(), "heatmap")
    assert isinstance(found, Heat)
    assert found.columns == ("x.pt", "zeros")
    worst = {
        row.layer: max(r.drop or 0 for r in RESULT.rows if r.layer == row.layer)
        for row in RESULT.rows
        if row.layer
    }
    for name, (first, second) in zip(found.rows, found.values, strict=True):
        if first is not None and second is not None and worst[name] > 0:
            assert (first, second) == (worst[name], 2 * worst[name])
    bars = picture_of(donors(), "bars")
    assert isinstance(bars, Chart)
    assert [series.name for series in bars.series] == ["x.pt", "zeros"]
    assert len(bars.series[0].y) == len(bars.series[0].x)
    text = draw([bars], "svg").decode()
    assert text.count(">x.pt<") == text.count(">zeros<") == 1


def test_means_say_how_many_runs_know_a_cell() -> None:
    layer, kind = next((row.layer, row.kind) for row in RESULT.rows if row.status == "measured" and row.layer)
    fewer = replace(RESULT, rows=tuple(row for row in RESULT.rows if (row.layer, row.kind) != (layer, kind)))
    found = means_of(agreement({"a": RESULT, "b": fewer}), "heatmap")
    assert isinstance(found, Heat)
    marks = {mark for row in found.marks for mark in row if "/" in mark}
    assert marks == {"1/2"}
    assert found.marks[found.rows.index(layer)][found.columns.index(kind)] == "1/2"
    assert "1/2 known of so many runs" in " ".join(words_of(draw([found], "svg")))
    bars = means_of(agreement({"a": RESULT, "b": fewer}), "bars")
    assert isinstance(bars, Chart)
    mean, first, second = bars.series
    at = next(i for i, row in enumerate(mean.rows) if (row.layer, row.kind) == (layer, kind))
    assert (first.y[at], second.y[at], mean.low[at]) == (mean.y[at], None, None)


@pytest.mark.parametrize("kind", ["heatmap", "bars", "depth", "scatter"])
def test_a_figure_is_as_wide_as_it_is_told(kind: str) -> None:
    for width in (3.5, 7.0):
        start = draw([picture_of(RESULT, kind)], "png", width=width)[16:20]
        assert int.from_bytes(start, "big") == 300 * width


def test_long_names_stand_whole_in_a_column_and_within_it() -> None:
    layers = [f"model.language_model.decoder.layers.{at}.self_attn.q_proj" for at in range(60)]
    rows = tuple(Row(each, "attn.q.weight", (each,), 4, "measured", drop=0.1) for each in layers)
    words = "".join(words_of(draw([picture_of(replace(RESULT, rows=rows), "bars")], "svg", width=3.5)))
    assert sum(each in words for each in layers) == 40, "as many as bars have room for"


def test_a_pdf_has_its_fonts_in_it_as_letters() -> None:
    data = draw([picture_of(RESULT, "heatmap")], "pdf")
    assert (b"/FontFile2" in data, b"/Type3" in data) == (True, False)


def test_a_title_of_ones_own_may_be_empty() -> None:
    heat = picture_of(RESULT, "heatmap")
    own, none = (draw([heat], "svg", title=title).decode() for title in ("Ours", ""))
    assert (">Ours<" in own, heat.title in own, heat.title in none) == (True, False, False)


def test_small_drops_keep_a_colour_beside_a_large_one() -> None:
    rows = [Row("a", "k", ("a",), 4, "measured", drop=1.0), Row("b", "k", ("b",), 4, "measured", drop=0.02)]
    text = draw([picture_of(replace(RESULT, rows=tuple(rows)), "heatmap")], "svg").decode()
    fills = dict.fromkeys(re.findall(r"fill: (#[0-9a-f]{6})", text))
    assert "#d55e00" in fills
    assert any("#fdf0e8" > fill > "#e08040" for fill in fills), "not white, and not the strongest"


@pytest.mark.parametrize(
    ("width", "inches"), [("column", 3.5), ("page", 7.0), ("5.5", 5.5), (4, 4.0), (None, None)]
)
def test_widths_are_a_papers(width: str | float | None, inches: float | None) -> None:
    assert width_of(width) == inches


@pytest.mark.parametrize("width", ["wide", "0", "-3", "nan", "inf", "1e9", ""])
def test_what_is_no_width_is_refused(width: str) -> None:
    with pytest.raises(UsageError, match="use column"):
        width_of(width)
