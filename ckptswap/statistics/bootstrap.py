"""The studentised cluster bootstrap. numpy only.

Each resample is studentised: t* = (θ* − θ) / se*, with θ a linear combination of values and se its linearised
cluster standard error, computed anew in every resample.

Sources: Davison & Hinkley, Bootstrap Methods and their Application (1997), ch. 2 and 5 (studentised intervals,
linearised variance); Cameron, Gelbach & Miller, Rev. Econ. Stat. 90 (2008) 414 (bootstrap-t when clusters are
few); Westfall & Young, Resampling-Based Multiple Testing (1993) (max-T).
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ckptswap.statistics.neighbours import lag_one, squared_steps, successive_variance
from ckptswap.statistics.totals import NEGLIGIBLE, Form, Sample, mean

LEVEL = 0.95
FLOOR = 0.2
"""A resample's standard error counts as at least this share of the sample's. A resample may hold next to none of
the groups that moved, and its huge t* would widen the whole table's intervals.
By simulation (8–50 groups, normal and lognormal rows, rare events) 0.2 keeps the coverage; 0.5 loses it."""
BLOCK = 1 << 18
"""Resamples' weights, or values of all forms, held at once: 2 MB, so that they stay in a core's cache."""

Moments = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Groups as they were drawn (R, G) → deviation from the estimate and variance (F, R)."""


@dataclass(frozen=True)
class Effects:
    """Linear combinations of values: estimate (F,), cluster standard error (F,), t* (F, resamples).

    `se` is exactly 0 where all groups agree (but for rounding); t* is 0 there, and NaN where a resample has
    nothing of some column.
    """

    estimate: np.ndarray
    se: np.ndarray
    t: np.ndarray

    def of(self, rows: slice) -> "Effects":
        """Those of some of the forms."""
        return Effects(self.estimate[rows], self.se[rows], self.t[rows])

    def critical(self) -> np.ndarray:
        """Each form's own critical value of |t*| (F,)."""
        return upper(self._size, LEVEL)

    def largest(self) -> np.ndarray:
        """The largest |t*| of all forms (resamples,), by which all are held at once (max-T); those without spread
        have no say."""
        return self._size[self.se > 0].max(axis=0, initial=0.0)

    @property
    def _size(self) -> np.ndarray:
        return unknown_as_large(np.abs(self.t))


def unknown_as_large(values: np.ndarray) -> np.ndarray:
    """The values, infinite where there is none (NaN)."""
    return np.where(np.isnan(values), np.inf, values)


def effects(sample: Sample, forms: Sequence[Form], resamples: int | None = None) -> Effects:
    """Estimates, standard errors and studentised resamples (default: the sample's number) of linear combinations
    of values. More resamples begin with the same ones."""
    resamples = sample.resamples if resamples is None else resamples
    in_order = np.arange(sample.groups)[None]
    estimate, variance, scale = (column[:, 0] for column in _moments(sample, forms, in_order))
    se = np.where(variance > (NEGLIGIBLE * scale) ** 2, np.sqrt(variance), 0.0)
    moments = _moments_of_means(sample, forms, estimate) or _moments_of_any(sample, forms, estimate)
    t, done = np.empty((len(forms), resamples)), 0
    for order in drawn(sample.groups, resamples, sample.seed, len(forms)):
        apart, spread = moments(order)
        least = np.sqrt(np.maximum(spread, 0.0, out=spread), out=spread)
        np.maximum(least, FLOOR * se[:, None], out=least)
        with np.errstate(invalid="ignore", divide="ignore"):
            np.divide(apart, least, out=t[:, done : done + len(order)])
        done += len(order)
    t[se == 0] = 0.0
    return Effects(estimate, se, t)


def drawn(groups: int, resamples: int, seed: int, forms: int = 1) -> Iterator[np.ndarray]:
    """Which groups were drawn, in their order, in blocks of (≤ resamples, groups), for so many forms.

    Taken from the raw output of PCG64, a stream that numpy promises never to change.
    """
    stream = np.random.PCG64(seed)
    block = max(1, BLOCK // max(groups, forms))
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        raw = stream.random_raw(rows * groups)
        raw -= raw // np.uint64(groups) * np.uint64(groups)  # the remainder, for which numpy's own takes longer
        yield raw.view(np.int64).reshape(rows, groups)


def counted(order: np.ndarray) -> np.ndarray:
    """How often each group was drawn (R, G).

    >>> counted(np.array([[0, 2, 2]])).tolist()
    [[1.0, 0.0, 2.0]]
    """
    rows, groups = order.shape
    own = order + np.arange(rows)[:, None] * groups
    return np.bincount(own.ravel(), minlength=rows * groups).reshape(rows, groups).astype(float)


def _moments_of_any(sample: Sample, forms: Sequence[Form], estimate: np.ndarray) -> Moments:
    def moments(order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        again, variance, _ = _moments(sample, forms, order)
        return again - estimate[:, None], variance

    return moments


def _moments_of_means(sample: Sample, forms: Sequence[Form], estimate: np.ndarray) -> Moments | None:
    """Where every form is of means over the same samples: value and variance are then made of sums over groups, a
    matrix product each. Else None."""
    columns = [[sample.columns[column] for column in form] for form in forms]
    alike = all(np.array_equal(column.count, own[0].count) for own in columns for column in own)
    if sample.reduce is not mean or not alike:
        return None
    sizes = np.array([own[0].count for own in columns])
    residual = -estimate[:, None] * sizes
    for row, form in enumerate(forms):
        residual[row] += sum(weight * sample.columns[column].sums[:, 0] for column, weight in form.items())
    groups = np.count_nonzero(sizes, axis=1)
    correction = np.where(groups > 1, groups / np.maximum(groups - 1, 1), math.nan)[:, None]
    if sample.is_successive:
        return _moments_in_order(residual, sizes, correction / 2)
    different, place = np.unique(sizes, axis=0, return_inverse=True)
    place = place.reshape(-1)
    squares, crossed, largest = residual**2, residual * sizes, sizes.max(axis=1, keepdims=True)
    is_even = bool(((sizes == 0) | (sizes == largest)).all())

    def moments(order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        weights = counted(order).T
        size, apart = (different @ weights)[place], residual @ weights
        cross = largest * apart if is_even else crossed @ weights
        with np.errstate(invalid="ignore", divide="ignore"):  # a resample may have none of a row's samples
            apart = apart / size
            spread = squares @ weights - apart * (2 * cross - apart * (different**2 @ weights)[place])
            return apart, correction * spread / size**2

    return moments


def _moments_in_order(residual: np.ndarray, sizes: np.ndarray, correction: np.ndarray) -> Moments | None:
    """The same of groups that stand in an order, where all have the same samples in every row; else None."""
    size = sizes[0, 0]
    if size == 0 or (sizes != size).any():
        return None
    whole = size * sizes.shape[1]

    def moments(order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        apart = residual @ counted(order).T / whole
        return apart, correction * squared_steps(residual, order) / whole**2

    return moments


def _moments(
    sample: Sample, forms: Sequence[Form], order: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per form and resample (F, R): estimate, linearised cluster variance, and size of what was subtracted."""
    weights = counted(order)
    estimate, variance, scale = (np.zeros((len(forms), len(weights))) for _ in range(3))
    uses = Counter(column for form in forms for column in form)
    shared = {column: sample.influence(column, weights) for column in sorted(uses) if uses[column] > 1}
    for row, form in enumerate(forms):
        moved = np.zeros_like(weights)
        for column, weight in form.items():
            value, influence = shared[column] if column in shared else sample.influence(column, weights)
            estimate[row] += weight * value
            moved += weight * influence
            scale[row] = np.maximum(scale[row], abs(weight) * np.abs(value))
        if sample.is_successive:
            variance[row] = successive_variance(moved, order, sample.is_there(form))
        else:
            groups = sample.groups_of(form)
            correction = groups / (groups - 1) if groups > 1 else math.nan
            variance[row] = correction * np.einsum("rg,rg->r", weights * moved, moved)
    return estimate, variance, scale


def upper(values: np.ndarray, level: float) -> np.ndarray:
    """The order statistic that bounds the level from above (Davison & Hinkley, eq. 2.10), along the last axis.

    >>> upper(np.arange(1.0, 100.0), 0.95).item()
    95.0
    """
    place = min(math.ceil(level * (values.shape[-1] + 1)), values.shape[-1]) - 1
    return np.partition(values, place, axis=-1)[..., place]


def value_of(sample: Sample, form: Form) -> float:
    """A linear combination of values, without an interval.

    >>> value_of(Sample.of([np.ones((2, 1)), np.zeros((2, 1))], np.arange(2), mean), {0: 2.0, 1: 1.0})
    2.0
    """
    return float(_moments(sample, [form], np.arange(sample.groups)[None])[0][0, 0])


def neighbours_alike(sample: Sample, form: Form) -> float | None:
    """How alike neighbouring groups are in what they add to a linear combination (`lag_one`)."""
    ones = np.ones((1, sample.groups))
    moved = sum(weight * sample.influence(column, ones)[1][0] for column, weight in form.items())
    return lag_one(np.asarray(moved), sample.is_there(form))
