"""Checkpoints side by side: the score of each with its interval, and every paired difference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from ckptswap.errors import TaskError
from ckptswap.sweep import statistics
from ckptswap.sweep.statistics import Interval

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
    warnings = tuple(dict.fromkeys([*(said for each in scored for said in _warnings(each)), *_few(evaluation)]))
    return Comparison(evaluation.samples, tuple(each.path for each in scored), scores, differences, warnings)


def _few(evaluation: Evaluation) -> list[str]:
    groups = len(set(evaluation.groups.tolist()))
    if groups >= statistics.LEAST_GROUPS:
        return []
    return [f"{groups} groups are too few for intervals, which want {statistics.LEAST_GROUPS} or more"]


def _warnings(scored: Scored) -> list[str]:
    said, bad = list(scored.measured.warnings), scored.measured.nonfinite
    if bad:
        said.append(f"{scored.path} gives {bad:,} outputs that are NaN or infinite, and has no score")
    return said


def _score(evaluation: Evaluation, scored: Scored, metric: str) -> Interval | None:
    if scored.measured.nonfinite:
        return None
    reduce = next(each.reduce for each in evaluation.metrics if each.name == metric)
    return statistics.interval(scored.measured.statistics[metric], evaluation.groups, reduce)


def _difference(evaluation: Evaluation, a: Scored, b: Scored, metric: str) -> Difference:
    reduce = next(each.reduce for each in evaluation.metrics if each.name == metric)
    ours, theirs = (each.measured.statistics[metric] for each in (a, b))
    return Difference(a.path, b.path, metric, statistics.difference(ours, theirs, evaluation.groups, reduce))
