"""The ranking while a sweep runs: a running mean of each variant's drop, on the batches that it was scored on."""

from __future__ import annotations

import heapq
from collections.abc import Iterable

from ckptswap.scoring.scorer import Block
from ckptswap.scoring.variant import BASELINE
from ckptswap.sweep.plan import Plan
from ckptswap.sweep.run_folder.blocks import Blocks
from ckptswap.sweep.run_folder.plan_file import RunMetric


class Leaderboard:
    """Mean drops so far by a metric that is a mean over samples; `direction` is `max` or `min`.

    >>> import numpy as np
    >>> board = Leaderboard("iou", "max", [Block(BASELINE, 0, {"iou": np.ones((2, 1))})])
    >>> board.add(Block("v", 0, {"iou": np.full((2, 1), 0.25)}))
    >>> board.worst(3)
    [('v', 0.75)]
    """

    def __init__(self, metric: str, direction: str, known: Iterable[Block]) -> None:
        self._metric, self._sign = metric, 1.0 if direction == "max" else -1.0
        blocks = list(known)
        self._baseline = {block.batch: self._sum(block) for block in blocks if block.variant == BASELINE}
        self._sums: dict[str, tuple[float, int]] = {}
        for block in blocks:
            self.add(block)

    @classmethod
    def of(cls, metric: RunMetric, plan: Plan, blocks: Blocks) -> Leaderboard | None:
        """The ranking of a plan's cells; None for a metric that is not a mean: nothing can be counted up."""
        ranked = {BASELINE, *(cell.variant for cell in plan.cells)}
        known = (block for block in blocks.values() if block.variant in ranked)
        return cls(metric.name, metric.direction, known) if metric.is_mean else None

    def _sum(self, block: Block) -> float:
        return float(block.statistics[self._metric].sum())

    def add(self, block: Block) -> None:
        """Count a block in; baselines and failures are none of the ranking's."""
        if block.failed is not None or block.variant == BASELINE:
            return
        drop = self._sign * (self._baseline[block.batch] - self._sum(block))
        total, samples = self._sums.get(block.variant, (0.0, 0))
        self._sums[block.variant] = total + drop, samples + len(block.statistics[self._metric])

    def worst(self, count: int) -> list[tuple[str, float]]:
        """The variants with the largest mean drops, and these."""
        means = ((variant, total / samples) for variant, (total, samples) in self._sums.items())
        return heapq.nlargest(count, means, key=lambda pair: pair[1])
