"""Several checkpoints on the same data, side by side; intervals are for whoever asks (`sweep.statistics`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import UsageError
from ckptswap.task.data import Data, Progress, load_data
from ckptswap.task.metrics import Metric, load_metrics
from ckptswap.task.models import says_what_it_is
from ckptswap.task.spec import TaskSpec
from ckptswap.task.task import Measured, load_task, resolved


@dataclass(frozen=True)
class Scored:
    """One checkpoint: where it is, the model it was put in, its statistics, and the value of each metric."""

    path: str
    model: str
    measured: Measured
    values: Mapping[str, float]


@dataclass(frozen=True)
class Evaluation:
    """Every checkpoint on the same samples in the same order, so that differences are paired by sample.

    `groups` (N,) are the samples' groups, `data` the fingerprint of the data.
    """

    metrics: tuple[Metric, ...]
    groups: np.ndarray
    samples: int
    data: str
    checkpoints: tuple[Scored, ...]


def evaluate(checkpoints: Sequence[Checkpoint], spec: TaskSpec, progress: Progress | None = None) -> Evaluation:
    """Score each checkpoint on one task.

    Each is put in the model that it says it is, else in the spec's; a warning tells where the spec's was not
    used. Non-finite outputs are counted in `measured.nonfinite`. `progress` counts samples over all checkpoints.
    Raises what `load_task` raises, naming the first checkpoint that does not fit.
    """
    if not checkpoints:
        raise UsageError("there is nothing to evaluate", remedy="name a checkpoint")
    metrics = load_metrics(spec)
    for checkpoint in checkpoints:
        resolved(_own_spec(spec, checkpoint)[0], checkpoint)  # before any data is read
    data = load_data(spec)
    total = data.samples * len(checkpoints)
    scored = tuple(
        _scored(checkpoint, spec, data, _shifted(progress, at * data.samples, total))
        for at, checkpoint in enumerate(checkpoints)
    )
    return Evaluation(metrics, data.groups, data.samples, data.fingerprint(), scored)


def _scored(checkpoint: Checkpoint, spec: TaskSpec, data: Data, progress: Progress | None) -> Scored:
    own, warnings = _own_spec(spec, checkpoint)
    task = load_task(own, checkpoint, data=data)
    measured = task.measure(progress)
    values = {metric.name: metric.value(measured.statistics[metric.name]) for metric in task.metrics}
    measured = replace(measured, warnings=warnings + measured.warnings)
    return Scored(checkpoint.path, str(task.spec.model), measured, values)


def _shifted(progress: Progress | None, before: int, total: int) -> Progress | None:
    return (lambda done, _: progress(before + done, total)) if progress else None


def _own_spec(spec: TaskSpec, checkpoint: Checkpoint) -> tuple[TaskSpec, tuple[str, ...]]:
    if spec.model is None or not says_what_it_is(checkpoint):
        return spec, ()
    own = resolved(replace(spec, model=None, model_args={}), checkpoint)
    asked = {key: value for key, value in spec.model_args.items() if key != "encoder_weights"}
    if own.model == spec.model and {**own.model_args, **asked} == own.model_args:
        return own, ()
    return own, (f"{checkpoint.path} says that it is {own.model}; --model {spec.model} was not used for it",)
