"""Checkpoints side by side: the score of each with its interval, and every paired difference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

from ckptswap.errors import TaskError
from ckptswap.statistics import intervals
from ckptswap.statistics.intervals import Interval
from ckptswap.sweep.scored_run import reduction

if TYPE_CHECKING:
    from ckptswap.task.evaluate import Evaluation, Scored


@dataclass(frozen=True)
class Difference:
    """Score of `a` minus score of `b` on the same samples."""

    a: str
    b: str
    metric: str
    interval: Interval


@dataclass(frozen=True)
class Comparison:
    """`scores[at][metric]` belongs to `paths[at]`; None where the checkpoint's outputs were not finite."""

    samples: int
    paths: tuple[str, ...]
    scores: tuple[Mapping[str, Interval | None], ...]
    differences: tuple[Difference, ...]
    warnings: tuple[str, ...]

    @property
    def failed(self) -> int:
        """How many checkpoints have no score."""
        return sum(None in scores.values() for scores in self.scores)


def compare(evaluation: Evaluation) -> Comparison:
    """Put intervals to an evaluation's scores, and compare every pair; intervals resample groups.

    Raises `TaskError` when not one checkpoint gives finite outputs.
    """
    scored = evaluation.checkpoints
    if all(each.measured.nonfinite for each in scored):
        raise TaskError(
            f"{scored[0].path} gives {scored[0].measured.nonfinite:,} outputs that are NaN or infinite",
            remedy="`ckptswap show --stats` tells which tensors hold such values",
        )
    scores = tuple(
        {metric.name: _score(evaluation, each, metric.name) for metric in evaluation.metrics} for each in scored
    )
    differences = tuple(
        _difference(evaluation, a, b, metric.name)
        for metric in evaluation.metrics
        for a, b in combinations([each for each in scored if not each.measured.nonfinite], 2)
    )
    warnings = [*(said for each in scored for said in _warnings(each)), *_few(evaluation)]
    warnings += _without_interval(evaluation, [(each.metric, each.interval) for each in differences])
    warnings += _without_interval(evaluation, [pair for each in scores for pair in each.items()])
    paths = tuple(each.path for each in scored)
    return Comparison(evaluation.samples, paths, scores, differences, tuple(dict.fromkeys(warnings)))


def _few(evaluation: Evaluation) -> list[str]:
    groups = _groups(evaluation)
    if groups >= intervals.LEAST_GROUPS:
        return []
    return [f"{groups} groups are too few for intervals, which want {intervals.LEAST_GROUPS} or more"]


def _groups(evaluation: Evaluation) -> int:
    return len(set(evaluation.groups.tolist()))


def _without_interval(evaluation: Evaluation, found: Sequence[tuple[str, Interval | None]]) -> list[str]:
    """Which metrics have numbers without one, though there are groups enough."""
    if _groups(evaluation) < intervals.LEAST_GROUPS:
        return []
    return [
        f"{metric} is alike in nearly all groups, and what one group can change it by has no bound: no interval"
        for metric, interval in found
        if interval is not None and interval.low is None
    ]


def _warnings(scored: Scored) -> list[str]:
    said, bad = list(scored.measured.warnings), scored.measured.nonfinite
    if bad:
        said.append(f"{scored.path} gives {bad:,} outputs that are NaN or infinite, and has no score")
    return said


def _score(evaluation: Evaluation, scored: Scored, metric: str) -> Interval | None:
    if scored.measured.nonfinite:
        return None
    return intervals.interval(scored.measured.statistics[metric], evaluation.groups, **_how(evaluation, metric))


def _how(evaluation: Evaluation, metric: str) -> dict[str, Any]:
    """How a metric's statistics become a value, and between which bounds that lies."""
    known = next(known for known in evaluation.metrics if known.name == metric)
    return {"reduce": reduction(known), "bounds": known.bounds}


def _difference(evaluation: Evaluation, a: Scored, b: Scored, metric: str) -> Difference:
    ours, theirs = (each.measured.statistics[metric] for each in (a, b))
    found = intervals.difference(ours, theirs, evaluation.groups, **_how(evaluation, metric))
    return Difference(a.path, b.path, metric, found)
