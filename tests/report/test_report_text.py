from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from ckptswap.report import text

names = st.text(max_size=60)


@given(names)
def test_safe_text_has_no_character_that_acts(name: str) -> None:
    assert all(unicodedata.category(c)[0] != "C" for c in text.safe(name))
    assert text.safe(text.safe(name)) == text.safe(name)


@given(names.map(text.safe), st.integers(1, 70), st.booleans())
def test_shortened_names_fit_and_keep_their_ends(name: str, width: int, ascii: bool) -> None:
    short = text.shorten(name, width, ascii=ascii)
    assert cell_len(short) <= width
    mark = "~" if ascii else "…"
    cuts = [at for at, char in enumerate(short) if char == mark]
    assert short == name or any(name.startswith(short[:at]) and name.endswith(short[at + 1 :]) for at in cuts)


@given(st.text("ab.123", max_size=60), st.integers(1, 70))
def test_numbers_stay_where_they_have_room(name: str, width: int) -> None:
    short = text.shorten_between_numbers(name, width)
    assert len(short) <= width
    numbers = re.findall("[0-9]+", name)
    if len("".join(numbers)) + len(numbers) < width:  # a cell for what is before, between and after
        assert re.findall("[0-9]+", short) == numbers


def test_a_column_is_cut_where_the_names_differ() -> None:
    column = [f"encoder.layer{i}.0.conv{j}.weight" for i in range(4) for j in (1, 2)]
    for width in range(20, 30):
        assert len(set(text.shorten_all(column, width))) == len(column)
        assert len(set(text.shorten_all(column, width, ascii=True))) == len(column)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_is_shown_as_zero_only_when_it_is(value: float) -> None:
    shown = text.fixed(value, 3, signed=True)
    assert (shown == "0") == (value == 0)
    assert float(shown) == pytest.approx(value, abs=5e-4)
    assert shown[0] in "+-0"


@given(st.lists(st.floats(1e-4, 1e4), min_size=1))
def test_decimals_give_the_largest_so_many_digits(values: list[float]) -> None:
    largest = max(values)
    shown = text.fixed(largest, text.decimals(values, 4))
    assert float(shown) == pytest.approx(largest, rel=5.1e-4)


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (text.fixed(None, 3), "–"),
        (text.number(None), "–"),
        (text.figure(None), "–"),
        (text.interval(0.1, None, 2), "–"),
        (text.count(None), "–"),
        (text.size(None), "–"),
        (text.shape(None), "–"),
        (text.fixed(math.inf, 3, signed=True), "+inf"),
        (text.fixed(3.1e-9, 11), "3.10e-09"),
        (text.count(999_999), "1M"),
        (text.count(9_999), "9,999"),
        (text.size(999_600), "1 MB"),
        (text.figure(123.4), "123"),
        (text.figure(12345.6), "1.23e+04"),
        (text.decimals([]), 4),
    ],
)
def test_formats(shown: object, expected: object) -> None:
    assert shown == expected


@given(st.floats(-2, 2), st.integers(1, 20), st.booleans())
def test_bars_stay_inside_and_grow(value: float, width: int, ascii: bool) -> None:
    drawn = text.bar(value, 1.0, width, ascii)
    assert len(drawn) <= width
    assert bool(drawn) == (value != 0)
    assert len(drawn) >= len(text.bar(value / 2, 1.0, width, ascii))
    assert drawn.isascii() or not ascii


def test_a_bar_of_nothing_is_empty_and_of_infinity_full() -> None:
    assert [text.bar(value, 1.0, 4) for value in (None, math.nan, 0.0, math.inf)] == ["", "", "", "████"]
    assert text.bar(1.0, 0.0, 4) == ""


def test_json_is_strict_and_takes_numpy_scalars() -> None:
    data = {"b": math.nan, "a": [math.inf, np.float32("nan"), np.int64(3), np.float64(0.5), True, None]}
    dumped = text.dump_json(data)
    assert json.loads(dumped, parse_constant=pytest.fail) == {"b": None, "a": [None, None, 3, 0.5, True, None]}
    assert list(json.loads(dumped)) == ["b", "a"]
    assert dumped.endswith("}\n")
    with pytest.raises(TypeError):
        text.dump_json({"x": object()})


def test_the_room_is_cheap_to_enter() -> None:
    code = (
        "import sys, ckptswap.report; assert 'rich' not in sys.modules;"
        "import ckptswap.report.sweep, ckptswap.report.heatmap, ckptswap.report.diff, ckptswap.report.checkpoint;"
        "import ckptswap.report.evaluate; assert not {'torch', 'numpy', 'jinja2'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
