"""A run's scores as one metric sees them: what a table is made of, without torch, model or data."""

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, cached_property

import numpy as np

from ckptswap.errors import MetricError, RunError, UsageError, near
from ckptswap.scoring.variant import BASELINE, Variant
from ckptswap.statistics import ErrorRate, StandardError, totals
from ckptswap.sweep.decide import Decisions, Walked, decisions, refuse_judging
from ckptswap.sweep.plan import By, Cell, Plan
from ckptswap.sweep.race import Race, RaceRules, Standing, chunk_ends, standing
from ckptswap.sweep.run_folder.blocks import Blocks, Scores, donor_id
from ckptswap.sweep.run_folder.folder import RunFolder
from ckptswap.sweep.run_folder.plan_file import RunMetric, RunPlan
from ckptswap.sweep.spec import Judging
from ckptswap.task.metrics import load_metrics, recorded_metric
from ckptswap.task.spec import TaskSpec

DEFAULT_TOLERANCE = 0.01  # of the distance between the baseline and a constant prediction


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


@dataclass(frozen=True)
class ScoredRun:
    """Plan and scores of a run, read for one metric, with what they are judged by.

    `trusted` are the metrics whose code may run, beside ours; None: all, as the run is this user's own.
    p-values are made of so many `draws`.
    """

    run: RunPlan
    metric: RunMetric
    scores: Scores
    judging: Judging
    trusted: frozenset[str] | None = None
    draws: int = totals.DRAWS

    @classmethod
    def of(
        cls, run: RunPlan, blocks: Blocks, metric: str | None = None, judging: Judging = Judging()
    ) -> "ScoredRun":
        """For a run's first metric, or the named one; `judging` overrides the run's own. Raises `RunError` where
        there is no baseline yet, `MetricError` for a metric that it lacks, `UsageError` as `refuse_judging`."""
        known = {measured.name: measured for measured in run.metrics}
        chosen = metric or run.metrics[0].name
        there = {block.batch for block in blocks.values() if block.variant == BASELINE and block.failed is None}
        # Without its baseline a batch's scores say nothing.
        scores = Scores([block for block in blocks.values() if block.batch in there], run.walk)
        if not scores.done(BASELINE):
            raise RunError("no scores yet", remedy="run the same `ckptswap sweep` again to continue")
        if chosen not in known:
            remedy = near(chosen, known) or f"it has {', '.join(known)}"
            raise MetricError(f"no scores by {chosen!r}", remedy=remedy)
        judging = judging.or_else(Judging(run.tolerance, run.error, run.se))
        if run.spec.decide:
            refuse_judging(judging.error, judging.se)
        return cls(run, known[chosen], scores, judging)

    @classmethod
    def read(cls, folder: RunFolder, metric: str | None = None, judging: Judging = Judging()) -> "ScoredRun":
        """The same from a folder. Raises `RunError` for one that is no run, or is damaged."""
        plan, blocks, is_ours = folder.read_with_owner()
        trusted = None if is_ours else frozenset(filter(None, [metric]))
        try:
            return replace(cls.of(plan, blocks, metric, judging), trusted=trusted)
        except (RunError, MetricError) as error:
            raise type(error)(f"{folder} has {error.message}", remedy=error.remedy) from None

    def only(self, there: np.ndarray) -> "ScoredRun":
        """The same run of these samples (N,) alone, by the tolerance of all."""
        judging = replace(self.judging, tolerance=self.tolerance()[0])
        return replace(self, scores=self.scores.only(there), judging=judging)

    @property
    def plan(self) -> Plan:
        return self.run.plan

    @property
    def groups(self) -> np.ndarray:
        """Which samples belong together (N,)."""
        return np.array(self.run.groups, dtype=np.int64)

    @property
    def race(self) -> Race | None:
        """The race, where it is for this metric."""
        return self.run.race if self.run.race and self.run.race.metric == self.metric.name else None

    @property
    def race_rules(self) -> RaceRules | None:
        """The race's, with the largest drop that one sample can have."""
        return self.race.rules_for(self.statistics(BASELINE)) if self.race else None

    @cached_property
    def races(self) -> tuple[SplitRace, ...]:
        """How the race of each split stands, found out anew from the scores, as if never interrupted."""
        rules, scores, walk = self.race_rules, self.scores, np.concatenate(self.scores.walk)
        if rules is None:
            return ()
        sign = 1.0 if self.metric.direction == "max" else -1.0
        ends, units = chunk_ends([len(places) for places in scores.walk]), np.asarray(self.run.units)[walk]
        chosen = sum(map(len, scores.walk[: self.run.screen_batches]))
        baseline = self.statistics(BASELINE)[walk, 0]
        races = []
        for by in self.plan.by:
            measured = [cell.variant for cell in self.plan.cells if cell.by == by and cell.status == "measured"]
            variants = tuple(variant for variant in dict.fromkeys(measured) if scores.failed(variant) is None)
            if variants:
                drops = [sign * (baseline - self.statistics(variant)[walk, 0]) for variant in variants]
                races.append(SplitRace(by, variants, standing(np.array(drops), ends, rules, units, chosen)))
        return tuple(races)

    @cached_property
    def decisions(self) -> Decisions | None:
        """The verdicts that `--decide` asked for, found out anew from the scores; None where it did not."""
        spec, scores = self.run.spec, self.scores
        reduce = self.reduce if spec.decide else None
        if reduce is None or isinstance(reduce, totals.OfSet):  # which a sweep refuses to decide by
            return None
        measured = dict.fromkeys(cell.variant for cell in self.plan.cells if cell.status == "measured")
        own = {name: self.statistics(name) if scores.failed(name) is None else None for name in measured}
        groups, baseline = np.asarray(self.run.units), self.statistics(BASELINE)
        walked = Walked(baseline, own, groups, scores.walk, reduce, self.metric.direction, self.bounds)
        return decisions(walked, self.tolerance()[0], bets=spec.confidence_sequence)

    @cached_property
    def guess(self) -> Mapping[str, float]:
        """What the run's screen says of each variant, the larger the worse: of `sample:N` the drop on these."""
        if not self.run.screen_batches:
            return self.run.screen.values if self.run.screen else {}
        places = np.concatenate(self.scores.walk[: self.run.screen_batches])

        def score(variant: str) -> float:
            statistics = self.statistics(variant)[places]
            return math.nan if np.isnan(statistics).any() else totals.whole(statistics, self.reduce)

        sign, baseline = (1.0 if self.metric.direction == "max" else -1.0), score(BASELINE)
        there = (variant.id for variant in self.plan.variants() if self.is_there(variant.id))
        drops = {variant: sign * (baseline - score(variant)) for variant in there}
        return {variant: drop for variant, drop in drops.items() if math.isfinite(drop)}

    @property
    def others(self) -> list["ScoredRun"]:
        """The same scores by each other metric of the run."""
        return [replace(self, metric=other) for other in self.run.metrics if other.name != self.metric.name]

    @property
    def error(self) -> ErrorRate:
        """What verdicts keep."""
        return self.judging.error or "fwer"

    @property
    def se(self) -> StandardError:
        """What standard errors presume of the groups."""
        return self.judging.se or "cluster"

    @property
    def reduce(self) -> totals.Reduction:
        """How statistics become a value. Raises `MetricError` where that would run what nobody here has named."""
        return reduction(self.metric, self.trusted)

    @property
    def bounds(self) -> totals.Bounds:
        """Between which one sample's score lies."""
        low, high = self.metric.bounds
        return -math.inf if low is None else low, math.inf if high is None else high

    @property
    def baseline(self) -> float:
        """The recipient's own score, on all that it was scored on. Raises as `refuse_valueless` does."""
        self.refuse_valueless()
        return self._values(BASELINE)

    def refuse_valueless(self) -> None:
        """Raises `MetricError` where the recipient's outputs have no value."""
        reason = self.failed(BASELINE)
        if reason is not None:
            raise MetricError(f"the recipient has no score: {reason}", remedy="use another metric, or other data")

    def value(self, variant: str) -> float | None:
        """The score of a variant, the baseline or the donor, on all that it was scored on; None when it failed."""
        return self._values(variant) if self.is_there(variant) else None

    def statistics(self, variant: str) -> np.ndarray:
        return self.scores.statistics(variant, self.metric.name)

    def is_there(self, variant: str) -> bool:
        """Whether a variant has a score, if only on some samples."""
        return self.scores.done(variant) > 0 and self.failed(variant) is None

    def failed(self, variant: str) -> str | None:
        """Why a variant has no score: its own failure, or that its outputs have no value."""
        reason = self.scores.failed(variant)
        if reason is not None or not self.metric.is_of_set or not self.scores.done(variant):
            return reason
        return None if math.isfinite(self._values(variant)) else f"{self.metric.name} has no value of its outputs"

    @cached_property
    def _values(self) -> Callable[[str], float]:
        """The value of a variant, which takes its time where only the whole set has one."""
        return cache(lambda variant: totals.whole(self.statistics(variant), self.reduce))

    def is_whole(self, variant: str) -> bool:
        """Whether a variant has a score on every sample."""
        return self.is_there(variant) and self.scores.done(variant) == self.scores.samples

    def is_scored(self, cell: Cell) -> bool:
        """Whether a row has a drop that was measured, if only on some samples."""
        return cell.status == "measured" and self.is_there(cell.variant)

    @property
    def beside(self) -> list[Variant]:
        """What is scored beside the rows: points of paths, and variants with new statistics."""
        return [variant for variant in self.plan.variants() if variant.recalibrated or variant.alpha != 1.0]

    def is_known(self, cell: Cell) -> bool:
        """Whether there is a row to show."""
        return cell.status != "measured" or self.scores.is_begun(cell.variant)

    @property
    def is_complete(self) -> bool:
        """Whether there is a score, or a failure, for everything in the plan on every sample."""
        return all(map(self._is_settled, [BASELINE, *(variant.id for variant in self.plan.variants())]))

    @property
    def is_finished(self) -> bool:
        """Whether the same command would score nothing more of rows and donors: of a race, and where verdicts are
        known on the way, that is less than everything."""
        own = Judging(self.run.tolerance, self.run.error, self.run.se)
        first = replace(self, metric=self.run.metrics[0], judging=own)
        if first.race:
            return all(split.standing.finished for split in first.races)
        donors = [donor_id(at) for at, misfit in enumerate(self.run.donor_misfits) if not misfit]
        is_known = self.is_complete if first.decisions is None else not first.decisions.wanted
        return is_known and all(map(self._is_settled, donors))

    def _is_settled(self, variant: str) -> bool:
        """Whether a variant has a score on every sample, or none because it failed."""
        return self.scores.done(variant) == self.scores.samples or self.scores.failed(variant) is not None

    def tolerance(self) -> tuple[float, str]:
        """The drop that we are ready to ignore, and in words where it comes from. Raises `UsageError` where none
        was given and a constant prediction has no score to measure by."""
        given = self.judging.tolerance
        if given is not None:
            return given, f"tolerance {given:g} as given"
        name, trivial = self.metric.name, self.metric.trivial
        if trivial is None:
            raise UsageError(f"{name} has no trivial score to set a tolerance by", remedy="give --tolerance")
        baseline = self.baseline
        tolerance = DEFAULT_TOLERANCE * abs(baseline - trivial)
        return tolerance, (
            f"tolerance {tolerance:.4g} = {DEFAULT_TOLERANCE:g} × |baseline {baseline:.4g} − "
            f"{trivial:.4g} of a trivial prediction|"
        )


def is_complete(folder: RunFolder) -> bool:
    """Whether there is a whole run, complete in the same sense; whoever sweeps in a damaged one again is told."""
    with suppress(RunError):
        return ScoredRun.read(folder).is_complete
    return False


def reduction(metric: RunMetric, trusted: frozenset[str] | None = frozenset()) -> totals.Reduction:
    """How a metric's statistics become its value; only the code of `trusted` metrics may run beside ours (None: of
    any). Raises `MetricError` for another, and where it is not installed."""
    if metric.is_mean:
        return totals.mean
    if not metric.is_of_set:
        return recorded_metric(metric.name).reduce
    if trusted is not None and metric.name not in trusted:
        what = f"{metric.name} is valued by code that this run names, and no command of yours made it"
        raise MetricError(what, remedy=f"if you trust it, name it again: --metric {metric.name}")
    [made] = load_metrics(TaskSpec(metrics=(metric.name,), direction=metric.direction))
    return made.reduction


def refuse_valueless(run: RunPlan, blocks: Blocks) -> None:
    """Raises `MetricError` where the recipient's outputs have no value by a metric of a set; it shows once all are
    there."""
    for metric in run.metrics:
        if metric.is_of_set:
            ScoredRun.of(run, blocks, metric.name).refuse_valueless()
