"""The first words of a report: what costs most, on which samples, and what is not known yet."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ckptswap.report.answer import answer
from ckptswap.sweep.result import Mode, Row, SweepResult


def result(*rows: Row, direction: str = "max", mode: Mode = "only", samples: int = 16) -> SweepResult:
    return SweepResult("score", direction, 0.01, 0.9, None, samples, rows, mode=mode)  # type: ignore[arg-type]


def row(score: float, drop: float, **more: object) -> Row:
    return Row("c", "conv.bias", ("c.bias",), 4, "measured", score=score, drop=drop, **more)  # type: ignore[arg-type]


DEED = "aking c conv.bias from the donor"


@pytest.mark.parametrize(
    ("score", "drop", "direction", "said"),
    [
        (0.4, 0.5, "max", f"T{DEED} costs most: score goes from 0.9 to 0.4, a drop of +0.5."),
        (175.9, 164.0, "min", f"T{DEED} costs most: score goes from 11.9 to 175.9, +164 worse."),
        (11.9, -80.66, "min", f"Nothing costs: the worst is t{DEED}, where score goes from 92.56 to 11.9."),
        (0.3125, 0.0, "max", f"Nothing costs: the worst is t{DEED}, where score goes from 0.3125 to 0.3125."),
    ],
)
def test_the_first_sentence_says_what_costs_or_that_nothing_does(
    score: float, drop: float, direction: str, said: str
) -> None:
    assert answer(result(row(score, drop), direction=direction))[0] == said


@pytest.mark.parametrize(("direction", "drop", "score"), [("min", 0.1 + 0.2, 0.3), ("max", 0.1 + 0.2, -0.3)])
@pytest.mark.parametrize("samples", [8, 16])
def test_a_baseline_of_nothing_is_nothing(direction: str, drop: float, score: float, samples: int) -> None:
    """`kl` of the recipient is 0 by construction; what rounding leaves of a difference is no number to tell."""
    of_zero = replace(result(row(score, drop, samples=samples), direction=direction), baseline=0.0)
    assert f"score goes from 0 to {score}" in answer(of_zero)[0]


def test_numbers_of_a_row_on_fewer_samples_add_up_and_say_so() -> None:
    assert answer(result(row(0.25, 0.5, samples=8)))[0].endswith(
        "goes from 0.75 to 0.25, a drop of +0.5, on 8 of 16 samples."
    )
    assert "samples" not in answer(result(row(0.25, 0.5, samples=16)))[0]


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("only", "Taking all of c from"),
        ("all-but", "Taking all but c from"),
        ("prefix", "Taking all layers up to c from"),
        ("suffix", "Taking all layers from c on from"),
    ],
)
def test_all_of_a_layer_is_said_where_it_is_taken(mode: Mode, said: str) -> None:
    whole = Row("c", None, ("c.bias", "c.weight"), 4, "measured", score=0.4, drop=0.5)
    assert answer(result(whole, mode=mode))[0].startswith(said)


def test_of_several_tensors_under_one_kind_it_names_the_one() -> None:
    rows = [
        Row("l", "rnn.weight", names, 4, "measured", score=0.9 - drop, drop=drop)
        for names, drop in ((("l.w0", "l.w1"), 0.1), (("l.w0",), 0.1), (("l.w1",), 0.3))
    ]
    assert answer(result(*rows))[0].startswith("Taking l.w1 from the donor")


def test_what_is_not_scored_yet_is_counted() -> None:
    equal = Row("c", "conv.bias", ("c.bias",), 4, "identical", score=0.9, drop=0.0)
    assert answer(result(equal), 81) == ("1 is equal in both, 81 are not scored yet.",)
    assert answer(result(equal, row(0.4, 0.5)), 1)[1].endswith("1 is equal in both, 1 is not scored yet.")


def test_the_four_verdicts_are_counted_and_controls_that_are_not_there() -> None:
    able = [row(0.9, 0.0, verdict="reusable", zero_drop=0.4), row(0.9, 0.0, verdict="unused", zero_drop=0.0)]
    others = [row(0.4, 0.5, verdict="sensitive"), row(0.8, 0.1, verdict="undecided")]
    bare = row(0.9, 0.0, verdict="reusable")
    assert answer(result(*others, *able))[1] == (
        "Of 4 measured rows, 1 is reusable within 0.01, 1 is unused, 1 is sensitive and 1 is undecided."
    )
    assert (
        "2 are reusable within 0.01 (1 of them without a zero control), 1 is unused,"
        in answer(result(*others, *able, bare))[1]
    )
    assert (
        "1 is reusable within 0.01 (without a zero control), 1 is sensitive and"
        in answer(result(*others, bare))[1]
    )
