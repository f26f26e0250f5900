"""What a metric is: statistics of each sample, and the value of their sum."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np

from ckptswap.statistics.totals import OfSet, Reduction, mean

if TYPE_CHECKING:
    from torch import Tensor

Direction = Literal["max", "min"]
Tree = Any
"""As in `task.tree`, which loads torch."""
PerSample = Callable[["Tensor"], np.ndarray]
"""From outputs (N, …) to statistics (N, K) float64."""

OF_SET = "one value for the whole set; its intervals come of leaving out one group at a time (jackknife)"


class Walk(Protocol):
    """All batches of a task, for predictions that look at nothing."""

    def over(self, look: Callable[[Tree], Any]) -> list[Any]:
        """What `look` gives for the truth of each batch (`Metric.truth`)."""

    def best_class(self, ignore: int | None) -> float:
        """The score of the best class that can be said everywhere."""

    def value(self, value: float) -> float:
        """The score of one number everywhere."""

    def zeros(self) -> float:
        """The score of outputs of zeros, shaped like the model's."""


@dataclass(frozen=True)
class Metric:
    """A name, which way is better, and two steps: statistics per sample, and the value of their sum.

    `truth` is what outputs are compared with: the targets, or for a metric that `needs_labels` not the outputs of
    the recipient itself. `against(truth)` does once what does not depend on the output, for many outputs to the
    same truth. One that `takes_direction` listens to `--direction`. `trivial` is the score of a prediction that
    looks at nothing. `compares` says what may be drawn beside a score: masks of `classes`, images of `values`, or
    nothing. One that `is_of_set` has one value for a whole set, by its own `value`, and no sum of statistics has.

    >>> Metric("loss", "min").value(np.array([[1.0], [3.0]]))
    2.0
    """

    name: str
    direction: Direction
    compares: ClassVar[Literal["classes", "values"] | None] = None
    needs_labels: ClassVar[bool] = True
    takes_direction: ClassVar[bool] = False
    is_of_set: ClassVar[bool] = False

    @property
    def bounds(self) -> tuple[float, float]:
        """Between which one sample's score lies, infinite where it is not known to have a bound."""
        return -math.inf, math.inf

    @property
    def is_mean(self) -> bool:
        """Whether the value is the mean over samples of the one statistic that each has."""
        return type(self).reduce is Metric.reduce and not self.is_of_set

    @property
    def reduction(self) -> Reduction:
        """How statistics become the value."""
        return OfSet(self.value) if self.is_of_set else mean if self.is_mean else self.reduce

    @property
    def note(self) -> str | None:
        """What a reader should know of how it scores; None where the name says it."""
        return f"{self.name}: {OF_SET}" if self.is_of_set else None

    def fits(self, columns: int) -> bool:
        """Tell whether a sample's statistics may be so many."""
        return columns == 1 or not self.is_mean

    def truth(self, inputs: Tree, targets: Tree, own: "Callable[[], Tensor]") -> Tree:
        """What the outputs for a batch are compared with; `own` gives the recipient's output. May raise
        `MetricError`."""
        return targets

    def trivial(self, walk: Walk) -> float:
        """The score of a prediction that looks at nothing: unless a metric knows better, of outputs of zeros."""
        return walk.zeros()

    def against(self, target: Tree) -> PerSample:
        """From targets (N, …) to a function of outputs (N, …): `per_sample`. Both may raise `MetricError`."""
        raise NotImplementedError

    def per_sample(self, output: "Tensor", target: Tree) -> np.ndarray:
        """Sufficient statistics (N, K) float64 of outputs (N, …) and targets (N, …). Raises `MetricError`."""
        return self.against(target)(output)

    def reduce(self, sums: np.ndarray, count: np.ndarray) -> np.ndarray:
        """From statistics summed over samples (…, K), and how many there were (…), to values (…)."""
        return sums[..., 0] / count

    def value(self, statistics: np.ndarray) -> float:
        """The metric over all samples, of (N, K) statistics; NaN where they have no value."""
        return float(self.reduce(statistics.sum(axis=0), np.array(float(len(statistics)))))
