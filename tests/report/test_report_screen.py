"""What is printed by default: the answer, ten rows and the kinds on one screen; all only where it is asked for."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest
import report_samples as samples

from ckptswap.report.answer import answer
from ckptswap.report.screen import SCREEN, render_sweep, sweep_summary, sweep_whole
from ckptswap.report.text import Style
from ckptswap.selection import Selection
from ckptswap.sweep.filtering import shown
from ckptswap.sweep.result import DonorScore, MetricScore, OtherMetric, Row, Screened, SweepResult

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
    assert "\nsupported  The network is very sensitive to convolution weights.\n" in short
    assert "rule" not in short


def test_findings_and_notes_leave_room_for_four_cells() -> None:
    """As `ckptswap demo` prints them: six lines of notes, four claims, one too long for a line."""
    claims = ("short", "In batch norm, running mean and variance matter more than weight and bias.", "short", "b")
    [finding, *_] = samples.sweep().findings
    findings = tuple(dataclasses.replace(finding, text=text) for text in claims)
    notes = tuple(
        f"remark {at}: {' '.join(f'word{at}' for at in range(words))}" for at, words in enumerate((6, 18, 34))
    )
    text = sweep_summary(dataclasses.replace(LONG, notes=notes, findings=findings), Style())
    assert len(re.findall(r"^ *\d+ +model", text, re.M)) >= 4
    assert len(text.splitlines()) <= SCREEN


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


NAME = "model.language_model.layers.{}.self_attn.some_projection_of_a_kind"
WORDS = " ".join(f"word{at}" for at in range(40))


def _crowded(**shape: object) -> SweepResult:
    """900 rows of 30 kinds under long names, by four metrics, with remarks, failures and a screen."""
    others = tuple(OtherMetric(name, "max", 0.9, None) for name in ("iou", "accuracy", "torchmetrics:F1Score"))
    rows = [
        dataclasses.replace(
            row,
            layer=NAME.format(at),
            drop=(row.drop or 0) / 2,
            verdict=("sensitive", "undecided", "reusable", "unused")[at % 4],
            samples=72 - at % 9,
            others=tuple(MetricScore(0.1, 0.8) for _ in others),
            status="failed" if at % 50 == 49 else "measured",
            reason=f"{at} outputs are not finite, since {WORDS}" if at % 50 == 49 else None,
        )
        for at, row in enumerate(LONG.rows)
    ]
    kinds = [Row(None, f"kind{at}", (f"t{at}",), 9, "measured", rank=901 + at, drop=0.1) for at in range(30)]
    top = {"5": 0.4, "10": None}
    return dataclasses.replace(
        LONG,
        rows=(*rows, *(dataclasses.replace(row, others=rows[0].others) for row in kinds)),
        others=others,
        notes=tuple(f"remark {at}: {WORDS}" for at in range(9)),
        screen=Screened("sample:4", 4, 900, 0.7, 0.9, 12, 400, top),
        findings=samples.sweep().findings,
        **shape,
    )


def _of_blocks(result: SweepResult) -> SweepResult:
    rows = (
        dataclasses.replace(row, layer=None, block=NAME.format(at), last_block=NAME.format(at + 3), kind=None)
        for at, row in enumerate(result.rows)
    )
    return dataclasses.replace(result, rows=tuple(rows))


def _of_sets(result: SweepResult) -> SweepResult:
    rows = []
    for at, row in enumerate(result.rows):
        parts = tuple(NAME.format(at + part) for part in range(1 + at % 8))
        rows.append(dataclasses.replace(row, layer=" + ".join(parts), kind=None, parts=parts))
    return dataclasses.replace(result, rows=tuple(rows))


def _of_donors(result: SweepResult) -> SweepResult:
    donors = tuple(DonorScore(f"runs/seed{at}/{'long/' * 20}model.safetensors", 0.5) for at in range(3))
    rows = tuple(dataclasses.replace(row, donor=at % 3) for at, row in enumerate(result.rows))
    return dataclasses.replace(result, rows=rows, donors=donors)


CROWDED = {
    "cells": _crowded(),
    "all-but": _crowded(mode="all-but"),
    "window": _of_blocks(_crowded(mode="window:2:4")),
    "lattice": _of_sets(_crowded(mode="lattice")),
    "donors": _of_donors(_crowded()),
}


@pytest.mark.parametrize("name", CROWDED)
@pytest.mark.parametrize("style", [Style(60), Style(80), Style(160)], ids=str)
def test_forty_lines_hold_any_network(name: str, style: Style) -> None:
    text = sweep_summary(CROWDED[name], style)
    lines = text.splitlines()
    assert len(lines) <= SCREEN
    assert max(map(len, lines)) <= style.width
    assert text.split("\n\n")[0].replace("\n", " ") == " ".join(answer(CROWDED[name]))
    assert "--all: " in " ".join(lines[-2:])
    assert all(other.name in text for other in CROWDED[name].others)


@pytest.mark.parametrize("name", CROWDED)
def test_a_pipe_has_whole_names_and_nothing_drawn(name: str) -> None:
    text = sweep_whole(CROWDED[name], Style(whole=True))
    names = {row.place for row in CROWDED[name].rows if row.place and row.status == "measured"}
    lines = text.splitlines()
    assert [place for place in list(names)[::40] if not any(place in line for line in lines)] == []
    assert not {*"█░▏▎▍▌▋▊▉"} & {*text}


def test_a_part_says_of_what_it_is_one() -> None:
    part = shown(PLAIN, Selection.parse(kind=["bn.*"]), ["sensitive"])
    for format in ("table", "md"):
        assert f"{len(part.rows)} of {len(PLAIN.rows)} rows: --kind 'bn.*' --verdict sensitive" in (
            render_sweep(part, format, Style()).replace("&#42;", "*")  # type: ignore[arg-type]
        )
    assert "Nothing is shown to be reusable" not in sweep_summary(part, Style())  # of rows that are all sensitive
    document = json.loads(render_sweep(part, "json", Style()))
    assert document["filtered"] == {"flags": "--kind 'bn.*' --verdict sensitive", "rows": len(PLAIN.rows)}
    assert len(document["rows"]) == len(part.rows)
    assert {row["verdict"] for row in document["rows"]} == {"sensitive"}
