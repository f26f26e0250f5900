"""What is printed by default: the answer, ten rows and the kinds on one screen; all only where it is asked for."""

from __future__ import annotations

import dataclasses
import re

import pytest
import report_samples as samples

from ckptswap.report.answer import answer
from ckptswap.report.screen import SCREEN, render_sweep, sweep_summary, sweep_whole
from ckptswap.report.text import Style
from ckptswap.sweep.result import DonorScore, Row, SweepResult

PLAIN = dataclasses.replace(samples.sweep("encoder.layer{}.0.conv{}"), findings=())
LONG = dataclasses.replace(
    PLAIN,
    rows=tuple(
        Row(f"model.layers.{at}", f"kind{at % 30}", (f"t{at}",), 4, "measured", rank=at + 1, drop=0.9 / (at + 1))
        for at in range(900)
    ),
)


@pytest.mark.parametrize("result", [PLAIN, LONG], ids=["short", "long"])
@pytest.mark.parametrize("width", [80, 130])
def test_the_default_fits_one_screen(result: SweepResult, width: int) -> None:
    text = sweep_summary(result, Style(width))
    lines = text.splitlines()
    assert len(lines) <= SCREEN
    assert all(len(line) <= width for line in lines)
    assert " ".join(answer(result)) in " ".join(lines)
    assert [int(found) for found in re.findall(r"^ ?(\d+) +[a-z]", text, re.M)] == list(range(1, 11))
    assert "drop by kind" in text
    assert "drop by layer and kind" not in text
    assert lines[-1].startswith("--all: ")


def test_claims_are_told_only_where_they_were_judged() -> None:
    assert "findings" not in sweep_summary(PLAIN, Style())
    assert "findings" not in sweep_whole(PLAIN, Style())
    short = sweep_summary(samples.sweep(), Style())
    assert "supported  conv-weight" in short
    assert "rule" not in short


def test_rows_that_failed_are_named_by_default_too() -> None:
    assert "head conv.bias: 3 outputs are not finite" in sweep_summary(PLAIN, Style())


def test_of_several_donors_the_worst_cells_are_shown() -> None:
    donors = (DonorScore("a.pt", 0.5), DonorScore("zeros", None))
    rows = tuple(dataclasses.replace(row, donor=donor) for row in LONG.rows[:40] for donor in (0, 1))
    text = sweep_summary(dataclasses.replace(LONG, rows=rows, donors=donors), Style())
    assert len(re.findall(r"^model\S+ +kind\d+ +\d", text, re.M)) == 10
    assert "and 30 more" in text
    assert len(text.splitlines()) <= SCREEN


def test_top_and_every_choose_how_much() -> None:
    assert len(re.findall(r"^ ?\d+ +model", sweep_summary(LONG, Style(), top=3), re.M)) == 3
    whole = render_sweep(LONG, "table", Style(), every=True)
    assert len(re.findall(r"^ *\d+ +model", whole, re.M)) == 900
    assert render_sweep(LONG, "csv", Style()).count("\n") == 901
    assert render_sweep(LONG, "csv", Style(), top=10).count("\n") == 11


def test_of_a_curve_the_worst_are_shown_in_the_order_of_the_layers() -> None:
    rows = tuple(
        Row(
            f"l{at}",
            None,
            tuple(f"t{each}" for each in range(at + 1)),
            4,
            "measured",
            rank=30 - at,
            drop=0.01 * at,
        )
        for at in range(30)
    )
    result = dataclasses.replace(LONG, rows=tuple(sorted(rows, key=lambda row: row.rank or 0)), mode="suffix")
    assert re.findall(r"^ *\d+ +(l\d+)", sweep_summary(result, Style()), re.M) == [
        f"l{at}" for at in range(20, 30)
    ]


def test_many_notes_leave_room_for_the_answer() -> None:
    result = dataclasses.replace(LONG, notes=tuple(f"remark {at} " + "of many words " * 6 for at in range(12)))
    lines = sweep_summary(result, Style()).splitlines()
    assert len(lines) <= SCREEN
    assert "and 8 more" in lines
    assert "remark 11" in sweep_whole(result, Style())
