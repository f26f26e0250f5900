"""Verdicts as soon as they are known: tests at a few looks, the error shared out over looks and rows. numpy only.

Groups come in random order. At each look, on all groups so far, a row that is still open has two one-sided
p-values: of "its drop is at least the tolerance" and of "at most". A p-value at a look counts p / share, where the
looks' shares add up to 1: by the union bound a row errs with no more than the error that it is given, however the
looks' scores hang together. Over rows Holm's procedure, either side by itself at half of the error. A row that all
groups would hardly tell is given up: that makes no verdict wrong.

Sources: Lan & DeMets, Discrete sequential boundaries for clinical trials, Biometrika 70 (1983) 659 (error that is
spent over looks); Holm, Scand. J. Stat. 6 (1979) 65; Waudby-Smith & Ramdas, Estimating means of bounded random
variables by betting, J. R. Stat. Soc. B 86 (2024) 1, arXiv:2010.09686.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ckptswap.statistics import LEAST_GROUPS, Verdict
from ckptswap.statistics.exact import LEAST_MOVED, Few
from ckptswap.statistics.seeds import student_upper
from ckptswap.statistics.totals import Form, Sample

ERROR = 0.025
"""Of either side: at most in so many tables is any row wrongly `reusable`, in so many any wrongly `sensitive`."""
SIDES: tuple[Verdict, Verdict] = ("reusable", "sensitive")
OPEN, GIVEN_UP = -1, -2
NEARLY = 0.85
"""A look at more than this share of all groups is left out: the last one follows at once."""
SKEW = 4.0
"""The least skewness that is presumed of groups; an exponential distribution's is 2. With 4 the error is kept
where group effects are lognormal (σ = 1), and with 3 it is not (`benchmarks/decide.py`)."""
STAKES = np.array([0.95, 0.5, 0.2, 0.05])
"""What each part of the capital bets at most of itself: the greater, the sooner a large effect is known."""

LUCK = 0.674
"""How many standard errors better than it looks a row may lie before it is given up: one in four does."""
TwoSided = tuple[np.ndarray, np.ndarray]
LookTest = Callable[[int, np.ndarray], TwoSided]
"""From the number of groups, and of which rows (R,), to p-values (2, R) of the two sides, and those which all
groups would give with some luck."""


def looks_of(groups: int) -> list[int]:
    """After how many groups verdicts are looked for: 8, 10, 12, 14, 16, 20, …, and after all.

    >>> looks_of(15), looks_of(100)
    ([8, 10, 12, 15], [8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 100])
    """
    steps = range(LEAST_GROUPS, 2 * LEAST_GROUPS, LEAST_GROUPS // 4)
    early = [step << power for power in range(groups.bit_length()) for step in steps]
    return [*(look for look in early if look <= NEARLY * groups), groups]


def shares_of(looks: Sequence[int]) -> np.ndarray:
    """Which share of the error each look is given (L,).

    >>> shares_of([8, 10, 12, 15]).tolist()
    [0.25, 0.25, 0.25, 0.25]
    """
    return np.full(len(looks), 1 / len(looks))


@dataclass(frozen=True)
class SequentialVerdicts:
    """How far rows have come. `verdicts` (V,), and `p` (2, V) of both sides at the look of each row's verdict, or
    at its last; NaN where there was none. `looked` (V,): the groups at that look, 0 where there was none. `wanted`
    (V,): the groups that must be scored before it goes on; no more than are known when it is over. `given_up`
    (V,): undecided for good."""

    verdicts: tuple[Verdict, ...]
    given_up: np.ndarray
    p: np.ndarray
    looked: np.ndarray
    wanted: np.ndarray
    known: np.ndarray

    @property
    def finished(self) -> bool:
        """Whether nothing more can be known."""
        return bool((self.wanted <= np.maximum(self.known, 0)).all())


def standing(
    known: np.ndarray, looks: Sequence[int], tests: LookTest, shares: np.ndarray, error: float = ERROR
) -> SequentialVerdicts:
    """The verdicts so far. `known` (V,): how many groups, from the first, each row is scored on; −1 for a row that
    failed, which still counts among those over which the error is shared.

    All looks are gone through anew, each on no more than its own groups, so that an interrupted run goes on as if
    it had not been, and scores that nobody asked for change nothing. Score what is wanted and call again:

    >>> drops = np.random.default_rng(0).normal([[0.0], [0.05], [0.3]], 0.03, (3, 100))
    >>> def by_t(groups, rows):
    ...     seen = drops[rows, :groups]
    ...     t = (0.05 - seen.mean(axis=1)) / (seen.std(axis=1, ddof=1) / groups**0.5)
    ...     p = [student_upper(t, groups - 1), student_upper(-t, groups - 1)]
    ...     return np.array(p), np.zeros((2, len(rows)))
    >>> looks, known = looks_of(100), np.zeros(3, int)
    >>> while not (now := standing(known, looks, by_t, shares_of(looks))).finished:
    ...     known = np.maximum(known, now.wanted)
    >>> now.verdicts, known.tolist()
    (('reusable', 'undecided', 'sensitive'), [8, 100, 8])
    """
    rows = len(known)
    side, p, looked = np.full(rows, OPEN), np.full((2, rows), np.nan), np.zeros(rows, np.int64)
    for look, share in zip(looks, shares.tolist(), strict=True):
        here = np.flatnonzero((side == OPEN) & (known >= look))
        if not len(here):
            continue
        own, lucky = tests(look, here)
        p[:, here] = np.minimum(own / share, 1.0)
        looked[here] = look
        hopeless = np.ones(len(here), bool)
        for at in range(2):
            left = rows - int((side == at).sum())
            side[here[_fallen(p[at, here], left, error) & (side[here] == OPEN)]] = at
            hopeless &= lucky[at] / shares[-1] > error / left
        side[here[hopeless & (side[here] == OPEN)]] = GIVEN_UP
    verdicts: tuple[Verdict, ...] = tuple(SIDES[at] if at >= 0 else "undecided" for at in side.tolist())
    return SequentialVerdicts(verdicts, side == GIVEN_UP, p, looked, _wanted(known, side == OPEN, looks), known)


def _fallen(p: np.ndarray, left: int, error: float) -> np.ndarray:
    """Which hypotheses Holm's procedure rejects, of `left` not rejected yet, some of which are not tested."""
    order = np.argsort(p, kind="stable")
    falls = np.logical_and.accumulate(p[order] <= error / (left - np.arange(len(p))))
    fallen = np.zeros(len(p), bool)
    fallen[order] = falls
    return fallen


def _wanted(known: np.ndarray, is_open: np.ndarray, looks: Sequence[int]) -> np.ndarray:
    """How many groups each row must be scored on: those furthest behind come to their next look together."""
    behind = is_open & (known >= 0) & (known < looks[-1])
    wanted = np.maximum(known, 0)
    if behind.any():
        look = looks[int(np.searchsorted(looks, known[behind].min(), side="right"))]
        wanted[behind] = np.maximum(wanted[behind], look)
    return wanted


def t_values(sample: Sample, forms: Sequence[Form], tolerance: float, groups: int) -> TwoSided:
    """p-values (2, F) of drops by a t-test over groups, with the linearised cluster standard error, corrected for
    skewness; where fewer than 5 groups moved, by the exact bound (`exact`), 1 where nothing bounds a drop. And
    those that so many `groups` would give with some luck.

    >>> rows = [np.ones((9, 1)), np.linspace(0.9, 1.1, 9)[:, None]]
    >>> from ckptswap.statistics.totals import mean
    >>> p, _ = t_values(Sample.of(rows, np.arange(9), mean), [{0: 1.0, 1: -1.0}], 0.05, 9)
    >>> p[:, 0].round(3).tolist()
    [0.121, 0.97]
    """
    drops, moved = _moved(sample, forms)
    now, spread = moved.shape[1], (moved**2).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        t = np.nan_to_num((tolerance - drops) / np.sqrt(now / (now - 1) * spread), posinf=0.0, neginf=0.0)
        skew = np.nan_to_num((moved**3).mean(axis=1) / (spread / now) ** 1.5)
    signs, more = np.array([[1.0], [-1.0]]), math.sqrt(groups / now)
    p, lucky = skewed_t(signs * t, signs * skew, now), skewed_t((signs * t + LUCK) * more, signs * skew, groups)
    for at, form in enumerate(forms):
        if few := sample.few(form):
            p[:, at], lucky[:, at] = _exact(few, tolerance), _lucky(few, tolerance, groups, sample.step)
    return p, lucky


def _lucky(few: Few, tolerance: float, groups: int, step: float | None) -> list[float]:
    """The p-values of both sides that so many groups would give if one more had moved, those to come moved as
    often, and all to the better side: by no less than a `step`, if that is known."""
    moved = (few.below + few.above + 1) * groups / few.groups
    if moved < LEAST_MOVED:
        return _exact(replace(few, groups=groups), tolerance)
    if step is None:
        return [0.0, 0.0]
    apart = np.array([1.0, -1.0]) * (tolerance - few.common) * groups / step
    t = apart / math.sqrt(moved) + math.sqrt(moved)
    return [float(p) for p in skewed_t(t, np.zeros(2), groups)]


def _exact(few: Few, tolerance: float) -> list[float]:
    both = few.p_below(tolerance), few.turned.p_below(-tolerance)
    return [1.0 if p is None else p for p in both]


def _moved(sample: Sample, forms: Sequence[Form]) -> tuple[np.ndarray, np.ndarray]:
    """Each linear combination (F,), and how it moves with each group (F, G)."""
    ones = np.ones((1, sample.groups))
    value, moved = np.zeros(len(forms)), np.zeros((len(forms), sample.groups))
    for at, form in enumerate(forms):
        for column, weight in form.items():
            own, influence = sample.influence(column, ones)
            value[at] += weight * own[0]
            moved[at] += weight * influence[0]
    return value, moved


def skewed_t(t: np.ndarray, skew: np.ndarray, groups: int) -> np.ndarray:
    """p-values of t, the greater the less likely, of groups that are so much skewed towards the other side.

    A mean of skewed values is less sure than Student's t has it on the side of the short tail: there t is about
    z + a·(z² + 1/2), with z Student's and a = skewness / (3 √groups) (Johnson, J. Am. Stat. Assoc. 73 (1978) 536).
    This is solved for z. A sample that has not met the long tail yet does not show its skewness, so that at least
    `SKEW` is presumed, on either side against the verdict.

    >>> skewed_t(np.array([5.0]), np.array([0.0]), 24) > student_upper(np.array([5.0]), 23)
    array([ True])
    """
    a = np.maximum(skew, SKEW) / (3 * math.sqrt(groups))
    z = (np.sqrt(np.maximum(1 + 4 * a * (t - a / 2), 0.0)) - 1) / (2 * a)
    return student_upper(np.where(t > 0, np.maximum(z, 0.0), t), groups - 1)


def betting_values(
    drops: np.ndarray,
    sizes: np.ndarray,
    tolerance: float,
    bounds: tuple[float, float],
    largest: float,
    groups: int,
) -> TwoSided:
    """p-values (2, R) that may be looked at as often as one likes, without any assumption on how drops are
    distributed: 1 / the most capital that bets against either side have made. And those that so many `groups`
    would give with some luck, if it grows on as it did.

    `drops` (R, G): each row's sums over the samples of a group, in the order of the groups; `sizes` (G,), of which
    no group anywhere has more than `largest`. `bounds`: between which one sample's drop lies.

    A group's z = (sum − tolerance × size) / largest has a mean of 0 or more if the drop is at least the tolerance,
    and is no more than the largest drop − tolerance = c: capital that is multiplied by 1 − f·z / c for a fixed
    stake f below 1 stays positive and does not grow on average, so that by Ville's inequality it ever reaches
    1 / p with probability p at most. So for the other side.

    >>> p, _ = betting_values(np.full((1, 30), 0.5), np.ones(30), 0.01, (-1.0, 1.0), 1.0, 30)
    >>> p.round(4).tolist()
    [[1.0], [0.0]]
    """
    excess = (drops - tolerance * sizes) / largest
    rooms = bounds[1] - tolerance, tolerance - bounds[0]
    most = np.full((2, len(drops)), -np.inf)
    for at, (room, sign) in enumerate(zip(rooms, (-1.0, 1.0), strict=True)):
        if not math.isfinite(room):
            continue
        gains = sign * excess / max(room, np.finfo(float).tiny)
        capital = np.full_like(gains, -np.inf)
        for stake in STAKES:
            won = np.cumsum(np.log1p(stake * np.maximum(gains, -1.0)), axis=1)
            capital = np.logaddexp(capital, won - math.log(len(STAKES)))
        most[at] = np.maximum(capital.max(axis=1), 0.0)
    return np.exp(-np.maximum(most, 0.0)), np.exp(-(most + 1) * groups / drops.shape[1])


TYPICAL = (0.1, 0.35, 0.6, 0.8, 1.1, 1.4, 2.1, 4.0, 5.0, 40.0)
"""How far rows' drops lie from the tolerance, in standard deviations between groups: tenths of the rows of the
sweeps in docs/method.md. What a run will take is guessed by these."""


def expected_groups(looks: Sequence[int], rows: int, error: float = ERROR) -> float:
    """On how many groups a row will be scored in the mean, if rows are as `TYPICAL`.

    >>> [expected_groups(looks_of(groups), 100) for groups in (15, 200, 2000)]
    [9.4, 50.0, 276.4]
    """
    limit, last = error / len(looks) / max(rows, 1), looks[-1]

    def is_over(apart: float, look: int) -> bool:
        t = apart * math.sqrt(look)
        return _t_alone(t, look) <= limit or _t_alone((t + LUCK) * math.sqrt(last / look), last) > limit

    return sum(next((look for look in looks if is_over(apart, look)), last) for apart in TYPICAL) / len(TYPICAL)


def _t_alone(t: float, groups: int) -> float:
    return float(skewed_t(np.array([t]), np.zeros(1), groups)[0])
