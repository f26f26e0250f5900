"""`mse` and `psnr`: per image over all its elements, in double precision.

psnr is for values in 0…1, and is capped at 100 dB so that an exact image has a finite score.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from ckptswap.errors import MetricError
from ckptswap.registry import Source
from ckptswap.task.metrics.counts import unlike
from ckptswap.task.metrics.metric import Metric, PerSample, Tree, Walk
from ckptswap.task.spec import TaskSpec

if TYPE_CHECKING:
    from torch import Tensor

PSNR_CAP = 100.0


@dataclass(frozen=True)
class SquaredError(Metric):
    """mse, or psnr for values in 0…1; pixels whose truth is the ignore value are not counted."""

    decibel: bool = False
    ignore: int | None = None
    compares: ClassVar[Literal["values"]] = "values"

    @property
    def bounds(self) -> tuple[float, float]:
        return (-math.inf, PSNR_CAP) if self.decibel else (0.0, math.inf)

    def against(self, target: Tree) -> PerSample:
        from ckptswap.task.tree import only_tensor

        target = only_tensor(target, self.name)
        counted = None if self.ignore is None or target.is_floating_point() else target.long() != self.ignore
        if counted is not None and not counted.flatten(1).any(1).all():
            raise MetricError("a mask has no pixel but ignored ones", remedy="leave such samples out of the data")
        return partial(self._errors, target.double(), counted)

    def trivial(self, walk: Walk) -> float:
        """The mean of all elements of all targets, everywhere; exactly rounded, so that no order of the samples
        shows."""
        counted = walk.over(lambda targets: [_counted(target, self.ignore) for target in targets])
        totals, numbers = zip(*itertools.chain.from_iterable(counted), strict=True)
        return walk.value(math.fsum(totals) / sum(numbers))

    def _errors(self, target: Tensor, counted: Tensor | None, output: Tensor) -> np.ndarray:
        target = _shaped_as(output, target, self.name)
        kept = itertools.repeat(None) if counted is None else _shaped_as(output, counted, self.name)
        mse = np.array(_mean_squares(output, target, kept), np.float64)
        if self.decibel:
            mse = -10 * np.log10(np.maximum(mse, 10 ** (-PSNR_CAP / 10)))
        return mse[:, None]


def _mse(_: str, spec: TaskSpec) -> SquaredError:
    return SquaredError("mse", "min", ignore=spec.ignore)


def _psnr(_: str, spec: TaskSpec) -> SquaredError:
    if spec.normalize and spec.target == "input":
        raise MetricError("psnr is for values in 0…1, and --normalize changes them", remedy="use mse")
    return SquaredError("psnr", "max", decibel=True, ignore=spec.ignore)


MSE, PSNR = (Source(build, is_safe=True, endings=()) for build in (_mse, _psnr))


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
    means: list[float] = []
    squares: Tensor | None = None
    for one, other, mask in zip(output, target, kept, strict=False):
        squares = one.to(other.dtype, copy=True) if squares is None else squares.copy_(one)
        squares.sub_(other).square_()
        means.append((squares if mask is None else squares[mask]).mean().item())
    return means


def _counted(target: Tensor, ignore: int | None) -> tuple[float, int]:
    """Sum and number of a sample's elements, without the ignored ones."""
    kept = target if ignore is None or target.is_floating_point() else target[target.long() != ignore]
    return kept.double().sum().item(), kept.numel()
