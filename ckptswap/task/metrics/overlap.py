"""`iou`, `dice` and `accuracy`, of each image's true and false positives and negatives per class.

- One channel is cut at 0 (a probability at 0.5), above is foreground; only the foreground is scored. Several
  channels go by argmax, and every class counts, class 0 too.
- An image's score is the mean over the classes that are in its truth or in its prediction; a class that is in
  neither is left out of that image's mean. With one channel, empty truth and empty prediction score 1.
  (smp.metrics, too, scores an empty pair 1, its default `zero_division`; but its `macro-imagewise` mean counts
  every absent class so, which flatters where there are many classes.)
- The metric is the mean over images; `NAME:pooled` sums the counts over the set first, and `iou:3` and `dice:3`
  are those of class 3 alone, of counts that are summed over the set (1 where the set has nothing of it).
- Pixels whose truth is the ignore value are not counted. Accuracy is the share of correct pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from ckptswap.errors import MetricError
from ckptswap.registry import Source
from ckptswap.task.metrics.counts import Truth
from ckptswap.task.metrics.metric import Metric, PerSample, Tree, Walk
from ckptswap.task.spec import TaskSpec

if TYPE_CHECKING:
    from torch import Tensor

TP, FP, FN, TN = range(4)


@dataclass(frozen=True)
class Overlap(Metric):
    """iou, dice or accuracy, the mean over images, or `pooled` over the set; of class `only` alone if it is
    given."""

    score: Callable[[np.ndarray], np.ndarray]
    pooled: bool = False
    probability: bool = False
    ignore: int | None = None
    only: int | None = None
    compares: ClassVar[Literal["classes"]] = "classes"

    @property
    def bounds(self) -> tuple[float, float]:
        return 0.0, 1.0

    @property
    def is_mean(self) -> bool:
        return not self.pooled

    def fits(self, columns: int) -> bool:
        return columns % 4 == 0 if self.pooled else columns == 1

    def against(self, target: Tree) -> PerSample:
        from ckptswap.task.tree import only_tensor

        target = only_tensor(target, self.name)
        if self.score is not accuracy and target.dim() < 2:
            raise MetricError(
                f"{self.name} is for masks, and the targets are class labels, one a sample",
                remedy="use accuracy, top1 or loss",
            )
        return partial(self._scores, Truth(target, self.ignore))

    def trivial(self, walk: Walk) -> float:
        """The best of the constant classes."""
        return walk.best_class(self.ignore)

    def _scores(self, truth: Truth, output: "Tensor") -> np.ndarray:
        tallies = truth.counts(output, probability=self.probability)
        if self.only is not None:
            return self._of_class(tallies)
        if self.pooled:
            return tallies.reshape(len(tallies), -1)
        return self.score(tallies)[:, None]

    def _of_class(self, tallies: np.ndarray) -> np.ndarray:
        """The counts of one class (N, 4); of one channel class 1's are those that are there."""
        classes = tallies.shape[1]
        if self.only is not None and (self.only == 1 if classes == 1 else self.only < classes):
            return tallies[:, 0 if classes == 1 else self.only]
        raise MetricError(
            f"{self.name}: the model tells {max(classes, 2)} classes apart"
            + (", and only class 1 is scored" if classes == 1 else ""),
            remedy=f"use {self.score.__name__}:1" if classes == 1 else f"name a class below {classes}",
        )

    def reduce(self, sums: np.ndarray, count: np.ndarray) -> np.ndarray:
        if self.pooled:
            return self.score(sums.reshape(*sums.shape[:-1], -1, 4))
        return super().reduce(sums, count)


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


def _built(score: Callable[[np.ndarray], np.ndarray], ending: str, spec: TaskSpec) -> Overlap:
    name = f"{score.__name__}:{ending}" if ending else score.__name__
    only = int(ending) if ending.isdecimal() else None
    return Overlap(name, "max", score, bool(ending), spec.output == "probability", spec.ignore, only)


IOU, DICE, ACCURACY = (
    Source(partial(_built, score), is_safe=True, endings=("pooled",), numbered=score is not accuracy)
    for score in (iou, dice, accuracy)
)


def _mean_present(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, its mean over the last axis where whole is not zero; 1 where there is nothing at all."""
    present = whole > 0
    ratio = np.divide(part, whole, out=np.zeros_like(whole), where=present)
    number = present.sum(-1)
    return np.where(number > 0, ratio.sum(-1) / np.maximum(number, 1), 1.0)
