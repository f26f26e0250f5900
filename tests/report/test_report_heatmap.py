from __future__ import annotations

import itertools
import math
import re
from dataclasses import replace

import pytest
import report_samples as samples
from report_samples import heatmap

from ckptswap.report.heatmap import Scale
from ckptswap.report.text import Style
from ckptswap.sweep.result import Row, SweepResult

SGR = re.compile(r"\x1b\[[0-9;]*m")


def measured(layer: str | None, kind: str | None, drop: float) -> Row:
    return Row(layer, kind, (f"{layer}.{kind}",), 4, "measured", rank=1, drop=drop)


def of(*rows: Row) -> SweepResult:
    return SweepResult("dice", "max", 0.01, 0.9, None, 5, rows)


EVERY = of(
    *(measured("l", f"k{at}", drop) for at, drop in enumerate((-0.8, -0.2, 0.0, 0.1, 0.3, 0.5, 0.8))),
    *(
        Row("l", f"s{at}", ("t",), 4, status, drop=0.0 if at < 2 else None)
        for at, status in enumerate(("identical", "no-effect", "mismatch", "failed"))
    ),
    measured("other", "k0", 0.3),
)


@pytest.mark.parametrize("ascii", [False, True])
def test_characters_alone_tell_every_thing_apart(ascii: bool) -> None:
    text = heatmap(EVERY, Style(200, ascii=ascii))
    (line,) = [line for line in text.splitlines() if line.startswith("l ")]
    cells = [line[12:].ljust(88)[8 * at : 8 * at + 7].strip()[:1] for at in range(11)]
    assert len(set(cells)) == 11
    assert all(cells)
    legend = text.split("\n\n")[-1]
    assert all(cell in legend for cell in cells)
    assert "blank" in legend


def test_layers_that_begin_and_end_alike_can_be_told_apart_in_forty_columns() -> None:
    """Cut later, where that leaves room for fewer kinds; folded, where no cut keeps them apart."""
    for layer in (
        "backbone.stage{}.a.long.way.down.layer{}",
        "backbone.stage.{}.of.four.and.then.{}.of.two.blocks",
    ):
        text = heatmap(samples.sweep(layer), Style(40))
        assert max(map(len, text.splitlines())) <= 40
        panel = text.split("\n\n")[0].splitlines()[4:-1]
        lines = (re.sub("  +u(?=  |$)", "|", line.strip()) for line in panel)
        names = re.sub(r"[·░▒▓█◦]+", "|", "".join(lines)).replace(" ", "")
        assert len({name for name in names.split("|") if name}) == 8


def test_colours_tell_the_levels_apart() -> None:
    text = heatmap(EVERY, Style(200, colour=True))
    (line,) = [line for line in text.splitlines() if SGR.sub("", line).startswith("l ")]
    assert len(set(re.findall(r"38;5;(\d+)m█", line))) == 7


@pytest.mark.parametrize("width", [30, 80, 160])
def test_kinds_that_do_not_fit_go_to_another_panel(width: int) -> None:
    text = heatmap(of(*(measured("layer", f"kind{at}", 0.1) for at in range(30))), Style(width))
    heads = re.findall(r"kind\d+", text)
    assert heads == [f"kind{at}" for at in range(30)]
    assert max(map(len, text.splitlines())) <= width


def test_layers_stand_in_natural_order_and_the_whole_kind_last() -> None:
    rows = [measured(layer, "conv.bias", 0.1) for layer in ("l10", None, "l2", "", "l1")]
    lines = heatmap(of(*rows), Style(80)).splitlines()
    assert [line.split("  ")[0] for line in lines[3:8]] == ["(root)", "l1", "l2", "l10", "whole kind"]


def test_the_worst_of_several_rows_is_shown() -> None:
    rows = [replace(measured("l", "k", drop), tensors=(str(drop),)) for drop in (0.1, 0.8, 0.3)]
    assert "███" in heatmap(of(*rows), Style(80)).splitlines()[2]


def test_without_layers_or_kinds_there_is_still_an_answer() -> None:
    assert heatmap(of(), Style(80)) == ""
    assert heatmap(of(measured(None, None, 0.1)), Style(80)) == ""
    assert "layer" in heatmap(of(measured("l", None, 0.1)), Style(80)).splitlines()[2]


def test_infinite_and_undefined_drops_do_not_break_it() -> None:
    text = heatmap(
        of(measured("l", "a", math.inf), measured("l", "b", math.nan), measured("l", "c", 0.5)), Style(80)
    )
    assert text.splitlines()[2].split()[1:] == ["███████", "?", "███████"]
    assert "███████" in heatmap(of(measured("l", "a", math.inf)), Style(80))


def test_levels_grow_with_the_drop() -> None:
    scale = Scale(0.01, 0.8, Style())
    levels = [scale.level(at / 100) for at in range(-80, 81)]
    assert levels == sorted(levels)
    assert sorted(set(levels)) == [-2, -1, 0, 1, 2, 3, 4]
    assert all(scale.level(-drop) <= 0 <= scale.level(drop) for drop in (0.0, 0.01, 0.02))


def test_every_status_has_a_place_in_the_sample() -> None:
    text = heatmap(samples.sweep(), Style(80))
    for mark in "=∅×!":
        assert re.search(rf" {re.escape(mark)} ", text)
    assert not any(a == b == "" for a, b in itertools.pairwise(text.splitlines()))
