"""Which rows of a table are surely below the tolerance, and which surely above: one-sided tests of all rows. numpy
only.

On the side s (+1 for below, −1 for above) a row's T = s · (tolerance − drop) / se is held against its draws
−s · t*, which keep their sign. p is the rank of T among these, p* that of a draw. What moved in too few groups to
be drawn has the p of an exact bound.

Sources: Romano & Wolf, Econometrica 73 (2005) 1237 (step-down); Westfall & Young, Resampling-Based Multiple
Testing (1993), ch. 2 (least p, adjusted p-values); Holm, Scand. J. Stat. 6 (1979) 65; Benjamini & Hochberg, J. R.
Stat. Soc. B 57 (1995) 289; Benjamini & Yekutieli, J. Am. Stat. Assoc. 100 (2005) 71 (directions at that rate).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ckptswap.statistics import ErrorRate, Verdict
from ckptswap.statistics.bootstrap import Effects, unknown_as_large
from ckptswap.statistics.exact import Few

SIDE = 0.025
"""How often a table may have a wrong verdict, of either sort."""
SLACK = 0.02
"""Of the tolerance: how far a drop must be from it where all draws are equal."""
EXTREME = 0.001
"""From this share of its draws a row's are measured where T is beyond them all."""

PART = 16
"""Of so many draws one is looked at to find the large ones, which is faster than a partition of them all."""


@dataclass(frozen=True)
class Tests:
    """One side's tests of F rows: p-values (F,), and `level` (F,), p times draws + 1 but where T is beyond all
    draws: there p is the least that so many can tell, and the level says how far beyond.

    Of each row's draws the K most extreme are kept: `places` (F, K) among the draws, and their levels (F, K), in
    single precision, which holds ranks exactly: there may be ten thousand rows.
    """

    draws: int
    p: np.ndarray
    level: np.ndarray
    places: np.ndarray
    levels: np.ndarray

    @classmethod
    def room(cls, rows: int, draws: int) -> "Tests":
        """Room for those of so many rows, to be `put` in: ten thousand of them are not to lie in memory twice."""
        keep = _kept(draws)
        places = np.empty((rows, keep), np.min_scalar_type(draws))
        return cls(draws, np.empty(rows), np.empty(rows), places, np.empty((rows, keep), np.float32))

    def put(self, start: int, tests: "Tests") -> None:
        """Put in those of the rows from here on."""
        for name in ("p", "level", "places", "levels"):
            own = getattr(tests, name)
            getattr(self, name)[start : start + len(own)] = own

    def of(self, rows: Sequence[int]) -> "Tests | None":
        """Those of some of the rows; None for none."""
        if list(rows) == list(range(len(self.p))):
            return self if rows else None
        parts = (part[list(rows)] for part in (self.p, self.level, self.places, self.levels))
        return Tests(self.draws, *parts) if rows else None


def tests_of(effect: Effects, tolerance: float, side: int) -> Tests:
    """Each row's drop against the tolerance; `side` is 1 for below, −1 for above."""
    draws, apart = unknown_as_large(-side * effect.t), side * (tolerance - effect.estimate)
    certain = np.where(apart > SLACK * tolerance, np.inf, -np.inf)  # where all draws are equal
    with np.errstate(invalid="ignore", divide="ignore"):
        t = np.where(effect.se > 0, apart / effect.se, certain)
    beyond, amount = (draws >= t[:, None]).sum(axis=1), draws.shape[1]
    places, tail = _tail(draws, _kept(amount))
    ranks = _ranks(tail)
    start = tail[:, -min(math.ceil(EXTREME * amount), tail.shape[1])]
    ranks[:, -1] *= np.where(ranks[:, -1] == 1, _share(start, tail[:, -1]), 1.0)
    least = np.where(beyond == 0, _share(start, t), beyond + 1.0)
    return Tests(amount, (beyond + 1) / (amount + 1), least, places, ranks)


def _kept(draws: int) -> int:
    return min(math.floor(SIDE * draws) + 2, draws)


def _tail(draws: np.ndarray, keep: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the largest draws of each row lie, and what they are, ascending (F, keep)."""
    large = [_large(row, keep) for row in draws]
    order = (np.argsort(row[at], kind="stable")[-keep:] for row, at in zip(draws, large, strict=True))
    places = np.array([at[by_size] for at, by_size in zip(large, order, strict=True)])
    return places, np.take_along_axis(draws, places, axis=1)


def _large(row: np.ndarray, keep: int) -> np.ndarray:
    """Where the largest draws of a row lie, `keep` or some more. A part of them tells from which value on."""
    part, rank = row[::PART], keep // PART * 4 // 3 + PART
    if rank >= len(part):
        return np.arange(len(row))
    places = np.flatnonzero(row >= np.partition(part, -rank)[-rank])
    return places if len(places) >= keep else np.arange(len(row))


def _ranks(tail: np.ndarray) -> np.ndarray:
    """How many of each row's draws are at least as large (F, K), of draws in ascending order.

    >>> _ranks(np.array([[0.0, 1.0, 1.0, 2.0]])).tolist()
    [[4.0, 3.0, 3.0, 1.0]]
    """
    first = np.ones(tail.shape, dtype=bool)
    first[:, 1:] = tail[:, 1:] > tail[:, :-1]
    amount = tail.shape[1]
    return (amount - np.maximum.accumulate(np.where(first, np.arange(amount), 0), axis=1)).astype(float)


def _share(start: np.ndarray, value: np.ndarray) -> np.ndarray:
    """How far out a value lies: 1 at the start of a row's extreme draws, the less the farther out."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where((start > 0) & np.isfinite(start) & (value >= start), start / value, 1.0)


@dataclass(frozen=True)
class Exact:
    """One side's p-values (E,) of rows with an exact bound, and which of them could be decided at all (E,)."""

    p: np.ndarray
    is_testable: np.ndarray

    @classmethod
    def of(cls, bounds: Sequence[Few], tolerance: float, side: int) -> "Exact":
        """Of rows that nothing leaves without a bound; `side` is 1 for below the tolerance, −1 for above."""
        sided = [bound if side > 0 else bound.turned for bound in bounds]
        p = [bound.p_below(side * tolerance) for bound in sided]
        testable = [bound.is_testable(side * tolerance, SIDE) for bound in sided]
        return cls(np.array(p, dtype=float), np.array(testable, dtype=bool))


def adjusted(tests: Tests | None, exact: Exact) -> np.ndarray:
    """Adjusted p-values (F + E,) of rows that were drawn and of rows with exact bounds: those of at most α are
    decided by the step-down at the level α.

    That is: from the most certain row on, how often some row that is still open has a p* as small, to which each
    open row with an exact p that could be decided adds its own share (Bonferroni). Values above `SIDE` say no more
    than that.

    >>> adjusted(None, Exact(np.array([0.001, 0.02, 0.004]), np.ones(3, dtype=bool))).tolist()
    [0.003, 0.02, 0.008]
    """
    drawn = 0 if tests is None else len(tests.p)
    whole = 1 if tests is None else tests.draws + 1  # levels are p-values times this
    levels = exact.p if tests is None else np.concatenate([tests.level, exact.p * whole])
    order, result = np.argsort(levels, kind="stable"), np.ones(len(levels))
    least = np.full(whole - 1, np.inf, dtype=np.float32)  # the least level over the open rows, draw by draw
    open_exact, is_open = 0, False
    for row in order[::-1].tolist():
        if tests is not None and row < drawn:
            places = tests.places[row]
            least[places] = np.minimum(least[places], tests.levels[row])
            is_open = True
        else:
            open_exact += int(exact.is_testable[row - drawn])
        if levels[row] <= SIDE * whole:
            smaller = 1 + np.count_nonzero(least <= levels[row]) if is_open else 0
            result[row] = min(1.0, (smaller + open_exact * float(levels[row])) / whole)
    result[order] = np.maximum.accumulate(result[order])
    return result


def discoveries(p: np.ndarray, level: float) -> np.ndarray:
    """Which of the p-values (F,) are discoveries, of which no more than the level are false on average (Benjamini
    and Hochberg).

    >>> discoveries(np.array([0.01, 0.04, 0.9, 0.02]), 0.05).tolist()
    [True, False, False, True]
    """
    ranked = np.sort(p)
    within = np.flatnonzero(ranked <= level * np.arange(1, len(p) + 1) / max(len(p), 1))
    return p <= ranked[within[-1]] if len(within) else np.zeros(len(p), dtype=bool)


@dataclass(frozen=True)
class Both:
    """The tests of both sides, of rows that were drawn and of rows with exact bounds."""

    below: Tests | None
    above: Tests | None
    exact_below: Exact
    exact_above: Exact

    @property
    def p(self) -> tuple[np.ndarray, np.ndarray]:
        """Of each row (F + E,) the p-values that it is not below the tolerance, and that it is not above."""
        sides = (self.below, self.exact_below), (self.above, self.exact_above)
        below, above = (exact.p if tests is None else np.concatenate([tests.p, exact.p]) for tests, exact in sides)
        return below, above

    def verdicts(self, error: ErrorRate) -> list[Verdict]:
        """Of each row (F + E,). `fwer`: a table has a wrong 'reusable' in at most 2.5 % of cases, and so a wrong
        'sensitive'; `fdr`: of all that is decided at most 5 % is wrong, on average."""
        p_below, p_above = self.p
        if error == "fdr":
            found = discoveries(np.minimum(1.0, 2 * np.minimum(p_below, p_above)), 2 * SIDE)
            below, above = found & (p_below < p_above), found & (p_above < p_below)
        else:
            below = adjusted(self.below, self.exact_below) <= SIDE
            above = adjusted(self.above, self.exact_above) <= SIDE
        sides = zip(below.tolist(), above.tolist(), strict=True)
        return ["reusable" if low else "sensitive" if high else "undecided" for low, high in sides]
