"""What a prediction that looks at nothing would score."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ckptswap.task.metrics import Distance, Metric, Overlap

Batches = Callable[[], Iterator[tuple[Tensor, Tensor]]]
Predict = Callable[[Tensor, Tensor], Tensor]


def trivial_score(metric: Metric, batches: Batches, forward: Callable[[Tensor], Tensor]) -> float:
    """iou, dice, accuracy: the best constant class; mse, psnr: the mean of all targets; a callable: zeros."""
    if isinstance(metric, Overlap):
        inputs, targets = next(batches())
        channels = _channels(forward(inputs), targets)
        classes = (0, 1) if channels == 1 else _classes(batches, metric.ignore)
        return max(_score(metric, batches, partial(_constant, channels=channels, of=each)) for each in classes)
    if isinstance(metric, Distance):
        mean = _mean(batches, metric.ignore)
        return _score(metric, batches, lambda _, targets: torch.full(targets.shape, mean, dtype=torch.float64))
    return _score(metric, batches, lambda inputs, _: torch.zeros_like(forward(inputs)))


def _score(metric: Metric, batches: Batches, predict: Predict) -> float:
    parts = [metric.per_sample(predict(inputs, targets), targets) for inputs, targets in batches()]
    return metric.value(np.concatenate(parts))


def _constant(inputs: Tensor, targets: Tensor, *, channels: int, of: int) -> Tensor:
    """(N, C, …) that say class `of` everywhere, as logits and as probabilities alike."""
    size = targets.shape[2:] if targets.dim() > 2 and targets.shape[1] == 1 else targets.shape[1:]
    if channels == 1:
        return torch.full((len(targets), 1, *size), 1.0 if of else -1.0)
    output = torch.zeros(len(targets), channels, *size)
    output[:, of] = 1
    return output


def _channels(output: Tensor, targets: Tensor) -> int:
    return 1 if output.dim() == 3 and output.shape == targets.shape else output.shape[1]


def _classes(batches: Batches, ignore: int | None) -> list[int]:
    """Those in the truth: an absent class scores no better than the best of them."""
    found = {int(each) for _, targets in batches() for each in targets.unique()}
    return sorted(found - {ignore})


def _mean(batches: Batches, ignore: int | None) -> float:
    total, number = 0.0, 0
    for _, targets in batches():
        kept = targets if ignore is None or targets.is_floating_point() else targets[targets != ignore]
        total, number = total + kept.double().sum().item(), number + kept.numel()
    return total / number
