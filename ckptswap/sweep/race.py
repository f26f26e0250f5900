"""Top-K by racing: which variants need no more samples, as a pure function of what has been scored. numpy only.

After each chunk of a random walk the `top` variants with the largest drops so far run ahead to the last sample, so
that the smallest of their drops, the *bar*, is exact. Each other is ruled out once "its drop over all samples
reaches the bar + epsilon" is refuted by a bet (`log_capital`). docs/method.md has the argument in full.

Sources: Waudby-Smith & Ramdas, Estimating means of bounded random variables by betting, J. R. Stat. Soc. B 86
(2024) 1, arXiv:2010.09686; Confidence sequences for sampling without replacement, NeurIPS 2020, arXiv:2006.04347.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ckptswap.errors import UsageError
from ckptswap.records import Count

FIRST = 16  # samples before the first decision
LEAST_UNITS = 16
"""Units seen before a ceiling is assumed from them: fewer may not have shown yet how a variant breaks."""
GROWTH = 1.15
"""A chunk ends no sooner than this many times the end before: finer looks save nothing in simulations."""
STAKES = np.array([0.95, 0.5])
SHARES = np.array([0.8, 0.2])
"""Of the capital, on each stake. In simulations and on real sweeps more stakes, or lower ones, do more work."""
ROUNDING = 1e-9
"""Of the largest drop: where less than this is left to be fair, it is rounding, and there is no bet."""


@dataclass(frozen=True)
class RaceRules:
    """What is raced for: the `top` largest drops, wholly right with this confidence, `epsilon` counting as tied.

    `ceiling` is the largest drop that one sample can have (see `largest_drop`). Without one it is assumed from
    the drops seen, and the confidence is no longer guaranteed. Raises `UsageError` for a rule that makes no sense.

    >>> RaceRules(top=10, confidence=1.5)
    Traceback (most recent call last):
    ckptswap.errors.UsageError: confidence is 1.5: give a number between 0 and 1
    """

    top: int
    confidence: float = 0.95
    epsilon: float = 0.0
    ceiling: float | None = None

    def __post_init__(self) -> None:
        if self.top < 1:
            raise UsageError(f"top is {self.top}", remedy="give at least 1")
        if not 0 < self.confidence < 1:
            raise UsageError(f"confidence is {self.confidence:g}", remedy="give a number between 0 and 1")
        if not 0 <= self.epsilon < math.inf:
            raise UsageError(f"epsilon is {self.epsilon:g}", remedy="give 0 or a small drop")
        if self.ceiling is not None and not math.isfinite(self.ceiling):
            raise UsageError(f"ceiling is {self.ceiling:g}", remedy="give none where none is known")


@dataclass(frozen=True)
class Race:
    """The race of a run: by which of its metrics, and its rules. `bounds` are those of one sample's score."""

    metric: str
    direction: Literal["max", "min"]
    top: Count
    confidence: float
    epsilon: float
    bounds: tuple[float | None, float | None]

    def __post_init__(self) -> None:
        self.rules  # noqa: B018 - raises `UsageError` for rules that make no sense, also in a plan that was forged

    @property
    def rules(self) -> RaceRules:
        """Without a ceiling, which depends on the baseline."""
        return RaceRules(self.top, self.confidence, self.epsilon)

    def rules_for(self, baseline: np.ndarray) -> RaceRules:
        """With the largest drop that one sample can have from the baseline's score."""
        low, high = self.bounds
        bounds = (-np.inf if low is None else low, np.inf if high is None else high)
        return replace(self.rules, ceiling=largest_drop(baseline, bounds, self.direction))


@dataclass(frozen=True)
class Standing:
    """A race between two steps.

    `scored` (V,): samples of the walk that decisions rest on. `wanted` (V,): samples that must be scored before
    it goes on, equal to `scored` when it is over. `outside` (V,): ruled out. `leaders`: at most `top`
    variants with all samples, worst drop first. `bar`: the drop of the last, None while there are fewer than
    `top`.
    """

    scored: np.ndarray
    wanted: np.ndarray
    outside: np.ndarray
    leaders: tuple[int, ...] = ()
    bar: float | None = None

    @property
    def finished(self) -> bool:
        """Whether the place of every variant is decided."""
        return np.array_equal(self.scored, self.wanted)


def standing(
    drops: np.ndarray, ends: Sequence[int], rules: RaceRules, units: np.ndarray | None = None, chosen: int = 0
) -> Standing:
    """How far the race has come on these scores, and what it wants next.

    `drops` (V, N): each variant's drop per sample in the order of the walk, NaN where not scored yet; failed ones
    are left out. `ends`: after how many samples each chunk ends, the last one N (see `chunk_ends`). `units` (N,):
    equal numbers for neighbours in the walk that were drawn together (default: each alone), in random order. The
    first `chosen` samples were chosen instead of drawn: they count, but nothing is bet on them.

    The race is run anew from its start, each decision on no more than it had wanted. So an interrupted race goes
    on as if it had not been, and scores that nobody asked for change nothing. Score what is wanted and call again:

    >>> drops = np.linspace(0.6, 0, 50)[:, None] ** 4 + np.random.default_rng(0).normal(0, 0.05, (50, 400))
    >>> known, rules = np.full_like(drops, np.nan), RaceRules(top=3, ceiling=1.0)
    >>> while not (now := standing(known, chunk_ends([8] * 50), rules)).finished:
    ...     asked = np.arange(400) < now.wanted[:, None]
    ...     known[asked] = drops[asked]
    >>> now.leaders, int(now.outside.sum()), f"{now.scored.mean() / 400:.0%} of the work"
    ((0, 1, 2), 46, '21% of the work')

    Raises `UsageError` where chunks, units or drops do not fit each other or the rules.
    """
    walk = _walk(drops, ends, units, rules.ceiling, chosen)
    nobody = np.zeros(len(drops), dtype=np.int64)
    now = Standing(nobody, nobody, nobody.astype(bool))
    for end in ends:
        chunk = np.where(now.outside, now.scored, np.maximum(now.scored, end))
        if (walk.available < chunk).any():
            return replace(now, wanted=chunk)
        ahead = chunk.copy()
        ahead[_largest(walk.means(chunk), ~now.outside, rules.top)] = walk.samples
        if (walk.available < ahead).any():
            return replace(now, scored=chunk, wanted=ahead)
        now = _after_look(walk, replace(now, scored=ahead, wanted=ahead), rules)
    return now


def chunk_ends(batches: Sequence[int]) -> list[int]:
    """After how many samples a race decides, from the sizes of the batches in the order of the walk.

    >>> chunk_ends([8] * 12 + [4])
    [16, 24, 32, 40, 48, 56, 72, 88, 100]
    """
    counted = np.cumsum(batches).tolist()
    ends: list[int] = []
    for count in counted:
        if count >= (GROWTH * ends[-1] if ends else FIRST) or count == counted[-1]:
            ends.append(count)
    return ends


def largest_drop(
    baseline: np.ndarray, bounds: tuple[float, float], direction: Literal["max", "min"]
) -> float | None:
    """The largest drop that one sample can have, from the baseline's scores and the bounds of a score; or None.

    >>> largest_drop(np.array([0.5, 0.75]), (0.0, 1.0), "max"), largest_drop(np.array([3.0]), (0, math.inf), "min")
    (0.75, None)
    """
    drop = float(baseline.max() - bounds[0] if direction == "max" else bounds[1] - baseline.min())
    return drop if math.isfinite(drop) else None


@dataclass(frozen=True)
class _Walk:
    """The drops by unit: `sums` and `worst` (V, G + 1) of the first 0 … G units, `counted` (G + 1,) their samples.
    `available` (V,): samples scored without a gap. `chosen`: of the first units, those that were not drawn."""

    sums: np.ndarray
    worst: np.ndarray
    counted: np.ndarray
    available: np.ndarray
    chosen: int = 0

    @property
    def samples(self) -> int:
        return int(self.counted[-1])

    def seen(self, scored: np.ndarray) -> np.ndarray:
        """How many units make so many samples."""
        return np.searchsorted(self.counted, scored)

    def means(self, scored: np.ndarray) -> np.ndarray:
        """The mean drop (V,) over the first samples."""
        return self.sums[np.arange(len(scored)), self.seen(scored)] / scored


def _walk(
    drops: np.ndarray, ends: Sequence[int], units: np.ndarray | None, ceiling: float | None, chosen: int
) -> _Walk:
    rows, samples = drops.shape
    starts = np.arange(samples) if units is None else np.append(0, np.flatnonzero(np.diff(units)) + 1)
    if units is not None and (len(units) != samples or len(np.unique(units)) != len(starts)):
        raise UsageError(f"the units do not cut the walk of {samples} samples", remedy="keep each together")
    counted = np.append(starts, samples)
    if list(ends) != sorted({*ends}) or not ends or ends[-1] != samples or not {*ends} <= {*counted[1:].tolist()}:
        raise UsageError(f"chunks end after {list(ends)} of {samples} samples", remedy="end each with a unit")
    if np.isinf(drops).any():
        raise UsageError("a drop is infinite", remedy="leave that variant out of the race")
    largest = np.nanmax(drops, initial=-np.inf)
    if ceiling is not None and largest > ceiling + ROUNDING * abs(ceiling):
        remedy = "race without a ceiling"
        raise UsageError(f"a sample's drop is {largest:g}, beyond the ceiling {ceiling:g}", remedy=remedy)
    sums = np.cumsum(np.add.reduceat(drops, starts, axis=1), axis=1)
    worst = np.maximum.accumulate(np.maximum.reduceat(drops, starts, axis=1), axis=1)
    return _Walk(
        sums=np.column_stack([np.zeros(rows), sums]),
        worst=np.column_stack([np.full(rows, -np.inf), worst]),
        counted=counted,
        available=counted[(~np.isnan(sums)).sum(axis=1)],
        chosen=int(np.searchsorted(counted, chosen)),
    )


def _largest(values: np.ndarray, among: np.ndarray, count: int) -> np.ndarray:
    """The rows with the largest values, at most `count`, the largest first; of equal ones the first row."""
    return np.argsort(np.where(among, -values, np.inf), kind="stable")[: min(count, among.sum())]


def _after_look(walk: _Walk, now: Standing, rules: RaceRules) -> Standing:
    """Who leads by now, and who is ruled out."""
    drops = walk.means(now.scored)
    leaders = tuple(_largest(drops, now.scored == walk.samples, rules.top).tolist())
    bar = float(drops[leaders[-1]]) if len(leaders) == rules.top else None
    now = replace(now, leaders=leaders, bar=bar)
    undecided = np.flatnonzero(~now.outside & (now.scored < walk.samples))
    if bar is None or not len(undecided):
        return now
    seen = int(walk.seen(now.scored[undecided]).max())
    if rules.ceiling is None and seen < LEAST_UNITS:
        return now
    ceiling = _assumed_ceiling(walk, now, bar) if rules.ceiling is None else rules.ceiling
    totals = np.diff(walk.sums[undecided, : seen + 1], axis=1)
    capital = log_capital(totals, np.diff(walk.counted), ceiling, bar + rules.epsilon, walk.chosen)
    outside = now.outside.copy()
    outside[undecided] = capital >= math.log(rules.top / (1 - rules.confidence))
    return replace(now, outside=outside)


def _assumed_ceiling(walk: _Walk, now: Standing, bar: float) -> float:
    """The largest drop on one sample that a variant in question is taken to be able to have: a rule of ours.

    The worst seen in any variant without all samples, or, where that is more, what the most peaked of the leaders
    would have at the bar (its worst sample over its mean, times the bar); without a bar above 0 the worst of all.
    """
    worst = walk.worst[np.arange(len(now.scored)), walk.seen(now.scored)]
    if bar <= 0:
        return float(worst.max())
    leaders = list(now.leaders)
    peak = (worst[leaders] / walk.means(now.scored)[leaders]).max() * bar
    return float(max(peak, worst[now.scored < walk.samples].max()))


def log_capital(totals: np.ndarray, sizes: np.ndarray, ceiling: float, mean: float, chosen: int = 0) -> np.ndarray:
    """The logarithm (V,) of what bets against "the mean drop over all samples is at least `mean`" have won.

    `totals` (V, T): the sums of the drops in each of the T units seen, in the order of the walk; `sizes` (G,): the
    samples of all units. Nothing is bet on the first `chosen` units, which were not drawn. Infinite where the
    samples not seen could no longer bring the mean up to `mean`.

    >>> log_capital(np.zeros((1, 30)), np.ones(100), 1.0, 0.1).round(2).tolist()
    [3.42]
    """
    seen = sizes[: totals.shape[1]]
    room = np.maximum(ceiling * seen - totals, 0.0)
    left = sizes.sum() * (ceiling - mean) - np.cumsum(room, axis=1) + room
    fair = left / (sizes.sum() - np.cumsum(seen) + seen)
    rounding = ROUNDING * max(abs(ceiling), np.abs(totals / seen).max())
    with np.errstate(divide="ignore", invalid="ignore"):
        gain = np.where(fair > rounding, (room / fair - seen) / sizes.max(), 0.0)
    gain[:, :chosen] = 0.0
    won = np.log1p(STAKES[:, None, None] * gain).sum(axis=2)
    capital = np.logaddexp.reduce(won + np.log(SHARES)[:, None], axis=0)
    return np.where(left[:, -1] - room[:, -1] < -rounding * sizes.sum(), np.inf, capital)
