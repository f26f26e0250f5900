"""Verdicts from look to look: shares of the error, Holm, t-tests, bets; against scipy and plain loops."""

from __future__ import annotations

import importlib.util
import itertools
import math
import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from ckptswap.statistics import sequential
from ckptswap.statistics.combining import holm
from ckptswap.statistics.sequential import betting_values, looks_of, shares_of, skewed_t, standing, t_values
from ckptswap.statistics.totals import Sample, mean

ROWS = st.integers(1, 12)


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    """benchmarks/decide.py, whose tables are judged here, fewer of them."""
    path = Path(__file__).parents[2] / "benchmarks" / "decide.py"
    spec = importlib.util.spec_from_file_location("benchmark_decide", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


# Looks ----------------------------------------------------------------------------------------------------------


@given(st.integers(8, 5000))
def test_looks_begin_with_eight_groups_and_end_with_all(groups: int) -> None:
    looks = looks_of(groups)
    assert looks[-1] == groups
    assert looks == sorted(set(looks))
    assert looks[0] == (8 if groups > 9 else groups)
    assert all(later <= 1.5 * look for look, later in itertools.pairwise(looks) if look > 8)
    assert {8, 12, 16, 24, 32, 48, 64, 96} & set(range(int(0.85 * groups))) <= set(looks)
    assert shares_of(looks).sum() == pytest.approx(1.0)


# Holm over rows, the union over looks ---------------------------------------------------------------------------


def fixed(p: np.ndarray) -> sequential.LookTest:
    """Tests whose p-values (2, L, V) are told beforehand; no row is ever given up."""
    looks = looks_of(64)
    return lambda groups, rows: (p[:, looks.index(groups)][:, rows], np.zeros((2, len(rows))))


@given(st.data(), ROWS)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_verdicts_are_those_of_a_plain_loop(data: st.DataObject, rows: int) -> None:
    """Holm's own procedure, from `combining`, at each look, on what is not decided on that side yet."""
    looks = looks_of(64)
    small = st.sampled_from([1e-5, 1e-4, 5e-4, 1e-3, 3e-3, 0.2, 0.9])
    p = data.draw(arrays(float, (2, len(looks), rows), elements=small))
    expected, at_look = ["undecided"] * rows, [0] * rows
    for number, look in enumerate(looks):
        waiting = [row for row in range(rows) if expected[row] == "undecided"]
        for row in waiting:
            at_look[row] = look
        for side, word in enumerate(("reusable", "sensitive")):
            left = rows - expected.count(word)
            own = [min(1.0, p[side, number, row] * len(looks)) for row in waiting]
            padded = holm([*own, *[1.0] * (left - len(own))])
            for row, adjusted in zip(waiting, padded, strict=False):
                if adjusted <= sequential.ERROR and expected[row] == "undecided":
                    expected[row] = word
    now = standing(np.full(rows, 64), looks, fixed(p), shares_of(looks))
    assert (list(now.verdicts), now.looked.tolist()) == (expected, at_look)
    assert now.finished


@given(st.integers(0, 10**6))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_a_run_in_pieces_is_the_run_in_one(seed: int) -> None:
    """Scores come in late, torn off anywhere, or without having been asked for: the verdicts are the same."""
    random = np.random.default_rng(seed)
    looks, rows = looks_of(64), 8
    p = 10 ** random.uniform(-7, 0, (2, len(looks), rows))
    p[1] = 1 - p[0]
    whole = standing(np.full(rows, 64), looks, fixed(p), shares_of(looks))
    known = random.integers(0, 20, rows)
    while not (now := standing(known, looks, fixed(p), shares_of(looks))).finished:
        assert (now.wanted > known).any()
        assert (known[now.wanted > known] <= 64).all()
        known = np.where(random.random(rows) < 0.7, np.maximum(known, now.wanted), known)
    assert now.verdicts == whole.verdicts
    assert np.array_equal(now.looked, whole.looked)
    assert np.array_equal(now.p, whole.p)


def test_those_furthest_behind_come_to_their_next_look_together() -> None:
    p = np.full((2, len(looks_of(64)), 3), 0.5)
    now = standing(np.array([8, 11, 16]), looks_of(64), fixed(p), shares_of(looks_of(64)))
    assert now.wanted.tolist() == [10, 11, 16]


def test_a_failed_row_counts_and_is_not_waited_for() -> None:
    """One p-value passes alone, and not beside a row that failed."""
    looks = looks_of(64)
    p = np.full((2, len(looks), 2), 0.9)
    p[0] = sequential.ERROR / len(looks) * 0.8
    alone, beside = (standing(np.array(known), looks, fixed(p), shares_of(looks)) for known in ([64], [64, -1]))
    assert (alone.verdicts, beside.verdicts) == (("reusable",), ("undecided", "undecided"))
    assert beside.finished


def test_what_all_groups_would_not_tell_is_given_up() -> None:
    looks = looks_of(64)
    one = np.full((2, 2), 0.5), np.array([[0.5, 0.0]] * 2)
    now = standing(np.array([8, 8]), looks, lambda groups, rows: one, shares_of(looks))
    assert now.given_up.tolist() == [True, False]
    assert now.wanted.tolist() == [8, 10]


# The tests at a look --------------------------------------------------------------------------------------------


@given(st.floats(0.1, 30), st.floats(-6, 6), st.integers(5, 60))
@settings(max_examples=80, deadline=None, derandomize=True)
def test_the_correction_solves_what_it_says(t: float, skew: float, groups: int) -> None:
    """Held against scipy's t, at a root of z + a·(z² + 1/2) = t that scipy finds."""
    from scipy.optimize import brentq

    a = max(skew, sequential.SKEW) / (3 * math.sqrt(groups))
    z = brentq(lambda z: z + a * (z * z + 0.5) - t, 0, t) if t > a / 2 else 0.0
    p = skewed_t(np.array([t]), np.array([skew]), groups)[0]
    assert p == pytest.approx(stats.t.sf(z, groups - 1), rel=1e-6, abs=1e-14)
    assert p >= stats.t.sf(t, groups - 1) - 1e-14


def test_t_is_that_of_groups_and_its_skewness_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups of one size: as if each were one value. The presumed skewness is taken out."""
    monkeypatch.setattr(sequential, "SKEW", 1e-9)
    random = np.random.default_rng(0)
    values = random.normal(0.03, 0.05, 20)
    values -= (values - values.mean()).mean()
    drops = np.repeat(values, 3) + np.tile([-0.01, 0.0, 0.01], 20)
    sample = Sample.of([np.full((60, 1), 0.8), 0.8 - drops[:, None]], np.repeat(np.arange(20), 3), mean)
    p, _ = t_values(sample, [{0: 1.0, 1: -1.0}], 0.02, 20)
    plain = [stats.ttest_1samp(values, 0.02, alternative=side).pvalue for side in ("less", "greater")]
    skew = stats.skew(values)
    corrected = 0 if skew > 0 else 1  # on the side of the short tail
    assert p[1 - corrected, 0] == pytest.approx(plain[1 - corrected], rel=1e-6)
    assert p[corrected, 0] > plain[corrected]


@pytest.mark.parametrize(("moved", "tolerance"), [(0, 0.01), (3, 0.05), (4, 0.0)])
def test_what_moved_in_few_groups_has_its_exact_bound(moved: int, tolerance: float) -> None:
    scores = np.full((40, 1), 0.9)
    worse = scores.copy()
    worse[:moved] -= 0.5
    sample = Sample.of([scores, worse], np.arange(40), mean, bounds=(0.0, 1.0))
    p, lucky = t_values(sample, [{0: 1.0, 1: -1.0}], tolerance, 400)
    expected = stats.binom.cdf(moved, 40, tolerance) if tolerance else 1.0
    assert p[0, 0] == pytest.approx(expected)
    assert lucky[0, 0] == (0.0 if (moved + 1) * 10 >= 5 else stats.binom.cdf(moved, 400, tolerance))


@pytest.mark.parametrize(("values", "step"), [((0.0, 1.0), 1.0), ((0.0, 0.5), None)])
def test_how_little_a_group_can_move_tells_what_luck_could_do(values: tuple[float, float], step: float) -> None:
    """24 answers, none of which changed: of 240 some ten might yet, each by 1, or by as little as one likes."""
    scores = np.resize(values, 24)[:, None]
    sample = Sample.of([scores, scores], np.arange(24), mean, bounds=(0.0, 1.0))
    _, lucky = t_values(sample, [{0: 1.0, 1: -1.0}], 0.01, 240)
    assert sample.step == step
    t = 10**0.5 + np.array([1, -1]) * 2.4 / 10**0.5
    expected = skewed_t(t, np.zeros(2), 240) if step else np.zeros(2)
    assert lucky[:, 0] == pytest.approx(expected)


def test_equal_drops_and_no_spread_are_no_proof() -> None:
    """Every group loses the same: only the bound on the groups that were not seen tells."""
    sample = Sample.of([np.full((16, 1), 0.9), np.full((16, 1), 0.4)], np.arange(16), mean, bounds=(0.0, 1.0))
    p, _ = t_values(sample, [{0: 1.0, 1: -1.0}], 0.01, 16)
    assert p[0, 0] == 1.0
    assert 0 < p[1, 0] < 0.025
    unbounded = Sample.of([np.full((16, 1), 0.9), np.full((16, 1), 0.4)], np.arange(16), mean)
    assert t_values(unbounded, [{0: 1.0, 1: -1.0}], 0.01, 16)[0].tolist() == [[1.0], [1.0]]


# Bets -----------------------------------------------------------------------------------------------------------


def plain_bets(z: np.ndarray, room: float, sign: float) -> float:
    """1 / the most capital, group by group."""
    parts, most = [1 / len(sequential.STAKES)] * len(sequential.STAKES), 1.0
    for value in z.tolist():
        parts = [
            part * (1 + stake * sign * value / room)
            for part, stake in zip(parts, sequential.STAKES.tolist(), strict=True)
        ]
        most = max(most, sum(parts))
    return 1 / most


@given(arrays(float, 12, elements=st.floats(-1, 1)), st.floats(0, 0.5))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_bets_are_those_of_a_plain_loop(drops: np.ndarray, tolerance: float) -> None:
    sizes = np.arange(1, 13) % 4 + 1.0
    p, lucky = betting_values(drops[None] * sizes, sizes, tolerance, (-1.0, 1.0), 4.0, 24)
    z = (drops - tolerance) * sizes / 4
    assert p[0, 0] == pytest.approx(plain_bets(z, 1 - tolerance, -1.0))
    assert p[1, 0] == pytest.approx(plain_bets(z, 1 + tolerance, 1.0))
    assert (lucky <= p).all()


def test_bets_err_no_more_often_than_they_may() -> None:
    """Drops of 0 and 1, at a mean that is the tolerance: what t-tests cannot stand. Looked at after each group."""
    random = np.random.default_rng(1)
    drops = (random.random((4000, 200)) < 0.1).astype(float)
    p, _ = betting_values(drops, np.ones(200), 0.1, (-1.0, 1.0), 1.0, 200)
    for level in (0.2, 0.05):
        allowed = level + 3 * math.sqrt(level * (1 - level) / 4000)
        assert (p <= level).mean(axis=1).max() < allowed
    assert (p <= 0.5).any(axis=1).all()


def test_without_bounds_there_is_no_bet() -> None:
    p, _ = betting_values(np.ones((1, 8)), np.ones(8), 0.1, (-math.inf, math.inf), 1.0, 8)
    assert p.tolist() == [[1.0], [1.0]]


# How often it errs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "groups"), [("normal", 15), ("lognormal-0.5", 40), ("unequal", 40)])
def test_either_verdict_is_wrong_no_more_often_than_it_may(bench: ModuleType, family: str, groups: int) -> None:
    """40 of 100 rows lie exactly at the tolerance; benchmarks/decide.py has more tables, families and groups."""
    tables = [bench.judged(family, groups, seed, "chosen") for seed in range(12)]
    limit = stats.binom.ppf(0.999, len(tables), 0.05)
    assert sum(own.wrong[0] for own in tables) <= limit
    assert sum(own.wrong[1] for own in tables) <= limit
    assert np.mean([own.right for own in tables]) > 0.25


def test_plain_t_would_err_where_groups_are_skewed(bench: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the presumed skewness is for: without it this test would notice."""
    monkeypatch.setattr(sequential, "SKEW", 1e-9)
    wrong = [bench.judged("lognormal-1", 40, seed, "chosen").wrong[0] for seed in range(8)]
    assert sum(wrong) > stats.binom.ppf(0.999, len(wrong), 0.05)


def test_the_page_says_how_soon_answers_are_known(bench: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    bench.answers(None)
    bets, by_t, idle = re.findall(r": (\d+) of 240", capsys.readouterr().out)
    page = (Path(__file__).parents[2] / "docs" / "method.md").read_text("utf-8")
    assert f"known after {bets} of 240 groups, by t-tests after {by_t} (`benchmarks/decide.py answers`" in page
    assert f"after {idle} of 240 groups for what changes none" in page
