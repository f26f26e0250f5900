"""Whether two rankings are alike: rank correlations, ties shared. numpy only.

Sources: Spearman, Am. J. Psychol. 15 (1904) 72; Kendall, Biometrika 33 (1945) 239 (with ties).
"""

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np


def spearman(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Spearman's rank correlation, ties sharing their mean rank; None where a side has no two different values.

    >>> spearman([1.0, 2.0, 3.0], [10.0, 30.0, 20.0])
    0.5
    """
    if len(set(x)) < 2 or len(set(y)) < 2:
        return None
    return float(np.corrcoef(_mean_ranks(x), _mean_ranks(y))[0, 1])


def _mean_ranks(values: Sequence[float]) -> np.ndarray:
    _, place, count = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return (last - (count - 1) / 2)[place]


def tau(pairs: Sequence[tuple[float | None, float | None]]) -> float | None:
    """Kendall's tau-b over the pairs that have both numbers; None where one side has no two different ones.

    >>> tau([(1.0, 1.0), (2.0, 3.0), (3.0, 2.0)])
    0.3333333333333333
    """
    known = [(a, b) for a, b in pairs if a is not None and b is not None]
    score = apart_a = apart_b = 0
    for (a, b), (c, d) in combinations(known, 2):
        first, second = (a > c) - (a < c), (b > d) - (b < d)
        score += first * second
        apart_a += abs(first)
        apart_b += abs(second)
    return score / math.sqrt(apart_a * apart_b) if apart_a and apart_b else None
