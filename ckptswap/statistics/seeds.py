"""Over seeds, or pairs of networks, of which each is one observation: Student's t, as interval and as test."""

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from ckptswap.statistics import Interval
from ckptswap.statistics.bootstrap import LEVEL
from ckptswap.statistics.totals import UNBOUNDED, Bounds

CORRELATION, SHARE = (-1.0, 1.0), (0.0, 1.0)
Numbers = TypeVar("Numbers", float, np.ndarray)


def seeds_interval(values: Sequence[float], level: float = LEVEL, bounds: Bounds = UNBOUNDED) -> Interval:
    """The mean over seeds (or pairs of networks) with Student's t interval; fewer than 2 values have none.

    `bounds` are those of a value, at which the interval is cut.

    >>> seeds_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    Interval(estimate=3.0, low=1.0367..., high=4.9632...)
    >>> seeds_interval([0.75, 1.0, 1.0], bounds=SHARE).high
    1.0
    """
    n = len(values)
    if n == 0:
        raise ValueError("the mean of no values does not exist")
    if n == 1:
        return Interval(values[0], None, None)
    centre, error = _mean_and_error(values)
    margin = student_quantile(n - 1, level) * error
    return Interval(centre, max(centre - margin, bounds[0]), min(centre + margin, bounds[1]))


def seeds_above(values: Sequence[float], bound: float) -> float:
    """p-value of 'the mean over seeds lies above the bound', by Student's one-sided t; that it does not is 1 − p.

    Where all values are one, that value decides: 0 above the bound, else 1. Raises `ValueError` for fewer than 2.

    >>> round(seeds_above([1.0, 2.0, 3.0, 4.0, 5.0], 1.0), 4), seeds_above([0.0, 0.0], 0.0)
    (0.0237, 1.0)
    """
    if len(values) < 2:
        raise ValueError("one value has no spread")
    centre, error = _mean_and_error(values)
    if error == 0:
        return 0.0 if centre > bound else 1.0
    return float(student_upper((centre - bound) / error, len(values) - 1))


def _mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    if min(values) == max(values):
        return values[0], 0.0  # which the rounding of a mean would hide
    n = len(values)
    centre = math.fsum(values) / n
    return centre, math.sqrt(math.fsum((value - centre) ** 2 for value in values) / (n - 1) / n)


def student_quantile(freedom: int, level: float = LEVEL) -> float:
    """t with P(|T| ≤ t) = level, by bisection.

    >>> round(student_quantile(4), 6)
    2.776445
    """
    low, high = 0.0, 1.0
    while student_central(high, freedom) < level:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if student_central(middle, freedom) < level else (low, middle)
    return (low + high) / 2


def student_upper(t: Numbers, freedom: int) -> Numbers:
    """P(T ≥ t), for t of either sign, numbers or arrays; right to some 1e-15: less is only known to be small.

    >>> student_upper(np.array([2.131847, -2.131847]), 4).round(6).tolist()
    [0.05, 0.95]
    """
    return np.maximum(0.0, (1 - student_central(t, freedom)) / 2)


def student_central(t: Numbers, freedom: int) -> Numbers:
    """P(|T| ≤ t) for a whole number of degrees of freedom (Abramowitz & Stegun, 26.7.3 and 26.7.4); of −t its
    negative.

    >>> float(student_central(1.0, 1).round(12))
    0.5
    """
    angle = np.arctan2(t, math.sqrt(freedom))
    sine, cosine = np.sin(angle), np.cos(angle)
    odd = freedom % 2
    term, total = (cosine, cosine if freedom > 1 else 0.0) if odd else (1.0, 1.0)
    for power in range(3 if odd else 2, freedom, 2):
        term = term * cosine**2 * (power - 1) / power
        total = total + term
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
