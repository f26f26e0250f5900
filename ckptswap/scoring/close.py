"""Scores by replaying a shortened graph: close to those of full passes, and held against them.

On the first batch of each form every variant is replayed both ways, after that one block in a hundred. The exact
score is then the one that counts, and beside it stands how far the other is off (`CLOSENESS`). How much of that is
borne, whoever asks decides, and asks for what is too far off again, exactly (`Variant.exact`).
"""

import random
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ckptswap.checkpoint import Checkpoint
from ckptswap.scoring.full import ModelOutput, scored
from ckptswap.scoring.interpreter import Replay
from ckptswap.scoring.replay import CHECKED, ReplayScorer, is_replayed
from ckptswap.scoring.scorer import CLOSE, CLOSENESS, Block, Exactness, How, Statistics, Wanted, Way
from ckptswap.scoring.shortening import shortened
from ckptswap.scoring.stacked import Stacked, pays
from ckptswap.scoring.variant import RECIPIENT, Variant
from ckptswap.task.callables import first_line
from ckptswap.task.data import Batch
from ckptswap.task.task import Score, Task
from ckptswap.task.tree import Form, Tree, form_of

Scoring = Callable[[Tensor], Score]


class CloseScorer(ReplayScorer):
    """Replays by a shorter way what can be replayed, unless a variant is wanted exactly."""

    exactness: Exactness = "close"
    how: How = "close"
    shortest: Way = CLOSE

    def __init__(
        self, task: Task, donors: Sequence[Checkpoint], recipient: Checkpoint, calibration: Sequence[Tree]
    ) -> None:
        super().__init__(task, donors, recipient, calibration)
        self._short: dict[Form, Replay | None] = {}
        self._baseline: dict[int, Statistics] = {}

    def blocks(self, wanted: Wanted) -> Generator[Block]:
        """See `Scorer`. The baseline is scored by full passes."""
        with self.task.pinned(), closing(self.task.data.numbered(wanted)) as batches:
            for number, batch in batches:
                yield from self._of_batch(number, batch, wanted.of(number))

    def _of_batch(self, number: int, batch: Batch, variants: Sequence[Variant]) -> Iterator[Block]:
        score = self.task.scored_against(batch)
        exactly = partial(self._exactly, number, batch.inputs, score)
        short = self.short(batch.inputs) if any(map(_may_be_close, variants)) else None
        near = {variant.id: variant for variant in variants if short and self._is_near(short, variant)}
        yield from exactly([variant for variant in variants if variant.id not in near])
        if short is None or not near:
            return
        baseline = self._baseline_of(number, batch.inputs, score)
        blocks = self._closely(short, number, batch.inputs, list(near.values()), score, baseline)
        is_first = self.task.data.forms[self.task.data.batch_forms[number]] == number
        checked = {name for name, variant in near.items() if is_first or _is_drawn(variant, number)}
        yield from (block for name, block in blocks.items() if name not in checked)
        for block in exactly([near[name] for name in near if name in checked or name not in blocks]):
            yield self._compared(block, blocks.get(block.variant))

    def _is_near(self, short: Replay, variant: Variant) -> bool:
        """Whether a variant is scored by the shorter way: not what fails, and not what changes nothing."""
        return _may_be_close(variant) and not self.fault(variant) and short.changes(self._swap(short, variant))

    def _exactly(self, number: int, inputs: Tree, score: Scoring, variants: Sequence[Variant]) -> Iterator[Block]:
        for result in self.outputs(number, inputs, variants) if variants else ():
            block = scored(number, result, score)
            if result.variant == RECIPIENT and block.failed is None:
                self._baseline[number] = block.statistics
            yield block

    def _closely(
        self,
        short: Replay,
        number: int,
        inputs: Tree,
        variants: Sequence[Variant],
        score: Scoring,
        baseline: Statistics,
    ) -> dict[str, Block]:
        """Blocks by the shorter way, those that it could not give left out.

        What it is off for the recipient is taken off all others': a variant that moves nothing has no drop.
        """
        blocks, own = dict[str, Block](), dict[str, np.ndarray]()
        swaps = [self._swap(short, variant) for variant in variants]
        try:
            for index, output in short.outputs(self.task.prepared(inputs), swaps, with_output=True):
                variant = RECIPIENT if index is None else variants[index]
                block = scored(number, ModelOutput(variant, output, None, CLOSE), score)
                if index is None:
                    own = block.statistics
                else:
                    blocks[variant.id] = block
        except (RuntimeError, MemoryError) as error:
            self._note(f"the shorter way failed ({first_line(error)}): that batch is scored exactly")
            return {}
        return {
            name: block._replace(statistics=_moved(block.statistics, own, baseline))
            for name, block in blocks.items()
            if block.failed is None and own
        }

    def _compared(self, exact: Block, close: Block | None) -> Block:
        """The exact block, which tells how far the other is off."""
        if exact.failed is not None or close is None:
            return exact
        metric = self.metrics[0]
        off = abs(metric.value(exact.statistics[metric.name]) - metric.value(close.statistics[metric.name]))
        return exact._replace(statistics={**exact.statistics, CLOSENESS: np.array([[off]])})

    def _baseline_of(self, number: int, inputs: Tree, score: Scoring) -> Statistics:
        """The recipient's statistics on a batch, by a full pass; none where it has no score."""
        if number not in self._baseline:
            list(self._exactly(number, inputs, score, [RECIPIENT]))
        return self._baseline.get(number, {})

    def short(self, inputs: Tree) -> Replay | None:
        """The shorter way for inputs of this form; None where there is none. What a model asks of values decides
        which of several graphs is a batch's: there is no shorter one."""
        exact, form = self.replay(inputs), form_of(inputs)
        if exact is None:
            return None
        if exact.graph.guards:
            self._note_no_way("a batch's values decide what the model does")
            return None
        if form not in self._short:
            given = {**exact.state, **exact.graph.given(self.task.prepared(inputs))}
            try:
                stacks = pays(exact.graph, torch.device(self.task.spec.device).type)
                kind = Stacked if stacks else Replay
                self._short[form] = kind(
                    shortened(exact.graph, given, laid_out=not stacks), exact.state, self.memory
                )
            except RuntimeError as error:  # oneDNN's, of what it does not do
                self._short[form] = None
                self._note_no_way(first_line(error))
        return self._short[form]

    def _note_no_way(self, reason: str) -> None:
        self._note(f"there is no shorter way ({reason}): every variant is scored exactly")

    def fastest(self, inputs: Tree) -> Replay | None:
        """See `ReplayScorer`."""
        return self.short(inputs) or self.replay(inputs)


def _may_be_close(variant: Variant) -> bool:
    return is_replayed(variant) and not variant.exact


def _is_drawn(variant: Variant, number: int) -> bool:
    """Whether a block is one of the few that are held against exact ones, whoever else is scored."""
    return not random.Random(f"{variant.id} {number}").randrange(CHECKED)


def _moved(close: Statistics, own: Statistics, baseline: Statistics) -> Statistics:
    """Statistics by the shorter way, less what it is off for the recipient."""
    return {name: values + (baseline[name] - own[name]) for name, values in close.items() if name in baseline}
