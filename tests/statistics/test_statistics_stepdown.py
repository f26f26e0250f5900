"""Step-down verdicts: against a plain loop and scipy, by law, and by simulation of tables whose truth is known."""

from __future__ import annotations

import importlib.util
import math
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from ckptswap.statistics import bootstrap, stepdown, totals
from ckptswap.statistics.exact import Few
from ckptswap.statistics.neighbours import lag_one, successive_variance
from ckptswap.statistics.stepdown import EXTREME, SIDE, Exact, adjusted, discoveries
from ckptswap.statistics.totals import Sample, mean
from ckptswap.statistics.verdicts import RowIntervals, drop_form, judged, table

TOLERANCE = 0.01
NOBODY = Exact(np.zeros(0), np.zeros(0, dtype=bool))


def scores(means: list[float], groups: int, seed: int, spread: float = 0.02) -> list[np.ndarray]:
    """A baseline (G, 1), and variants whose drops have these means and hang together."""
    random = np.random.default_rng(seed)
    baseline, shared = random.normal(0.8, 0.05, groups), random.normal(size=groups)
    noise = spread * (0.7 * shared + 0.7 * random.normal(size=(len(means), groups)))
    return [baseline[:, None], *(baseline - np.array(means)[:, None] - noise)[..., None]]


def sample_of(columns: list[np.ndarray], draws: int = 1000, **how) -> Sample:
    return Sample.of(columns, np.arange(len(columns[0])), mean, resamples=100, draws=draws, **how)


def verdicts_of(rows: list[RowIntervals]) -> list[str]:
    return [row.verdict for row in rows]


# Against plain code ----------------------------------------------------------------------------------------------


def plain_draws(drops: np.ndarray, sizes: np.ndarray, orders: np.ndarray) -> tuple[float, float, list[float]]:
    """Mean, standard error and t* of one row, from each group's sum of drops and its size: textbook formulas."""

    def ratio(groups: np.ndarray) -> tuple[float, float]:
        value = drops[groups].sum() / sizes[groups].sum()
        residual, n = drops[groups] - value * sizes[groups], len(groups)
        return value, math.sqrt(n / (n - 1) * (residual**2).sum()) / sizes[groups].sum()

    value, se = ratio(np.arange(len(drops)))
    again = [ratio(groups) for groups in orders]
    return value, se, [(one - value) / max(error, bootstrap.FLOOR * se) for one, error in again]


def plain_levels(values: list[float], draws: list[float]) -> list[float]:
    """p of values by their rank among draws; beyond them all by how far."""
    amount, start = len(draws), sorted(draws)[-math.ceil(EXTREME * len(draws))]
    levels = []
    for value in values:
        larger = sum(draw >= value for draw in draws)
        place = larger + 1.0 if larger else min(1.0, start / value)
        levels.append(place / (amount + 1))
    return levels


def plain_stepdown(levels: list[float], drawn: list[list[float]]) -> set[int]:
    """The rows that are decided: those whose p is at most c are taken out, until nothing falls."""
    decided: set[int] = set()
    amount = len(drawn[0])
    while True:
        still = [row for row in range(len(levels)) if row not in decided]
        least = [min((drawn[row][at] for row in still), default=1.0) for at in range(amount)]
        falls = {row for row in still if 1 + sum(p <= levels[row] for p in least) <= SIDE * (amount + 1)}
        if not falls:
            return decided
        decided |= falls


@pytest.mark.parametrize("seed", range(4))
def test_verdicts_are_those_of_a_plain_loop(seed: int) -> None:
    """Groups of unequal size; the draws are the library's, what is made of them is not."""
    random, groups, draws = np.random.default_rng(seed), 12, 240
    label = np.repeat(np.arange(groups), random.integers(1, 5, groups))
    means = [-0.03, -0.005, 0.0, 0.008, 0.03, 0.1, 0.2]
    drops = np.array(means)[:, None] + random.normal(0, 0.02, (len(means), groups))[:, label]
    baseline = np.full((len(label), 1), 0.8)
    sample = Sample.of([baseline, *(baseline[:, 0] - drops)[..., None]], label, mean, resamples=100, draws=draws)
    rows = table(sample, "max", tolerance=TOLERANCE)
    orders = np.concatenate(list(bootstrap.drawn(groups, draws, totals.SEED)))
    sizes = np.bincount(label).astype(float)
    plain = [plain_draws(np.bincount(label, row), sizes, orders) for row in drops]
    decided = {}
    for side, word, name in ((1, "reusable", "p_reusable"), (-1, "sensitive", "p_sensitive")):
        levels, drawn = [], []
        for row, (value, se, t) in zip(rows, plain, strict=True):
            own = [-side * draw for draw in t]
            beyond = side * (TOLERANCE - value) / se
            assert getattr(row, name) == (1 + sum(draw >= beyond for draw in own)) / (draws + 1)
            levels += plain_levels([beyond], own)
            ranks = [sum(other >= draw for other in own) for draw in own]
            start = sorted(own)[-math.ceil(EXTREME * draws)]
            drawn.append([(rank if rank > 1 else start / own[at]) / (draws + 1) for at, rank in enumerate(ranks)])
        decided[word] = plain_stepdown(levels, drawn)
        assert {at for at, row in enumerate(rows) if row.verdict == word} == decided[word]
    assert all(decided.values()), "or it says nothing"


def test_p_values_are_nearly_students_with_many_groups() -> None:
    columns = scores([0.0, 0.008, 0.012, 0.02], 300, seed=1)
    for row, column in zip(table(sample_of(columns, 4000), "max", tolerance=TOLERANCE), columns[1:], strict=True):
        drops = (columns[0] - column)[:, 0]
        for name, alternative in (("p_reusable", "less"), ("p_sensitive", "greater")):
            expected = scipy_stats.ttest_1samp(drops, TOLERANCE, alternative=alternative).pvalue
            assert getattr(row, name) == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("share", [0.6, 1.0])
def test_means_by_matrix_products_are_those_of_any_reduction(share: float) -> None:
    """Rows on all samples of unequal groups, and on some of them; the other way differentiates by steps."""
    random = np.random.default_rng(3)
    label = np.repeat(np.arange(14), random.integers(1, 5, 14))
    there = random.random(len(label)) < share
    columns = [random.normal(0.8, 0.05, (len(label), 1)) for _ in range(4)]
    columns = [*columns[:2], *(np.where(there[:, None], column, np.nan) for column in (columns[0], *columns[2:]))]
    forms = [{0: 1.0, 1: -1.0}, {2: 1.0, 3: -1.0}, {2: 1.0, 4: -1.0}]
    how = {"resamples": 300}
    means = bootstrap.effects(Sample.of(columns, label, mean, **how), forms)
    others = bootstrap.effects(Sample.of(columns, label, lambda sums, count: sums[..., 0] / count, **how), forms)
    assert means.se == pytest.approx(others.se, rel=1e-6)
    assert means.t == pytest.approx(others.t, rel=1e-5, abs=1e-7, nan_ok=True)


@given(st.lists(st.floats(1e-6, 1), min_size=1, max_size=8))
def test_exact_rows_alone_are_held_by_holm(p: list[float]) -> None:
    order = sorted(range(len(p)), key=p.__getitem__)
    decided: set[int] = set()
    for at, row in enumerate(order):
        if p[row] > SIDE / (len(p) - at):
            break
        decided.add(row)
    found = adjusted(None, Exact(np.array(p), np.ones(len(p), dtype=bool))) <= SIDE * (1 + 1e-12)
    assert set(np.flatnonzero(found).tolist()) == decided


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_discoveries_are_benjamini_and_hochbergs(p: list[float]) -> None:
    expected = scipy_stats.false_discovery_control(p) <= 0.05
    assert discoveries(np.array(p), 0.05).tolist() == expected.tolist()


@given(st.integers(8, 60), st.integers(0, 4), st.floats(0.001, 0.9))
def test_the_p_of_an_exact_bound_is_a_binomial_tail(groups: int, above: int, limit: float) -> None:
    few = Few(0.0, 1, above, groups, -1.0, 1.0)
    assert few.p_below(limit) == pytest.approx(scipy_stats.binom.cdf(above, groups, limit), rel=1e-8)
    assert few.p_below(few.ends(0.025)[1]) == pytest.approx(0.025)
    assert few.turned.p_below(-few.ends(0.01)[0]) == pytest.approx(0.01)
    assert few.p_below(0.0) == few.turned.p_below(0.0) == 1.0


@given(st.integers(8, 40), st.floats(1e-4, 0.2), st.floats(0.01, 0.9))
def test_with_two_bounds_the_p_is_the_error_at_which_the_better_one_meets(
    groups: int, error: float, least: float
) -> None:
    few = Few(1.0, 2, 0, groups, -1.0, 1.0, 1.2, least, 1.0)
    low = few.ends(error)[0]
    if low > few.low:
        assert few.turned.p_below(-low) == pytest.approx(error, rel=1e-6)


# Laws ------------------------------------------------------------------------------------------------------------

tables = st.builds(
    scores, st.lists(st.floats(-0.1, 0.2), min_size=1, max_size=5), st.integers(8, 20), st.integers(0, 99)
)


@settings(max_examples=25)
@given(tables, st.floats(0, 0.05), st.floats(0, 0.05))
def test_a_larger_tolerance_makes_more_rows_reusable_and_fewer_sensitive(
    columns, one: float, other: float
) -> None:
    small, large = (table(sample_of(columns, 200), "max", tolerance=limit) for limit in sorted((one, other)))
    for before, after in zip(small, large, strict=True):
        assert before.p_reusable >= after.p_reusable
        assert before.p_sensitive <= after.p_sensitive
        assert before.verdict != "reusable" or after.verdict == "reusable"
        assert after.verdict != "sensitive" or before.verdict == "sensitive"


@settings(max_examples=25)
@given(tables, st.randoms(use_true_random=False))
def test_neither_the_order_of_rows_nor_rows_that_are_there_twice_matter(columns, random) -> None:
    rows = table(sample_of(columns), "max", tolerance=TOLERANCE)
    order = [*range(len(rows)), random.randrange(len(rows))]
    random.shuffle(order)
    again = table(sample_of([columns[0], *(columns[1 + at] for at in order)]), "max", tolerance=TOLERANCE)
    assert verdicts_of(again) == [rows[at].verdict for at in order]


@settings(max_examples=25)
@given(tables)
def test_a_row_alone_is_decided_by_its_own_p(columns) -> None:
    for column in columns[1:]:
        (row,) = table(sample_of([columns[0], column]), "max", tolerance=TOLERANCE)
        expected = (
            "reusable" if row.p_reusable <= SIDE else "sensitive" if row.p_sensitive <= SIDE else "undecided"
        )
        # the step-down takes the next rank, so that it may be one draw stricter
        if abs(min(row.p_reusable, row.p_sensitive) - SIDE) > 2 / 1000:
            assert row.verdict == expected


@settings(max_examples=25)
@given(tables)
def test_the_false_discovery_rate_decides_all_that_the_family_wise_error_does(columns) -> None:
    strict, loose = (table(sample_of(columns), "max", None, TOLERANCE, error) for error in ("fwer", "fdr"))
    for one, other in zip(strict, loose, strict=True):
        assert one.verdict in ("undecided", other.verdict)
        assert one.numbers == other.numbers


# By simulation ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", ["fwer", "fdr"])
def test_wrong_verdicts_are_seldom_and_more_is_decided_than_by_simultaneous_intervals(error) -> None:
    """Half of the rows lie at the tolerance, where either verdict is wrong; some hardly move at all."""
    means = [TOLERANCE] * 10 + [0.0, 0.0, 0.03, 0.03, 0.04, 0.04, 0.05, 0.05, -0.02, -0.02]
    tables, wrong, right, before, false = 50, 0, 0, 0, []
    for seed in range(tables):
        columns = scores(means, 12, seed, spread=0.015)
        skewed = 1e-4 * np.random.default_rng(seed).lognormal(0, 2, (4, 12, 1))
        columns += list(columns[0] - skewed)  # their t* have long tails
        rows = table(sample_of(columns, bounds=(-5.0, 5.0)), "max", tolerance=TOLERANCE, error=error)
        mistakes = sum(row.verdict != "undecided" for row in rows[:10])
        false.append(mistakes / max(1, sum(row.verdict != "undecided" for row in rows)))
        wrong += mistakes > 0
        right += sum(
            row.verdict == ("sensitive" if mean > 0.01 else "reusable")
            for row, mean in zip(rows[10:20], means[10:], strict=True)
        )
        before += sum(row.sim_low > TOLERANCE or row.sim_high < TOLERANCE for row in rows[10:20])
    if error == "fwer":
        assert wrong / tables <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / tables)
    assert np.mean(false) <= 0.05
    assert right > 1.5 * before


@pytest.fixture(scope="module")
def benchmark():
    """benchmarks/verdicts.py, whose tables are judged here on a smaller scale."""
    path = Path(__file__).parents[2] / "benchmarks" / "verdicts.py"
    spec = importlib.util.spec_from_file_location("verdicts_benchmark", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_the_benchmarks_tables_are_seldom_judged_wrongly_but_for_rare_breaks(benchmark) -> None:
    wrong = {
        make.__name__: np.mean([benchmark.judged(make, 12, 15, 400, seed)["step-down"].wrong for seed in range(6)])
        for make in benchmark.CASES
    }
    assert {name for name, share in wrong.items() if share > 0.4} == {"rare"}
    assert wrong["dominated"] == 0, "nothing is decided"


def test_the_benchmark_counts_what_is_wrong(benchmark) -> None:
    truth = 0.01 * np.array([0.5, 2.0, 1.0, 3.0])
    found = benchmark.outcome(["reusable", "reusable", "sensitive", "undecided"], truth)
    assert (found.wrong, found.false, found.right) == (True, pytest.approx(2 / 3), pytest.approx(1 / 3))


# Bad input -------------------------------------------------------------------------------------------------------


def test_fewer_than_eight_groups_decide_nothing() -> None:
    rows = table(sample_of(scores([0.0, 0.5], 7, seed=0)), "max", tolerance=TOLERANCE)
    assert verdicts_of(rows) == ["undecided"] * 2
    assert [(row.p_reusable, row.p_sensitive, row.groups) for row in rows] == [(None, None, 7)] * 2


def test_a_baseline_without_variance_and_drops_that_are_all_equal() -> None:
    """What is lost alike in all groups has an exact bound, if the metric has bounds."""
    flat = np.full((400, 1), 0.9)
    columns = [flat, flat - 0.5, flat, flat - TOLERANCE]
    rows = table(sample_of(columns, bounds=(0.0, 1.0)), "max", tolerance=TOLERANCE)
    assert verdicts_of(rows) == ["sensitive", "reusable", "undecided"]
    assert rows[1].p_reusable == pytest.approx(0.99**400)
    unbounded = table(sample_of(columns), "max", tolerance=TOLERANCE)
    assert verdicts_of(unbounded) == ["undecided"] * 3
    assert {row.p_sensitive for row in unbounded} == {None}


def test_where_all_draws_are_equal_a_drop_near_the_tolerance_is_undecided() -> None:
    """More than rounding apart in every group, but without a spread that counts: 2 % of the tolerance are left."""
    baseline = np.full((16, 1), 1.0)
    apart = 4e-9 * (np.arange(16) % 2)[:, None]
    drops = [0.5 * TOLERANCE, 0.99 * TOLERANCE, 1.01 * TOLERANCE, 2 * TOLERANCE]
    rows = table(sample_of([baseline, *(baseline - drop - apart for drop in drops)]), "max", tolerance=TOLERANCE)
    assert {row.few for row in rows} == {None}
    assert verdicts_of(rows) == ["reusable", "undecided", "undecided", "sensitive"]
    assert [row.p_reusable for row in rows] == [1 / 1001, 1.0, 1.0, 1.0]


def test_a_tolerance_of_nothing_is_held_too() -> None:
    rows = table(sample_of(scores([-0.1, 0.1, 0.0], 20, seed=2)), "max", tolerance=0.0)
    assert verdicts_of(rows)[:2] == ["reusable", "sensitive"]
    still = np.full((16, 1), 0.5)
    (row,) = table(sample_of([still, still], bounds=(0.0, 1.0)), "max", tolerance=0.0)
    assert (row.verdict, row.p_reusable, row.p_sensitive) == ("undecided", 1.0, 1.0)


def test_rows_on_few_groups_stand_beside_others() -> None:
    columns = scores([0.3, 0.3, 0.0], 24, seed=3)
    half, few = (
        np.where((np.arange(24) < groups)[:, None], column, np.nan)
        for groups, column in ((12, columns[2]), (5, columns[3]))
    )
    baselines = [np.where(np.isnan(column), np.nan, columns[0]) for column in (half, few)]
    sample = sample_of([columns[0], *baselines, columns[1], half, few])
    rows = table(sample, "max", [0, 1, 2], TOLERANCE)
    assert verdicts_of(rows) == ["sensitive", "sensitive", "undecided"]
    assert [row.groups for row in rows] == [24, 12, 5]


def test_more_rows_than_draws_can_tell_apart_are_decided_where_they_are_far_off() -> None:
    """The least p of 400 draws is 120 times 2.5 % / 1,200: how far beyond all draws a row lies decides."""
    random, rows = np.random.default_rng(4), 1200
    means = np.where(np.arange(rows) % 2, 0.0, 0.3)
    means[:20] = TOLERANCE
    drops = means[:, None] + random.normal(0, 0.005, (rows, 30))
    sample = sample_of([np.full((30, 1), 0.8), *(0.8 - drops)[..., None]], 400)
    found = verdicts_of(table(sample, "max", tolerance=TOLERANCE))
    assert found[:20].count("undecided") >= 19
    assert found[20::2].count("sensitive") == rows / 2 - 10
    assert found[21::2].count("reusable") > 0.8 * (rows / 2 - 10)


def test_without_rows_there_is_an_empty_table() -> None:
    assert judged(sample_of(scores([], 9, seed=0)), [], TOLERANCE) == []
    assert adjusted(None, NOBODY).tolist() == []


def test_without_a_tolerance_there_are_no_p_values() -> None:
    (row,) = table(sample_of(scores([0.3], 9, seed=0)), "max")
    assert (row.p_reusable, row.p_sensitive, row.verdict) == (None, None, "undecided")


# Groups that stand in an order -----------------------------------------------------------------------------------


@given(st.lists(st.floats(-1, 1), min_size=3, max_size=12), st.randoms(use_true_random=False))
def test_successive_differences_are_those_of_a_plain_loop(values: list[float], random) -> None:
    there = [random.random() < 0.7 for _ in values]
    orders = [[random.randrange(len(values)) for _ in values] for _ in range(3)]
    found = successive_variance(np.array([values] * 3), np.array(orders), np.array(there))
    for order, variance in zip(orders, found, strict=True):
        walked = [values[at] for at in order if there[at]]
        if len(walked) < 2:
            assert math.isnan(variance)
            continue
        squares = sum((after - before) ** 2 for before, after in pairwise(walked))
        assert variance == pytest.approx(len(walked) / (2 * (len(walked) - 1)) * squares)


def test_neighbours_correlation_is_that_of_a_plain_loop() -> None:
    values = np.random.default_rng(5).normal(size=30)
    values -= values.mean()
    there = np.arange(30) % 3 > 0
    known = values[there].tolist()
    expected = sum(a * b for a, b in pairwise(known)) / sum(a * a for a in known)
    assert lag_one(values, there) == pytest.approx(expected)
    assert lag_one(np.zeros(4), np.ones(4, dtype=bool)) is None


@pytest.mark.parametrize("samples", [1, 3])
def test_means_of_groups_in_an_order_are_drawn_as_any_number(
    monkeypatch: pytest.MonkeyPatch, samples: int
) -> None:
    """All rows at once, where all have the same samples: as group by group, and with a group of another size."""
    columns, forms = scores([0.0, 0.5, 0.02], 12, 0), [{0: 1.0, at: -1.0} for at in (1, 2, 3)]
    groups = np.repeat(np.arange(12 // samples), samples)
    sample = Sample.of(columns, groups, mean, is_successive=True)
    at_once = bootstrap.effects(sample, forms, 300)
    ways = []
    monkeypatch.setattr(bootstrap, "_moments_in_order", lambda *told: ways.append(told))
    one_by_one = bootstrap.effects(sample, forms, 300)
    assert len(ways) == 1
    assert at_once.t == pytest.approx(one_by_one.t, abs=1e-9)
    monkeypatch.undo()
    uneven = Sample.of(columns, np.minimum(groups, groups[-1] - 1), mean, is_successive=True)
    assert bootstrap._moments_of_means(uneven, forms, one_by_one.estimate) is None


def test_on_a_slope_successive_differences_are_smaller_and_decide_more() -> None:
    """Drops that grow along a volume: what changes slowly is not chance."""
    random = np.random.default_rng(6)
    drops = 0.016 + np.linspace(-0.03, 0.03, 20) + random.normal(0, 0.002, 20)
    columns = [np.full((20, 1), 0.8), (0.8 - drops)[:, None]]
    (plain,) = table(sample_of(columns), "max", tolerance=TOLERANCE)
    (slope,) = table(sample_of(columns, is_successive=True), "max", tolerance=TOLERANCE)
    assert plain.lag_one == slope.lag_one > 0.5
    assert slope.ci_high - slope.ci_low < 0.5 * (plain.ci_high - plain.ci_low)
    assert (plain.verdict, slope.verdict) == ("undecided", "sensitive")


def test_of_groups_without_order_both_standard_errors_are_alike() -> None:
    forms, both = [drop_form(1, "max")], []
    for is_successive in (False, True):
        found = [
            bootstrap.effects(sample_of(scores([0.0], 30, seed), is_successive=is_successive), forms, 10).se[0]
            for seed in range(200)
        ]
        both.append(np.mean(np.square(found)))
    assert both[1] == pytest.approx(both[0], rel=0.1)


def test_the_least_p_is_found_among_the_kept_draws() -> None:
    """Only the draws that can matter are kept of each row; ties share the greater rank."""
    draws = np.array([[3.0, 1.0, 2.0, 2.0, -1.0, 0.0, 2.0, 5.0]])
    places, tail = stepdown._tail(draws, 5)
    assert sorted(places[0].tolist()) == [0, 2, 3, 6, 7]
    assert stepdown._ranks(tail).tolist() == [[5.0, 5.0, 5.0, 2.0, 1.0]]


def test_the_largest_of_many_draws_are_those_of_a_sort() -> None:
    """Also where the part that is looked at tells nothing of the others, and with ties."""
    draws = np.random.default_rng(0).normal(size=(5, 4000))
    draws[1, :: stepdown.PART] += 9
    draws[2, :: stepdown.PART] -= 9
    draws[3] = draws[3].round(1)
    draws[4] = 0.0
    places, tail = stepdown._tail(draws, 102)
    assert np.array_equal(tail, np.sort(draws, axis=1)[:, -102:])
    assert np.array_equal(np.take_along_axis(draws, places, axis=1), tail)
    assert all(len(set(row)) == 102 for row in places.tolist())
