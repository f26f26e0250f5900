"""Exact bounds where next to nothing moves: against scipy's beta and binomial, and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from ckptswap.statistics import verdicts
from ckptswap.statistics.exact import LEAST_MOVED, Few, at_most, common_of, ends_of_two, highest_share
from ckptswap.statistics.intervals import contrast, difference, interval
from ckptswap.statistics.totals import Sample, mean
from ckptswap.statistics.verdicts import table

UNIT = (0.0, 1.0)
ERRORS = (0.025, 0.025 / 41, 1e-6)


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("groups", [1, 8, 16, 512, 100_000])
def test_the_highest_share_is_a_quantile_of_beta(groups: int, error: float) -> None:
    for count in sorted({0, 1, 4, groups // 2, groups - 1}):
        if count < groups:
            expected = scipy_stats.beta.ppf(1 - error, count + 1, groups - count)
            assert highest_share(count, groups, error) == pytest.approx(expected, rel=1e-9), count
    assert highest_share(groups, groups, error) == 1.0


@given(st.integers(1, 400), st.integers(0, 400), st.floats(1e-6, 1 - 1e-6))
def test_at_most_is_the_binomial_tail(groups: int, count: int, share: float) -> None:
    expected = scipy_stats.binom.cdf(count, groups, share)
    assert at_most(count, groups, share) == pytest.approx(expected, rel=1e-8, abs=1e-100)


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("worse", range(LEAST_MOVED))
@pytest.mark.parametrize("limit", [0.3, 0.05, 0.0093])
def test_the_number_of_groups_that_would_tell_is_the_least(worse: int, limit: float, error: float) -> None:
    few = Few(0.0, 0, worse, 16, -1.0, 1.0)
    groups = few.groups_that_tell(limit, error)
    assert groups is not None

    def bound(groups: int) -> float:
        return scipy_stats.beta.ppf(1 - error, worse + 1, groups - worse)

    assert bound(groups) < limit <= bound(groups - 1)


def test_no_number_of_groups_tells_where_nothing_bounds_a_loss_or_all_groups_lose_too_much() -> None:
    assert Few(0.0, 0, 0, 16, -math.inf, math.inf).groups_that_tell(0.01, 0.025) is None
    assert Few(0.25, 0, 0, 16, -1.0, 1.0).groups_that_tell(0.01, 0.025) is None
    assert Few(0.0, 0, 0, 16, -1.0, 1.0).groups_that_tell(0.0, 0.025) is None
    assert Few(0.0, 0, 0, 16, -1.0, 1.0).groups_that_tell(1e-300, 0.025) is None


def plain_ends(drops: np.ndarray, error: float) -> tuple[float, float]:
    """The rule of docs/method.md for equal groups with a common drop of 0 and a range of 1, by scipy."""
    worse, better, groups = (drops > 0).sum(), (drops < 0).sum(), len(drops)
    return (
        -scipy_stats.beta.ppf(1 - error, better + 1, groups - better),
        scipy_stats.beta.ppf(1 - error, worse + 1, groups - worse),
    )


@pytest.mark.parametrize("flips", [[], [1], [-1], [1, 1, -1], [1, 1, 1, 1]])
def test_a_table_holds_the_bounds_that_scipy_gives(flips: list[int]) -> None:
    drops = np.zeros(16)
    drops[: len(flips)] = flips
    baseline = np.where(drops < 0, 0.0, 1.0)[:, None]
    sample = Sample.of([baseline, baseline - drops[:, None], baseline], np.arange(16), mean, bounds=UNIT)
    row, still = table(sample, "max", tolerance=0.01)
    assert row.drop == pytest.approx(drops.mean())
    assert (row.ci_low, row.ci_high) == pytest.approx(plain_ends(drops, 0.025))
    assert (row.sim_low, row.sim_high) == pytest.approx(plain_ends(drops, 0.025 / 2)), "of two rows"
    assert still.ci_high == pytest.approx(1 - 0.025 ** (1 / 16))
    assert row.verdict == still.verdict == "undecided"
    found = contrast(sample, verdicts.drop_form(1, "max"))
    assert (found.low, found.high) == (row.ci_low, row.ci_high)


def test_five_groups_that_move_are_resampled() -> None:
    for moved in (LEAST_MOVED - 1, LEAST_MOVED):
        variant = np.ones((16, 1))
        variant[:moved] = 0.75
        (row,) = table(Sample.of([np.ones((16, 1)), variant], np.arange(16), mean, bounds=UNIT), "max")
        assert (row.few is not None) == (moved < LEAST_MOVED)
    assert row.ci_low < row.drop < row.ci_high < 0.25


def test_what_moved_within_a_group_and_back_did_not_move_the_group() -> None:
    baseline, variant = np.tile([[1.0], [0.0]], (12, 1)), np.tile([[0.0], [1.0]], (12, 1))
    (row,) = table(Sample.of([baseline, variant], np.arange(24) // 2, mean, bounds=UNIT), "max")
    assert row.drop == 0
    assert row.ci_high == pytest.approx(1 - 0.025 ** (1 / 12))


@pytest.mark.parametrize("direction", ["max", "min"])
def test_worse_and_better_change_places_with_the_direction(direction: str) -> None:
    baseline, variant = np.full((16, 1), 0.5), np.full((16, 1), 0.5)
    variant[0] = 1.0
    (row,) = table(Sample.of([baseline, variant], np.arange(16), mean, bounds=UNIT), direction)
    one, none = highest_share(1, 16, 0.025), highest_share(0, 16, 0.025)
    assert (row.ci_low, row.ci_high) == pytest.approx((-one, none) if direction == "max" else (-none, one))


def test_the_largest_group_weighs_more() -> None:
    """One of 16 groups has five of 20 samples, four times the mean group."""
    label = np.array([0] * 5 + list(range(1, 16)))
    (row,) = table(Sample.of([np.ones((20, 1)), np.ones((20, 1))], label, mean, bounds=UNIT), "max")
    assert row.ci_high == pytest.approx(4 * (1 - 0.025 ** (1 / 16)))


def pooled_iou(sums: np.ndarray, count: np.ndarray) -> np.ndarray:
    return sums[..., 0] / sums.sum(axis=-1)


@pytest.mark.parametrize(
    ("reduce", "bounds", "width"),
    [(mean, (-math.inf, math.inf), 1), (mean, (0.0, math.inf), 1), (mean, (-math.inf, 1.0), 1),
     (pooled_iou, UNIT, 2), (mean, (0.0, 0.4), 1)],
    ids=["no bound", "no upper bound", "no lower bound", "pooled", "declared bounds that do not hold"],
)  # fmt: skip
def test_without_a_largest_drop_there_is_no_interval(reduce, bounds: tuple[float, float], width: int) -> None:
    same = np.full((16, width), 0.5)
    (row,) = table(Sample.of([same, same], np.arange(16), reduce, bounds=bounds), "max")
    assert (row.ci_low, row.ci_high, row.sim_low, row.sim_high) == (None,) * 4
    assert row.few is not None
    assert not row.few.is_bounded
    assert difference(same, same, np.arange(16), reduce, bounds=bounds).high is None


# A checkpoint's own score ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("right", [0, 1, 5, 8, 11, 15, 16])
def test_the_interval_of_a_proportion_is_clopper_and_pearsons(right: int) -> None:
    scores = (np.arange(16) < right).astype(float)
    found = interval(scores[:, None], np.arange(16), mean, bounds=UNIT)
    expected = scipy_stats.binomtest(right, 16).proportion_ci(0.95, method="exact")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert found.estimate == right / 16
    alike = interval(np.repeat(scores, 3)[:, None], np.repeat(np.arange(16), 3), mean, bounds=UNIT)
    assert alike == found, "three samples of one group that are always alike are one"


@given(st.integers(8, 30), st.randoms(use_true_random=False))
def test_intervals_of_bounded_metrics_stay_within_and_are_never_a_point(groups: int, random) -> None:
    """At the boundary and beside it, in groups of one size or several, whatever the scores."""
    size = random.choice([1, 1, 2, 3])
    label = np.array([group for group in range(groups) for _ in range(random.randint(1, size))])
    pool = random.choice([[0.0, 1.0], [1.0], [0.0], [0.5], [0.9, 1.0, 1.0, 1.0, 1.0, 1.0], [0.1, 0.5, 0.7, 1.0]])
    a, b = (np.array([[random.choice(pool)] for _ in label]) for _ in range(2))
    found = interval(a, label, mean, bounds=UNIT, resamples=200)
    assert 0 <= found.low <= found.estimate + 1e-12
    assert found.estimate - 1e-12 <= found.high <= 1
    assert found.high - found.low > 0.01
    apart = difference(a, b, label, mean, bounds=UNIT, resamples=200)
    assert -1 <= apart.low < apart.high <= 1
    assert apart.low - 1e-12 <= apart.estimate <= apart.high + 1e-12


def test_the_interval_of_a_pooled_metric_is_cut_at_its_bounds() -> None:
    counts = np.random.default_rng(0).integers(0, 4, (9, 2)) + np.array([200, 0])
    found = interval(counts.astype(float), np.arange(9), pooled_iou, bounds=UNIT)
    assert found.low < found.estimate < found.high <= 1


# By simulation ---------------------------------------------------------------------------------------------------


def flipped(rng: np.random.Generator, groups: int, harm: float, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """A baseline that is right everywhere (N, 1), and variants (rows, N, 1), each wrong with this probability."""
    return np.ones((groups, 1)), (rng.random((rows, groups, 1)) >= harm).astype(float)


@pytest.mark.parametrize(("groups", "harm"), [(16, 0.2), (60, 0.05), (150, 0.02)])
def test_a_row_whose_drop_is_the_tolerance_is_seldom_called_reusable(groups: int, harm: float) -> None:
    """In no more than 2.5 % of tables, however many rows they have; a bootstrap's [0, 0] would do so in many."""
    rng, tables, wrong, naive = np.random.default_rng(groups), 120, 0, 0
    for _ in range(tables):
        baseline, variants = flipped(rng, groups, harm, rows=12)
        sample = Sample.of([baseline, *variants], np.arange(groups), mean, bounds=UNIT, resamples=150, draws=1000)
        rows = table(sample, "max", tolerance=harm)
        wrong += any(row.verdict == "reusable" for row in rows)
        naive += any(row.drop == 0 for row in rows)
    assert wrong / tables <= 0.025 + 2 * math.sqrt(0.025 * 0.975 / tables)
    assert naive / tables > 0.2, "tables with a row that never moved"


@pytest.mark.parametrize(("groups", "harm"), [(16, 0.03), (40, 0.05), (100, 0.01)])
def test_plain_bounds_cover(groups: int, harm: float) -> None:
    """The rule is chosen by how many groups moved, and either bound holds often enough over both."""
    rng, rounds, above = np.random.default_rng(7 * groups), 1000, 0
    for _ in range(rounds):
        baseline, variants = flipped(rng, groups, harm, rows=1)
        sample = Sample.of([baseline, *variants], np.arange(groups), mean, bounds=UNIT, resamples=200)
        above += contrast(sample, verdicts.drop_form(1, "max")).high < harm
    assert above / rounds <= 0.04


def test_a_proportion_of_a_two_valued_score_in_another_range() -> None:
    low, high = ends_of_two(np.array([-1.0] * 3 + [3.0] * 7), (-1.0, 3.0), 0.025)
    expected = scipy_stats.binomtest(7, 10).proportion_ci(0.95, method="exact")
    assert (low, high) == pytest.approx((-1 + 4 * expected.low, -1 + 4 * expected.high))
    assert ends_of_two(np.array([-1.0, 0.0]), (-1.0, 3.0), 0.025) is None


def test_what_breaks_every_group_has_a_lower_end_above_nothing() -> None:
    """Twelve groups that lose all, or nearly all: by the least that was lost, and the share that may be unseen."""
    few, unseen = Few(1.0, 3, 0, 12, -1.0, 1.0, 1.0, 0.96, 1.0), 1 - 0.0125 ** (1 / 12)
    assert few.ends(0.025)[0] == pytest.approx(0.96 - unseen * 1.96)
    few, unseen = Few(1.0, 0, 0, 12, -1.0, 1.0, 1.0, 1.0, 1.0), 1 - 0.025 ** (1 / 12)
    assert few.ends(0.025)[0] == pytest.approx(1 - unseen * 2)


@pytest.mark.parametrize("share", [0.02, 0.1, 0.2])
def test_its_lower_end_is_seldom_wrong(share: float) -> None:
    """Simulated: most groups lose all, a share of them anything from −1 on."""
    draw, wrong, tables = np.random.default_rng(5), 0, 3000
    for _ in range(tables):
        drops = np.where(draw.random(12) < share, draw.uniform(-1, 0.9, 12), 1.0)
        common, below, above = common_of(drops, 0.0)
        few = Few(common, below, above, 12, -1.0, 1.0, 1.0, float(drops.min()), float(drops.max()))
        wrong += few.ends(0.025)[0] > 1 - share * 1.05
    assert wrong / tables <= 0.025 + 2 * (0.025 * 0.975 / tables) ** 0.5


def test_the_same_share_is_reckoned_once() -> None:
    highest_share.cache_clear()
    assert len({highest_share(3, 16, 0.025) for _ in range(5)}) == 1
    assert highest_share.cache_info().misses == 1


@pytest.mark.parametrize("bounds", [(0.0, math.inf), (-math.inf, math.inf), (-math.inf, 0.0)])
def test_values_at_a_bound_say_nothing_where_the_other_is_infinite(bounds: tuple[float, float]) -> None:
    assert ends_of_two(np.zeros(32), bounds, 0.025) is None
