"""Verdicts while a sweep is at work: which variants need no more samples, as a pure function of what was scored.

The walk goes group by group (`task.order.batches_by_group`), so that the first groups are a random part of all;
what is tested at each look, and how sure a verdict is, `statistics.sequential` says.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ckptswap.errors import UsageError
from ckptswap.statistics import ErrorRate, StandardError, Verdict, sequential, totals
from ckptswap.statistics.totals import Bounds, Reduce, Sample, Totals
from ckptswap.statistics.verdicts import drop_form


@dataclass(frozen=True)
class Walked:
    """Scores in the order of a walk by groups. `baseline` and, by variant, `scores` are statistics (N, K) in the
    data's order, NaN where not scored yet, None where it failed; `groups` (N,) of the same samples.

    `walk` are the samples' places batch by batch, `bounds` those of one sample's score.
    """

    baseline: np.ndarray
    scores: Mapping[str, np.ndarray | None]
    groups: np.ndarray
    walk: Sequence[np.ndarray]
    reduce: Reduce
    direction: str
    bounds: Bounds

    @cached_property
    def turns(self) -> np.ndarray:
        """Of each sample's group the turn in the walk (N,), from 0."""
        order = np.concatenate(self.walk)
        _, first, number = np.unique(self.groups[order], return_index=True, return_inverse=True)
        turns = np.empty(len(order), np.int64)
        turns[order] = np.argsort(np.argsort(first))[number]
        return turns

    @cached_property
    def sizes(self) -> np.ndarray:
        """How many samples each group has (G,), by its turn."""
        return np.bincount(self.turns)

    @cached_property
    def looks(self) -> list[int]:
        return sequential.looks_of(len(self.sizes))

    def batches(self, groups: int) -> int:
        """How many batches of the walk hold the first so many groups."""
        holds = [at for at, places in enumerate(self.walk) if (self.turns[places] < groups).any()]
        return max(holds, default=-1) + 1

    @cached_property
    def known(self) -> np.ndarray:
        """On how many groups, from the first, each variant is scored (V,); −1 for one that failed."""
        return np.array([-1 if own is None else self._known(own) for own in self.scores.values()], np.int64)

    def _known(self, statistics: np.ndarray) -> int:
        scored = np.bincount(self.turns[totals.scored(statistics)], minlength=len(self.sizes))
        return int(np.append(scored == self.sizes, False).argmin())

    @cached_property
    def _totals(self) -> list[Totals]:
        """Of the baseline, then of each variant, by turn of the group; nothing of one that failed."""
        empty = np.full_like(self.baseline, np.nan)
        return [
            totals.group_totals(empty if own is None else own, self.turns)
            for own in (self.baseline, *self.scores.values())
        ]

    def sample(self, groups: int, rows: Sequence[int]) -> Sample:
        """The baseline and these variants on the first groups."""
        chosen = [self._totals[0], *(self._totals[1 + row] for row in rows)]
        columns = [Totals(own.sums[:groups], own.count[:groups]) for own in chosen]
        return Sample(columns, self.reduce, bounds=self.bounds)

    @cached_property
    def are_answers(self) -> bool:
        """Whether each group is right or wrong, by all of the baseline: a test that one look chose and another did
        not would have an error of its own."""
        return Sample(self._totals[:1], self.reduce, bounds=self.bounds).step is not None

    def by_t(self, tolerance: float) -> sequential.LookTest:
        """Look by t-tests; where each group is right or wrong, for what is sensitive, by bets: these know sooner
        there, and rest on no distribution."""

        def tests(groups: int, rows: np.ndarray) -> sequential.TwoSided:
            sample = self.sample(groups, rows.tolist())
            forms = [drop_form(1 + at, self.direction) for at in range(len(rows))]
            p, lucky = sequential.t_values(sample, forms, tolerance, len(self.sizes))
            if self.are_answers:  # one p-value is good for all looks
                p[1], lucky[1] = (both[1] / len(self.looks) for both in self._bets(sample, tolerance))
            return p, lucky

        return tests

    def by_bets(self, tolerance: float) -> sequential.LookTest:
        """Look by bets, which need no assumption but the bounds of a score."""
        return lambda groups, rows: self._bets(self.sample(groups, rows.tolist()), tolerance)

    def _bets(self, sample: Sample, tolerance: float) -> sequential.TwoSided:
        sign = 1.0 if self.direction == "max" else -1.0
        spread = self.bounds[1] - self.bounds[0]
        baseline, *own = (column.sums[:, 0] for column in sample.columns)
        drops, sizes = sign * (baseline - np.array(own)), self.sizes[: sample.groups]
        ends, largest = (-spread, spread), float(self.sizes.max())
        return sequential.betting_values(drops, sizes, tolerance, ends, largest, len(self.sizes))


@dataclass(frozen=True)
class Judgement:
    """A variant's verdict, the p-values of either side at the look that it rests on, and the groups of that look;
    None and 0 where there was no look yet. `is_given_up`: undecided, since all groups would hardly tell."""

    verdict: Verdict
    p_reusable: float | None
    p_sensitive: float | None
    groups: int
    is_given_up: bool

    @property
    def is_open(self) -> bool:
        """Whether more samples may tell."""
        return self.verdict == "undecided" and not self.is_given_up

    @property
    def told(self) -> dict[str, Any]:
        """What a row says of it."""
        return {name: getattr(self, name) for name in ("verdict", "p_reusable", "p_sensitive")}


@dataclass(frozen=True)
class Decisions:
    """How far the verdicts of a run are. `judgements` by variant; `wanted`: on how many batches of the walk each
    variant whose next look has not come must be scored. `looks`: after how many groups."""

    judgements: Mapping[str, Judgement]
    wanted: Mapping[str, int]
    looks: tuple[int, ...]


def decisions(walked: Walked, tolerance: float, *, bets: bool) -> Decisions:
    """The verdicts so far, by t-tests, or by `bets` that hold whatever the distribution."""
    looks = walked.looks
    if bets:
        tests, shares = walked.by_bets(tolerance), np.ones(len(looks))
    else:
        tests, shares = walked.by_t(tolerance), sequential.shares_of(looks)
    now = sequential.standing(walked.known, looks, tests, shares)
    variants = list(walked.scores)
    behind = np.flatnonzero(now.wanted > np.maximum(now.known, 0)).tolist()
    until = {groups: walked.batches(groups) for groups in {int(now.wanted[at]) for at in behind}}
    wanted = {variants[at]: until[int(now.wanted[at])] for at in behind}
    numbers = [[None if np.isnan(value) else float(value) for value in side] for side in now.p]
    judged = zip(now.verdicts, *numbers, now.looked.tolist(), now.given_up.tolist(), strict=True)
    return Decisions(dict(zip(variants, (Judgement(*own) for own in judged), strict=True)), wanted, tuple(looks))


def refuse_judging(error: ErrorRate | None, se: StandardError | None) -> None:
    """Raises `UsageError` for what verdicts that are known on the way cannot keep or presume."""
    if error == "fdr":
        what = "--decide keeps the family-wise error of a table"
        raise UsageError(what, remedy="leave --error fdr out, or --decide")
    if se == "successive":
        what = "--decide draws groups at random, so that those that follow each other are no neighbours"
        raise UsageError(what, remedy="leave --se successive out, or --decide")


@dataclass(frozen=True)
class Outlook:
    """What a run that decides on its way takes, as shares of the variants' scores: at least, if each verdict is
    known at the first of the `looks`; and if rows are as in other sweeps (None: nobody knows)."""

    looks: tuple[int, ...]
    least_share: float
    probable_share: float | None


def outlook(groups: np.ndarray, rows: int, *, bets: bool) -> Outlook:
    """The outlook for so many variants, on samples of these groups (N,).

    >>> outlook(np.arange(16), 3, bets=True)
    Outlook(looks=(8, 10, 12, 16), least_share=0.5, probable_share=None)
    """
    count = len(np.unique(groups))
    looks = sequential.looks_of(count)
    probable = None if bets else sequential.expected_groups(looks, rows) / count
    return Outlook(tuple(looks), looks[0] / count, probable)
