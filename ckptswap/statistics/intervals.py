"""How sure we are: studentised cluster bootstrap, simultaneous intervals, verdicts. numpy only.

A sample gives K sufficient statistics (a score; or true positives, false positives, …). Summed over samples they
make a checkpoint's value through a metric's `reduce(sums, count)`, a smooth function that does not change when
every sample is counted twice. Samples of one group resemble each other, so whole groups are resampled, the same
groups for every checkpoint (paired).

Each resample is studentised: t* = (θ* − θ) / se*, with θ a linear combination of values and se its linearised
cluster standard error, computed anew in every resample. The 95 % interval is θ ± c·se, where c is the 95 %
quantile of |t*| (symmetric bootstrap-t), or, for a whole table at once, of the largest |t*| of all its rows. What
moves in fewer than 5 groups has an exact bound instead (`sweep.exact`; docs/method.md tells the levels).

Sources: Davison & Hinkley, Bootstrap Methods and their Application (1997), ch. 2 and 5 (studentised intervals,
linearised variance); Cameron, Gelbach & Miller, Rev. Econ. Stat. 90 (2008) 414 (bootstrap-t when clusters are
few); Westfall & Young, Resampling-Based Multiple Testing (1993) (max-T).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ckptswap.statistics import Verdict
from ckptswap.statistics.exact import LEAST_MOVED, Few, common_of, ends_of_two

Reduce = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""sums (..., K) and count (...) → values (...)."""
Bounds = tuple[float, float]
"""Between which every value lies; infinite where there is no bound."""

LEVEL = 0.95
UNBOUNDED = (-math.inf, math.inf)
LEAST_GROUPS = 8
"""With fewer groups there is no interval: a bootstrap of so few covers far too little."""
RESAMPLES = 4000
SEED = 20080341
"""Fixed, so that the same scores always give the same table."""
FLOOR = 0.2
"""A resample's standard error counts as at least this share of the sample's. A resample may hold next to none of
the groups that moved, and its huge t* would widen the whole table's intervals.
By simulation (8–50 groups, normal and lognormal rows, rare events) 0.2 keeps the coverage; 0.5 loses it."""
BLOCK = 1 << 18
"""Resample weights held at once: 2 MB, so that they stay in a core's cache whatever the number of groups."""
NEGLIGIBLE = 1e-9
"""A standard error below this share of the values themselves is rounding: the row counts as without spread."""
STEP = float(np.cbrt(np.finfo(float).eps))
"""Relative step of a central difference (truncation and rounding balance there)."""


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval; none (None) with fewer than 8 groups, or where nothing bounds it."""

    estimate: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class RowIntervals:
    """A drop with its plain and its simultaneous interval; `few` where too few groups moved to be resampled, and
    `error` then how often each end of the simultaneous one may be wrong."""

    drop: float
    ci_low: float | None = None
    ci_high: float | None = None
    sim_low: float | None = None
    sim_high: float | None = None
    few: Few | None = None
    error: float = 0.0

    @property
    def numbers(self) -> dict[str, Any]:
        """The drop and the four ends, by name."""
        return {name: getattr(self, name) for name in ("drop", "ci_low", "ci_high", "sim_low", "sim_high")}


@dataclass(frozen=True)
class Totals:
    """Sufficient statistics summed within groups: sums (G, K), count (G,)."""

    sums: np.ndarray
    count: np.ndarray


def mean(sums: np.ndarray, count: np.ndarray) -> np.ndarray:
    """The `reduce` of a metric that is a mean over samples (K = 1).

    >>> float(mean(np.array([3.0]), np.array(4)))
    0.75
    """
    return sums[..., 0] / count


def scored(statistics: np.ndarray) -> np.ndarray:
    """Which samples were scored (N,): the others' statistics are NaN.

    >>> scored(np.array([[1.0], [np.nan]])).tolist()
    [True, False]
    """
    return ~np.isnan(statistics).any(axis=1)


def group_totals(statistics: np.ndarray, groups: np.ndarray) -> Totals:
    """Sums within groups of (N, K) per-sample statistics, groups in ascending order of their number.

    Samples that were not scored (NaN) do not count; a group may have none that were.

    >>> totals = group_totals(np.array([[1.0], [2.0], [4.0], [np.nan]]), np.array([7, 7, 3, 3]))
    >>> totals.sums.tolist(), totals.count.tolist()
    ([[4.0], [3.0]], [1.0, 2.0])
    """
    labels, place = np.unique(groups, return_inverse=True)
    there = scored(statistics)
    sums = np.zeros((len(labels), statistics.shape[1]))
    np.add.at(sums, place[there], statistics[there])
    return Totals(sums, np.bincount(place[there], minlength=len(labels)).astype(float))


def whole(statistics: np.ndarray, reduce: Reduce) -> float:
    """The value over all samples that were scored, of (N, K) statistics."""
    there = statistics[scored(statistics)]
    return float(reduce(there.sum(axis=0), np.array(float(len(there)))))


@dataclass(frozen=True)
class Sample:
    """Per-group sums of several checkpoints, which may be scored on different samples of the same groups.

    `bounds` are those of a value.
    """

    columns: Sequence[Totals]
    reduce: Reduce
    resamples: int = RESAMPLES
    seed: int = SEED
    bounds: Bounds = UNBOUNDED

    @classmethod
    def of(
        cls,
        statistics: Sequence[np.ndarray],
        groups: np.ndarray,
        reduce: Reduce,
        *,
        resamples: int = RESAMPLES,
        seed: int = SEED,
        bounds: Bounds = UNBOUNDED,
    ) -> Sample:
        """From each checkpoint's per-sample statistics (N, K), NaN where not scored, and the groups (N,)."""
        return cls([group_totals(each, groups) for each in statistics], reduce, resamples, seed, bounds)

    @property
    def groups(self) -> int:
        return len(self.columns[0].count)

    def groups_of(self, form: Form) -> int:
        """How many groups there are something of in every column of a linear combination."""
        return min(int(np.count_nonzero(self.columns[column].count)) for column in form)

    @cached_property
    def values(self) -> np.ndarray:
        """Each column's value of each group alone (C, G), NaN where a group has nothing."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.array(
                [np.where(each.count > 0, self.reduce(each.sums, each.count), np.nan) for each in self.columns]
            )

    @cached_property
    def range(self) -> Bounds:
        """Between which every value lies; nothing where the bounds that were declared do not hold."""
        low, high = self.bounds
        slack = NEGLIGIBLE * max(abs(low), abs(high)) if math.isfinite(high - low) else 0.0
        hold = np.nanmin(self.values) >= low - slack and np.nanmax(self.values) <= high + slack
        return self.bounds if hold else UNBOUNDED

    def range_of(self, form: Form) -> Bounds:
        """Between which a linear combination lies, whatever is drawn."""
        low, high = self.range
        ends = [(weight * low, weight * high) for weight in form.values() if weight]
        return sum(map(min, ends), start=0.0), sum(map(max, ends), start=0.0)

    def few(self, form: Form) -> Few | None:
        """How a linear combination lies in the groups where it is the same in all but fewer than 5 of them.

        Only a mean over samples has a largest loss by one group: of pooled counts, one group may outweigh all.
        """
        form = {column: weight for column, weight in form.items() if weight}
        if not form:
            return None
        parts = [weight * self.values[column] for column, weight in form.items()]
        each = np.sum(parts, axis=0)
        each = each[~np.isnan(each)]
        slack = NEGLIGIBLE * max(float(np.nanmax(np.abs(part))) for part in parts)
        common, below, above = common_of(each, slack)
        if below + above >= LEAST_MOVED:
            return None
        low, high = self.range_of(form) if self.reduce is mean else UNBOUNDED
        seen = float(each.min()), float(each.max())
        return Few(common, below, above, len(each), low, high, self.weight_of(form), *seen)

    def weight_of(self, form: Form) -> float:
        """How much more than the mean group the largest weighs in a linear combination, 1 where all are alike."""
        counts = [self.columns[column].count for column in form]
        return max(float(count.max() / count[count > 0].mean()) for count in counts)

    @cached_property
    def scales(self) -> list[np.ndarray]:
        """Per column (K,): how large each statistic is, for the step of a derivative where its sum is zero."""
        return [np.abs(column.sums).sum(axis=0) for column in self.columns]

    def influence(self, column: int, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of weighted groups (R, G): one column's value (R,), and how it moves with each group (R, G).

        The derivative by the count follows from those by the sums (Euler's identity: the value does not change
        when everything is counted twice), which makes the influences of a resample add up to zero.
        """
        totals = self.columns[column]
        sums = np.einsum("rg,gk->rk", weights, totals.sums)
        count = weights @ totals.count
        with np.errstate(invalid="ignore", divide="ignore"):  # a resample may have none of a column's samples
            slope = gradient(self.reduce, sums, count, self.scales[column])
            share = np.einsum("rk,rk->r", slope, sums) / count
            moved = np.einsum("rk,gk->rg", slope, totals.sums)
            moved -= share[:, None] * totals.count
            return self.reduce(sums, count), moved


def gradient(reduce: Reduce, sums: np.ndarray, count: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """∂ value / ∂ sums (R, K): exact for a mean, else by central differences.

    >>> gradient(mean, np.array([[3.0]]), np.array([4.0]), np.array([3.0])).tolist()
    [[0.25]]
    """
    if reduce is mean:
        return 1 / count[:, None]
    slopes = np.empty_like(sums)
    for k in range(sums.shape[1]):
        size = np.where(sums[:, k] != 0, np.abs(sums[:, k]), scale[k])
        step = STEP * np.where(size > 0, size, 1.0)
        up, down = sums.copy(), sums.copy()
        up[:, k] += step
        down[:, k] -= step
        slopes[:, k] = (reduce(up, count) - reduce(down, count)) / (up[:, k] - down[:, k])
    return slopes


@dataclass(frozen=True)
class Effects:
    """Linear combinations of values: estimate (F,), cluster standard error (F,), |t*| (F, resamples).

    `se` is exactly 0 where all groups agree (but for rounding); |t*| is 0 there.
    """

    estimate: np.ndarray
    se: np.ndarray
    t: np.ndarray

    def critical(self) -> np.ndarray:
        """Each form's own critical value (F,)."""
        return _upper(self.t, LEVEL)

    def critical_of_all(self, level: float = LEVEL) -> float:
        """One critical value for all forms at once (max-T); forms without spread have no say."""
        spread = self.t[self.se > 0]
        return float(_upper(spread.max(axis=0), level)) if len(spread) else 0.0


Form = Mapping[int, float]
"""Column → weight: the linear combination Σ weight × value."""


def effects(sample: Sample, forms: Sequence[Form]) -> Effects:
    """Estimates, standard errors and studentised resamples of linear combinations of values."""
    ones = np.ones((1, sample.groups))
    estimate, variance, scale = (column[:, 0] for column in _moments(sample, forms, ones))
    se = np.where(variance > (NEGLIGIBLE * scale) ** 2, np.sqrt(variance), 0.0)
    t = np.empty((len(forms), sample.resamples))
    done = 0
    for weights in resampled(sample.groups, sample.resamples, sample.seed):
        here = slice(done, done + len(weights))
        again, spread, _ = _moments(sample, forms, weights)
        least = np.maximum(np.sqrt(spread), FLOOR * se[:, None])
        with np.errstate(invalid="ignore", divide="ignore"):
            found = np.where(se[:, None] > 0, np.abs(again - estimate[:, None]) / least, 0.0)
        t[:, here] = np.where(np.isnan(found), np.inf, found)  # a resample without a sample of some column
        done = here.stop
    return Effects(estimate, se, t)


def resampled(groups: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each group was drawn, in blocks of (≤ resamples, groups).

    Taken from the raw output of PCG64, a stream that numpy promises never to change.
    """
    stream = np.random.PCG64(seed)
    block = max(1, BLOCK // groups)
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        drawn = (stream.random_raw(rows * groups) % np.uint64(groups)).astype(np.int64)
        drawn += np.repeat(np.arange(rows) * groups, groups)
        yield np.bincount(drawn, minlength=rows * groups).reshape(rows, groups).astype(float)


def _moments(
    sample: Sample, forms: Sequence[Form], weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per form and resample (F, R): estimate, linearised cluster variance, and size of what was subtracted."""
    estimate, variance, scale = (np.zeros((len(forms), len(weights))) for _ in range(3))
    often = {column for column, number in Counter(each for form in forms for each in form).items() if number > 1}
    shared = {column: sample.influence(column, weights) for column in sorted(often)}
    for row, form in enumerate(forms):
        groups, moved = sample.groups_of(form), np.zeros_like(weights)
        correction = groups / (groups - 1) if groups > 1 else math.nan
        for column, weight in form.items():
            value, influence = shared[column] if column in shared else sample.influence(column, weights)
            estimate[row] += weight * value
            moved += weight * influence
            scale[row] = np.maximum(scale[row], abs(weight) * np.abs(value))
        variance[row] = correction * np.einsum("rg,rg,rg->r", weights, moved, moved)
    return estimate, variance, scale


def _upper(values: np.ndarray, level: float) -> np.ndarray:
    """The order statistic that bounds the level from above (Davison & Hinkley, eq. 2.10), along the last axis."""
    place = min(math.ceil(level * (values.shape[-1] + 1)), values.shape[-1]) - 1
    return np.partition(values, place, axis=-1)[..., place]


def value_of(sample: Sample, form: Form) -> float:
    """A linear combination of values, without an interval.

    >>> value_of(Sample.of([np.ones((2, 1)), np.zeros((2, 1))], np.arange(2), mean), {0: 2.0, 1: 1.0})
    2.0
    """
    return float(_moments(sample, [form], np.ones((1, sample.groups)))[0][0, 0])


def contrast(sample: Sample, form: Form) -> Interval:
    """A linear combination of values, Σ weight × value of column, with its plain paired interval.

    >>> a, b = np.linspace(0, 0.4, 8)[:, None], np.linspace(0.2, 1, 8)[:, None]
    >>> found = contrast(Sample.of([a, b], np.arange(8), mean), {1: 1.0, 0: -1.0})
    >>> [round(each, 2) for each in (found.low, found.estimate, found.high)]
    [0.27, 0.4, 0.53]
    """
    if sample.groups_of(form) < LEAST_GROUPS:
        return Interval(value_of(sample, form), None, None)
    few = sample.few(form)
    if few is not None:
        return Interval(value_of(sample, form), *_ends(few, (1 - LEVEL) / 2))
    found = effects(sample, [form])
    estimate, margin = float(found.estimate[0]), float((found.critical() * found.se)[0])
    return Interval(estimate, *_cut(estimate, margin, sample.range_of(form)))


def _ends(few: Few, error: float) -> tuple[float | None, float | None]:
    return few.ends(error) if few.is_bounded else (None, None)


def _cut(estimate: float, margin: float, bounds: Bounds) -> tuple[float, float]:
    """Both ends, as far as there can be such values."""
    return max(estimate - margin, bounds[0]), min(estimate + margin, bounds[1])


def interval(statistics: np.ndarray, groups: np.ndarray, reduce: Reduce, **how: Any) -> Interval:
    """The value of one checkpoint from (N, K) statistics, with its interval over groups.

    >>> interval(np.ones((16, 1)), np.arange(16), mean, bounds=(0.0, 1.0))
    Interval(estimate=1.0, low=0.7940..., high=1.0)
    """
    sample, form = Sample.of([statistics], groups, reduce, **how), {0: 1.0}
    even = reduce is mean and sample.groups_of(form) >= LEAST_GROUPS and sample.weight_of(form) == 1
    ends = ends_of_two(sample.values[0], sample.bounds, (1 - LEVEL) / 2) if even else None
    return Interval(value_of(sample, form), *ends) if ends else contrast(sample, form)


def difference(a: np.ndarray, b: np.ndarray, groups: np.ndarray, reduce: Reduce, **how: Any) -> Interval:
    """Value of A − value of B on the same samples, with its paired interval.

    >>> difference(np.ones((9, 1)), np.zeros((9, 1)), np.arange(9), mean, bounds=(0.0, 1.0))
    Interval(estimate=1.0, low=0.3274..., high=1.0)
    """
    return contrast(Sample.of([a, b], groups, reduce, **how), {0: 1.0, 1: -1.0})


def drop_form(column: int, direction: str, baseline: int = 0) -> Form:
    """The drop of a variant (a column) from the baseline (column 0): positive is worse.

    >>> drop_form(3, "max"), drop_form(3, "min")
    ({0: 1.0, 3: -1.0}, {0: -1.0, 3: 1.0})
    """
    sign = 1.0 if direction == "max" else -1.0
    return {baseline: sign, column: -sign}


def table(sample: Sample, direction: str, baselines: Sequence[int] | None = None) -> list[RowIntervals]:
    """The drops of variants, with plain intervals and intervals that hold all at once (95 %).

    `baselines[j]` is the column that the `j`-th variant is paired with, variants being the last columns; without
    it column 0 is the baseline of columns 1…. A row with fewer than 8 groups has no interval. All others share the
    simultaneous intervals' error evenly, those that moved in too few groups to be resampled each by itself.
    """
    paired = baselines if baselines is not None else [0] * (len(sample.columns) - 1)
    first = len(sample.columns) - len(paired)
    forms = [drop_form(first + at, direction, baseline) for at, baseline in enumerate(paired)]
    told = [at for at, form in enumerate(forms) if sample.groups_of(form) >= LEAST_GROUPS]
    few = {at: found for at in told if (found := sample.few(forms[at]))}
    spread = [at for at in told if at not in few]
    error = (1 - LEVEL) / max(len(spread) + sum(each.is_bounded for each in few.values()), 1)
    level = 1 - error * len(spread) if few else LEVEL
    rows = dict(zip(spread, _rows(sample, [forms[at] for at in spread], level), strict=True))
    rows |= {at: _few_row(value_of(sample, forms[at]), each, error / 2) for at, each in few.items()}
    return [rows.get(at) or RowIntervals(value_of(sample, form)) for at, form in enumerate(forms)]


def _rows(sample: Sample, forms: Sequence[Form], level: float) -> Iterator[RowIntervals]:
    if not forms:
        return
    found = effects(sample, forms)
    plain = found.critical() * found.se
    simultaneous = found.critical_of_all(level) * found.se
    for at, drop in enumerate(found.estimate.tolist()):
        bounds = sample.range_of(forms[at])
        near, far = (_cut(drop, float(margin[at]), bounds) for margin in (plain, simultaneous))
        yield RowIntervals(drop, *near, *far)


def _few_row(drop: float, few: Few, error: float) -> RowIntervals:
    return RowIntervals(drop, *_ends(few, (1 - LEVEL) / 2), *_ends(few, error), few, error)


def verdict(low: float | None, high: float | None, tolerance: float) -> Verdict:
    """Whether an interval of the drop lies wholly below the tolerance, wholly above it, or neither.

    >>> verdict(-0.01, 0.004, 0.005), verdict(0.1, 0.2, 0.005), verdict(0.0, 0.1, 0.005), verdict(None, None, 1)
    ('reusable', 'sensitive', 'undecided', 'undecided')
    """
    if low is not None and low > tolerance:
        return "sensitive"
    if high is not None and high < tolerance:
        return "reusable"
    return "undecided"
