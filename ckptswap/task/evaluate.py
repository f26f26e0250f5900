"""Several checkpoints on the same data, side by side; intervals are for whoever asks (`sweep.statistics`)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import UsageError
from ckptswap.selection import Selection, Unmatched
from ckptswap.task.data import Data, Progress, load_data
from ckptswap.task.fit import Fit
from ckptswap.task.metrics import Metric, load_metrics
from ckptswap.task.spec import TaskSpec
from ckptswap.task.task import Measured, load_task, resolved


@dataclass(frozen=True)
class Scored:
    """One checkpoint: where it is, the model it was put in and how, its statistics, the value of each metric."""

    path: str
    model: str
    measured: Measured
    values: Mapping[str, float]
    fit: Fit


@dataclass(frozen=True)
class Evaluation:
    """Every checkpoint on the same samples in the same order, so that differences are paired by sample.

    `groups` (N,) are the samples' groups, `data` the fingerprint of the data. `notes` say what of the files' names
    or tensors was left out.
    """

    metrics: tuple[Metric, ...]
    groups: np.ndarray
    samples: int
    data: str
    checkpoints: tuple[Scored, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(note for scored in self.checkpoints for note in scored.fit.notes)

    def unmatched(self, exclude: Selection) -> list[Unmatched]:
        """What of a selection means nothing in any of the files and their models."""
        fits = [scored.fit for scored in self.checkpoints]
        return exclude.unmatched(*(side for fit in fits for side in (fit.checkpoint, fit.own)))


def evaluate(checkpoints: Sequence[Checkpoint], spec: TaskSpec, progress: Progress | None = None) -> Evaluation:
    """Score each checkpoint on one task.

    All are put in the spec's model, or, where it names none, each in the model that it says it is. Non-finite
    outputs are counted in `measured.nonfinite`. `progress` counts samples over all checkpoints. Raises what
    `load_task` raises, naming the first checkpoint that does not fit.
    """
    if not checkpoints:
        raise UsageError("there is nothing to evaluate", remedy="name a checkpoint")
    metrics = load_metrics(spec)
    for checkpoint in checkpoints:
        resolved(spec, checkpoint)  # before any data is read
    data = load_data(spec)
    total = data.samples * len(checkpoints)
    scored = tuple(
        _scored(checkpoint, spec, data, _shifted(progress, at * data.samples, total))
        for at, checkpoint in enumerate(checkpoints)
    )
    return Evaluation(metrics, data.groups, data.samples, data.fingerprint(), scored)


def _scored(checkpoint: Checkpoint, spec: TaskSpec, data: Data, progress: Progress | None) -> Scored:
    task = load_task(spec, checkpoint, data=data)
    measured = task.measure(progress)
    values = {metric.name: metric.value(measured.statistics[metric.name]) for metric in task.metrics}
    return Scored(checkpoint.path, str(task.spec.model), measured, values, task.fit)


def _shifted(progress: Progress | None, before: int, total: int) -> Progress | None:
    return (lambda done, _: progress(before + done, total)) if progress else None
