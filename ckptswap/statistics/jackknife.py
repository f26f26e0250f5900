"""What each group does to a value that only a whole set has: the set is valued again without it. numpy only.

A correlation, or an F1 score, is no mean over groups. But in place of each group stands its pseudo-value: θ, and
by how much θ would fall without the group, (G − 1) times. Their mean is θ (the bias that a plain jackknife takes
away is left in: θ is the library's own number), and their spread is that of θ, so that what resamples means
resamples these. There are `MOST` groups at the most: neighbours are left out together, as each costs a valuation.

Sources: Tukey, Ann. Math. Stat. 29 (1958) 614; Kott, J. Official Stat. 17 (2001) 521 (groups put together).
"""

from collections.abc import Callable

import numpy as np

MOST = 64

Value = Callable[[np.ndarray], float]
"""From the statistics (N, K) of some samples to their value, NaN where they have none."""


def pseudo_values(
    statistics: np.ndarray, there: np.ndarray, groups: np.ndarray, value: Value
) -> tuple[np.ndarray, np.ndarray]:
    """Each group's pseudo-value (G,), groups in ascending order of their number, and which groups have one (G,).

    `there` (N,) says which samples were scored. Where the set has no value without one of its groups, one group
    has θ and no other has anything: nothing is known of the spread.

    >>> scores, groups = np.array([[1.0], [2.0], [3.0], [6.0]]), np.array([4, 4, 7, 9])
    >>> values, known = pseudo_values(scores, np.ones(4, bool), groups, lambda own: float(own.mean()))
    >>> values.round(3).tolist(), round(float(values.mean()), 9)
    ([0.333, 3.333, 5.333], 3.0)
    """
    labels, place = np.unique(groups, return_inverse=True)
    count = min(len(labels), MOST)
    block = place * count // len(labels)
    known = np.bincount(block[there], minlength=count) > 0
    whole = value(statistics[there])
    without = [value(statistics[there & (block != at)]) for at in np.flatnonzero(known)] if known.sum() > 1 else []
    if not without or not np.isfinite(without).all():
        first = np.arange(count) == np.argmax(known)
        return np.where(first, whole, 0.0), first
    values = np.zeros(count)
    values[known] = whole + (len(without) - 1) * (np.mean(without) - np.array(without))
    return values, known
