"""`top1`, `top5` and `token-accuracy`: how often the label is among the scores that are greatest.

Of each sample the share of its labels, then the mean over samples. Labels of tokens are shifted where they repeat
the inputs (`rows`); -100, padding and the ignore value do not count. Of equal scores the first class comes first.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ckptswap.errors import MetricError
from ckptswap.registry import Source
from ckptswap.task.metrics.metric import Metric, PerSample, Tree, Walk
from ckptswap.task.metrics.rows import Labels, labels_of, mean_frequencies, scored_rows
from ckptswap.task.spec import TaskSpec

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Ranked(Metric):
    """The share of labels that are among the `most` greatest scores."""

    most: int = 1
    probability: bool = False
    ignore: int | None = None

    @property
    def bounds(self) -> tuple[float, float]:
        return 0.0, 1.0

    def truth(self, inputs: Tree, targets: Tree, own: "Callable[[], Tensor]") -> Tree:
        return labels_of(inputs, targets, self.name)

    def against(self, target: Tree) -> PerSample:
        labels = target if isinstance(target, Labels) else labels_of((), target, self.name)
        if not isinstance(labels, Labels):
            raise MetricError(f"{self.name} is for classes, and the targets are values", remedy="use mse")
        return partial(self._shares, labels)

    def trivial(self, walk: Walk) -> float:
        """The most frequent classes, everywhere."""
        parts = walk.over(lambda truth: truth.scored(self.ignore))
        shares = mean_frequencies([own for part in parts for own in part])
        return float(np.sort(shares)[::-1][: self.most].sum())

    def _shares(self, labels: Labels, output: "Tensor") -> np.ndarray:
        shares = []
        for row, ids in scored_rows(output, labels, self.ignore):
            self._refuse_certain(max(row.shape[1], 2))
            scores = _of_two(row, 0.5 if self.probability else 0.0) if row.shape[1] == 1 else row
            own = scores.gather(1, ids.long()[:, None])
            before = (scores > own).sum(1)
            equal = scores == own
            before += (equal.cumsum(1).gather(1, ids.long()[:, None]) - 1)[:, 0]  # those of a lower class
            shares.append([(before < self.most).double().mean().item()])
        return np.array(shares, np.float64)

    def _refuse_certain(self, classes: int) -> None:
        if classes <= self.most:
            fault = f"{self.name} of {classes} classes is always 1"
            raise MetricError(fault, remedy="use top1, or loss, which say more of so few")


def _of_two(row: "Tensor", cut: float) -> "Tensor":
    """One channel (P, 1) as the scores of two classes (P, 2): above the cut is class 1."""
    above = (row > cut).long()
    return (above == row.new_tensor([0, 1]).long()).double()


def _top(most: int, _: str, spec: TaskSpec) -> Ranked:
    return Ranked(f"top{most}", "max", most, spec.output == "probability", spec.ignore)


def _of_tokens(_: str, spec: TaskSpec) -> Ranked:
    return Ranked("token-accuracy", "max", 1, spec.output == "probability", spec.ignore)


TOP1, TOP5 = (Source(partial(_top, most), is_safe=True, endings=()) for most in (1, 5))
TOKEN_ACCURACY = Source(_of_tokens, is_safe=True, endings=())
