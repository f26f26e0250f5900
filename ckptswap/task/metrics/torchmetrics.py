"""`torchmetrics:NAME`: a metric of torchmetrics; the number is what the library makes of all of the data.

Where that is the mean over samples (an accuracy, a squared error, a structural similarity), each sample is
scored alone, and counts alike, however many of its positions are ignored. Any other (an F1 score of classes, a
correlation, an AUROC) has one value for the whole set, and what it rests on is kept of each sample: the
library's own states where these add up, else output and target themselves.

Arguments stand behind the name, `torchmetrics:FBetaScore:beta=0.5`; the task, the number of classes and the value
that is ignored are taken from the model and from `--ignore`. Where classes are scored the metric gets
probabilities, of each position of a sample, and labels as in `rows`; everything else gets output and target as
they are. `--direction` says which way is better where the library does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, cast

import numpy as np

from ckptswap.errors import MetricError
from ckptswap.registry import Source, library
from ckptswap.task.metrics.counts import unlike
from ckptswap.task.metrics.metric import Direction, Metric, PerSample, Tree, Walk
from ckptswap.task.metrics.rows import Labels, labels_of, log_probabilities, scored_rows
from ckptswap.task.metrics.torchmetrics_form import Form
from ckptswap.task.spec import TaskSpec

if TYPE_CHECKING:
    from torch import Tensor

RAW_MOST = 64
"""Values of an output that are kept themselves."""
KEPT_MOST = 1 << 14
"""Numbers that are kept of a sample."""


class ScoredSample(NamedTuple):
    """Channels (0 where no classes are scored), output and target, as the library takes them, and whether samples
    have many positions, of which this one may have a single one that is scored."""

    channels: int
    output: Tensor
    target: Tensor
    are_many: bool


@dataclass(frozen=True)
class ByLibrary(Metric):
    """One of the library's metrics."""

    form: Form
    probability: bool = False
    ignore: int | None = None
    takes_direction: ClassVar[bool] = True

    @property
    def bounds(self) -> tuple[float, float]:
        return self.form.bounds

    def truth(self, inputs: Tree, targets: Tree, own: Callable[[], Tensor]) -> Tree:
        return labels_of(inputs, targets, self.name)

    def against(self, target: Tree) -> PerSample:
        labels = target if isinstance(target, Labels) else labels_of((), target, self.name)
        return partial(self._statistics, labels)

    def trivial(self, walk: Walk) -> float:
        """Of values their mean, everywhere; of classes outputs of zeros."""
        sums = walk.over(_sum_of_values)
        if any(part is None for part in sums):
            return walk.zeros()
        totals, counts = zip(*sums, strict=True)
        return walk.value(math.fsum(totals) / sum(counts))

    def _statistics(self, labels: Labels | Tensor, output: Tensor) -> np.ndarray:
        if self.form.is_of_classes and isinstance(labels, Labels):
            samples = self._of_classes(labels, output)
        else:
            samples = self._of_values(labels, output)
        return np.array(list(map(self._kept, samples)), np.float64)

    def _kept(self, sample: ScoredSample) -> list[float]:
        """A sample's statistics."""
        raise NotImplementedError

    def _of_classes(self, labels: Labels, output: Tensor) -> Iterator[ScoredSample]:
        are_many = labels.are_tokens or labels.ids[0].numel() > 1
        for row, ids in scored_rows(output, labels, self.ignore):
            shares = log_probabilities(row, probability=self.probability).exp()
            yield ScoredSample(row.shape[1], shares[:, 1] if row.shape[1] == 1 else shares, ids, are_many)

    def _of_values(self, labels: Labels | Tensor, output: Tensor) -> Iterator[ScoredSample]:
        target = labels.ids if isinstance(labels, Labels) else labels
        if output.dim() == target.dim() + 1 and output.shape[1] == 1:
            target = target[:, None]
        if output.shape != target.shape:
            raise MetricError(f"{self.name}: {unlike(output.shape, target.shape)}", remedy="use one for classes")
        for own, other in zip(output.detach().cpu().float(), target, strict=True):
            other = other if self.form.is_of_labels else other.float()
            yield ScoredSample(0, own[None], other[None], own.numel() > RAW_MOST)


class SamplesByLibrary(ByLibrary):
    """The mean over samples of each one's own value."""

    @property
    def note(self) -> str:
        return f"{self.name}: the mean over samples of each one's own value"

    def _kept(self, sample: ScoredSample) -> list[float]:
        try:
            value = self.form.value(sample.channels, [(sample.output, sample.target)])
        except MetricError:
            raise
        except Exception as error:
            fault = f"{self.name} gives no value for a sample alone ({type(error).__name__}: {error})"
            raise MetricError(fault[:300], remedy="use another") from None
        if not math.isfinite(value):
            raise MetricError(f"{self.name} is {value} for a sample alone", remedy="use another")
        return [value]


class SetByLibrary(ByLibrary):
    """One value for the whole set.

    Statistics begin with the number of channels, below zero (−1 − channels) where states of the library follow;
    else output and target follow, of one position.
    """

    is_of_set: ClassVar[bool] = True

    def fits(self, columns: int) -> bool:
        return columns > 1

    def value(self, statistics: np.ndarray) -> float:
        if not len(statistics) or abs(statistics[0, 0]) > KEPT_MOST:  # no more channels than are kept
            return math.nan
        head, rest = int(statistics[0, 0]), statistics[:, 1:]
        try:
            if head < 0:
                return self.form.value_of_state(-1 - head, rest.sum(axis=0))
            return self.form.value(head, [_pair_of(head, rest, are_labels=self.form.is_of_labels)])
        except MetricError:
            raise
        except Exception:  # too few samples, or all alike: the library says so in many ways
            return math.nan

    def _kept(self, sample: ScoredSample) -> list[float]:
        channels, output, target, are_many = sample
        if self.form.is_additive and are_many:
            return self._checked([-1.0 - channels, *self._state(channels, output, target)])
        if channels and target.numel() > 1:
            raise MetricError(
                f"{self.name} keeps all outputs, which are too many of masks or tokens",
                remedy="some take thresholds=20 behind their name, which keep counts",
            )
        self._check_flat(sample)
        return self._checked([float(channels), *output.reshape(-1).tolist(), *target.reshape(-1).tolist()])

    def _check_flat(self, sample: ScoredSample) -> None:
        """Raises `MetricError` where the library takes an image, and not its values in a row, as they are kept."""
        if sample.output.dim() < 3:
            return
        flat = sample.output.flatten(1), sample.target.flatten(1)
        if self._is_taken((sample.output, sample.target)) and not self._is_taken(flat):
            fault = f"{self.name} has no value of each sample alone, and wants all of them as images at once"
            raise MetricError(fault, remedy="some have one with data_range=1.0 behind their name")

    def _is_taken(self, pair: tuple[Tensor, Tensor]) -> bool:
        try:
            self.form.value(0, [pair])
        except Exception:  # the library says so in many ways
            return False
        return True

    def _state(self, channels: int, output: Tensor, target: Tensor) -> list[float]:
        try:
            state = self.form.state(channels, [(output, target)])
        except MetricError:
            raise
        except Exception as error:
            fault = f"{self.name} refuses what it is given ({type(error).__name__}: {error})"
            raise MetricError(fault[:300], remedy="see what it takes") from None
        return list(state.tolist())

    def _checked(self, numbers: list[float]) -> list[float]:
        if len(numbers) > KEPT_MOST:
            fault = f"{self.name} keeps {len(numbers):,} numbers of each sample"
            raise MetricError(fault, remedy=f"{KEPT_MOST:,} are the most: use one that keeps less")
        return numbers


def _pair_of(channels: int, kept: np.ndarray, *, are_labels: bool) -> tuple[Tensor, Tensor]:
    """Outputs and targets of all samples, from what was kept (N, K)."""
    import torch

    if channels:
        output, target = kept[:, :-1], kept[:, -1]
        return torch.from_numpy(output[:, 0] if channels == 1 else output), torch.from_numpy(target).long()
    output, target = (part.squeeze(1) if part.shape[1] == 1 else part for part in np.split(kept, 2, axis=1))
    values = torch.from_numpy(target)
    return torch.from_numpy(output).float(), values.long() if are_labels else values.float()


def _sum_of_values(truth: Labels | Tensor) -> tuple[float, int] | None:
    return None if isinstance(truth, Labels) else (truth.double().sum().item(), truth.numel())


@cache
def _form(text: str) -> Form:
    """Of each one is made, and tried once."""
    return Form.of(text)


def _built(ending: str, spec: TaskSpec) -> ByLibrary:
    library("torchmetrics")  # which may be gone since
    form = _form(ending)
    direction = spec.direction or form.direction
    if direction is None:
        name = ending.partition(":")[0]
        raise MetricError(f"{name} does not say which way is better", remedy="pass --direction max or min")
    made: type[Any] = SamplesByLibrary if form.is_mean else SetByLibrary
    return cast(
        ByLibrary, made(form.name, cast(Direction, direction), form, spec.output == "probability", spec.ignore)
    )


SOURCE = Source(_built, libraries=("torchmetrics",))
