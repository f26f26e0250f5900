"""The scoring loop: what a scorer gives goes into the journal, block by block, until nothing is missing. Batches
come first, variants inside: whoever stops the work finds a table of all rows, on the samples so far."""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from ckptswap.errors import RunError, UsageError
from ckptswap.scoring.scorer import Block, Layout, Measure, Scorer, ShortcutFailed
from ckptswap.scoring.variant import Variant
from ckptswap.statistics import LEAST_GROUPS
from ckptswap.sweep.plan import Plan
from ckptswap.sweep.run_folder.blocks import Blocks
from ckptswap.sweep.run_folder.journal import Journal
from ckptswap.sweep.run_folder.plan_file import RunPlan
from ckptswap.sweep.scored_run import ScoredRun

FIRST_TURN, GROWTH = 10, 3
"""How many variants come first, in the order of a screen, and how many times as many at each next turn."""

Told = Callable[[Block], None]
Alive = Callable[[int, Sequence[Variant]], Collection[Variant]]
"""Which of the variants are worth scoring on batch `number`, asked when all before it is in the journal."""


def score_missing(
    scorer: Scorer,
    variants: Sequence[Variant],
    journal: Journal,
    told: Told,
    alive: Alive = lambda number, variants: variants,
    failed: set[str] | None = None,
) -> None:
    """Score what the journal lacks, batch by batch; each finished block is `told`.

    A variant that fails is added to `failed`, whose variants are left alone: whoever calls several times hands the
    same set on. Should a replay be found wrong, what was replayed is computed again.
    """
    failed = set() if failed is None else failed
    journal.blocks.demand_exact(variant.id for variant in variants if variant.exact)
    if journal.blocks.distrusted:
        scorer.distrust("an earlier part of this run found replays with other bits than full passes")
    while True:
        try:
            with closing(scorer.blocks(_Missing(journal.blocks, variants, alive, failed))) as blocks:
                for block in blocks:
                    journal.append(block)
                    if block.failed is not None:
                        failed.add(block.variant)
                    told(block)
            return
        except ShortcutFailed as error:
            journal.distrust()
            failed.clear()
            scorer.distrust(str(error))


def score_in_turn(run: RunPlan, scorer: Scorer, variants: Sequence[Variant], journal: Journal, told: Told) -> None:
    """Score what the journal lacks. Where the run's screen is its order, the samples by which it screens come
    first, then the variants that it calls worst, and more and more of the others: whoever stops the work finds the
    worst ones finished. Each turn takes a base pass a batch."""
    failed: set[str] = set()
    if run.screen and run.screen.is_order:
        first = run.screen_batches
        score_missing(
            scorer, variants, journal, told, lambda number, every: every if number < first else (), failed
        )
        guess = ScoredRun.of(run, journal.blocks).guess
        worst = sorted(variants, key=lambda variant: -guess.get(variant.id, -math.inf))
        count = FIRST_TURN
        while count < len(worst):
            score_missing(scorer, worst[:count], journal, told, failed=failed)
            count *= GROWTH
    score_missing(scorer, variants, journal, told, failed=failed)


class _Missing:
    """What is left to do, batch after batch, as the scorer comes to them."""

    def __init__(self, blocks: Blocks, variants: Sequence[Variant], alive: Alive, failed: Collection[str]) -> None:
        self._blocks, self._variants, self._alive, self._failed = blocks, variants, alive, failed

    def __contains__(self, number: object) -> bool:
        return isinstance(number, int) and bool(self.of(number))

    def of(self, number: int) -> list[Variant]:
        """The variants that must be scored on this batch."""
        alive = (variant for variant in self._alive(number, self._variants) if variant.id not in self._failed)
        return [self._blocks.as_demanded(variant) for variant in alive if self._blocks.lacks(variant.id, number)]


def run_race(run: RunPlan, scorer: Scorer, variants: Sequence[Variant], journal: Journal, told: Told) -> None:
    """Score what the run's race wants, until every split's is decided."""
    starts = [0, *np.cumsum(scorer.layout.sizes).tolist()]
    failed: set[str] = set()
    while True:
        races = ScoredRun.of(run, journal.blocks).races
        if all(split.standing.finished for split in races):
            return
        samples = dict.fromkeys((variant for split in races for variant in split.variants), 0)
        for split in races:
            for variant, wanted in zip(split.variants, split.standing.wanted.tolist(), strict=True):
                samples[variant] = max(samples[variant], wanted)

        def alive(number: int, every: Sequence[Variant], samples: Mapping[str, int] = samples) -> list[Variant]:
            return [variant for variant in every if samples.get(variant.id, starts[-1]) > starts[number]]

        score_missing(scorer, variants, journal, told, alive, failed)


@dataclass(frozen=True)
class Portion:
    """Variants that are to be scored on the first so many batches of the walk, before anything else is decided."""

    variants: tuple[Variant, ...]
    batches: int

    def alive(self, number: int, every: Sequence[Variant]) -> Sequence[Variant]:
        """For `score_missing`: nobody beyond the last batch."""
        return every if number < self.batches else ()


def portions(run: RunPlan, variants: Sequence[Variant], blocks: Blocks) -> Iterator[Portion]:
    """What is to be scored until all verdicts are known, each when what came before is among the blocks.

    What failed before is tried again, once; then the variants that have no verdict, look by look; at last, on all
    samples, those about which nobody asks for one: the donors themselves. Raises `RunError` where what was to be
    scored is not there.
    """
    by_id, last = {variant.id: variant for variant in variants}, None
    failures = [(by_id[name], batch) for (name, batch), block in blocks.items() if block.failed and name in by_id]
    if failures:
        again, batches = zip(*failures, strict=True)
        yield Portion(tuple(dict.fromkeys(again)), max(batches) + 1)
    while True:
        now = ScoredRun.of(run, blocks).decisions
        assert now is not None
        wanted = {name: batches for name, batches in now.wanted.items() if name in by_id}
        if not wanted:
            break
        portion = Portion(tuple(by_id[name] for name in wanted), max(wanted.values()))
        if portion == last:
            raise RunError("the executor has left out what it was to score", remedy="use --executor inline")
        yield (last := portion)
    others = tuple(variant for variant in variants if variant.id not in now.judgements)
    if others:
        yield Portion(others, len(run.walk))


def refuse_decision(layout: Layout, metric: Measure, *, is_sequence: bool) -> None:
    """Raises `UsageError` for fewer groups than a first look needs, and for bets on a metric without bounds."""
    groups = len(np.unique(layout.units))
    if groups < LEAST_GROUPS:
        joined = groups < len(np.unique(layout.groups))
        why = ", since ready-made batches join what they share" if joined else ""
        remedy = "yield batches of one group each, or leave --decide out" if joined else "leave --decide out"
        what = f"--decide looks at {LEAST_GROUPS} groups first, and there are {groups}{why}"
        raise UsageError(what, remedy=remedy)
    if metric.is_of_set:
        remedy = "leave --decide out, or score by a mean over samples"
        raise UsageError(
            f"{metric.name} has one value for the whole set, and nothing to add up while it goes", remedy=remedy
        )
    low, high = metric.bounds
    if is_sequence and not (metric.is_mean and math.isfinite(high - low)):
        what = "has no bounds" if metric.is_mean else "is not a mean over samples"
        remedy = "leave --confidence-sequence out: t-tests need none"
        raise UsageError(
            f"--confidence-sequence needs a mean with bounds, and {metric.name} {what}", remedy=remedy
        )


def refuse_race(top: int, plan: Plan, metric: Measure, *, is_alone: bool) -> None:
    """Raises `UsageError` for scores beside the ranking, several workers, and a metric that is not a mean."""
    if plan.alphas or plan.recalibration:
        remedy = "leave --alpha and --recalibrate-bn out, or --top"
        raise UsageError(f"a race for the top {top} scores no paths and estimates no statistics", remedy=remedy)
    if not is_alone:
        raise UsageError(f"a top {top} is raced for by one process", remedy="leave --jobs and --executor out")
    if not metric.is_mean:
        raise UsageError(
            f"{metric.name} is not a mean over samples, and a top {top} cannot be raced for",
            remedy="leave --top out, or score by the mean over images",
        )
