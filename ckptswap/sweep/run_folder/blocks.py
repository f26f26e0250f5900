"""All that is known of a run: blocks, each one variant on one batch."""

from __future__ import annotations

from ckptswap.scoring.scorer import REPLAY, Block

DONOR = "donor"


def donor_id(number: int) -> str:
    """What the journal calls a donor itself.

    >>> donor_id(0), donor_id(1)
    ('donor', 'donor1')
    """
    return DONOR if number == 0 else f"{DONOR}{number}"


class Blocks(dict[tuple[str, int], Block]):
    """All that is known of a run, by variant and batch. Of two blocks for one place the better one stays, whatever
    the order in which they come: a score rather than a failure, a full pass rather than a replay."""

    distrusted = False
    """Whether replays were found wrong: then none of theirs is kept."""

    def put(self, block: Block) -> None:
        """Add one, unless a better one is there."""
        if self.distrusted and block.engine == REPLAY:
            return
        place = block.variant, block.batch
        known = self.get(place)
        if known is None or _worth(block) >= _worth(known):
            self[place] = block

    def distrust(self) -> None:
        """Forget what was replayed, and take no more of it."""
        self.distrusted = True
        for place in [place for place, block in self.items() if block.engine == REPLAY]:
            del self[place]

    def lacks(self, variant: str, batch: int) -> bool:
        """Whether there is work to do; what failed is tried again."""
        block = self.get((variant, batch))
        return block is None or block.failed is not None


def _worth(block: Block) -> tuple[bool, bool]:
    return block.failed is None, block.engine != REPLAY
