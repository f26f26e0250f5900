"""What checkpoints score by, summed within groups: the sample that everything here resamples. numpy only.

A sample gives K sufficient statistics (a score; or true positives, false positives, …). Summed over samples they
make a checkpoint's value through a metric's `reduce(sums, count)`, a smooth function that does not change when
every sample is counted twice. Samples of one group resemble each other, so whole groups are resampled, the same
groups for every checkpoint (paired).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ckptswap.statistics.exact import LEAST_MOVED, Few, common_of
from ckptswap.statistics.jackknife import Value, pseudo_values


@dataclass(frozen=True)
class OfSet:
    """How statistics (N, K) become a value that only a whole set has, NaN where there is none."""

    value: Value


Reduce = Callable[[np.ndarray, np.ndarray], np.ndarray]  # sums (..., K) and count (...) → values (...)
Reduction = Reduce | OfSet
Bounds = tuple[float, float]  # between which every value lies; infinite where there is no bound

Form = Mapping[int, float]  # column → weight: the linear combination Σ weight × value

UNBOUNDED = (-math.inf, math.inf)
RESAMPLES, DRAWS = 4000, 40_000  # for intervals; for p-values
SEED = 20080341  # fixed, so that the same scores always give the same table
NEGLIGIBLE = 1e-9
"""A standard error below this share of the values themselves is rounding: the row counts as without spread."""
STEP = float(np.cbrt(np.finfo(float).eps))
"""Relative step of a central difference (truncation and rounding balance there)."""


@dataclass(frozen=True)
class Totals:
    """Sufficient statistics summed within groups: sums (G, K), count (G,)."""

    sums: np.ndarray
    count: np.ndarray


def mean(sums: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Reduce the sums (…, 1) of a metric that is a mean over samples.

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


def _pseudo_totals(statistics: np.ndarray, groups: np.ndarray, value: Value) -> Totals:
    values, known = pseudo_values(statistics, scored(statistics), groups, value)
    return Totals(values[:, None], known.astype(float))


def whole(statistics: np.ndarray, reduce: Reduction) -> float:
    """The value over all samples that were scored, of (N, K) statistics."""
    there = statistics[scored(statistics)]
    if isinstance(reduce, OfSet):
        return reduce.value(there)
    return float(reduce(there.sum(axis=0), np.array(float(len(there)))))


@dataclass(frozen=True)
class Sample:
    """Per-group sums of several checkpoints, which may be scored on different samples of the same groups.

    `bounds` are those of a value. Where `is_successive`, standard errors are those of groups that stand in an
    order (`neighbours`).
    """

    columns: Sequence[Totals]
    reduce: Reduce
    resamples: int = RESAMPLES
    draws: int = DRAWS
    seed: int = SEED
    bounds: Bounds = UNBOUNDED
    is_successive: bool = False

    @classmethod
    def of(cls, statistics: Sequence[np.ndarray], groups: np.ndarray, reduce: Reduction, **how: Any) -> "Sample":
        """From each checkpoint's per-sample statistics (N, K), NaN where not scored, and the groups (N,).

        For a value of the set the groups are those of the jackknife, each with its pseudo-value, which no bound
        holds for.
        """
        if isinstance(reduce, OfSet):
            columns = [_pseudo_totals(own, groups, reduce.value) for own in statistics]
            return cls(columns, mean, **{**how, "bounds": UNBOUNDED})
        return cls([group_totals(own, groups) for own in statistics], reduce, **how)

    @property
    def groups(self) -> int:
        return len(self.columns[0].count)

    def groups_of(self, form: Form) -> int:
        """How many groups there are something of in every column of a linear combination."""
        return min(int(np.count_nonzero(self.columns[column].count)) for column in form)

    def largest_share(self, form: Form) -> float:
        """Of all samples of a linear combination, the most that one group has."""
        counts = [self.columns[column].count for column in form]
        return max(float(count.max() / count.sum()) for count in counts)

    def is_there(self, form: Form) -> np.ndarray:
        """Which groups (G,) there is something of in every column of a linear combination."""
        return np.all([self.columns[column].count > 0 for column in form], axis=0)

    @cached_property
    def values(self) -> np.ndarray:
        """Each column's value of each group alone (C, G), NaN where a group has nothing."""
        with np.errstate(invalid="ignore", divide="ignore"):
            values = [(column.count > 0, self.reduce(column.sums, column.count)) for column in self.columns]
        return np.array([np.where(there, value, np.nan) for there, value in values])

    @cached_property
    def range(self) -> Bounds:
        """Between which every value lies; nothing where the bounds that were declared do not hold."""
        low, high = self.bounds
        slack = NEGLIGIBLE * max(abs(low), abs(high)) if math.isfinite(high - low) else 0.0
        hold = np.nanmin(self.values) >= low - slack and np.nanmax(self.values) <= high + slack
        return self.bounds if hold else UNBOUNDED

    @cached_property
    def step(self) -> float | None:
        """By how much a group's value changes at least, where each is of one sample and lies at one bound or the
        other, as answers do that are right or wrong; else None."""
        there = self.values[~np.isnan(self.values)]
        low, high = self.bounds
        are_ones = all((column.count <= 1).all() for column in self.columns)
        is_mean_of_two = self.reduce is mean and math.isfinite(high - low) and np.isin(there, self.bounds).all()
        return high - low if is_mean_of_two and are_ones else None

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
        combined = np.sum(parts, axis=0)
        combined = combined[~np.isnan(combined)]
        slack = NEGLIGIBLE * max(float(np.nanmax(np.abs(part))) for part in parts)
        common, below, above = common_of(combined, slack)
        if below + above >= LEAST_MOVED:
            return None
        low, high = self.range_of(form) if self.reduce is mean else UNBOUNDED
        seen = float(combined.min()), float(combined.max())
        return Few(common, below, above, len(combined), low, high, self.weight_of(form), *seen)

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
        sums = weights @ totals.sums
        count = weights @ totals.count
        with np.errstate(invalid="ignore", divide="ignore"):  # a resample may have none of a column's samples
            slope = gradient(self.reduce, sums, count, self.scales[column])
            share = np.einsum("rk,rk->r", slope, sums) / count
            moved = slope @ totals.sums.T
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
