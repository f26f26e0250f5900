"""Groups that stand in an order, such as the blocks of a volume, of which neighbours resemble each other. numpy
only.

Source: Wolter, J. Am. Stat. Assoc. 79 (1984) 781 (successive differences, for samples drawn at equal steps).
"""

import numpy as np


def successive_variance(influence: np.ndarray, order: np.ndarray, is_there: np.ndarray) -> np.ndarray:
    """The variance (R,) of a sum of influences (R, G), from the differences of groups that follow each other in
    an order (R, G); NaN with fewer than two groups. `is_there` (G,) says which groups have samples.

    n / (2 (n − 1)) × the sum of squared differences: for groups without order what the usual estimate gives, for
    those whose neighbours resemble each other less.

    >>> there = np.ones(4, dtype=bool)
    >>> successive_variance(np.array([[-3.0, -1.0, 1.0, 3.0]]), np.arange(4)[None], there).tolist()
    [8.0]
    """
    walked, known = np.take_along_axis(influence, order, axis=1), is_there[order]
    if not known.all():  # those that have samples come first, in the order that they had
        front = np.argsort(~known, axis=1, kind="stable")
        walked, known = (np.take_along_axis(part, front, axis=1) for part in (walked, known))
    steps = np.where(known[:, 1:], np.diff(walked, axis=1), 0.0)
    count = known.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        factor = np.where(count > 1, count / (2 * (count - 1.0)), np.nan)
    return factor * np.einsum("rg,rg->r", steps, steps)


def squared_steps(values: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The sums (F, R) of squared differences of values (F, G) that follow each other in an order (R, G).

    >>> squared_steps(np.array([[1.0, 2.0, 4.0]]), np.array([[0, 1, 2], [0, 2, 2]])).tolist()
    [[5.0, 9.0]]
    """
    by_group = np.ascontiguousarray(values.T)
    before, total = by_group[order[:, 0]], np.zeros((len(order), len(values)))
    for place in order.T[1:]:
        now = by_group[place]
        np.subtract(now, before, out=before)
        total += np.square(before, out=before)
        before = now
    return total.T


def lag_one(influence: np.ndarray, is_there: np.ndarray) -> float | None:
    """How alike neighbours are: the correlation of influences (G,), which add up to 0, with the next group's.
    None without spread.

    >>> lag_one(np.array([-3.0, -1.0, 1.0, 3.0]), np.ones(4, dtype=bool))
    0.25
    """
    known = influence[is_there]
    total = float(known @ known)
    return float(known[:-1] @ known[1:]) / total if total > 0 else None
