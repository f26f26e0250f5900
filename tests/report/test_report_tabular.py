from __future__ import annotations

import csv
import io
import math
import re
from html import unescape

from hypothesis import given
from hypothesis import strategies as st

from ckptswap.report.tabular import md_text, to_csv, to_md

cell = st.one_of(st.text(max_size=20), st.floats(), st.integers(), st.none())
tables = st.lists(st.lists(cell, min_size=3, max_size=3), min_size=1, max_size=5)


@given(tables)
def test_csv_reads_back_as_the_same_grid_with_exact_numbers(rows: list[list[object]]) -> None:
    back = list(csv.reader(io.StringIO(to_csv(["a", "b", "c"], rows))))
    assert [len(row) for row in back] == [3] * (len(rows) + 1)
    for row, found in zip(rows, back[1:], strict=True):
        for value, text in zip(row, found, strict=True):
            if isinstance(value, float):
                assert text == "" if not math.isfinite(value) else float(text) == value
            if value is None:
                assert text == ""


@given(tables)
def test_md_is_one_line_a_row_with_as_many_cells(rows: list[list[object]]) -> None:
    lines = to_md(["a", "b", "c"], rows).split("\n")
    assert len(lines) == len(rows) + 3
    assert {line.count("|") for line in lines[:-1]} == {4}


@given(st.text(alphabet="ab_*`<>|[]()~#$&\\!", max_size=20))
def test_md_text_is_only_characters(text: str) -> None:
    shown = md_text(text)
    assert unescape(shown) == text
    assert not re.search(r"[<>|`*\[\]\\~$!]", shown)


def test_names_inside_words_stay_readable() -> None:
    assert md_text("bn.running_mean") == "bn.running_mean"
    assert md_text("__init__") == "&#95;&#95;init&#95;&#95;"


def test_lists_and_alignment() -> None:
    assert to_csv(["shape", "tensors"], [[[64, 3], ["a", "b"]], [[], []]]) == "shape,tensors\n64x3,a;b\n,\n"
    assert to_md(["shape", "n"], [[[64, 3], 5], [[], None]]).splitlines()[1:] == [
        "| :--- | ---: |",
        "| 64×3 | 5 |",
        "| scalar | – |",
    ]


def test_headings_are_as_harmless_as_cells() -> None:
    """Where runs are compared, their paths are headings: names that somebody else chose."""
    [heading, _] = list(csv.reader(io.StringIO(to_csv(["=1+1", "@run", "a\nb\x1b[31m", "a,b"], [[1, 2, 3, 4]]))))
    assert heading == ["'=1+1", "'@run", "a\\nb\\x1b[31m", "a,b"]
