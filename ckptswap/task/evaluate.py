"""Several checkpoints on the same data, side by side; intervals are for whoever asks (`sweep.statistics`)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import UsageError, listing
from ckptswap.selection import Selection, Unmatched
from ckptswap.statistics import Drawn
from ckptswap.task.data import Progress, load_data
from ckptswap.task.data.loading import implied, named
from ckptswap.task.data.request import folder_of
from ckptswap.task.fit import Fit
from ckptswap.task.loaded import resolved
from ckptswap.task.metrics import Metric, load_metrics
from ckptswap.task.spec import TaskSpec
from ckptswap.task.task import Measured, Task, load_task


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
    or tensors was left out, and what was done to the data (`of_data`); `drawn` is as in `Data`.
    """

    metrics: tuple[Metric, ...]
    groups: np.ndarray
    samples: int
    data: str
    checkpoints: tuple[Scored, ...]
    of_data: tuple[str, ...] = ()
    drawn: Drawn | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        ways = (metric.note for metric in self.metrics if metric.note)
        fits = (*self.of_data, *(note for scored in self.checkpoints for note in scored.fit.notes), *ways)
        compared = [metric.name for metric in self.metrics if not metric.needs_labels]
        if not compared:
            return fits
        first = self.checkpoints[0].path
        own = f"{listing(compared)}: outputs are held against those of {first}, whose own score is perfect by this"
        return (*fits, own)

    def unmatched(self, exclude: Selection) -> list[Unmatched]:
        """What of a selection means nothing in any of the files and their models."""
        fits = [scored.fit for scored in self.checkpoints]
        return exclude.unmatched(*(side for fit in fits for side in (fit.checkpoint, fit.own)))


def evaluate(checkpoints: Sequence[Checkpoint], spec: TaskSpec, progress: Progress | None = None) -> Evaluation:
    """Score each checkpoint on one task.

    All are put in the spec's model, or, where it names none, each in the model that it says it is. Without labels,
    outputs are compared with those of the first. Non-finite
    outputs are counted in `measured.nonfinite`. `progress` counts samples over all checkpoints. Raises what
    `load_task` raises, naming the first checkpoint that does not fit.
    """
    if not checkpoints:
        raise UsageError("there is nothing to evaluate", remedy="name a checkpoint")
    named(spec, folder_of(checkpoints[0]))
    metrics = load_metrics(implied(spec))
    specs = [resolved(spec, checkpoint) for checkpoint in checkpoints]  # before any data is read
    data = load_data(specs[0], folder=folder_of(checkpoints[0]))
    needs_reference = not all(metric.needs_labels for metric in metrics)
    total = data.samples * len(checkpoints)
    scored: list[Scored] = []
    reference: Task | None = None
    for at, checkpoint in enumerate(checkpoints):
        task = load_task(spec, checkpoint, data=data)
        task.reference = reference
        scored.append(_scored(task, checkpoint.path, _shifted(progress, at * data.samples, total)))
        if needs_reference and reference is None:
            reference = task
        del task  # before the next is built
    about = data.groups, data.samples, data.fingerprint()
    return Evaluation(metrics, *about, tuple(scored), data.notes, data.drawn)


def _scored(task: Task, path: str, progress: Progress | None) -> Scored:
    measured = task.measure(progress)
    values = {metric.name: metric.value(measured.statistics[metric.name]) for metric in task.metrics}
    return Scored(path, str(task.spec.model), measured, values, task.fit)


def _shifted(progress: Progress | None, before: int, total: int) -> Progress | None:
    return (lambda done, _: progress(before + done, total)) if progress else None
