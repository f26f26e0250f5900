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

import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor

from ckptswap.errors import MetricError, UsageError, near
from ckptswap.task.callables import code_hash, faults_of, is_callable_spec, load_callable
from ckptswap.task.counts import Truth, unlike
from ckptswap.task.spec import DIRECTIONS, TaskSpec

Direction = Literal["max", "min"]
PerSample = Callable[[Tensor], np.ndarray]
"""From outputs (N, …) to statistics (N, K) float64."""
TP, FP, FN, TN = range(4)
PSNR_CAP = 100.0


@dataclass(frozen=True)
class Metric:
    """A name, which way is better, and two steps: statistics per sample, and the value of their sum.

    `against(target)` does once what does not depend on the output, for many outputs to the same targets.

    >>> Metric("loss", "min").value(np.array([[1.0], [3.0]]))
    2.0
    """

    name: str
    direction: Direction

    @property
    def bounds(self) -> tuple[float, float]:
        """Between which one sample's score lies, infinite where it is not known to have a bound."""
        return -math.inf, math.inf

    def against(self, target: Tensor) -> PerSample:
        """From targets (N, …) to a function of outputs (N, …): `per_sample`. Both may raise `MetricError`."""
        raise NotImplementedError

    def per_sample(self, output: Tensor, target: Tensor) -> np.ndarray:
        """Sufficient statistics (N, K) float64 of outputs (N, …) and targets (N, …). Raises `MetricError`."""
        return self.against(target)(output)

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

    @property
    def bounds(self) -> tuple[float, float]:
        return 0.0, 1.0

    def against(self, target: Tensor) -> PerSample:
        return partial(self._scores, Truth(target, self.ignore))

    def _scores(self, truth: Truth, output: Tensor) -> np.ndarray:
        tallies = truth.counts(output, probability=self.probability)
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

    @property
    def bounds(self) -> tuple[float, float]:
        return (-math.inf, PSNR_CAP) if self.decibel else (0.0, math.inf)

    def against(self, target: Tensor) -> PerSample:
        counted = None if self.ignore is None or target.is_floating_point() else target != self.ignore
        if counted is not None and not counted.flatten(1).any(1).all():
            raise MetricError("a mask has no pixel but ignored ones", remedy="leave such samples out of the data")
        return partial(self._errors, target.double(), counted)

    def _errors(self, target: Tensor, counted: Tensor | None, output: Tensor) -> np.ndarray:
        target = _shaped_as(output, target, self.name)
        kept = itertools.repeat(None) if counted is None else _shaped_as(output, counted, self.name)
        mse = np.array(_mean_squares(output, target, kept), np.float64)
        if self.decibel:
            mse = -10 * np.log10(np.maximum(mse, 10 ** (-PSNR_CAP / 10)))
        return mse[:, None]


@dataclass(frozen=True)
class Own(Metric):
    """The user's `fn(output, target) → one value a sample (N,)`."""

    function: Callable[[Tensor, Tensor], Any]

    @property
    def bounds(self) -> tuple[float, float]:
        return getattr(self.function, "bounds", super().bounds)

    def against(self, target: Tensor) -> PerSample:
        return partial(self._values, target)

    def _values(self, target: Tensor, output: Tensor) -> np.ndarray:
        with faults_of(self.name, MetricError):
            found = self.function(output, target.to(output.device, copy=True))  # which it may write to
        values = found.detach().cpu().double().numpy() if isinstance(found, Tensor) else _floats(found)
        if values is None or values.shape != (len(output),):
            got = f"the shape {list(values.shape)}" if values is not None else f"a {type(found).__name__}"
            raise MetricError(
                f"{self.name} gave {got} for {len(output)} samples", remedy="return one value a sample, shape (N,)"
            )
        return values[:, None]


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


def _shaped_as(output: Tensor, target: Tensor, name: str) -> Tensor:
    """The target on the output's device, with a channel where the output has the only one."""
    if output.dim() == target.dim() + 1 and output.shape[1] == 1:
        target = target[:, None]
    if output.shape != target.shape:
        raise MetricError(f"{name}: {unlike(output.shape, target.shape)}", remedy="both must have the same shape")
    return target.to(output.device)


def _mean_squares(output: Tensor, target: Tensor, kept: Iterable[Tensor | None]) -> list[float]:
    """Each sample's mean squared difference in double precision, over the elements that are kept.

    Sample by sample: a sum over a whole batch is ordered differently, and its last bits with it. All of them use
    the memory of the first, since fresh memory costs more than the arithmetic.
    """
    found: list[float] = []
    squares: Tensor | None = None
    for one, other, mask in zip(output, target, kept, strict=False):
        squares = one.to(torch.float64, copy=True) if squares is None else squares.copy_(one)
        squares.sub_(other).square_()
        found.append((squares if mask is None else squares[mask]).mean().item())
    return found


def _floats(found: object) -> np.ndarray | None:
    try:
        return np.asarray(found, np.float64) if isinstance(found, Iterable | np.generic | float | int) else None
    except (TypeError, ValueError):
        return None
