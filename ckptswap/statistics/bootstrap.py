"""The studentised cluster bootstrap. numpy only.

Each resample is studentised: t* = (θ* − θ) / se*, with θ a linear combination of values and se its linearised
cluster standard error, computed anew in every resample.

Sources: Davison & Hinkley, Bootstrap Methods and their Application (1997), ch. 2 and 5 (studentised intervals,
linearised variance); Cameron, Gelbach & Miller, Rev. Econ. Stat. 90 (2008) 414 (bootstrap-t when clusters are
few); Westfall & Young, Resampling-Based Multiple Testing (1993) (max-T).
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ckptswap.statistics.totals import NEGLIGIBLE, Form, Sample

LEVEL = 0.95
FLOOR = 0.2
"""A resample's standard error counts as at least this share of the sample's. A resample may hold next to none of
the groups that moved, and its huge t* would widen the whole table's intervals.
By simulation (8–50 groups, normal and lognormal rows, rare events) 0.2 keeps the coverage; 0.5 loses it."""
BLOCK = 1 << 18
"""Resample weights held at once: 2 MB, so that they stay in a core's cache whatever the number of groups."""


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
            sizes = np.where(se[:, None] > 0, np.abs(again - estimate[:, None]) / least, 0.0)
        t[:, here] = np.where(np.isnan(sizes), np.inf, sizes)  # a resample without a sample of some column
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
    uses = Counter(column for form in forms for column in form)
    shared = {column: sample.influence(column, weights) for column in sorted(uses) if uses[column] > 1}
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

    >>> from ckptswap.statistics.totals import mean
    >>> value_of(Sample.of([np.ones((2, 1)), np.zeros((2, 1))], np.arange(2), mean), {0: 2.0, 1: 1.0})
    2.0
    """
    return float(_moments(sample, [form], np.ones((1, sample.groups)))[0][0, 0])
