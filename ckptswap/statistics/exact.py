"""Exact bounds where nearly all groups are alike, and a bootstrap would only repeat what was seen. numpy only.

If k of G independent groups are worse than the others, the share p of all groups that are is at most the largest p
with P(Binomial(G, p) ≤ k) ≥ error. No group can lose more than the metric's range, so that p bounds the mean too.

Source: Clopper & Pearson, Biometrika 26 (1934) 404.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

LEAST_MOVED = 5  # where fewer groups are apart from the rest there is no bootstrap: a rule of ours
HALVINGS = 60  # of an interval in which a root lies; doubles have 53 bits
MOST_GROUPS = 1 << 60


@dataclass(frozen=True)
class Few:
    """A number that all of `groups` have in `common` but for those that lie `below` or `above` it.

    `low` and `high` are the least and the most that a group can have, infinite where that is not known.
    `weight` is how much the largest group weighs in the mean, 1 where all are of one size. `least` and `greatest`
    are what was seen (None: the common one).
    """

    common: float
    below: int
    above: int
    groups: int
    low: float
    high: float
    weight: float = 1.0
    least: float | None = None
    greatest: float | None = None

    @property
    def is_bounded(self) -> bool:
        """Whether the mean over all groups, seen or not, can be bounded at all."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    def ends(self, error: float) -> tuple[float | None, float | None]:
        """Between which the mean over all groups lies, each end wrong with probability `error` at most; None where
        nothing bounds it.

        >>> Few(0.0, 0, 0, 16, -1.0, 1.0).ends(0.025)
        (-0.2059..., 0.2059...)
        """
        if not self.is_bounded:
            return None, None
        low = max(self._reach(self.below, self.low, error, self.least))
        high = min(self._reach(self.above, self.high, error, self.greatest))
        return max(self.low, low), min(self.high, high)

    def _reach(self, beyond: int, limit: float, error: float, seen: float | None) -> tuple[float, ...]:
        """How far to a limit the mean may lie, for all that was drawn: bounds that hold with `error` together.

        Where all moved, and a few of them less, what moved least is a bound of its own: none was beyond it.
        """

        def reached(count: int, start: float, error: float) -> float:
            return start + highest_share(count, self.groups, error) * self.weight * (limit - start)

        if not (self.common and beyond and seen is not None):
            return (reached(beyond, self.common, error),)
        return reached(beyond, self.common, error / 2), reached(0, seen, error / 2)

    def p_below(self, limit: float) -> float | None:
        """The p-value of 'the mean over all groups is at least the limit': the error at which the upper end of
        `ends` meets it. None where nothing bounds the mean.

        >>> round(Few(0.0, 0, 0, 16, -1.0, 1.0).p_below(0.2059), 3)
        0.025
        """
        if not self.is_bounded:
            return None
        p = self._p(self.above, self.common, limit)
        if not (self.common and self.above and self.greatest is not None):
            return p
        return min(1.0, 2 * min(p, self._p(0, self.greatest, limit)))

    def is_testable(self, limit: float, error: float) -> bool:
        """Whether `p_below` could be as small as the error at all, with no group above: what cannot be decided
        takes no share of a table's error (Tarone, Biometrics 46 (1990) 515).

        >>> few = Few(0.0, 0, 0, 16, -1.0, 1.0)
        >>> few.is_testable(0.01, 0.025), few.is_testable(0.3, 0.025)
        (False, True)
        """
        return self.is_bounded and self._p(0, self.common, limit) <= error

    @property
    def turned(self) -> "Few":
        """The same of the number with the other sign: its `p_below` speaks of the lower end.

        >>> round(Few(0.0, 0, 0, 16, -1.0, 1.0).turned.p_below(0.2059), 3)
        0.025
        """
        least, greatest = (None if seen is None else -seen for seen in (self.greatest, self.least))
        ends = -self.high, -self.low
        return Few(-self.common, self.above, self.below, self.groups, *ends, self.weight, least, greatest)

    def _p(self, beyond: int, start: float, limit: float) -> float:
        if limit <= start:
            return 1.0
        room = self.weight * (self.high - start)
        return at_most(beyond, self.groups, (limit - start) / room) if limit <= self.high and room > 0 else 0.0

    def groups_that_tell(self, limit: float, error: float) -> int | None:
        """In how many groups the upper end falls below the limit, if no more of them are above; None in none.

        >>> Few(0.0, 0, 0, 16, -1.0, 1.0).groups_that_tell(0.01, 0.025)
        368
        """
        room = (self.high - self.common) * self.weight
        share = (limit - self.common) / room if 0 < room < math.inf else math.nan
        if not share > 0:
            return None
        few, many = self.above, max(self.groups, 1)
        while at_most(self.above, many, share) >= error:
            few, many = many, many * 2
            if many > MOST_GROUPS:
                return None
        while many - few > 1:
            middle = (few + many) // 2
            few, many = (middle, many) if at_most(self.above, middle, share) >= error else (few, middle)
        return many


def at_most(count: int, groups: int, share: float) -> float:
    """P(Binomial(groups, share) ≤ count), from the terms' logarithms.

    >>> round(at_most(1, 3, 0.5), 12)
    0.5
    """
    if share <= 0 or count >= groups:
        return 1.0
    if share >= 1:
        return 0.0
    ahead = np.arange(count, dtype=float)
    ratios = np.log((groups - ahead) / (ahead + 1)) + math.log(share) - math.log1p(-share)
    terms = groups * math.log1p(-share) + np.concatenate([[0.0], np.cumsum(ratios)])
    most = terms.max()
    return min(1.0, float(np.exp(terms - most).sum() * math.exp(most)))


@lru_cache(maxsize=1 << 14)
def highest_share(count: int, groups: int, error: float) -> float:
    """The largest share of all groups that is worse, where `count` of the drawn ones were (Clopper–Pearson).

    >>> round(highest_share(0, 16, 0.025), 4), round(highest_share(3, 16, 0.025), 4), highest_share(2, 2, 0.025)
    (0.2059, 0.4565, 1.0)
    """
    if count >= groups:
        return 1.0
    if count == 0:
        return -math.expm1(math.log(error) / groups)
    low, high = count / groups, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if at_most(count, groups, middle) >= error else (low, middle)
    return high


def unseen_share(groups: int) -> float:
    """The share of all groups that may be broken (at 95 %) where none of those drawn was.

    >>> round(unseen_share(15), 3)
    0.181
    """
    return highest_share(0, groups, 0.05)


def ends_of_two(values: np.ndarray, bounds: tuple[float, float], error: float) -> tuple[float, float] | None:
    """The interval of a mean of values (NaN left out) that all lie at one bound or the other; else None.

    >>> [round(end, 4) for end in ends_of_two(np.repeat([0.0, 1.0], [1, 15]), (0.0, 1.0), 0.025)]
    [0.6977, 0.9984]
    """
    (low, high), there = bounds, values[~np.isnan(values)]
    if not (np.isfinite(bounds).all() and np.isin(there, bounds).all()):
        return None
    above = int((there == high).sum())
    least, most = 1 - highest_share(len(there) - above, len(there), error), highest_share(above, len(there), error)
    return low + (high - low) * least, low + (high - low) * most


def common_of(values: np.ndarray, slack: float) -> tuple[float, int, int]:
    """What most of the values are but for `slack`, and how many lie below and above it.

    A value that half of them share is one of the two in the middle.

    >>> common_of(np.array([0.0, 0.0, 0.5, 0.0]), 0.0)
    (0.0, 0, 1)
    """
    ranked, counted = np.sort(values), []
    for middle in (ranked[(len(ranked) - 1) // 2], ranked[len(ranked) // 2]):
        common = 0.0 if abs(middle) <= slack else float(middle)
        counted.append((common, int((values < common - slack).sum()), int((values > common + slack).sum())))
    return min(counted, key=lambda counts: counts[1] + counts[2])
