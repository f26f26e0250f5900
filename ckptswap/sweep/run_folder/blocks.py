"""All that is known of a run: blocks, each one variant on one batch; and each variant's scores by sample."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from ckptswap.scoring.scorer import CLOSE, CLOSENESS, REPLAY, Block
from ckptswap.scoring.variant import Variant

DONOR = "donor"


def donor_id(number: int) -> str:
    """What the journal calls a donor itself.

    >>> donor_id(0), donor_id(1)
    ('donor', 'donor1')
    """
    return DONOR if number == 0 else f"{DONOR}{number}"


class Blocks(dict[tuple[str, int], Block]):
    """All that is known of a run, by variant and batch. Of two blocks for one place the better one stays, whatever
    the order in which they come: a score rather than a failure, a full pass rather than a replay, and that rather
    than what is only close."""

    distrusted = False
    """Whether replays were found wrong: then none of theirs is kept."""

    def __init__(self) -> None:
        super().__init__()
        self._exact: set[str] = set()

    def put(self, block: Block) -> None:
        """Add one, unless a better one is there."""
        if (self.distrusted and block.engine == REPLAY) or (
            block.variant in self._exact and block.engine == CLOSE
        ):
            return
        known = self.get((block.variant, block.batch))
        if known is None or _worth(block) >= _worth(known):
            self[block.variant, block.batch] = block

    def distrust(self) -> None:
        """Forget what was replayed, and take no more of it."""
        self.distrusted = True
        for place in [place for place, block in self.items() if block.engine == REPLAY]:
            del self[place]

    def demand_exact(self, variants: Iterable[str]) -> None:
        """Forget what is only close of these variants, and take no more of it."""
        self._exact.update(variants)
        for place in [place for place, block in self.items() if block.engine == CLOSE and place[0] in self._exact]:
            del self[place]

    def as_demanded(self, variant: Variant) -> Variant:
        """A variant as it is to be scored: exactly, where that is demanded."""
        return variant._replace(exact=True) if variant.id in self._exact else variant

    def lacks(self, variant: str, batch: int) -> bool:
        """Whether there is work to do; what failed is tried again."""
        block = self.get((variant, batch))
        return block is None or block.failed is not None


def _worth(block: Block) -> tuple[bool, int]:
    return block.failed is None, (CLOSE, REPLAY, block.engine).index(block.engine)


class Scores:
    """What is known of each variant. `walk[b]` are the positions of batch `b`'s samples in the data set.

    >>> block = Block("v", 1, {"iou": np.array([[0.5], [0.7]])})
    >>> Scores([block], walk=[[3, 1], [0, 2]]).statistics("v", "iou").tolist()
    [[0.5], [nan], [0.7], [nan]]
    """

    def __init__(
        self, blocks: Iterable[Block], walk: Sequence[Sequence[int]], there: np.ndarray | None = None
    ) -> None:
        """`there` (N,): the samples that are looked at; the others count as not scored."""
        self.walk = [np.asarray(places, np.int64) for places in walk]
        self.samples = sum(map(len, self.walk))
        self._there = np.ones(self.samples, bool) if there is None else there
        self._blocks: dict[str, list[Block]] = defaultdict(list)
        for block in sorted(blocks, key=lambda block: block.batch):
            self._blocks[block.variant].append(block)

    def statistics(self, variant: str, metric: str) -> np.ndarray:
        """(N, K), NaN where a sample is not scored yet; (N, 1) NaN where none is."""
        scored = [block for block in self._blocks[variant] if block.failed is None]
        width = scored[0].statistics[metric].shape[1] if scored else 1
        statistics = np.full((self.samples, width), np.nan)
        for block in scored:
            statistics[self.walk[block.batch]] = block.statistics[metric]
        statistics[~self._there] = np.nan
        return statistics

    @property
    def closeness(self) -> dict[str, float]:
        """By variant how far a close score of it was off, at most, where that was measured."""
        off: dict[str, float] = {}
        for variant, blocks in self._blocks.items():
            known = [float(block.statistics[CLOSENESS][0, 0]) for block in blocks if CLOSENESS in block.statistics]
            if known:
                off[variant] = max(known)
        return off

    @property
    def close(self) -> set[str]:
        """The variants of which some score is only close."""
        return {
            variant for variant, blocks in self._blocks.items() if any(block.engine == CLOSE for block in blocks)
        }

    def only(self, there: np.ndarray) -> "Scores":
        """The same, of these samples (N,) alone."""
        return Scores((block for own in self._blocks.values() for block in own), self.walk, there)  # type: ignore[arg-type]

    def failed(self, variant: str) -> str | None:
        """Why a variant failed, at the first batch where it did."""
        return next((block.failed for block in self._blocks[variant] if block.failed is not None), None)

    def is_begun(self, variant: str) -> bool:
        """Whether anything is known of it."""
        return bool(self._blocks[variant])

    def done(self, variant: str) -> int:
        """How many samples it was scored on."""
        own = (self.walk[block.batch] for block in self._blocks[variant] if block.failed is None)
        return sum(int(np.count_nonzero(self._there[places])) for places in own)
