"""How sure a number is: paired intervals of one value, or of one contrast of values. numpy only.

The 95 % interval is θ ± c·se, where c is the 95 % quantile of |t*| (symmetric bootstrap-t). What moves in fewer
than 5 groups has an exact bound instead (`exact`; docs/method.md tells the levels).
"""

from typing import Any

import numpy as np

from ckptswap.statistics import LEAST_GROUPS, Interval
from ckptswap.statistics.bootstrap import LEVEL, effects, value_of
from ckptswap.statistics.exact import ends_of_two
from ckptswap.statistics.totals import Bounds, Form, Reduction, Sample, mean


def contrast(sample: Sample, form: Form) -> Interval:
    """A linear combination of values, Σ weight × value of column, with its plain paired interval.

    >>> a, b = np.linspace(0, 0.4, 8)[:, None], np.linspace(0.2, 1, 8)[:, None]
    >>> interval = contrast(Sample.of([a, b], np.arange(8), mean), {1: 1.0, 0: -1.0})
    >>> [round(end, 2) for end in (interval.low, interval.estimate, interval.high)]
    [0.27, 0.4, 0.53]
    """
    if sample.groups_of(form) < LEAST_GROUPS:
        return Interval(value_of(sample, form), None, None)
    if few := sample.few(form):
        return Interval(value_of(sample, form), *few.ends((1 - LEVEL) / 2))
    effect = effects(sample, [form])
    estimate, margin = float(effect.estimate[0]), float((effect.critical() * effect.se)[0])
    return Interval(estimate, *cut(estimate, margin, sample.range_of(form)))


def cut(estimate: float, margin: float, bounds: Bounds) -> tuple[float, float]:
    """Both ends, as far as there can be such values."""
    return max(estimate - margin, bounds[0]), min(estimate + margin, bounds[1])


def interval(statistics: np.ndarray, groups: np.ndarray, reduce: Reduction, **how: Any) -> Interval:
    """The value of one checkpoint from (N, K) statistics, with its interval over groups.

    >>> interval(np.ones((16, 1)), np.arange(16), mean, bounds=(0.0, 1.0))
    Interval(estimate=1.0, low=0.7940..., high=1.0)
    """
    sample, form = Sample.of([statistics], groups, reduce, **how), {0: 1.0}
    even = reduce is mean and sample.groups_of(form) >= LEAST_GROUPS and sample.weight_of(form) == 1
    ends = ends_of_two(sample.values[0], sample.bounds, (1 - LEVEL) / 2) if even else None
    return Interval(value_of(sample, form), *ends) if ends else contrast(sample, form)


def difference(a: np.ndarray, b: np.ndarray, groups: np.ndarray, reduce: Reduction, **how: Any) -> Interval:
    """Value of A − value of B on the same samples, with its paired interval.

    >>> difference(np.ones((9, 1)), np.zeros((9, 1)), np.arange(9), mean, bounds=(0.0, 1.0))
    Interval(estimate=1.0, low=0.3274..., high=1.0)
    """
    return contrast(Sample.of([a, b], groups, reduce, **how), {0: 1.0, 1: -1.0})
