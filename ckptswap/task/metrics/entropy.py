"""`loss` and `perplexity`: the cross entropy of each sample, in nats, and its exponential over the set.

- `loss` is the mean over a sample's labels (its pixels, its tokens, its one class), then over samples. Where
  targets are no classes but values it is the squared error, as the models' own losses are.
- `perplexity` is exp(loss): of the mean over documents of each one's mean over its tokens. `perplexity:pooled`
  counts every token of the set alike.
- Labels of tokens are shifted where they repeat the inputs (`rows`); -100, padding and the ignore value do not
  count.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ckptswap.errors import MetricError
from ckptswap.registry import Source
from ckptswap.task.metrics.distance import SquaredError
from ckptswap.task.metrics.metric import Metric, PerSample, Tree, Walk
from ckptswap.task.metrics.rows import Labels, labels_of, log_probabilities, mean_frequencies, scored_rows
from ckptswap.task.spec import TaskSpec

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class CrossEntropy(Metric):
    """loss, or perplexity; `pooled` over all labels of the set."""

    exponential: bool = False
    pooled: bool = False
    probability: bool = False
    ignore: int | None = None

    @property
    def bounds(self) -> tuple[float, float]:
        return (1.0 if self.exponential else 0.0), math.inf

    @property
    def is_mean(self) -> bool:
        return not self.exponential

    def fits(self, columns: int) -> bool:
        return columns == (2 if self.pooled else 1)

    def truth(self, inputs: Tree, targets: Tree, own: "Callable[[], Tensor]") -> Tree:
        return labels_of(inputs, targets, self.name)

    def against(self, target: Tree) -> PerSample:
        labels = target if isinstance(target, Labels) else labels_of((), target, self.name)
        if isinstance(labels, Labels):
            return partial(self._entropies, labels)
        if self.exponential:
            raise MetricError(f"{self.name} is for classes, and the targets are values", remedy="use loss or mse")
        return SquaredError(self.name, self.direction).against(labels)

    def trivial(self, walk: Walk) -> float:
        """Each class as likely as it is frequent: the best that can be said without looking."""
        parts = walk.over(lambda truth: truth.scored(self.ignore) if isinstance(truth, Labels) else None)
        if any(part is None for part in parts):
            return SquaredError(self.name, self.direction).trivial(walk)
        ids = [own for part in parts for own in part]
        if self.pooled:
            import torch

            ids = [torch.cat(ids)]
        shares = mean_frequencies(ids)
        entropy = -math.fsum(share * math.log(share) for share in shares.tolist() if share > 0)
        return math.exp(entropy) if self.exponential else entropy

    def reduce(self, sums: np.ndarray, count: np.ndarray) -> np.ndarray:
        if not self.exponential:
            return super().reduce(sums, count)
        with np.errstate(over="ignore"):
            return np.exp(sums[..., 0] / (sums[..., 1] if self.pooled else count))

    def _entropies(self, labels: Labels, output: "Tensor") -> np.ndarray:
        statistics = []
        for row, ids in scored_rows(output, labels, self.ignore):
            picked = log_probabilities(row, probability=self.probability).gather(1, ids.long()[:, None])
            statistics.append([-picked.sum().item(), len(ids)] if self.pooled else [-picked.mean().item()])
        return np.array(statistics, np.float64)


def _loss(_: str, spec: TaskSpec) -> CrossEntropy:
    return CrossEntropy("loss", "min", probability=spec.output == "probability", ignore=spec.ignore)


def _perplexity(ending: str, spec: TaskSpec) -> CrossEntropy:
    name = f"perplexity:{ending}" if ending else "perplexity"
    return CrossEntropy(name, "min", True, bool(ending), spec.output == "probability", spec.ignore)


LOSS = Source(_loss, is_safe=True, endings=())
PERPLEXITY = Source(_perplexity, is_safe=True, endings=("pooled",))
