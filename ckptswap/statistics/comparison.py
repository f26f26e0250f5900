"""What checkpoints are told apart by: scores with their intervals, and paired differences, as pure data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ckptswap.statistics.intervals import Interval


@dataclass(frozen=True)
class Difference:
    """Score of `a` minus score of `b` on the same samples."""

    a: str
    b: str
    metric: str
    interval: Interval


@dataclass(frozen=True)
class Comparison:
    """`scores[at][metric]` belongs to `paths[at]`; None where the checkpoint's outputs were not finite."""

    samples: int
    paths: tuple[str, ...]
    scores: tuple[Mapping[str, Interval | None], ...]
    differences: tuple[Difference, ...]
    warnings: tuple[str, ...]

    @property
    def failed(self) -> int:
        """How many checkpoints have no score."""
        return sum(None in scores.values() for scores in self.scores)
