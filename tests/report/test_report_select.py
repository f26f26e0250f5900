"""What `select` tells of a set that one half of the groups chose."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ckptswap.report.select import select_json, select_table
from ckptswap.report.text import Style
from ckptswap.statistics import Interval
from ckptswap.sweep.result import Row
from ckptswap.sweep.select import Choice, Holdout

ROW = Row("c", "conv.bias", ("c.bias",), 4, "measured", rmse=0.1, drop=0.001)
CHOICE = Choice(
    "dice",
    "max",
    0.01,
    0.9,
    0.89,
    Interval(0.01, 0.002, 0.018),
    (ROW,),
    (),
    0,
    0,
    3,
    ("b.pt", ("a.pt",)),
    {},
    ((),),
)
HALVES = Holdout(0, 8, 9, Interval(0.004, 0.001, 0.007))


def told(choice: Choice) -> str:
    return " ".join(select_table(select_json(choice, []), Style(200)).split())


def test_both_halves_are_told() -> None:
    text = told(replace(CHOICE, holdout=HALVES))
    assert (
        "a drop of +0.01000 [+0.00200, +0.01800], not surely within 0.01, on 9 groups that were held out;" in text
    )
    assert "on the 8 that chose (seed 0) the drop is +0.00400 [+0.00100, +0.00700]" in text


@pytest.mark.parametrize(("high", "word"), [(0.009, ", within 0.01;"), (None, ", not surely within 0.01;")])
def test_without_halves_nothing_is_told_of_them(high: float | None, word: str) -> None:
    text = told(replace(CHOICE, drop=Interval(0.005, None, high)))
    assert "held out" not in text
    assert word.rstrip(";") in text
    assert select_json(CHOICE, [])["holdout"] is None
