"""The scoring loop: what a scorer gives goes into the journal, block by block, until nothing is missing.

Batches come first, variants inside: every batch is decoded once, and whoever stops the work finds a table of all
rows, on the samples so far.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import closing

from ckptswap.scoring.scorer import Block, Scorer, ShortcutFailed
from ckptswap.scoring.variant import Variant
from ckptswap.sweep.run_folder.blocks import Blocks
from ckptswap.sweep.run_folder.journal import Journal

Told = Callable[[Block], None]
Alive = Callable[[int, Sequence[Variant]], Collection[Variant]]
"""Which of the variants are worth scoring on batch `number`, asked when all before it is in the journal."""


def everyone(number: int, variants: Sequence[Variant]) -> Sequence[Variant]:
    """All variants, on every batch."""
    return variants


def score_missing(
    scorer: Scorer,
    variants: Sequence[Variant],
    journal: Journal,
    told: Told,
    alive: Alive = everyone,
    failed: set[str] | None = None,
) -> None:
    """Score what the journal lacks, batch by batch; each finished block is `told`.

    A variant that fails is added to `failed`, whose variants are left alone: whoever calls several times hands the
    same set on. Should a replay be found wrong, what was replayed is computed again.
    """
    failed = set() if failed is None else failed
    if journal.blocks.distrusted:
        scorer.distrust("an earlier part of this run found replays with other bits than full passes")
    while True:
        try:
            with closing(scorer.blocks(_Missing(journal.blocks, variants, alive, failed))) as blocks:
                for block in blocks:
                    journal.append(block)
                    if block.failed is not None:
                        failed.add(block.variant)
                    told(block)
            return
        except ShortcutFailed as error:
            journal.distrust()
            failed.clear()
            scorer.distrust(str(error))


class _Missing:
    """What is left to do, batch after batch, as the scorer comes to them."""

    def __init__(self, blocks: Blocks, variants: Sequence[Variant], alive: Alive, failed: Collection[str]) -> None:
        self._blocks, self._variants, self._alive, self._failed = blocks, variants, alive, failed

    def __contains__(self, number: object) -> bool:
        return isinstance(number, int) and bool(self.of(number))

    def of(self, number: int) -> list[Variant]:
        """The variants that must be scored on this batch."""
        alive = (variant for variant in self._alive(number, self._variants) if variant.id not in self._failed)
        return [variant for variant in alive if self._blocks.lacks(variant.id, number)]
