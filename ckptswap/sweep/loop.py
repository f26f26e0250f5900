"""The work itself: batches first, variants inside, each finished block into the journal.

Scores thereby arrive evenly over all variants, every batch is decoded once, and whoever stops the work finds a
table of all rows, on the samples so far.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from ckptswap.errors import CkptswapError
from ckptswap.scoring.engine import Engine, Outcome, ReplayDiffers
from ckptswap.scoring.variant import Variant
from ckptswap.sweep.run_folder.blocks import Block, Blocks
from ckptswap.sweep.run_folder.journal import Journal

if TYPE_CHECKING:
    from ckptswap.task import Task
    from ckptswap.task.task import Scorer

Told = Callable[[Block], None]
"""Called with each block that has just been finished."""
Alive = Callable[[int, Sequence[Variant]], Collection[Variant]]
"""Which of the variants are worth scoring on batch `number`, asked when all before it is in the journal."""


def walk(
    task: Task,
    engine: Engine,
    variants: Sequence[Variant],
    journal: Journal,
    told: Told,
    alive: Alive,
    failed: set[str] | None = None,
) -> None:
    """Score what the journal lacks, batch by batch.

    A variant that fails is left alone afterwards, and so are those in `failed`, to which it is added: whoever
    walks several times hands the same set on. Should a replay be found wrong, what was replayed is not believed
    any more and computed again.
    """
    failed = set() if failed is None else failed
    if journal.blocks.distrusted:
        engine.run_in_full("an earlier part of this run found replays with other bits than full passes")
    while True:
        try:
            with task.pinned():
                _walk(task, engine, variants, journal, told, alive, failed)
            return
        except ReplayDiffers as error:
            journal.distrust()
            failed.clear()
            engine.run_in_full(str(error))


def _walk(
    task: Task,
    engine: Engine,
    variants: Sequence[Variant],
    journal: Journal,
    told: Told,
    alive: Alive,
    failed: set[str],
) -> None:
    wanted = _Wanted(journal.blocks, variants, alive, failed)
    with closing(task.data.numbered(wanted)) as batches:
        for number, batch in batches:
            score = task.scorer(batch.targets)
            for outcome in engine.outputs(number, batch.inputs, wanted.of(number)):
                block = scored(number, outcome, score)
                journal.append(block)
                if block.failed is not None:
                    failed.add(block.variant)
                told(block)


class _Wanted:
    """The batches on which something is left to do, found out one after another, as the data comes to them."""

    def __init__(self, blocks: Blocks, variants: Sequence[Variant], alive: Alive, failed: Collection[str]) -> None:
        self._blocks, self._variants, self._alive, self._failed = blocks, variants, alive, failed

    def __contains__(self, number: object) -> bool:
        return isinstance(number, int) and bool(self.of(number))

    def of(self, number: int) -> list[Variant]:
        """The variants that must be scored on this batch."""
        alive = self._alive(number, self._variants)
        return [each for each in alive if each.id not in self._failed and self._blocks.lacks(each.id, number)]


def scored(number: int, outcome: Outcome, score: Scorer) -> Block:
    """An outcome as a block: what goes wrong in scoring becomes its reason, and so do outputs that are not
    finite.
    """
    variant, output, failed, engine = outcome
    if output is None:
        return Block(variant.id, number, {}, failed=failed, engine=engine)
    try:
        found = score(output)
    except CkptswapError as error:
        return Block(variant.id, number, {}, failed=str(error), engine=engine)
    except Exception as error:  # the user's metric may raise anything
        return Block(variant.id, number, {}, failed=f"{type(error).__name__}: {error}", engine=engine)
    if found.fault is not None:
        return Block(variant.id, number, {}, f"{found.fault} in batch {number}", engine)
    return Block(variant.id, number, found.statistics, None, engine)
