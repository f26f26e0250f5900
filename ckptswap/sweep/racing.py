"""The races of a run, one for each way of splitting: who leads, who is out, and which samples are wanted next.

Everything is found out anew from the journal's scores, so that a race that was interrupted, or is looked at by
`report`, stands where it stood.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ckptswap.errors import UsageError
from ckptswap.records import Count
from ckptswap.scoring.scorer import Measure, Scorer
from ckptswap.scoring.variant import BASELINE, Variant
from ckptswap.sweep.loop import Told, score_missing
from ckptswap.sweep.plan import By, Plan
from ckptswap.sweep.race import RaceRules, Standing, chunk_ends, largest_drop, standing
from ckptswap.sweep.run_folder.blocks import Scores
from ckptswap.sweep.run_folder.journal import Journal


@dataclass(frozen=True)
class Race:
    """What is raced for: the `top` worst drops of each split by `metric`, with this confidence, ties within
    `epsilon` aside. `bounds` are those of one sample's score, None where there is none.
    """

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

    def rules_for(self, scores: Scores) -> RaceRules:
        """With the largest drop that one sample can have from the baseline."""
        low, high = self.bounds
        bounds = (-np.inf if low is None else low, np.inf if high is None else high)
        baseline = scores.statistics(BASELINE, self.metric)
        return replace(self.rules, ceiling=largest_drop(baseline, bounds, self.direction))


@dataclass(frozen=True)
class SplitRace:
    """The race of one split: its variants, failed ones left out, and how they stand."""

    by: By
    variants: tuple[str, ...]
    standing: Standing

    @property
    def leaders(self) -> list[str]:
        """The variants that lead on all samples, the worst drop first."""
        return [self.variants[at] for at in self.standing.leaders]


def split_races(race: Race, plan: Plan, scores: Scores, units: Sequence[int]) -> Iterator[SplitRace]:
    """How each split's race stands by the scores so far; `units` (N,) in the data's order."""
    walk = np.concatenate(scores.walk)
    sign = 1.0 if race.direction == "max" else -1.0
    baseline = scores.statistics(BASELINE, race.metric)[walk, 0]
    ends = chunk_ends([len(places) for places in scores.walk])
    rules = race.rules_for(scores)
    for by in plan.by:
        measured = [cell.variant for cell in plan.cells if cell.by == by and cell.status == "measured"]
        variants = tuple(variant for variant in dict.fromkeys(measured) if scores.failed(variant) is None)
        if variants:
            drops = [sign * (baseline - scores.statistics(variant, race.metric)[walk, 0]) for variant in variants]
            yield SplitRace(by, variants, standing(np.array(drops), ends, rules, np.asarray(units)[walk]))


def run_race(
    race: Race, plan: Plan, scorer: Scorer, variants: Sequence[Variant], journal: Journal, told: Told
) -> None:
    """Score what the race wants, until every split's is decided."""
    layout = scorer.layout
    starts = [0, *np.cumsum(layout.sizes).tolist()]
    walk, units = [places.tolist() for places in layout.places], layout.units.tolist()
    failed: set[str] = set()
    while True:
        races = list(split_races(race, plan, Scores(journal.blocks.values(), walk), units))
        if all(split.standing.finished for split in races):
            return
        samples = dict.fromkeys((variant for split in races for variant in split.variants), 0)
        for split in races:
            for variant, wanted in zip(split.variants, split.standing.wanted.tolist(), strict=True):
                samples[variant] = max(samples[variant], wanted)

        def alive(number: int, every: Sequence[Variant], samples: Mapping[str, int] = samples) -> list[Variant]:
            return [variant for variant in every if samples.get(variant.id, layout.samples) > starts[number]]

        score_missing(scorer, variants, journal, told, alive, failed)


def refuse_race(top: int, plan: Plan, metric: Measure, *, is_alone: bool) -> None:
    """Raises `UsageError` for scores beside the ranking, several workers, and a metric that is not a mean."""
    if plan.alphas or plan.recalibration:
        raise UsageError(
            f"a race for the top {top} scores no paths and estimates no statistics",
            remedy="leave --alpha and --recalibrate-bn out, or --top",
        )
    if not is_alone:
        raise UsageError(f"a top {top} is raced for by one process", remedy="leave --jobs and --executor out")
    if not metric.is_mean:
        raise UsageError(
            f"{metric.name} is not a mean over samples, and a top {top} cannot be raced for",
            remedy="leave --top out, or score by the mean over images",
        )
