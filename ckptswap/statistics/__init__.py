"""How sure we are: pure functions of per-sample scores, for `evaluate` and `sweep` alike; here, what they give."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from ckptswap.records import Count

Verdict = Literal["reusable", "unused", "sensitive", "undecided"]
"""`unused`: reusable, and zeros would be, too."""
REUSABLE: tuple[Verdict, ...] = ("reusable", "unused")
"""The verdicts on what can be taken."""
LEAST_GROUPS = 8
"""With fewer groups of samples there is no interval: a bootstrap of so few covers far too little."""
ErrorRate = Literal["fwer", "fdr"]
"""What verdicts keep: hardly ever one that is wrong in a table, or few wrong ones among those decided."""
StandardError = Literal["cluster", "successive"]
"""Of groups that are drawn, or that stand in an order (`neighbours`)."""


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval; None with too few groups (8) or seeds (2), or where nothing bounds it."""

    estimate: float
    low: float | None
    high: float | None


class Tails(NamedTuple):
    """p-values of 'it lies below a bound' and of 'it lies above', one-sided; None where nothing can tell."""

    below: float | None = None
    above: float | None = None


@dataclass(frozen=True)
class Difference:
    """Score of `a` minus score of `b` on the same samples."""

    a: str
    b: str
    metric: str
    interval: Interval


@dataclass(frozen=True)
class CheckpointScore:
    """A checkpoint's score by a metric; None where its outputs were not finite."""

    path: str
    metric: str
    interval: Interval | None


@dataclass(frozen=True)
class Drawn:
    """Of how many samples a task has a part (None: nobody has counted them), and under which seed that was drawn,
    evenly over which of `class` and `group`; without a seed they are the first ones."""

    of: Count | None
    by: tuple[str, ...] = ()
    seed: Count | None = None

    def words(self, samples: int) -> str:
        """What so many samples are.

        >>> Drawn(400, ("class",), 3411).words(24), Drawn(None).words(24)
        ('24 of 400 samples at random, evenly by class', 'the first 24 samples')
        """
        some = f"{samples:,}" if self.of is None else f"{samples:,} of {self.of:,}"
        if self.seed is None:
            return f"the first {some} samples"
        evenly = f", evenly by {' and '.join(self.by)}" if self.by else ""
        return f"{some} samples at random{evenly}"


@dataclass(frozen=True, repr=False)
class Comparison:
    """`scores[at][metric]` belongs to `paths[at]`; None where the checkpoint's outputs were not finite. `drawn`:
    of what the samples are a part, where a limit took one."""

    samples: int
    paths: tuple[str, ...]
    scores: tuple[Mapping[str, Interval | None], ...]
    differences: tuple[Difference, ...]
    warnings: tuple[str, ...]
    drawn: Drawn | None = None

    def __repr__(self) -> str:
        told = (
            f"{path} {metric} {'none' if score is None else f'{score.estimate:.6g}'}"
            for path, scores in zip(self.paths, self.scores, strict=True)
            for metric, score in scores.items()
        )
        return f"<Comparison {'; '.join(told)}>"

    @property
    def rows(self) -> tuple[CheckpointScore, ...]:
        """Each checkpoint's score by each metric."""
        told = zip(self.paths, self.scores, strict=True)
        return tuple(
            CheckpointScore(path, metric, score) for path, scores in told for metric, score in scores.items()
        )

    @property
    def failed(self) -> int:
        """How many checkpoints have no score."""
        return sum(None in scores.values() for scores in self.scores)
