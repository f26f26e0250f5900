"""Racing: the bet is fair over all orders, races are pure and end right, and err no more often than they may."""

from __future__ import annotations

import importlib.util
import itertools
import math
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from ckptswap.errors import UsageError
from ckptswap.sweep import race
from ckptswap.sweep.race import RaceRules, Standing, chunk_ends, largest_drop, log_capital, standing

EIGHTHS = st.integers(-8, 8).map(lambda count: count / 8)
"""Drops whose sums are exact."""
SEVERAL = st.integers(2, 6)


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    """benchmarks/race.py, whose families of drops are raced here on a smaller scale."""
    path = Path(__file__).parents[2] / "benchmarks" / "race.py"
    spec = importlib.util.spec_from_file_location("benchmark_race", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


# The bet --------------------------------------------------------------------------------------------------------


def capitals(totals: np.ndarray, sizes: np.ndarray, mean: float, seen: int) -> np.ndarray:
    """The capital after `seen` units, of every order in which the units can be drawn."""
    orders = [list(order) for order in itertools.permutations(range(len(sizes)))]
    return np.array([np.exp(log_capital(totals[o][None, :seen], sizes[o], 1.0, mean)[0]) for o in orders])


@given(arrays(float, 5, elements=EIGHTHS), arrays(int, 5, elements=st.integers(1, 4)), st.integers(1, 4))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_the_bet_is_fair_over_all_orders_at_the_true_mean(share: np.ndarray, sizes: np.ndarray, seen: int) -> None:
    """Units of unequal sizes too. This is what makes Ville's inequality hold without any assumption on scores."""
    totals = share * sizes
    mean = float(totals.sum() / sizes.sum())
    assert capitals(totals, sizes, mean, seen).mean() == pytest.approx(1.0, rel=1e-6)


@given(arrays(float, 5, elements=EIGHTHS), st.integers(1, 3), st.integers(1, 5))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_the_bet_is_fair_beside_units_that_were_chosen(drops: np.ndarray, chosen: int, seen: int) -> None:
    """Those stay where they are, whatever they hold; the others come in any order."""
    sizes, mean = np.ones(5, dtype=int), float(drops.mean())
    rests = itertools.permutations(range(chosen, 5))
    orders = [[*range(chosen), *rest] for rest in rests]
    won = [np.exp(log_capital(drops[order][None, :seen], sizes, 1.0, mean, chosen)[0]) for order in orders]
    assert np.mean(won) == pytest.approx(1.0, rel=1e-6)


@given(arrays(float, 5, elements=EIGHTHS), st.integers(1, 4), st.sampled_from([0.0625, 0.25, 1.0]))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_the_bet_loses_where_the_true_mean_is_larger(drops: np.ndarray, seen: int, less: float) -> None:
    found = capitals(drops, np.ones(5, dtype=int), float(drops.mean()) - less, seen)
    assert found.mean() <= 1 + 1e-9


@given(arrays(float, (3, 6), elements=EIGHTHS), st.floats(-1, 1), st.floats(0, 1))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_capital_never_falls_as_the_refuted_mean_grows(drops: np.ndarray, mean: float, more: float) -> None:
    sizes = np.ones(9, dtype=int)
    low, high = (log_capital(drops, sizes, 1.0, at) for at in (mean, mean + more))
    assert (high >= low - 1e-6).all()


@given(arrays(float, 6, elements=EIGHTHS), st.integers(1, 6), EIGHTHS)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_capital_is_infinite_where_the_rest_cannot_reach_the_mean(
    drops: np.ndarray, unseen: int, mean: float
) -> None:
    sizes = np.ones(6 + unseen, dtype=int)
    most = (drops.sum() + unseen) / (6 + unseen)
    found = log_capital(drops[None], sizes, 1.0, mean)[0]
    assert math.isinf(found) == (most < mean - 1e-9)


def test_rounding_earns_nothing() -> None:
    """All samples at the ceiling, but for the last bits of their sums, against the mean that they have."""
    sizes = np.array([3, 7, 3, 1, 9, 3])
    for totals in (0.1 * sizes, np.nextafter(0.1 * sizes, 0), np.nextafter(0.1 * sizes, 1)):
        for seen, mean in itertools.product(range(1, 6), (0.1, np.nextafter(0.1, 0), np.nextafter(0.1, 1))):
            assert abs(log_capital(totals[None, :seen], sizes, 0.1, mean)[0]) < 1e-6
    for seen in range(1, 10):
        assert np.isfinite(log_capital(np.zeros((1, seen)), np.ones(10), 0.1, 0.1 * (10 - seen) / 10))
    beyond = 0.1 * sizes * (1 + 0.9 * race.ROUNDING)
    assert np.isfinite(log_capital(beyond[None, :5], sizes, 0.1, 0.1 * (1 - 2 * race.ROUNDING)))


def plain_capital(totals: list[float], sizes: list[int], ceiling: float, mean: float) -> float:
    """The same as a loop over units and stakes."""
    capital = 0.0
    for stake, share in zip(race.STAKES.tolist(), race.SHARES.tolist(), strict=True):
        left, unseen = sum(sizes) * (ceiling - mean), sum(sizes)
        for total, size in zip(totals, sizes, strict=False):
            room, fair = ceiling * size - total, left / unseen
            share *= 1 + stake * (room / fair - size) / max(sizes)
            left, unseen = left - room, unseen - size
        capital += share
    return capital


def test_capital_is_that_of_a_plain_loop() -> None:
    random = np.random.default_rng(1)
    sizes = random.integers(1, 9, 40)
    totals = random.uniform(-0.2, 0.3, 25) * sizes[:25]
    expected = plain_capital(totals.tolist(), sizes.tolist(), 0.8, 0.2)
    assert np.exp(log_capital(totals[None], sizes, 0.8, 0.2)[0]) == pytest.approx(expected, rel=1e-9)
    assert race.SHARES.sum() == pytest.approx(1.0)


# One race -------------------------------------------------------------------------------------------------------


def raced(drops: np.ndarray, top: int = 3, batch: int = 4, **rules: float) -> Standing:
    """The end of a race on scores that are all known; samples are walked as they stand."""
    whole, rest = divmod(drops.shape[1], batch)
    return standing(drops, chunk_ends([batch] * whole + [rest] * (rest > 0)), RaceRules(top, **rules))


def some_drops(seed: int, variants: int = 12, samples: int = 120) -> np.ndarray:
    random = np.random.default_rng(seed)
    mean = random.uniform(0, 1, (variants, 1)) ** 4
    return np.clip(mean + random.uniform(-0.3, 0.3, (variants, samples)), -1, 1)


@given(arrays(float, st.tuples(st.integers(1, 7), st.integers(1, 60)), elements=EIGHTHS), SEVERAL)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_every_place_is_decided_and_the_leaders_are_exact(drops: np.ndarray, top: int) -> None:
    found = raced(drops, top, ceiling=1.0, confidence=0.5)
    complete = found.scored == drops.shape[1]
    exact = drops.mean(axis=1)
    assert found.finished
    assert (complete ^ found.outside).all()
    assert len(found.leaders) == min(top, len(drops))
    assert exact[list(found.leaders)].tolist() == pytest.approx(sorted(exact[complete])[::-1][:top])
    assert found.bar == (pytest.approx(exact[found.leaders[-1]]) if len(drops) >= top else None)


@given(st.integers(0, 10**6), st.booleans())
@settings(max_examples=30, deadline=None, derandomize=True)
def test_a_race_in_pieces_is_the_race_in_one(seed: int, known: bool) -> None:
    """Scores come in late, torn off in mid-step, or without having been asked for: the decisions are the same."""
    drops = some_drops(seed)
    rules = RaceRules(3, ceiling=1.3 if known else None)
    ends = chunk_ends([4] * 30)
    whole = standing(drops, ends, rules)
    random = np.random.default_rng(seed)
    sofar = random.integers(0, 30, len(drops))
    while True:
        now = standing(np.where(np.arange(120) < sofar[:, None], drops, np.nan), ends, rules)
        assert (now.scored[list(now.leaders)] == 120).all()
        if now.finished:
            break
        assert (now.wanted <= np.maximum(whole.scored, sofar)).all()
        assert (now.wanted > sofar).any()
        sofar = np.where(random.random(len(drops)) < 0.7, np.maximum(sofar, now.wanted), sofar)
    assert (now.leaders, now.bar) == (whole.leaders, whole.bar)
    assert np.array_equal(now.scored, whole.scored)
    assert np.array_equal(now.outside, whole.outside)


@given(st.integers(0, 10**6), st.booleans())
@settings(max_examples=30, deadline=None, derandomize=True)
def test_unit_of_the_drops_and_order_of_the_variants_do_not_matter(seed: int, known: bool) -> None:
    drops = some_drops(seed)
    order = np.random.default_rng(seed).permutation(len(drops))
    here = raced(drops, epsilon=0.01, ceiling=1.3 if known else None)
    there = raced(64 * drops[order], epsilon=0.64, ceiling=64 * 1.3 if known else None)
    assert tuple(order[list(there.leaders)]) == here.leaders
    assert np.array_equal(there.scored, here.scored[order])


def test_a_sample_beyond_its_gap_is_wanted_again() -> None:
    """A hole in a variant's scores is the end of what can be used of them."""
    drops = some_drops(2)
    drops[5, 7] = np.nan
    now = raced(drops, ceiling=1.3)
    assert now.scored[5] == 0
    assert now.wanted[5] == 16
    assert not now.finished


def test_the_first_step_is_one_chunk_of_all_and_the_second_all_of_the_leaders() -> None:
    drops = some_drops(3)
    ends, rules = chunk_ends([4] * 30), RaceRules(3, ceiling=1.3)
    first = standing(np.full_like(drops, np.nan), ends, rules)
    assert first.wanted.tolist() == [16] * 12
    known = np.where(np.arange(120) < 16, drops, np.nan)
    second = standing(known, ends, rules)
    ahead = np.argsort(-drops[:, :16].mean(axis=1))[:3]
    assert np.flatnonzero(second.wanted == 120).tolist() == sorted(ahead)
    assert (second.leaders, second.bar) == ((), None)


def test_equal_variants_are_never_told_apart_before_the_end() -> None:
    """Rounding must not decide between twins, one on each side of the edge."""
    for seed in range(20):
        twins = np.repeat(some_drops(seed, variants=6) / 3, 2, axis=0)
        found = raced(twins, top=5, ceiling=0.5)
        edge = np.argsort(-twins.mean(axis=1), kind="stable")[4:6]
        assert (found.scored[edge] == 120).all()


@pytest.mark.parametrize("ceiling", [1.0, None])
def test_fewer_variants_drop_than_there_are_places(ceiling: float | None) -> None:
    """The bar is 0 or below: the variants around it are told apart by all samples only."""
    drops = some_drops(7)
    drops[2:] = -np.abs(drops[2:]) / 8
    drops[3:6] = 0.0
    found = raced(drops, top=4, ceiling=ceiling)
    assert (found.bar, sorted(found.leaders)) == (0.0, [0, 1, 3, 4])
    assert found.scored[5] == 120


def test_fewer_variants_than_places_are_all_scored_on_everything() -> None:
    found = raced(some_drops(4, variants=2), top=3, ceiling=1.3)
    assert (found.scored.tolist(), found.bar, len(found.leaders)) == ([120, 120], None, 2)


def test_ties_within_epsilon_are_let_go() -> None:
    """Ten variants at 0.4 but for noise, and one place: with an epsilon of 0.1 nobody needs to know more."""
    random = np.random.default_rng(5)
    drops = 0.4 + 0.02 * random.normal(size=(10, 400))
    apart, tied = (raced(drops, top=1, ceiling=1.0, epsilon=epsilon) for epsilon in (0.0, 0.1))
    assert tied.scored.mean() < 0.5 * apart.scored.mean()
    assert drops.mean(axis=1).max() < drops[tied.leaders[0]].mean() + 0.1


def test_a_ceiling_is_assumed_from_sixteen_units_only() -> None:
    drops = np.zeros((3, 200))
    drops[0] = 0.9
    units, ends = np.repeat(np.arange(25), 8), chunk_ends([8] * 25)
    known, assumed = (standing(drops, ends, RaceRules(1, ceiling=each), units) for each in (0.9, None))
    assert known.scored.tolist() == [200, 16, 16]
    assert assumed.scored[1] >= 16 * 8


# What it needs to be told ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"top": 0}, "top is 0"),
        ({"top": 1, "confidence": 1.0}, "confidence is 1"),
        ({"top": 1, "epsilon": -0.1}, "epsilon is -0.1"),
        ({"top": 1, "epsilon": math.nan}, "epsilon is nan"),
        ({"top": 1, "ceiling": math.inf}, "ceiling is inf"),
    ],
)
def test_rules_that_make_no_sense_are_refused(rules: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        RaceRules(**rules)


@pytest.mark.parametrize("ends", [[], [8], [16, 8, 24], [8, 8, 24], [0, 24], [10, 24]])
def test_chunks_must_end_with_units_and_with_the_walk(ends: list[int]) -> None:
    units = np.repeat([3, 1, 2], 8)
    drops = np.zeros((2, 24))
    assert standing(drops, [8, 24], RaceRules(1), units).finished
    with pytest.raises(UsageError, match="chunks end after"):
        standing(drops, ends, RaceRules(1), units)


@pytest.mark.parametrize("units", [np.repeat([1, 2, 1], 8), np.zeros(23)])
def test_units_must_keep_together(units: np.ndarray) -> None:
    with pytest.raises(UsageError, match="the units do not cut"):
        standing(np.zeros((2, 24)), [24], RaceRules(1), units)


def test_drops_must_be_finite_and_below_the_ceiling() -> None:
    drops = some_drops(6)
    with pytest.raises(UsageError, match="beyond the ceiling"):
        raced(drops, ceiling=float(drops.max()) - 0.001)
    drops[3, 3] = np.inf
    with pytest.raises(UsageError, match="infinite"):
        raced(drops)


def test_largest_drop_follows_the_direction() -> None:
    scores = np.array([0.2, 0.9])
    assert largest_drop(scores, (0.1, 1.0), "max") == pytest.approx(0.8)
    assert largest_drop(scores, (0.0, 1.5), "min") == pytest.approx(1.3)
    assert largest_drop(scores, (-math.inf, 1.0), "max") is None


@given(st.lists(st.integers(1, 30), min_size=1, max_size=80))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_chunks_end_with_batches_and_grow(batches: list[int]) -> None:
    ends = chunk_ends(batches)
    counted = np.cumsum(batches).tolist()
    assert ends[-1] == counted[-1]
    assert set(ends) <= set(counted)
    assert ends[0] >= min(race.FIRST, counted[-1])
    assert all(later >= race.GROWTH * end for end, later in itertools.pairwise(ends[:-1]))


# How often it errs, and what it saves ---------------------------------------------------------------------------


def outcomes(bench: ModuleType, family: str, rules: RaceRules, races: int, **sizes: int) -> list:
    size = {"variants": 60, "samples": 200} | sizes
    walks = (bench.Walked.of(getattr(bench, family), **size, top=rules.top, seed=seed) for seed in range(races))
    return [bench.bet(walk, rules) for walk in walks]


def most(races: int, confidence: float) -> int:
    """Errors that so many races exceed once in a thousand times when each errs as often as it may."""
    return int(stats.binom.ppf(0.999, races, 1 - confidence))


@pytest.mark.parametrize(
    ("family", "races"),
    [("network", 60), ("rare", 60), ("skew", 60), ("ties", 40), ("equal", 40), ("correlated", 40), ("zeros", 10)],
)
def test_races_err_no_more_often_than_they_may(bench: ModuleType, family: str, races: int) -> None:
    rules = RaceRules(top=6, confidence=0.9, ceiling=1.0)
    assert sum(each.wrong for each in outcomes(bench, family, rules, races)) <= most(races, 0.9)


def test_a_large_field_for_few_places(bench: ModuleType) -> None:
    rules = RaceRules(top=2, confidence=0.9, ceiling=1.0)
    found = outcomes(bench, "rare", rules, 15, variants=600)
    assert sum(each.wrong for each in found) <= most(15, 0.9)


@pytest.mark.parametrize("family", ["decoys", "batches"])
def test_the_worst_case_uses_up_the_allowance_and_no_more(bench: ModuleType, family: str) -> None:
    """Errors do occur, so that the bound is not held by caution, or by a test that cannot fail."""
    races, confidence = 150, 0.7
    rules = RaceRules(top=5, confidence=confidence, ceiling=1.0)
    wrong = sum(each.wrong for each in outcomes(bench, family, rules, races, variants=20))
    assert 0.1 * (1 - confidence) * races < wrong <= most(races, confidence)


def test_samples_of_a_batch_do_not_count_as_drawn_alone(bench: ModuleType) -> None:
    rules = RaceRules(top=5, ceiling=1.0)
    walks = [bench.Walked.of(bench.batches, 20, 200, 5, seed) for seed in range(40)]
    apart = [bench.Walked(walk.drops, None, walk.costs) for walk in walks]
    assert sum(bench.bet(walk, rules).wrong for walk in walks) <= most(40, 0.95)
    assert sum(bench.bet(walk, rules).wrong for walk in apart) > most(40, 0.95)


def test_paying_for_one_place_instead_of_all_errs_too_often(bench: ModuleType) -> None:
    """The allowance is shared by the places of the top; not sharing it is what this test would notice."""
    races, confidence = 100, 0.9
    cheap = RaceRules(top=5, confidence=1 - 5 * (1 - confidence), ceiling=1.0)
    wrong = sum(each.wrong for each in outcomes(bench, "decoys", cheap, races, variants=20))
    assert wrong > most(races, confidence)


@pytest.mark.parametrize("family", ["decoys", "batches", "rare", "peaked", "decibels"])
def test_an_assumed_ceiling_errs_no_more_often_in_simulations(bench: ModuleType, family: str) -> None:
    found = outcomes(bench, family, RaceRules(top=6, confidence=0.9), 40)
    assert sum(each.wrong for each in found) <= most(40, 0.9)


def test_student_intervals_would_err_nearly_always_where_drops_are_rare(bench: ModuleType) -> None:
    walks = [bench.Walked.of(bench.rare, 60, 200, 6, seed) for seed in range(20)]
    assert sum(bench.student(walk, RaceRules(6)).wrong for walk in walks) > 15


@pytest.mark.parametrize("ceiling", [1.0, None])
def test_a_quarter_of_the_work_where_the_top_is_separable(bench: ModuleType, ceiling: float | None) -> None:
    found = outcomes(bench, "separable", RaceRules(10, ceiling=ceiling), 10, variants=100, samples=400)
    assert sum(each.wrong for each in found) == 0
    assert max(each.work for each in found) <= 0.25
