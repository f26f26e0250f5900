"""`kl`, `agreement` and `output-mse`: how far outputs are from the recipient's own. No labels are needed.

The recipient's outputs are the truth, so that the baseline is perfect: 0, 1 and 0. What a drop is worth is told by
a prediction that looks at nothing and knows what the recipient says on the whole: the mean of its distributions,
its most frequent class, the mean of each channel. The default tolerance is a hundredth of what that one loses.

- `kl`: the divergence KL(recipient ‖ variant) in nats, from logits (one channel: of two classes).
- `agreement`: the share of positions where both say the same class.
- `output-mse`: the mean squared difference of the outputs.

Each is the mean over a sample's positions (pixels; tokens but for padding), then over samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ckptswap.errors import MetricError
from ckptswap.registry import Source
from ckptswap.task.metrics.counts import unlike
from ckptswap.task.metrics.metric import Metric, PerSample, Tree, Walk
from ckptswap.task.metrics.rows import PADDING, log_probabilities, mean_frequencies, rows, tokens_of
from ckptswap.task.spec import TaskSpec

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Reference:
    """The recipient's own output (N, …) for a batch, whether positions are tokens, and which are not padding (N,
    T)."""

    output: Tensor
    are_tokens: bool = False
    kept: Tensor | None = None

    def __iter__(self) -> Iterator[Tensor]:
        """Of each sample the rows (P, C) that are scored."""
        return self.rows_of(self.output)

    def rows_of(self, output: Tensor) -> Iterator[Tensor]:
        """Of another output for the same batch."""
        if output.shape != self.output.shape:
            raise MetricError(unlike(output.shape, self.output.shape), remedy="both must give the same shape")
        given = rows(output.detach(), are_tokens=self.are_tokens)
        for at, row in enumerate(given):
            own = row if self.kept is None else row[self.kept[at].to(row.device)]
            yield own if own.device.type == "cpu" else own.cpu()


def reference(inputs: Tree, output: Tensor) -> Reference:
    """An output for these inputs, as others are compared with it."""
    are_tokens = output.dim() == 3 and tokens_of(inputs, output) is not None
    padding = inputs.get(PADDING) if are_tokens and isinstance(inputs, Mapping) else None
    is_used = padding is not None and tuple(padding.shape) == tuple(output.shape[:2])
    return Reference(output, are_tokens, padding != 0 if padding is not None and is_used else None)


@dataclass(frozen=True)
class Unlabelled(Metric):
    """What is compared with the outputs of the recipient itself."""

    probability: bool = False
    needs_labels: ClassVar[bool] = False

    def truth(self, inputs: Tree, targets: Tree, own: Callable[[], Tensor]) -> Reference:
        return reference(inputs, own())

    def against(self, target: Tree) -> PerSample:
        reference = target if isinstance(target, Reference) else Reference(target)
        return partial(self._compared, reference)

    def _compared(self, reference: Reference, output: Tensor) -> np.ndarray:
        pairs = zip(reference, reference.rows_of(output), strict=True)
        return np.array([[self._distance(own, other)] for own, other in pairs], np.float64)

    def _distance(self, own: Tensor, other: Tensor) -> float:
        """Of a sample's rows (P, C), the recipient's and another's."""
        raise NotImplementedError


@dataclass(frozen=True)
class Divergence(Unlabelled):
    """KL(recipient ‖ variant)."""

    @property
    def bounds(self) -> tuple[float, float]:
        return 0.0, math.inf

    def trivial(self, walk: Walk) -> float:
        """The mean of all distributions."""
        parts = [part for batch in walk.over(lambda truth: list(map(self._share, truth))) for part in batch]
        mean = np.mean([distribution for distribution, _ in parts], axis=0)
        inner = math.fsum(entropy for _, entropy in parts) / len(parts)
        return max(0.0, _entropy(mean) - inner)

    def _share(self, own: Tensor) -> tuple[np.ndarray, float]:
        """A sample's mean distribution (C,), and the mean entropy of its rows."""
        logs = log_probabilities(own, probability=self.probability)
        return logs.exp().mean(0).numpy(), -(logs.exp() * logs).sum(1).mean().item()

    def _distance(self, own: Tensor, other: Tensor) -> float:
        ours, theirs = (log_probabilities(row, probability=self.probability) for row in (own, other))
        return (ours.exp() * (ours - theirs)).sum(1).mean().clamp_min(0).item()  # it is, but for rounding


@dataclass(frozen=True)
class SameClass(Unlabelled):
    """The share of positions of one class with the recipient."""

    @property
    def bounds(self) -> tuple[float, float]:
        return 0.0, 1.0

    def trivial(self, walk: Walk) -> float:
        """The class that the recipient says most often."""
        batches = walk.over(lambda truth: list(map(self._classes, truth)))
        return float(mean_frequencies([classes for batch in batches for classes in batch]).max())

    def _classes(self, row: Tensor) -> Tensor:
        if row.shape[1] == 1:
            return (row[:, 0] > (0.5 if self.probability else 0.0)).long()
        return row.argmax(1)

    def _distance(self, own: Tensor, other: Tensor) -> float:
        return (self._classes(own) == self._classes(other)).double().mean().item()


@dataclass(frozen=True)
class OutputError(Unlabelled):
    """The mean squared difference."""

    @property
    def bounds(self) -> tuple[float, float]:
        return 0.0, math.inf

    def trivial(self, walk: Walk) -> float:
        """The mean of each channel."""
        moments = [part for batch in walk.over(lambda truth: list(map(_moments, truth))) for part in batch]
        mean, square = np.mean(moments, axis=0)
        return float(np.maximum(square - mean**2, 0).mean())

    def _distance(self, own: Tensor, other: Tensor) -> float:
        return (own.double() - other.double()).square().mean().item()


def _moments(own: Tensor) -> np.ndarray:
    """The mean over a sample's rows of each channel, and of its square: (2, C)."""
    values = own.double().numpy()
    return np.array([values.mean(0), np.square(values).mean(0)])


def _entropy(shares: np.ndarray) -> float:
    return -math.fsum(share * math.log(share) for share in shares.tolist() if share > 0)


def _built(name: str, direction: str, form: type[Unlabelled], _: str, spec: TaskSpec) -> Unlabelled:
    return form(name, direction, spec.output == "probability")  # type: ignore[arg-type]


KL = Source(partial(_built, "kl", "min", Divergence), is_safe=True, endings=())
AGREEMENT = Source(partial(_built, "agreement", "max", SameClass), is_safe=True, endings=())
OUTPUT_MSE = Source(partial(_built, "output-mse", "min", OutputError), is_safe=True, endings=())
