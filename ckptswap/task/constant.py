"""What a prediction that looks at nothing would score."""

import itertools
import math
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from ckptswap.task.data import Batch, Data
from ckptswap.task.metrics import Metric
from ckptswap.task.metrics.distance import SquaredError
from ckptswap.task.metrics.overlap import Overlap
from ckptswap.task.order import in_data_order
from ckptswap.task.tree import Tree

Found = TypeVar("Found")
Predict = Callable[[Batch], Tensor]


def trivial_score(metric: Metric, data: Data, forward: Callable[[Tree], Tensor]) -> float:
    """iou, dice, accuracy: the best constant class; mse, psnr: the mean of all targets; a callable: zeros."""
    if isinstance(metric, Overlap):
        first = next(data.batches())
        channels = _channels(forward(first.inputs), first.targets)
        classes = [0, 1] if channels == 1 else _classes(data, metric.ignore)
        return max(_scores(metric, data, [partial(_constant, channels=channels, of=number) for number in classes]))
    if isinstance(metric, SquaredError):
        mean = _mean(data, metric.ignore)
        return _scores(metric, data, [lambda batch: torch.full(batch.targets.shape, mean, dtype=torch.float64)])[0]
    return _scores(metric, data, [lambda batch: torch.zeros_like(forward(batch.inputs))])[0]


def _scores(metric: Metric, data: Data, predictions: Sequence[Predict]) -> list[float]:
    """The score of each prediction, in one pass."""
    parts = _over(
        data, lambda batch: [metric.per_sample(predict(batch), batch.targets) for predict in predictions]
    )
    return [metric.value(in_data_order(statistics, data.places)) for statistics in zip(*parts, strict=True)]


def _over(data: Data, look: Callable[[Batch], Found]) -> list[Found]:
    with closing(data.batches()) as batches:
        return [look(batch) for batch in batches]


def _constant(batch: Batch, *, channels: int, of: int) -> Tensor:
    """(N, C, …) that say class `of` everywhere, as logits and as probabilities alike."""
    targets = batch.targets
    size = targets.shape[2:] if targets.dim() > 2 and targets.shape[1] == 1 else targets.shape[1:]
    if channels == 1:
        return torch.full((len(targets), 1, *size), 1.0 if of else -1.0)
    output = torch.zeros(len(targets), channels, *size)
    output[:, of] = 1
    return output


def _channels(output: Tensor, targets: Tensor) -> int:
    return 1 if output.dim() == 3 and output.shape == targets.shape else output.shape[1]


def _classes(data: Data, ignore: int | None) -> list[int]:
    """Those in the truth: an absent class scores no better than the best of them."""
    classes_of_batches = _over(data, lambda batch: batch.targets.unique().tolist())
    return sorted({int(number) for classes in classes_of_batches for number in classes} - {ignore})


def _mean(data: Data, ignore: int | None) -> float:
    """Over all elements of all targets; exactly rounded, so that no order of the samples shows."""
    counted = _over(data, lambda batch: [_counted(target, ignore) for target in batch.targets])
    totals, numbers = zip(*itertools.chain.from_iterable(counted), strict=True)
    return math.fsum(totals) / sum(numbers)


def _counted(target: Tensor, ignore: int | None) -> tuple[float, int]:
    """Sum and number of a sample's elements, without the ignored ones."""
    kept = target if ignore is None or target.is_floating_point() else target[target != ignore]
    return kept.double().sum().item(), kept.numel()
