"""Checkpoints side by side: the score of each with its interval, and every paired difference."""

import math
from collections.abc import Iterable
from itertools import combinations
from typing import Any

from ckptswap.errors import TaskError
from ckptswap.statistics import Comparison, Difference, Interval, intervals
from ckptswap.task.evaluate import Evaluation, Scored
from ckptswap.task.metrics import Metric


def compare(evaluation: Evaluation) -> Comparison:
    """Put intervals to an evaluation's scores, and compare every pair; intervals resample groups.

    Raises `TaskError` when not one checkpoint gives finite outputs.
    """
    scored = evaluation.checkpoints
    finite = [checkpoint for checkpoint in scored if not checkpoint.measured.nonfinite]
    if not finite:
        raise TaskError(
            f"{scored[0].path} gives {scored[0].measured.nonfinite:,} outputs that are NaN or infinite",
            remedy="`ckptswap show --stats` tells which tensors hold such values",
        )
    scores = tuple(
        {metric.name: _score(evaluation, checkpoint, metric) for metric in evaluation.metrics}
        for checkpoint in scored
    )
    differences = tuple(
        _difference(evaluation, a, b, metric)
        for metric in evaluation.metrics
        for a, b in combinations([own for own in finite if math.isfinite(own.values[metric.name])], 2)
    )
    warnings = [warning for checkpoint in scored for warning in _warnings(checkpoint)]
    warnings += _few(evaluation, [(pair.metric, pair.interval) for pair in differences])
    measured = {metric.name for metric in evaluation.metrics if metric.needs_labels}
    drawn = [
        (name, found) for at, own in enumerate(scores) for name, found in own.items() if at or name in measured
    ]
    warnings += _few(evaluation, drawn)
    paths = tuple(checkpoint.path for checkpoint in scored)
    told = tuple(dict.fromkeys(warnings))
    return Comparison(evaluation.samples, paths, scores, differences, told, evaluation.drawn)


def _few(evaluation: Evaluation, numbers: Iterable[tuple[str, Interval | None]]) -> list[str]:
    """That there are too few groups, or which metrics have numbers without an interval though there are enough."""
    groups = len(set(evaluation.groups.tolist()))
    if groups < intervals.LEAST_GROUPS:
        few = f"{groups} group{' is' if groups == 1 else 's are'} too few"
        return [f"{few} for intervals, which want {intervals.LEAST_GROUPS} or more"]
    return [
        f"{metric} is alike in nearly all groups, and what one group can change it by has no bound: no interval"
        for metric, interval in numbers
        if interval is not None and interval.low is None
    ]


def _warnings(scored: Scored) -> list[str]:
    bad = scored.measured.nonfinite
    valueless = [name for name, value in scored.values.items() if not bad and not math.isfinite(value)]
    lost = [f"{scored.path} gives {bad:,} outputs that are NaN or infinite, and has no score"] if bad else []
    lost += [f"{name} has no value of the outputs of {scored.path}" for name in valueless]
    return [*scored.measured.warnings, *lost]


def _how(evaluation: Evaluation, metric: Metric) -> dict[str, Any]:
    """How a metric's statistics are read: by whose groups, and how they become a value between which bounds."""
    return {"groups": evaluation.groups, "reduce": metric.reduction, "bounds": metric.bounds}


def _score(evaluation: Evaluation, scored: Scored, metric: Metric) -> Interval | None:
    if scored.measured.nonfinite or not math.isfinite(scored.values[metric.name]):
        return None
    if (
        scored is evaluation.checkpoints[0] and not metric.needs_labels
    ):  # held against itself: no sample tells more
        return Interval(scored.values[metric.name], None, None)
    return intervals.interval(scored.measured.statistics[metric.name], **_how(evaluation, metric))


def _difference(evaluation: Evaluation, a: Scored, b: Scored, metric: Metric) -> Difference:
    ours, theirs = (side.measured.statistics[metric.name] for side in (a, b))
    return Difference(a.path, b.path, metric.name, intervals.difference(ours, theirs, **_how(evaluation, metric)))
