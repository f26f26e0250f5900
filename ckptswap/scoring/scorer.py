"""What gives variants their scores, as a sweep sees it: blocks of statistics for the variants that are wanted.

A scorer may need a torch module and go through batches (`full`, `replay`), or take whole checkpoints and know of
no batches: then it has one, with all samples. No torch here.
"""

from collections.abc import Collection, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from ckptswap.scoring.variant import Variant
from ckptswap.statistics import Drawn

Exactness = Literal["bits", "close", "external"]
"""How a score agrees with that of a plain forward pass on the CPU: in all bits; but for rounding; who knows."""
Way = Literal["full", "replay", "close", "external"]
"""How a block was computed."""
Statistics = dict[str, np.ndarray]
"""By metric: one row a sample (n, K) float64."""
How = Literal["auto", "replay", "full", "close"]
"""What `--engine` may be."""
REPLAY: Way = "replay"
CLOSE: Way = "close"
EXTENT = "range of outputs"
"""Under this name the baseline's blocks hold (1, 2): least and greatest output, where it has one channel."""
CLOSENESS = "closeness"
"""Under this name a variant's exact blocks may hold (1, 1): how far its score by the first metric was off by a way
that is only close."""


class Block(NamedTuple):
    """One variant on one batch: per metric the statistics of its samples (n, K), or why it failed."""

    variant: str
    batch: int
    statistics: Statistics
    failed: str | None = None
    engine: Way = "full"


@dataclass(frozen=True)
class Cost:
    """What a sweep takes: which engine, the share of full passes' FLOPs, an estimate of the time in seconds, and
    the most that a replay's intermediate values take, in bytes (None for other engines), and how many seconds a
    full pass over all samples takes (None without a model).
    """

    engine: Way
    share: float
    seconds: float
    peak: int | None
    whole_pass: float | None = None


@dataclass(frozen=True)
class Layout:
    """The samples in the data's own order, and the batches in which they are scored.

    `groups` (N,) and `units` (N,): samples that resemble each other, samples that are drawn together. `places[b]`
    (n,) are the positions of batch `b`'s samples. `drawn` says of what the samples are a part, where they are one.
    """

    groups: np.ndarray
    units: np.ndarray
    places: Sequence[np.ndarray]
    drawn: Drawn | None = None

    @property
    def samples(self) -> int:
        return len(self.groups)

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many samples each batch holds."""
        return tuple(map(len, self.places))


class Measure(Protocol):
    """What a sweep knows of a metric: whether its value is the mean over samples, or one that only all have."""

    @property
    def name(self) -> str: ...

    @property
    def direction(self) -> Literal["max", "min"]: ...

    @property
    def bounds(self) -> tuple[float, float]: ...

    @property
    def is_mean(self) -> bool: ...

    @property
    def is_of_set(self) -> bool: ...


class Wanted(Protocol):
    """Which variants are to be scored on which batches; asked for a batch when all before it is done."""

    def __contains__(self, number: object) -> bool:
        """Whether anything is wanted on a batch."""

    def of(self, number: int) -> Sequence[Variant]:
        """The variants that are wanted on a batch."""


class Every(NamedTuple):
    """These variants on all of these batches."""

    variants: Sequence[Variant]
    batches: Collection[int]

    def __contains__(self, number: object) -> bool:
        return bool(self.variants) and number in self.batches

    def of(self, number: int) -> Sequence[Variant]:
        return self.variants


class ShortcutFailed(Exception):
    """A shorter way than a full pass gave other bits for the variant that the text names.

    Whoever catches it forgets such blocks and calls `distrust`.
    """


class Scorer(Protocol):
    """Scores variants of one recipient. `notes` collects what the user should be told, each thing once."""

    exactness: Exactness
    needs_model: bool
    """Whether it runs a torch module: names are then the module's, and statistics can be estimated anew."""
    notes: list[str]

    @property
    def layout(self) -> Layout: ...

    @property
    def metrics(self) -> Sequence[Measure]: ...

    def blocks(self, wanted: Wanted) -> Generator[Block]:
        """One block for each wanted variant on each batch, batches in ascending order.

        A variant that cannot be scored gives a block that says why; `scoring.variant.RECIPIENT` is the baseline.
        Whoever stops early closes the generator. Raises `ShortcutFailed`.
        """

    def distrust(self, reason: str) -> None:
        """Take no shorter way from now on. Raises `ModelError` where nothing else was allowed."""

    def unread(self) -> frozenset[str]:
        """The tensors that are known to have no effect on any score."""

    def cost(self, variants: Sequence[Variant]) -> Cost:
        """What scoring the recipient and these variants takes, from a trial."""

    def weights(self, variants: Sequence[Variant]) -> list[float]:
        """What each variant costs beside the others, to divide them among workers."""

    def trivial(self, metric: str) -> float | None:
        """The score of a prediction that looks at nothing; None where there is none, or it is not finite."""

    def warnings(self, baseline: Iterable[Block]) -> list[str]:
        """What the user should be told of the task, and of the baseline's scores."""

    def identity(self) -> Mapping[str, Any]:
        """All but the checkpoints that decides a score, as parts of the run's key: JSON's words."""
