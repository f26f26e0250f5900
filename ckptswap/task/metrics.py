"""Scores with a direction, made of statistics per sample, so that the batch size changes nothing.

`iou`, `dice` and `accuracy` come from each image's true and false positives and negatives per class.

- One channel is cut at 0 (a probability at 0.5), above is foreground; only the foreground is scored. Several
  channels go by argmax, and every class counts, class 0 too.
- An image's score is the mean over the classes that are in its truth or in its prediction; a class that is in
  neither is left out of that image's mean. With one channel, empty truth and empty prediction score 1.
  (smp.metrics, too, scores an empty pair 1, its default `zero_division`; but its `macro-imagewise` mean counts
  every absent class so, which flatters where there are many classes.)
- The metric is the mean over images; `NAME:pooled` sums the counts over the set first.
- Pixels whose truth is the ignore value are not counted. Accuracy is the share of correct pixels.

`mse` and `psnr` are per image over all its elements; psnr is for values in 0…1, and is capped at 100 dB so that
an exact image has a finite score. A callable `fn(output, target) → (N,)` gives one value a sample.

A threshold hides NaN: nothing here looks for them, `Task.measure` counts them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor

from ckptswap.errors import MetricError, UsageError, near
from ckptswap.task.callables import code_hash, faults_of, is_callable_spec, load_callable
from ckptswap.task.spec import DIRECTIONS, TaskSpec

Direction = Literal["max", "min"]
TP, FP, FN, TN = range(4)
PSNR_CAP = 100.0


@dataclass(frozen=True)
class Metric:
    """A name, which way is better, and two steps: statistics per sample, and the value of their sum.

    >>> Metric("loss", "min").value(np.array([[1.0], [3.0]]))
    2.0
    """

    name: str
    direction: Direction

    def per_sample(self, output: Tensor, target: Tensor) -> np.ndarray:
        """Sufficient statistics (N, K) float64 of outputs (N, …) and targets (N, …). Raises `MetricError`."""
        raise NotImplementedError

    def reduce(self, sums: np.ndarray, count: np.ndarray) -> np.ndarray:
        """From statistics summed over samples (…, K), and how many there were (…), to values (…)."""
        return sums[..., 0] / count

    def value(self, statistics: np.ndarray) -> float:
        """The metric over all samples, of (N, K) statistics."""
        return float(self.reduce(statistics.sum(axis=0), np.array(float(len(statistics)))))


@dataclass(frozen=True)
class Overlap(Metric):
    """iou, dice or accuracy, the mean over images, or `pooled` over the set."""

    score: Callable[[np.ndarray], np.ndarray]
    pooled: bool = False
    probability: bool = False
    ignore: int | None = None

    def per_sample(self, output: Tensor, target: Tensor) -> np.ndarray:
        tallies = counts(output, target, probability=self.probability, ignore=self.ignore)
        if self.pooled:
            return tallies.reshape(len(tallies), -1)
        return self.score(tallies)[:, None]

    def reduce(self, sums: np.ndarray, count: np.ndarray) -> np.ndarray:
        if self.pooled:
            return self.score(sums.reshape(*sums.shape[:-1], -1, 4))
        return super().reduce(sums, count)


@dataclass(frozen=True)
class Distance(Metric):
    """mse, or psnr for values in 0…1; per image, in double precision."""

    decibel: bool = False
    ignore: int | None = None

    def per_sample(self, output: Tensor, target: Tensor) -> np.ndarray:
        output, target = _same_shape(output, target.to(output.device), self.name)
        # Sample by sample: a sum over a whole batch is ordered differently, and its last bits with it.
        errors = [_squared_error(a, b, self.ignore) for a, b in zip(output, target, strict=True)]
        mse = np.array(errors, np.float64)
        if self.decibel:
            mse = -10 * np.log10(np.maximum(mse, 10 ** (-PSNR_CAP / 10)))
        return mse[:, None]


@dataclass(frozen=True)
class Own(Metric):
    """The user's `fn(output, target) → one value a sample (N,)`."""

    function: Callable[[Tensor, Tensor], Any]

    def per_sample(self, output: Tensor, target: Tensor) -> np.ndarray:
        with faults_of(self.name, MetricError):
            found = self.function(output, target.to(output.device))
        values = found.detach().cpu().double().numpy() if isinstance(found, Tensor) else _floats(found)
        if values is None or values.shape != (len(output),):
            got = f"the shape {list(values.shape)}" if values is not None else f"a {type(found).__name__}"
            raise MetricError(
                f"{self.name} gave {got} for {len(output)} samples", remedy="return one value a sample, shape (N,)"
            )
        return values[:, None]


def counts(output: Tensor, target: Tensor, *, probability: bool = False, ignore: int | None = None) -> np.ndarray:
    """True positives, false positives, false negatives, true negatives: (N, C, 4) float64, C = 1 for one channel.

    `output` is (N, C, …) logits or probabilities, or (N, H, W) for one channel; `target` (N, …) or (N, 1, …) class
    ids. Raises `MetricError` where sizes or class ids don't fit, or an image has no pixel left.

    >>> counts(torch.tensor([[[[2.0, -1.0, 3.0]]]]), torch.tensor([[[1, 1, 0]]])).tolist()
    [[[1.0, 1.0, 1.0, 0.0]]]
    """
    output, truth = _aligned(output, target)
    channels = output.shape[1]
    classes = max(channels, 2)
    valid = torch.ones_like(truth, dtype=torch.bool) if ignore is None else truth != ignore
    _check_classes(truth, valid, classes)
    guess = output[:, 0] > (0.5 if probability else 0) if channels == 1 else output.argmax(dim=1)
    found = _tally(guess.long(), truth.long(), valid, classes)
    return found[:, 1:] if channels == 1 else found


def iou(tallies: np.ndarray) -> np.ndarray:
    """Intersection over union (Jaccard), from (…, C, 4) counts to (…): the mean over classes that are there.

    >>> float(iou(np.array([[2.0, 1.0, 1.0, 0.0]])))
    0.5
    """
    return _mean_present(tallies[..., TP], tallies[..., [TP, FP, FN]].sum(-1))


def dice(tallies: np.ndarray) -> np.ndarray:
    """2 TP / (2 TP + FP + FN) (Dice 1945), from (…, C, 4) counts to (…): the mean over classes that are there.

    >>> float(dice(np.array([[2.0, 1.0, 1.0, 0.0]])))
    0.6666666666666666
    """
    return _mean_present(2 * tallies[..., TP], 2 * tallies[..., TP] + tallies[..., FP] + tallies[..., FN])


def accuracy(tallies: np.ndarray) -> np.ndarray:
    """The share of correct pixels, from (…, C, 4) counts to (…).

    >>> float(accuracy(np.array([[2.0, 1.0, 0.0, 1.0]])))
    0.75
    """
    pixels = tallies[..., 0, :].sum(-1)
    right = tallies[..., TP].sum(-1) + (tallies[..., 0, TN] if tallies.shape[-2] == 1 else 0)
    return right / pixels


_OVERLAPS = {"iou": iou, "dice": dice, "accuracy": accuracy}
NAMES = (*_OVERLAPS, *(f"{name}:pooled" for name in _OVERLAPS), "mse", "psnr")


def load_metrics(spec: TaskSpec) -> tuple[Metric, ...]:
    """The metrics of a task, in order. Raises `MetricError` for a name that does not exist.

    >>> [metric.direction for metric in load_metrics(TaskSpec(metrics=("dice", "mse")))]
    ['max', 'min']
    """
    metrics = tuple(_metric(name, spec) for name in spec.metrics)
    if spec.direction and not any(isinstance(metric, Own) for metric in metrics):
        raise UsageError(f"{spec.metrics[0]} has a direction of its own", remedy="leave --direction out")
    if spec.normalize and spec.target == "input" and "psnr" in spec.metrics:
        raise MetricError("psnr is for values in 0…1, and --normalize changes them", remedy="use mse")
    return metrics


def code_hashes(spec: TaskSpec) -> dict[str, str]:
    """SHA-256 of each of the user's files that the task names, by spec."""
    found = {name: code_hash(name) for name in (spec.model, spec.data, *spec.metrics) if name}
    return {name: digest for name, digest in found.items() if digest}


def _metric(name: str, spec: TaskSpec) -> Metric:
    plain = name.removesuffix(":pooled")
    if name == "mse":
        return Distance(name, "min", ignore=spec.ignore)
    if name == "psnr":
        return Distance(name, "max", decibel=True, ignore=spec.ignore)
    if plain in _OVERLAPS:
        return Overlap(name, "max", _OVERLAPS[plain], plain != name, spec.output == "probability", spec.ignore)
    misspelt = name.partition(":")[0] in _OVERLAPS  # iou:poled is no module of the user's
    if is_callable_spec(name) and plain == name and not misspelt:
        return _own(name, spec.direction)
    remedy = near(name, NAMES) or f"use one of {', '.join(NAMES)}, or file.py:function"
    raise MetricError(f"there is no metric {name!r}", remedy=remedy)


def _own(name: str, said: str | None) -> Own:
    function = load_callable(name, MetricError)
    direction = said or getattr(function, "direction", None)
    if direction not in DIRECTIONS:
        raise MetricError(f"{name} does not say which way is better", remedy="pass --direction max or min")
    return Own(name, cast(Direction, direction), function)


def _mean_present(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, its mean over the last axis where whole is not zero; 1 where there is nothing at all."""
    present = whole > 0
    ratio = np.divide(part, whole, out=np.zeros_like(whole), where=present)
    number = present.sum(-1)
    return np.where(number > 0, ratio.sum(-1) / np.maximum(number, 1), 1.0)


def _tally(guess: Tensor, truth: Tensor, valid: Tensor, classes: int) -> np.ndarray:
    """(N, classes, 4) from class ids (N, …), counting valid pixels only."""
    n = len(truth)
    start = torch.arange(n, device=truth.device).view(-1, *[1] * (truth.dim() - 1)) * classes

    def per_class(ids: Tensor, where: Tensor) -> np.ndarray:
        return torch.bincount((ids + start)[where], minlength=n * classes).view(n, classes).cpu().numpy()

    hits, guessed, true = (
        per_class(truth, valid & (guess == truth)),
        per_class(guess, valid),
        per_class(truth, valid),
    )
    pixels = true.sum(axis=1, keepdims=True)
    if not pixels.all():
        raise MetricError("a mask has no pixel but ignored ones", remedy="leave such samples out of the data")
    return np.stack([hits, guessed - hits, true - hits, pixels - guessed - true + hits], -1).astype(np.float64)


def _aligned(output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs as (N, C, …) and class ids as (N, …)."""
    target = target.to(output.device)
    if target.dim() == output.dim() and target.dim() > 1 and target.shape[1] == 1:
        target = target[:, 0]
    if output.dim() == 3 and output.shape == target.shape:
        output = output[:, None]
    if output.dim() != target.dim() + 1 or output.shape[0] != target.shape[0] or output.is_complex():
        raise MetricError(
            _unlike(output, target), remedy="the model must give (N, C, H, W), the mask (N, H, W) class ids"
        )
    if output.shape[2:] != target.shape[1:]:
        raise MetricError(_unlike(output, target), remedy="resample the masks, or the model's output, to one size")
    return output, target


def _same_shape(output: Tensor, target: Tensor, name: str) -> tuple[Tensor, Tensor]:
    if output.dim() == target.dim() + 1 and output.shape[1] == 1:
        target = target[:, None]
    if output.shape != target.shape:
        raise MetricError(f"{name}: {_unlike(output, target)}", remedy="both must have the same shape")
    return output, target


def _unlike(output: Tensor, target: Tensor) -> str:
    return f"the model's output is {list(output.shape)}, the target {list(target.shape)}"


def _check_classes(truth: Tensor, valid: Tensor, classes: int) -> None:
    if truth.is_floating_point() and (truth != truth.round()).any():
        raise MetricError("the target holds no class ids but fractions", remedy="use mse, or whole numbers")
    wrong = truth[valid & ((truth < 0) | (truth >= classes))]
    if len(wrong):
        raise MetricError(
            f"a mask holds the class {wrong[0].item():g}, but the model tells {classes} classes apart",
            remedy="pass --ignore VALUE to leave such pixels out, or a model with more classes",
        )


def _squared_error(output: Tensor, target: Tensor, ignore: int | None) -> float:
    squares = (output.double() - target.double()).square()
    if ignore is not None and not target.is_floating_point():
        squares = squares[target != ignore]
        if not squares.numel():
            raise MetricError("a mask has no pixel but ignored ones", remedy="leave such samples out of the data")
    return squares.mean().item()


def _floats(found: object) -> np.ndarray | None:
    try:
        return np.asarray(found, np.float64) if isinstance(found, Iterable | np.generic | float | int) else None
    except (TypeError, ValueError):
        return None
