"""Whether two rankings are alike: rank correlations, how well one tells two sorts apart, what their tops share.
Ties are shared. numpy only.

Sources: Spearman, Am. J. Psychol. 15 (1904) 72; Kendall, Biometrika 33 (1945) 239 (with ties); Mann & Whitney,
Ann. Math. Stat. 18 (1947) 50, which is the area under the ROC curve (Hanley & McNeil, Radiology 143 (1982) 29).
"""

import math
from collections.abc import Sequence

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


def auc(low: Sequence[float], high: Sequence[float]) -> float | None:
    """How often one of `high` is the larger number of two; ties count half. None where a side is empty.

    >>> auc([0.1, 0.2], [0.3]), auc([0.1, 0.3], [0.3]), auc([], [0.3])
    (1.0, 0.75, None)
    """
    if not len(low) or not len(high):
        return None
    ranks = _mean_ranks([*low, *high])[len(low) :]
    wins = ranks.sum() - len(high) * (len(high) + 1) / 2
    return float(wins / (len(low) * len(high)))


def top_overlap(x: Sequence[float], y: Sequence[float], count: int) -> float | None:
    """The share of the `count` largest of one that are among those of the other; of equal ones at the edge each
    has its part of the places left. None where there are no more than so many, which always agree.

    >>> top_overlap([3.0, 2.0, 1.0], [3.0, 1.0, 2.0], 2), top_overlap([3.0, 0.0, 0.0], [3.0, 2.0, 1.0], 2)
    (0.5, 0.75)
    """
    if len(x) <= count:
        return None
    return float((_parts_of_top(x, count) * _parts_of_top(y, count)).sum() / count)


def _parts_of_top(values: Sequence[float], count: int) -> np.ndarray:
    """What part each has in the `count` largest: 1, 0, or its share of what is left for those at the edge."""
    numbers = np.asarray(values)
    edge = np.sort(numbers)[-count]
    above, equal = numbers > edge, numbers == edge
    return above + equal * ((count - above.sum()) / equal.sum())


def tau(pairs: Sequence[tuple[float | None, float | None]]) -> float | None:
    """Kendall's tau-b over the pairs that have both numbers; None where one side has no two different ones.

    >>> tau([(1.0, 1.0), (2.0, 3.0), (3.0, 2.0)])
    0.3333333333333333
    """
    known = np.array([(a, b) for a, b in pairs if a is not None and b is not None], dtype=float).reshape(-1, 2)
    score = apart_a = apart_b = 0
    for at, (a, b) in enumerate(known):  # against all that follow, at once
        after = zip(known[at + 1 :].T, (a, b), strict=True)
        first, second = ((side > one).astype(int) - (side < one) for side, one in after)
        score += int(first @ second)
        apart_a += int(np.count_nonzero(first))
        apart_b += int(np.count_nonzero(second))
    return score / math.sqrt(apart_a * apart_b) if apart_a and apart_b else None
