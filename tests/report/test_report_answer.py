"""The first words of a report: what costs most, on which samples, and what is not known yet."""

from __future__ import annotations

import re
import textwrap
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptswap.report.answer import answer
from ckptswap.sweep.result import DonorScore, Mode, Row, SweepResult


def result(*rows: Row, direction: str = "max", mode: Mode = "only", samples: int = 16) -> SweepResult:
    return SweepResult("score", direction, 0.01, 0.9, None, samples, rows, mode=mode)  # type: ignore[arg-type]


def row(score: float, drop: float, **more: object) -> Row:
    return Row("c", "conv.bias", ("c.bias",), 4, "measured", score=score, drop=drop, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("score", "drop", "direction", "verdict", "said"),
    [
        (0.4, 0.5, "max", "sensitive", "c conv.bias breaks it: score −0.5 of 0.9."),
        (175.9, 164.0, "min", "sensitive", "c conv.bias breaks it: score +164 on 11.9."),
        (0.4, 0.5, "max", "undecided", "c conv.bias costs most: score −0.5 of 0.9."),
        (0.4, 0.5, "max", None, "c conv.bias costs most: score −0.5 of 0.9."),
        (0.895, 0.005, "max", "reusable", "Nothing breaks it: the worst is c conv.bias, score −0.005 of 0.9."),
        (11.9, -80.66, "min", "reusable", "Nothing costs: the worst is c conv.bias, score −80.66 of 92.56."),
        (0.3125, 0.0, "max", "reusable", "Nothing costs: the worst is c conv.bias, score ±0 of 0.3125."),
    ],
)
def test_the_first_sentence_says_what_breaks_the_network(
    score: float, drop: float, direction: str, verdict: str, said: str
) -> None:
    assert answer(result(row(score, drop, verdict=verdict), direction=direction))[0] == said


@pytest.mark.parametrize(("direction", "drop", "score"), [("min", 0.1 + 0.2, 0.3), ("max", 0.1 + 0.2, -0.3)])
@pytest.mark.parametrize("samples", [8, 16])
def test_a_baseline_of_nothing_is_nothing(direction: str, drop: float, score: float, samples: int) -> None:
    """`kl` of the recipient is 0 by construction; what rounding leaves of a difference is no number to tell."""
    of_zero = replace(result(row(score, drop, samples=samples), direction=direction), baseline=0.0)
    assert answer(of_zero)[0].endswith(" 0.") or answer(of_zero)[0].endswith(" 0 on 8 of 16 samples.")


def test_samples_that_tell_nothing_are_said_first() -> None:
    """All of one class: who always answers it is right, too, and no drop is small against a lead of 0."""
    same = replace(result(row(0.4, 0.5)), trivial=0.9, tolerance=0.0)
    assert answer(same)[0].startswith(
        "score is 0.9, as it is for a prediction that looks at nothing: take samples of"
    )
    assert answer(replace(same, tolerance=0.1)) == answer(replace(same, tolerance=0.1, trivial=None))


def test_numbers_of_a_row_on_fewer_samples_add_up_and_say_so() -> None:
    assert answer(result(row(0.25, 0.5, samples=8)))[0].endswith("score −0.5 of 0.75 on 8 of 16 samples.")
    assert "samples" not in answer(result(row(0.25, 0.5, samples=16)))[0]


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("only", "All of c costs"),
        ("all-but", "All but c costs"),
        ("prefix", "All layers up to c cost"),
        ("suffix", "All layers from c on cost"),
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
    assert answer(result(*rows))[0].startswith("l.w1 costs most")


def test_what_is_not_scored_yet_is_counted() -> None:
    equal = Row("c", "conv.bias", ("c.bias",), 4, "identical", score=0.9, drop=0.0)
    assert answer(replace(result(equal), complete=False)) == ("Nothing is scored yet: 1 is equal in both.",)
    assert answer(result(equal), 81) == ("1 is equal in both, 81 are not scored yet.",)
    assert answer(result(equal, row(0.4, 0.5)), 1)[-1] == "1 is equal in both, 1 is not scored yet."


def test_what_can_be_reused_is_named_with_what_to_mind() -> None:
    able = [row(0.9, 0.0, verdict="reusable", zero_drop=0.4), row(0.9, 0.0, verdict="unused", zero_drop=0.0)]
    others = [row(0.4, 0.5, verdict="sensitive"), row(0.8, 0.1, verdict="undecided")]
    names = "c.bias, c.bias"
    assert answer(result(*others, *able))[1:] == (
        f"{names} can be reused (each alone, within 0.01, 1 unused).",
        "1 undecided: more groups or --by kind would tell.",
    )
    bare = row(0.9, 0.0, verdict="reusable")
    assert "(each alone, within 0.01, 1 unused, 1 with no zero control)" in answer(result(*others, *able, bare))[1]
    assert "(within 0.01, no zero control)" in answer(result(*others, bare))[1]


def test_whole_kinds_are_named_first_and_then_what_is_large() -> None:
    cells = [
        Row(f"l{at}", "conv.bias", (f"l{at}.bias",), at, "measured", drop=0.0, score=0.9, verdict="reusable")
        for at in range(9)
    ]
    kind = Row(None, "bn.bias", ("n.bias",), 4, "measured", drop=0.0, score=0.9, verdict="reusable")
    breaking = row(0.4, 0.5, verdict="sensitive")
    assert answer(result(*cells, kind, breaking))[1].startswith(
        "bn.bias, l8 conv.bias, l7 conv.bias and 7 more can"
    )
    assert answer(result(*cells, kind))[1].startswith("All 10 can be reused (each alone, ")


def test_of_several_donors_each_is_named() -> None:
    donors = (DonorScore("a.pt", 0.5), DonorScore("zeros", None))
    rows = (row(0.4, 0.5, verdict="sensitive", donor=1), row(0.9, 0.0, verdict="reusable", donor=0))
    breaks, reusable = answer(replace(result(*rows), donors=donors))
    assert breaks.startswith("c conv.bias from zeros breaks it: ")
    assert reusable.startswith("c conv.bias from a.pt can be reused ")


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        (1, "1 undecided: 1 group of samples tells nothing, 8 or more would."),
        (7, "1 undecided: 7 groups of samples tell nothing, 8 or more would."),
        (8, "1 undecided: more groups or --by kind would tell."),
    ],
)
def test_what_would_tell_is_said(groups: int, said: str) -> None:
    assert answer(replace(result(row(0.8, 0.1, verdict="undecided")), groups=groups))[-1] == said


LONG = "model.layers.{}.self_attn.projections.query_key_value.{}.linear{}"


def test_names_are_whole_where_that_is_asked_for_and_else_keep_their_numbers() -> None:
    rows = [
        Row(LONG.format(at, at + 1, at + 2), "attn.qkv.weight", ("t",), 4, "measured", score=0.1, drop=0.77,
            samples=16, verdict="sensitive" if at % 2 else "reusable", unseen=0.123)
        for at in range(17, 37)
    ]  # fmt: skip
    whole, cut = (answer(result(*rows), whole=whole) for whole in (True, False))
    assert whole[0].startswith(f"{LONG.format(17, 18, 19)} attn.qkv.weight breaks it: ")
    assert whole[1].startswith(f"{LONG.format(18, 19, 20)} attn.qkv.weight and 9 more can be reused (")
    for sentence, numbers in zip(cut, (["17", "18", "19"], ["18", "19", "20"]), strict=False):
        assert "…" in sentence
        assert re.findall("[0-9]+", sentence)[:3] == numbers


@given(
    st.text("abc.123", min_size=1, max_size=90),
    st.sampled_from(["only", "all-but", "prefix", "suffix", "window:2"]),
    st.sampled_from(["sensitive", "undecided", "reusable"]),
    st.integers(1, 40),
    st.integers(0, 9_999),
)
def test_three_lines_hold_it(layer: str, mode: Mode, verdict: str, many: int, waiting: int) -> None:
    rows = [
        Row(f"{layer}.{at}", "mlp.up.weight", (f"{layer}.{at}",), 4, "measured", score=0.123456, drop=0.77,
            samples=8, verdict=("reusable", "undecided", "sensitive")[at % 3] if at else verdict, unseen=0.123)
        for at in range(many)
    ]  # fmt: skip
    rows.append(Row("x", "k", ("x",), 4, "no-effect"))
    swept = replace(result(*rows, mode=mode), metric="perplexity", groups=16)
    assert len(textwrap.wrap(" ".join(answer(swept, waiting)), 80)) <= 3
