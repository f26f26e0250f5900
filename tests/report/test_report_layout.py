from __future__ import annotations

import re
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text

from ckptswap.report.checkpoint import show_table
from ckptswap.report.layout import Column, flow, grid, paragraph, render
from ckptswap.report.text import Style

COLUMNS = [Column("name", smallest=6), Column("much", right=True, spare=1), Column("n", right=True, spare=2)]
ROWS = [["encoder.conv1", "12", "3"], ["encoder.conv2", "1,234", "40"]]


def lines(width: int) -> list[str]:
    return [line.plain.rstrip() for line in grid(COLUMNS, ROWS, Style(width))]


def test_numbers_stand_under_each_other() -> None:
    assert lines(40) == ["name            much   n", "encoder.conv1     12   3", "encoder.conv2  1,234  40"]


def test_names_are_cut_first_then_spare_columns_go_the_largest_first() -> None:
    assert lines(18) == ["name       much  n", "enco…onv1    12  3", "enco…onv2 1,234 40"]
    assert lines(14) == ["name      much", "enco…nv1    12", "enco…nv2 1,234"]
    assert lines(8) == ["name", "enco…nv1", "enco…nv2"]


def test_minor_columns_go_where_that_leaves_names_whole() -> None:
    columns = [Column("name", smallest=6), Column("much", right=True, spare=2, minor=True), Column("n", spare=1)]

    def shown(width: int) -> list[str]:
        return [line.plain.rstrip() for line in grid(columns, [["encoder.conv1", "1,234", "40"]], Style(width))]

    assert shown(22) == ["name           much n", "encoder.conv1 1,234 40"]
    assert shown(17) == ["name           n", "encoder.conv1  40"]
    assert shown(15) == ["name         n", "encode…conv1 40"], "nor do they stay where names are short"


def test_columns_go_where_names_would_look_alike_and_else_names_are_folded() -> None:
    names = [f"encoder.layer{at}.block.conv.{role}" for at in (0, 1) for role in ("weight", "bias")]
    columns = [Column("name", smallest=6), Column("much", right=True, spare=1)]
    rows = [[name, "1,234"] for name in names]
    shown = [line.plain.rstrip() for line in grid(columns, rows, Style(21))]
    assert shown == ["name", *(f"encoder.layer{at}…{end}" for at in (0, 1) for end in ("weight", "v.bias"))]
    narrow = [line.plain.split() for line in grid(columns, rows, Style(14))]
    assert narrow[:6] == [["name", "much"], ["encoder.", "1,234"], ["layer0."], ["block."], ["conv."], ["weight"]]


@given(
    st.lists(st.text("ab.1", min_size=1, max_size=60), min_size=1, max_size=9, unique=True),
    st.integers(12, 60),
    st.integers(5, 20),
)
def test_different_names_never_look_alike(names: list[str], width: int, smallest: int) -> None:
    columns = [Column("#"), Column("name", smallest=smallest), Column("n", right=True, spare=1)]
    found = grid(columns, [["#", name, "=345"] for name in names], Style(width))
    assert all(len(line.plain) <= width for line in found)
    shown = [
        "".join(row.split()) for row in "".join(line.plain.replace("=345", "") for line in found[1:]).split("#")
    ]
    assert len(set(shown[1:])) == len(names) == len(shown) - 1


@given(st.lists(st.integers(0, 999), min_size=1, max_size=12, unique=True), st.integers(40, 120), st.data())
def test_no_block_loses_its_number(blocks: list[int], width: int, data: st.DataObject) -> None:
    """On one line, whatever is cut; or folded over several."""
    path = data.draw(
        st.sampled_from(["model.layers.{}.self_attn.q_proj.weight", "a{}.b.0.running_mean", "{}.w" * 9])
    )
    names = [path.replace("{}", str(block)) for block in blocks]
    columns = [Column("name", smallest=20), Column("n", right=True, spare=1)]
    found = [line.plain for line in grid(columns, [[name, "=345"] for name in names], Style(width))][1:]
    assert max(map(len, found)) <= width
    whole = "".join(line.replace("=345", "").strip() for line in found)
    digits = [number for name in names for number in re.findall("[0-9]+", name)]
    assert re.findall("[0-9]", whole) == [digit for number in digits for digit in number]


def test_a_pipe_has_a_row_a_line_and_every_column() -> None:
    names = [f"encoder.{'long.' * 40}{at}" for at in range(3)]
    found = [line.plain.split() for line in grid(COLUMNS, [[name, "1", "2"] for name in names], Style(whole=True))]
    assert found == [["name", "much", "n"], *([name, "1", "2"] for name in names)]


@pytest.mark.parametrize("width", range(5, 40))
def test_a_grid_fits_any_width(width: int) -> None:
    assert max(map(len, lines(width))) <= width


def test_wide_characters_count_by_their_cells() -> None:
    found = grid([Column("a"), Column("b")], [["层", "x"], ["ab", "y"]], Style(20))
    assert [line.plain for line in found] == ["a   b", "层  x", "ab  y"]


def test_an_empty_grid_is_its_heading() -> None:
    assert [line.plain for line in grid(COLUMNS, [], Style(40))] == ["name  much  n"]


def test_flow_breaks_between_pieces_only() -> None:
    found = flow(["one two", Text("three"), "four"], Style(14), gap=2, indent=1)
    assert [line.plain for line in found] == [" one two", " three  four"]


def test_paragraph_hangs_behind_its_label() -> None:
    found = paragraph("one two three four five six", Style(28), indent=6, label="  rule")
    assert [line.plain for line in found] == ["  ruleone two three four", "      five six"]


def test_rendering_hears_only_its_style(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"FORCE_COLOR": "1", "COLUMNS": "20", "TERM": "xterm-256color"}.items():
        monkeypatch.setenv(name, value)
    text = Text("x" * 50 + " [bold]:smile: 12", style="red")
    assert render([text], Style(80)) == "x" * 50 + " [bold]:smile: 12\n"
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    assert render([Text("a", style="red")], Style(80, colour=True)) == "\x1b[31ma\x1b[0m\n"


def test_long_lines_are_neither_wrapped_nor_cut() -> None:
    assert render([Text("word " * 40 + "end")], Style(30)) == "word " * 40 + "end\n"


def test_a_long_table_keeps_little_beside_its_text() -> None:
    """Not its lines, nor what rows show a second time: three times the letters, where all of it took twelve."""
    row = {"layer": "h.3", "block": "h.3", "kind": "linear.weight", "dtype": "F32", "numel": 16, "nbytes": 64}
    rows = [{"name": f"model.layers.{at}.self_attn.q_proj.weight", "shape": [4, 4], **row} for at in range(500)]
    data = {"path": "a", "format": "safetensors", "tensors": 500, "bytes": 0, "rows": rows}
    show_table(data, Style(whole=True))  # what is made once and kept
    tracemalloc.start()
    try:
        text = show_table(data, Style(whole=True))
        assert tracemalloc.get_traced_memory()[1] < 6 * len(text)
    finally:
        tracemalloc.stop()
