"""What was inferred before anything is swept: the model, how data are prepared, what the first sample looks like,
and what a prediction that looks at nothing would score beside the checkpoint's own."""

import math
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import CkptswapError
from ckptswap.statistics import Drawn
from ckptswap.task.data import Progress
from ckptswap.task.data.preprocessing import AUTO, normalization_of
from ckptswap.task.data.request import DataRequest, folder_of
from ckptswap.task.metrics import Metric
from ckptswap.task.metrics.rows import NO_LABEL
from ckptswap.task.spec import TaskSpec
from ckptswap.task.task import Task, load_task
from ckptswap.task.tree import Tree, sample_at


@dataclass(frozen=True)
class TensorLook:
    """One tensor of one sample: where it stands in the input or target, and the range of its values."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Yardstick:
    """A metric: the checkpoint's own score, and that of a prediction that looks at nothing; None where it has
    none."""

    name: str
    direction: Literal["max", "min"]
    score: float | None
    trivial: float | None

    @property
    def is_below(self) -> bool:
        """Whether the checkpoint is worse than a prediction that looks at nothing."""
        if self.score is None or self.trivial is None:
            return False
        return self.score < self.trivial if self.direction == "max" else self.score > self.trivial


@dataclass(frozen=True, repr=False)
class Explanation:
    """`normalize` are the numbers that are used, `classes` each class's share of the first sample's labels;
    `drawn`: of what the samples are a part, where a limit took one."""

    checkpoint: str
    model: str
    model_args: Mapping[str, Any]
    parameters: int
    dtype: str
    data: str
    samples: int
    groups: int
    batch_size: int
    normalize: str | None
    resize: str | None
    ignore: int | None
    reads: str
    inputs: tuple[TensorLook, ...]
    targets: tuple[TensorLook, ...]
    output: TensorLook
    classes: Mapping[int, float]
    metrics: tuple[Yardstick, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    drawn: Drawn | None = None

    def __repr__(self) -> str:
        known = ((metric.name, metric.score) for metric in self.metrics)
        scores = ", ".join(f"{name} {'none' if score is None else f'{score:.6g}'}" for name, score in known)
        return f"<Explanation {self.checkpoint} in {self.model}: {scores}, {self.samples} samples>"


def explain(checkpoint: Checkpoint, spec: TaskSpec, progress: Progress | None = None) -> Explanation:
    """Load the task as a sweep would, look at its first sample, and score the checkpoint. Raises what `load_task`
    and `Task.measure` raise."""
    task = load_task(spec, checkpoint)
    measured = task.measure(progress)
    spec, data = task.spec, task.data
    inputs, targets, output = _first_sample(task)
    dtype = next((parameter.dtype for parameter in task.model.parameters()), None)
    return Explanation(
        checkpoint=checkpoint.path,
        model=str(spec.model),
        model_args=dict(spec.model_args),
        parameters=sum(parameter.numel() for parameter in task.model.parameters()),
        dtype=str(dtype).removeprefix("torch."),
        data=str(spec.data),
        samples=data.samples,
        groups=len(set(data.groups.tolist())),
        batch_size=spec.batch_size,
        normalize=_normalization(spec, checkpoint),
        resize=spec.resize,
        ignore=spec.ignore,
        reads=spec.output,
        inputs=tuple(_looks(inputs, "input")),
        targets=() if targets is inputs else tuple(_looks(targets, "target")),
        output=next(_looks(output, "output")),
        classes={} if targets is inputs else _classes(targets),
        metrics=tuple(_yardstick(task, metric, measured.statistics[metric.name]) for metric in task.metrics),
        notes=(*data.notes, *task.fit.notes, *(metric.note for metric in task.metrics if metric.note)),
        warnings=measured.warnings,
        drawn=data.drawn,
    )


def _first_sample(task: Task) -> tuple[Tree, Tree, Tensor]:
    """Input, target and output of the sample that comes first in the data."""
    number = next(number for number, places in enumerate(task.data.places) if 0 in places)
    with task.pinned(), closing(task.data.numbered({number})) as batches:
        _, batch = next(batches)
        at = batch.places.tolist().index(0)
        inputs = sample_at(batch.inputs, at)
        is_own = batch.targets is batch.inputs
        return inputs, inputs if is_own else sample_at(batch.targets, at), task.forward(batch.inputs)[at]


def _looks(tree: Tree, name: str) -> Iterator[TensorLook]:
    if isinstance(tree, Mapping):
        for key, part in tree.items():
            yield from _looks(part, key if name == "input" else f"{name}.{key}")
    elif isinstance(tree, tuple):
        for at, part in enumerate(tree):
            yield from _looks(part, f"{name}.{at}")
    elif isinstance(tree, Tensor):
        has_ends = tree.numel() and not tree.is_complex()
        ends = map(float, tree.double().aminmax()) if has_ends else (math.nan, math.nan)  # few dtypes have it
        low, high = (end if math.isfinite(end) else None for end in ends)
        yield TensorLook(name, tuple(tree.shape), str(tree.dtype).removeprefix("torch."), low, high)


def _classes(targets: Tree) -> dict[int, float]:
    """Of labels the share of each class."""
    if not isinstance(targets, Tensor) or targets.is_floating_point() or targets.is_complex():
        return {}
    labels = targets.long()
    scored = labels[labels != NO_LABEL]
    numbers, counts = scored.unique(return_counts=True)
    return {int(number): int(count) / scored.numel() for number, count in zip(numbers, counts, strict=True)}


def _normalization(spec: TaskSpec, checkpoint: Checkpoint) -> str | None:
    if spec.normalize != AUTO:
        return spec.normalize
    return normalization_of(DataRequest(spec, folder_of(checkpoint))).text


def _yardstick(task: Task, metric: Metric, statistics: Any) -> Yardstick:
    score = metric.value(statistics)
    try:
        trivial = task.trivial(metric)
    except CkptswapError:
        trivial = math.nan
    known = (value if math.isfinite(value) else None for value in (score, trivial))
    return Yardstick(metric.name, metric.direction, *known)
