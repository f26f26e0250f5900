"""What a prediction that looks at nothing would score: the zero of the default tolerance."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from ckptswap.task.data import Batch, Data
from ckptswap.task.metrics import Metric
from ckptswap.task.order import in_data_order
from ckptswap.task.tree import Tree

Result = TypeVar("Result")
Predict = Callable[[Batch, Tree], Tensor]
"""From a batch and its truth to outputs."""


@dataclass(frozen=True)
class Constants:
    """Predictions that look at nothing, for one metric on all of the data: a `metrics.metric.Walk`."""

    metric: Metric
    data: Data
    forward: Callable[[Tree], Tensor]

    def over(self, look: Callable[[Tree], Result]) -> list[Result]:
        """What `look` gives for the truth of each batch."""
        return [look(truth) for _, truth in self._batches()]

    def best_class(self, ignore: int | None) -> float:
        """The score of the best class that can be said everywhere, of those in the truth: an absent class scores
        no better than the best of them."""
        first = next(self.data.batches())
        channels = _channels(self.forward(first.inputs), first.targets)
        seen = set[int]().union(*self.over(lambda truth: truth.long().unique().tolist()))
        classes = [0, 1] if channels == 1 else sorted(seen - {ignore})
        return max(self._scores([partial(_constant, channels=channels, of=number) for number in classes]))

    def value(self, value: float) -> float:
        """The score of one number everywhere."""
        return self._scores([lambda _, truth: torch.full(truth.shape, value, dtype=torch.float64)])[0]

    def zeros(self) -> float:
        """The score of outputs of zeros, shaped like the model's."""
        return self._scores([lambda batch, _: torch.zeros_like(self.forward(batch.inputs))])[0]

    def _batches(self) -> Iterator[tuple[Batch, Tree]]:
        with closing(self.data.batches()) as batches:
            for batch in batches:
                yield batch, self.metric.truth(batch.inputs, batch.targets, partial(self.forward, batch.inputs))

    def _scores(self, predictions: Sequence[Predict]) -> list[float]:
        """The score of each prediction, in one pass."""
        parts = [
            [self.metric.per_sample(predict(batch, truth), truth) for predict in predictions]
            for batch, truth in self._batches()
        ]
        return [
            self.metric.value(in_data_order(statistics, self.data.places))
            for statistics in zip(*parts, strict=True)
        ]


def _constant(_: Batch, truth: Tensor, *, channels: int, of: int) -> Tensor:
    """(N, C, …) that say class `of` everywhere, as logits and as probabilities alike."""
    size = truth.shape[2:] if truth.dim() > 2 and truth.shape[1] == 1 else truth.shape[1:]
    if channels == 1:
        return torch.full((len(truth), 1, *size), 1.0 if of else -1.0)
    output = torch.zeros(len(truth), channels, *size)
    output[:, of] = 1
    return output


def _channels(output: Tensor, targets: Tensor) -> int:
    return 1 if output.dim() == 3 and output.shape == targets.shape else output.shape[1]
