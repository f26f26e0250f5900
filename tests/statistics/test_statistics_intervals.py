"""Coverage by simulation, and numbers against plain or scipy implementations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from ckptswap.statistics import Interval, bootstrap, intervals, totals, verdicts
from ckptswap.statistics.intervals import contrast, difference, interval
from ckptswap.statistics.seeds import seeds_interval, student_quantile
from ckptswap.statistics.totals import Sample, mean, whole
from ckptswap.statistics.verdicts import table


def pooled_iou(sums: np.ndarray, count: np.ndarray) -> np.ndarray:
    return sums[..., 0] / sums.sum(axis=-1)


def simulated(groups: int, rows: int, *, seed: int, truth: float = 0.1) -> tuple[np.ndarray, ...]:
    """Per-sample scores of a baseline (N, 1) and of `rows` variants (rows, N, 1), and groups of unequal size.

    Samples of one group share a group effect, and neighbours in it an AR(1) noise; rows share half of both.
    """
    rng = np.random.default_rng(seed)
    sizes = rng.integers(3, 9, groups)
    label = np.repeat(np.arange(groups), sizes)
    place = np.arange(len(label)) - np.searchsorted(label, label)  # in its group

    def effects(count: int) -> np.ndarray:
        noise = rng.normal(size=(count, len(label)))
        for at in (np.flatnonzero(place == step) for step in range(1, 8)):
            noise[:, at] = 0.7 * noise[:, at - 1] + np.sqrt(1 - 0.49) * noise[:, at]
        return 0.02 * rng.normal(size=(count, groups))[:, label] + 0.02 * noise

    baseline = 0.8 + 3 * effects(1)[0]
    drops = truth + np.sqrt(0.5) * effects(1) + np.sqrt(0.5) * effects(rows)
    return baseline[:, None], (baseline - drops)[..., None], label


@pytest.mark.parametrize(("groups", "count"), [(8, 2000), (12, 2000), (20, 1000), (50, 500)])
def test_plain_interval_covers(groups: int, count: int) -> None:
    """One row a sweep, each sweep with its own group sizes."""
    covered = 0
    for at in range(count):
        baseline, variants, label = simulated(groups, 1, seed=1000 * groups + at)
        (row,) = table(Sample.of([baseline, variants[0]], label, mean, resamples=1000), "max")
        covered += row.ci_low <= 0.1 <= row.ci_high
    assert 0.93 <= covered / count <= 0.97


def test_resampling_samples_instead_of_groups_covers_far_too_little() -> None:
    covered = 0
    for at in range(200):
        baseline, variants, label = simulated(20, 1, seed=at)
        (row,) = table(Sample.of([baseline, variants[0]], np.arange(len(label)), mean, resamples=500), "max")
        covered += row.ci_low <= 0.1 <= row.ci_high
    assert covered / 200 < 0.85


@pytest.mark.parametrize("groups", [10, 30])
def test_simultaneous_intervals_cover_the_whole_table(groups: int) -> None:
    count, plainly, together = 300, 0, 0
    for at in range(count):
        baseline, variants, label = simulated(groups, 20, seed=7000 + at)
        rows = table(Sample.of([baseline, *variants], label, mean, resamples=1000), "max")
        plainly += all(row.ci_low <= 0.1 <= row.ci_high for row in rows)
        together += all(row.sim_low <= 0.1 <= row.sim_high for row in rows)
    assert 0.93 <= together / count <= 0.985
    assert plainly / count < 0.85


# What docs/method.md says of simultaneous intervals -------------------------------------------------------------


def normal(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return rng.normal(size=shape)


def lognormal(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Around their mean of 0, with σ = 1."""
    return np.exp(rng.normal(size=shape)) - np.exp(0.5)


def test_with_few_skewed_groups_simultaneous_intervals_do_not_hold_in_95_percent_of_tables() -> None:
    held = {}
    for draw in (normal, lognormal):
        held[draw] = 0
        for at in range(80):
            drops = 0.1 + 0.02 * draw(np.random.default_rng(9000 + at), (20, 8))
            rows = table(
                Sample.of([np.zeros((8, 1)), *-drops[..., None]], np.arange(8), mean, resamples=400), "max"
            )
            held[draw] += all(row.sim_low <= 0.1 <= row.sim_high for row in rows)
    assert held[normal] / 80 > 0.95
    assert held[lognormal] / 80 < 0.85


@pytest.mark.parametrize(("draw", "least", "most"), [(normal, 5.0, 5.6), (lognormal, 9.0, 11.0)])
def test_how_far_an_interval_reaches_with_15_groups_and_a_hundred_rows(draw, least: float, most: float) -> None:
    variants = draw(np.random.default_rng(0), (100, 15))[..., None]
    sample = Sample.of([np.zeros((15, 1)), *variants], np.arange(15), mean)
    forms = [verdicts.drop_form(1 + at, "max") for at in range(100)]
    assert least < bootstrap.upper(bootstrap.effects(sample, forms).largest(), 0.95) < most


def test_how_far_it_reaches_in_the_demo() -> None:
    """From the Dice of its 15 groups, baseline and variants, that `ckptswap demo` left."""
    scores = np.load(Path(__file__).with_name("demo_scores.npz"))
    columns = [scores["baseline"], *scores["variants"]]
    sample = Sample.of([each[:, None] for each in columns], np.arange(15), mean, bounds=(0.0, 1.0))
    forms = [verdicts.drop_form(1 + at, "max") for at in range(len(scores["variants"]))]
    rows = table(sample, "max")
    assert len(rows) == 98
    moved = [at for at, row in enumerate(rows) if row.few is None]
    assert len(moved) == 91
    found = bootstrap.effects(sample, [forms[at] for at in moved])
    reach = [(rows[at].sim_high - rows[at].drop) / se for at, se in zip(moved, found.se, strict=True)]
    assert np.median(reach) == pytest.approx(7.9, abs=0.05)
    idle = [row for row in rows if row.few is not None]
    assert sum(row.drop == 0 for row in idle) == 5
    assert all(row.sim_high > 0.4 for row in idle), "which a bootstrap had called ±0.0000"


def test_pooled_metric_covers() -> None:
    rng = np.random.default_rng(5)
    count, covered = 400, 0
    truth = 0.6 / (0.6 + 0.2 + 0.2) - 0.5 / (0.5 + 0.25 + 0.25)
    for _ in range(count):
        size = rng.gamma(4.0, 1.0, (12, 1))
        a = size * (np.array([0.6, 0.2, 0.2]) + 0.02 * rng.normal(size=(12, 3)))
        b = size * (np.array([0.5, 0.25, 0.25]) + 0.02 * rng.normal(size=(12, 3)))
        found = difference(a, b, np.arange(12), pooled_iou, resamples=1000)
        covered += found.low <= truth <= found.high
    assert 0.92 <= covered / count <= 0.98


def plain_interval(
    columns: list[np.ndarray], weights: list[float], count: np.ndarray, draws: np.ndarray
) -> tuple[float, float, float]:
    """The same interval of Σ weight × mean written as a loop, with the textbook variance of a ratio."""

    def ratio(drawn: np.ndarray) -> tuple[float, float]:
        sums = sum(weight * column[:, 0] for weight, column in zip(weights, columns, strict=True))
        sums, sizes = np.repeat(sums, drawn), np.repeat(count, drawn)
        value = sums.sum() / sizes.sum()
        residual = sums - value * sizes
        n = len(residual)
        return value, float(np.sqrt(n / (n - 1) * (residual**2).sum())) / sizes.sum()

    value, se = ratio(np.ones(len(count), dtype=int))
    again = [ratio(drawn.astype(int)) for drawn in draws]
    t = sorted(abs(one - value) / max(error, bootstrap.FLOOR * se) for one, error in again)
    critical = t[int(np.ceil(0.95 * (len(t) + 1))) - 1]
    return value, value - critical * se, value + critical * se


def test_interval_is_the_one_of_a_plain_loop() -> None:
    baseline, variants, label = simulated(9, 2, seed=3)
    grouped = [totals.group_totals(each, label) for each in (baseline, *variants)]
    draws = np.concatenate(list(map(bootstrap.counted, bootstrap.drawn(9, 200, totals.SEED))))
    expected = plain_interval([each.sums for each in grouped], [0.5, -1.0, 0.5], grouped[0].count, draws)
    found = contrast(Sample.of([baseline, *variants], label, mean, resamples=200), {0: 0.5, 1: -1.0, 2: 0.5})
    assert (found.estimate, found.low, found.high) == pytest.approx(expected, rel=1e-9)


def test_numerical_gradient_gives_the_analytic_interval() -> None:
    baseline, variants, label = simulated(11, 1, seed=4)
    exact = difference(baseline, variants[0], label, mean)
    numeric = difference(baseline, variants[0], label, lambda sums, count: sums[..., 0] / count)
    assert (numeric.low, numeric.high) == pytest.approx((exact.low, exact.high), rel=1e-6)


def test_resampling_is_reproducible_and_even() -> None:
    once, again = (np.concatenate(list(bootstrap.drawn(10, 5000, 1))) for _ in range(2))
    assert np.array_equal(once, again)
    weights = bootstrap.counted(once)
    assert (weights.sum(axis=1) == 10).all()
    assert weights.mean(axis=0) == pytest.approx(1.0, abs=0.06)
    assert [np.bincount(groups, minlength=10).tolist() for groups in once[:3]] == weights[:3].tolist()
    assert once[:3].tolist() == next(bootstrap.drawn(10, 3, 1)).tolist()


def test_blocks_do_not_change_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    whole_draw = np.concatenate(list(bootstrap.drawn(10, 500, 1)))
    monkeypatch.setattr(bootstrap, "BLOCK", 70)
    assert np.array_equal(np.concatenate(list(bootstrap.drawn(10, 500, 1))), whole_draw)


def test_table_is_bit_reproducible() -> None:
    baseline, variants, label = simulated(12, 5, seed=6)
    assert table(Sample.of([baseline, *variants], label, mean), "max") == table(
        Sample.of([baseline, *variants], label, mean), "max"
    )


def test_direction_turns_the_sign() -> None:
    baseline, variants, label = simulated(12, 1, seed=6)
    (up,) = table(Sample.of([baseline, variants[0]], label, mean), "max")
    (down,) = table(Sample.of([baseline, variants[0]], label, mean), "min")
    assert up.drop == pytest.approx(whole(baseline, mean) - whole(variants[0], mean))
    assert (down.drop, down.ci_low, down.ci_high) == (-up.drop, -up.ci_high, -up.ci_low)


def test_rows_that_hardly_move_share_the_error_and_leave_plain_intervals_alone() -> None:
    """A shift that is the same in all groups, nothing at all, one group; without bounds they have no interval."""
    baseline, variants, label = simulated(12, 3, seed=8)
    alone = table(Sample.of([baseline, *variants], label, mean), "max")
    rare = baseline - 1e-6 * (label == 3)[:, None]
    columns = [baseline, *variants, baseline - 0.25, baseline, rare]
    beside = table(Sample.of(columns, label, mean, bounds=(-5.0, 5.0)), "max")
    for row, before in zip(beside, alone, strict=False):
        assert (row.drop, row.ci_low, row.ci_high) == (before.drop, before.ci_low, before.ci_high)
        assert row.sim_low < before.sim_low < before.sim_high < row.sim_high < 0.3
    for row, drop, apart in zip(beside[3:], (0.25, 0.0, 0.0), (0, 0, 1), strict=True):
        assert row.drop == pytest.approx(drop, abs=1e-6)
        assert row.few is not None
        assert (row.few.common, row.few.below, row.few.above) == (pytest.approx(drop, abs=1e-9), 0, apart)
        assert row.error == pytest.approx(0.025 / 6)
        assert -10 <= row.sim_low < row.ci_low < drop - 1 < drop + 1 < row.ci_high < row.sim_high <= 10
    unbounded = table(Sample.of(columns, label, mean), "max")
    assert [row.numbers for row in unbounded[:3]] == [row.numbers for row in alone], (
        "they take no share of the error"
    )
    for row in unbounded[3:]:
        assert (row.ci_low, row.ci_high, row.sim_low, row.sim_high) == (None,) * 4


def test_simultaneous_is_never_narrower_and_equals_the_plain_one_for_a_single_row() -> None:
    baseline, variants, label = simulated(12, 4, seed=10)
    rows = table(Sample.of([baseline, *variants], label, mean), "max")
    assert all(row.sim_low <= row.ci_low and row.ci_high <= row.sim_high for row in rows)
    (single,) = table(Sample.of([baseline, variants[0]], label, mean), "max")
    assert (single.sim_low, single.sim_high) == (single.ci_low, single.ci_high)


@pytest.mark.parametrize("groups", [1, 2, 7])
def test_fewer_than_eight_groups_have_no_interval(groups: int) -> None:
    label = np.arange(20) % groups
    scores = np.linspace(0, 1, 20)[:, None]
    assert interval(scores, label, mean) == intervals.Interval(0.5, None, None)
    (row,) = table(Sample.of([scores, scores * 0.5], label, mean), "max")
    assert row.drop == pytest.approx(0.25)
    assert (row.ci_low, row.ci_high, row.sim_low, row.sim_high) == (None, None, None, None)


def test_interval_of_one_checkpoint_agrees_with_student() -> None:
    """With 200 even groups of one normal sample the bootstrap-t interval is nearly Student's."""
    values = np.random.default_rng(2).normal(size=200)
    found = interval(values[:, None], np.arange(200), mean)
    low, high = scipy_stats.t.interval(0.95, 199, values.mean(), scipy_stats.sem(values))
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.01)


def test_contrast_of_one_row_is_its_drop() -> None:
    baseline, variants, label = simulated(12, 2, seed=11)
    sample = Sample.of([baseline, *variants], label, mean)
    rows = table(sample, "max")
    found = contrast(sample, verdicts.drop_form(2, "max"))
    assert (found.estimate, found.low, found.high) == (rows[1].drop, rows[1].ci_low, rows[1].ci_high)


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=12))
def test_seeds_interval_is_students(values: list[float]) -> None:
    found = seeds_interval(values)
    spread = float(np.std(values, ddof=1)) / np.sqrt(len(values))
    margin = scipy_stats.t.ppf(0.975, len(values) - 1) * spread
    assert found.estimate == pytest.approx(np.mean(values), abs=1e-9)
    assert (found.low, found.high) == pytest.approx(
        (np.mean(values) - margin, np.mean(values) + margin), rel=1e-9, abs=1e-9
    )


def test_one_seed_has_no_interval() -> None:
    assert seeds_interval([0.3]) == intervals.Interval(0.3, None, None)


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 7, 8, 30, 99])
def test_student_quantile(freedom: int) -> None:
    assert student_quantile(freedom) == pytest.approx(scipy_stats.t.ppf(0.975, freedom), rel=1e-10)


@given(st.data())
def test_group_totals_add_up(data: st.DataObject) -> None:
    label = np.array(data.draw(st.lists(st.integers(-3, 3), min_size=1, max_size=30)))
    values = np.arange(2.0 * len(label)).reshape(-1, 2)
    grouped = totals.group_totals(values, label)
    for place, group in enumerate(sorted(set(label.tolist()))):
        assert grouped.sums[place].tolist() == values[label == group].sum(axis=0).tolist()
        assert grouped.count[place] == (label == group).sum()


# Rows that are scored on some samples only ----------------------------------------------------------------------


def masked(scores: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Statistics (N, K) that are known for some samples (N,) only."""
    return np.where(there[:, None], scores, np.nan)


def of_every_group(label: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Some samples (N,), at least one of each group."""
    chosen = np.random.default_rng(seed).random(len(label)) < share
    chosen[np.unique(label, return_index=True)[1]] = True
    return chosen


@pytest.mark.parametrize("reduce", [mean, pooled_iou])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_row_on_some_samples_is_that_of_a_table_of_these_samples(reduce, share: float) -> None:
    """Where every group has some: a plain recomputation, on nothing but them, paired with the baseline there."""
    baseline, variants, label = simulated(12, 2, seed=21)
    if reduce is pooled_iou:
        baseline, variants = (np.concatenate([1 + each, 2 - each], axis=-1) for each in (baseline, variants))
    there = of_every_group(label, share, seed=2)
    partly = Sample.of([baseline, masked(baseline, there), masked(variants[0], there)], label, reduce)
    (row,) = table(partly, "max", [1])
    alone = Sample.of([baseline[there], variants[0][there]], label[there], reduce)
    (expected,) = table(alone, "max")
    for name, value in expected.numbers.items():
        if value is None:  # there is no tolerance
            assert getattr(row, name) is None
            continue
        assert getattr(row, name) == pytest.approx(value, rel=1e-9, abs=1e-12), name


def test_the_baselines_other_samples_have_no_say() -> None:
    baseline, variants, label = simulated(20, 1, seed=22)
    there = label < 10
    rows = []
    for elsewhere in (0.0, 1000.0):
        columns = [baseline, masked(baseline + np.where(there[:, None], 0, elsewhere), there)]
        (row,) = table(Sample.of([*columns, masked(variants[0], there)], label, mean), "max", [1])
        rows.append(row)
    assert rows[0] == rows[1]
    plain = (baseline - variants[0])[there].mean()
    assert rows[0].drop == pytest.approx(plain, rel=1e-12)


def test_rows_on_other_samples_leave_a_rows_plain_interval_alone() -> None:
    baseline, variants, label = simulated(20, 2, seed=23)
    there = label < 12
    alone = table(Sample.of([baseline, variants[0]], label, mean), "max")
    columns = [baseline, masked(baseline, there), variants[0], masked(variants[1], there)]
    beside = table(Sample.of(columns, label, mean), "max", [0, 1])
    for name in ("drop", "ci_low", "ci_high"):
        assert getattr(beside[0], name) == getattr(alone[0], name)
    assert beside[0].sim_low <= alone[0].sim_low
    assert all(row.sim_low <= row.ci_low and row.ci_high <= row.sim_high for row in beside)


@pytest.mark.parametrize("direction", ["max", "min"])
def test_directions_of_partial_rows(direction: str) -> None:
    baseline, variants, label = simulated(20, 1, seed=24)
    there = label % 2 == 0
    columns = [baseline, masked(baseline, there), masked(variants[0], there)]
    (row,) = table(Sample.of(columns, label, mean), direction, [1])
    drop = (baseline - variants[0])[there].mean()
    assert row.drop == pytest.approx(drop if direction == "max" else -drop, rel=1e-12)


@pytest.mark.parametrize("groups", [1, 7])
def test_too_few_groups_of_a_row_have_no_interval_whatever_the_table_has(groups: int) -> None:
    baseline, variants, label = simulated(20, 2, seed=25)
    there = label < groups
    columns = [baseline, masked(baseline, there), masked(variants[0], there), variants[1]]
    few, enough = table(Sample.of(columns, label, mean), "max", [1, 0])
    assert few.drop == pytest.approx((baseline - variants[0])[there].mean(), rel=1e-12)
    assert (few.ci_low, few.ci_high, few.sim_low, few.sim_high) == (None,) * 4
    assert (few.verdict, few.p_reusable) == ("undecided", None)
    assert [enough] == table(Sample.of([baseline, variants[1]], label, mean), "max")


@pytest.mark.parametrize(("groups", "scored"), [(12, 9), (30, 10), (40, 30)])
def test_the_plain_interval_of_a_row_on_some_groups_covers(groups: int, scored: int) -> None:
    """Samples arrive in random order, so that some groups have none yet."""
    count, covered = 400, 0
    for at in range(count):
        baseline, variants, label = simulated(groups, 1, seed=91_000 + at)
        there = np.isin(label, np.random.default_rng(at).permutation(groups)[:scored])
        columns = [baseline, masked(baseline, there), masked(variants[0], there)]
        (row,) = table(Sample.of(columns, label, mean, resamples=500), "max", [1])
        covered += row.ci_low <= 0.1 <= row.ci_high
    assert 0.92 <= covered / count <= 0.985


def test_simultaneous_intervals_cover_a_table_of_unequal_rows() -> None:
    count, covered = 200, 0
    for at in range(count):
        baseline, variants, label = simulated(20, 10, seed=95_000 + at)
        there = np.random.default_rng(at).permutation(20)[:12]
        some = np.isin(label, there)
        rows = [masked(each, some) if number % 2 else each for number, each in enumerate(variants)]
        columns = [baseline, masked(baseline, some), *rows]
        found = table(Sample.of(columns, label, mean, resamples=500), "max", [0, 1] * 5)
        covered += all(row.sim_low <= 0.1 <= row.sim_high for row in found)
    assert covered / count >= 0.92


def test_which_samples_are_scored() -> None:
    scores = np.array([[1.0, 2.0], [np.nan, np.nan], [0.0, np.nan], [np.inf, 0.0]])
    assert totals.scored(scores).tolist() == [True, False, False, True]
    assert totals.whole(np.array([[1.0], [np.nan], [3.0]]), mean) == 2.0
    grouped = totals.group_totals(np.array([[1.0], [np.nan], [3.0]]), np.array([5, 6, 5]))
    assert (grouped.sums.tolist(), grouped.count.tolist()) == ([[4.0], [0.0]], [2.0, 0.0])
    sample = Sample.of([np.ones((3, 1)), np.array([[1.0], [np.nan], [3.0]])], np.array([5, 6, 5]), mean)
    assert [sample.groups_of({0: 1.0}), sample.groups_of({0: 1.0, 1: -1.0})] == [2, 1]


def test_p_values_of_a_contrast_are_those_of_a_t_test() -> None:
    """Of 60 normal groups, where the bootstrap has nothing to mend; both sides, below and above the estimate."""
    columns = np.random.default_rng(4).normal([0.9, 0.7, 0.6], 0.1, (60, 3)).T[..., None]
    sample, form = Sample.of(list(columns), np.arange(60), mean), {0: 1.0, 1: -0.5, 2: -0.5}
    values = columns[0, :, 0] - columns[1:, :, 0].mean(axis=0)
    for bound in (0.2, 0.25, 0.28):
        below, above = verdicts.tails(sample, form, bound)
        for found, side in ((below, "less"), (above, "greater")):
            assert found == pytest.approx(
                scipy_stats.ttest_1samp(values, bound, alternative=side).pvalue, abs=0.01
            )


def test_p_values_of_what_never_moved_are_those_of_the_exact_bound() -> None:
    """(1 − 0.2)^16 of all draws would hide that a fifth of all groups breaks."""
    still = Sample.of([np.ones((16, 1))] * 2, np.arange(16), mean, bounds=(0.0, 1.0))
    assert verdicts.tails(still, {0: 1.0, 1: -1.0}, 0.2) == (pytest.approx(0.8**16), 1.0)
    assert verdicts.tails(still, {0: 1.0, 1: -1.0}, 0.0) == (1.0, 1.0)
    assert verdicts.tails(Sample.of([np.ones((7, 1))] * 2, np.arange(7), mean), {0: 1.0, 1: -1.0}, 0.2) == (
        None,
        None,
    )


def test_a_jackknife_of_a_mean_is_the_mean_itself() -> None:
    """Pseudo-values of a mean are the scores of groups of one size; also where some are missing."""
    scores, groups = np.random.default_rng(0).normal(size=(30, 1)), np.arange(30) // 2
    scores[8:12] = np.nan
    of_set = Sample.of([scores], groups, totals.OfSet(lambda own: float(own.mean())), bounds=(0.0, 1.0))
    plain = Sample.of([scores], groups, mean)
    there = plain.columns[0].count > 0
    np.testing.assert_array_equal(of_set.columns[0].count > 0, there)
    np.testing.assert_allclose(of_set.values[0][there], plain.values[0][there], atol=1e-12)
    assert of_set.bounds == totals.UNBOUNDED, "no bound holds for pseudo-values"


def test_a_jackknifes_error_is_that_of_theory() -> None:
    """Of a correlation of normal values (1 - r²) / √n (Fisher); many groups are left out some at a time."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(2000, 2)) @ np.array([[1.0, 0.6], [0.0, 0.8]])
    value = totals.OfSet(lambda own: float(np.corrcoef(own.T)[0, 1]))
    sample = Sample.of([x], np.arange(2000), value)
    assert sample.groups == 64
    effect = bootstrap.effects(sample, [{0: 1.0}])
    assert effect.estimate[0] == pytest.approx(np.corrcoef(x.T)[0, 1])
    assert effect.se[0] == pytest.approx((1 - 0.6**2) / np.sqrt(2000), rel=0.25)


def test_a_set_that_has_no_value_without_a_group_has_no_interval() -> None:
    scores = np.r_[np.zeros(15), 1.0][:, None]
    value = totals.OfSet(lambda own: float(own.mean()) if own.any() else np.nan)
    assert interval(scores, np.arange(16), value) == Interval(1 / 16, None, None)
