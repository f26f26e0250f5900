"""The scale of colours: small drops are seen beside a large one, and nothing within the tolerance is loud."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import report_samples as samples

from ckptswap.report import charts
from ckptswap.report.scale import ColourScale

SCALES = [ColourScale(0.01, 0.9), ColourScale(0.0, 0.9), ColourScale(0.01, 0.0), ColourScale(0.0, 0.0)]


@pytest.mark.parametrize("scale", SCALES)
def test_it_rises_is_odd_and_is_undone(scale: ColourScale) -> None:
    drops = [scale.end * at / 50 for at in range(-50, 51)]
    places = list(map(scale.place, drops))
    assert places == sorted(places)
    assert places == [-place for place in reversed(places)]
    assert (places[0], places[50], places[-1]) == (-1, 0, 1)
    logarithm = math.log1p(scale.end / scale.unit)
    back = [math.copysign(scale.unit * math.expm1(abs(place) * logarithm), place) for place in places]
    assert back == pytest.approx(drops)


def test_a_small_drop_is_seen_beside_a_large_one_and_one_within_the_tolerance_is_pale() -> None:
    assert ColourScale(0.01, 1.0).place(0.05) > 0.35  # a linear scale gives it a twentieth
    assert ColourScale(0.01, 0.005).place(0.005) < 0.2
    assert ColourScale(0.01, 1.0).place(math.inf) == 1


def test_ticks_hold_the_tolerance_and_the_ends_and_stand_apart() -> None:
    assert ColourScale(0.0, 0.0).ticks == (-1.0, -0.1, -0.01, 0.0, 0.01, 0.1, 1.0)
    for scale in SCALES:
        assert {scale.tolerance, scale.end, -scale.end} <= set(scale.ticks)
        places = list(map(scale.place, scale.ticks))
        assert min(b - a for a, b in pairwise(places)) > 0.08


def test_every_heatmap_has_the_tolerance_of_its_run() -> None:
    result = samples.sweep()
    for heat in (charts.heat(result), charts.triangle(result), charts.pairs(result), charts.interactions(result)):
        assert heat.scale.tolerance == result.tolerance
