"""How far a sweep is: who is told of it while it works, and what ends it before its end."""

import heapq
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field

from ckptswap.scoring.scorer import Block
from ckptswap.scoring.variant import BASELINE
from ckptswap.sweep.analysis import Analysis
from ckptswap.sweep.plan import Cell, Plan
from ckptswap.sweep.run_folder.blocks import Blocks
from ckptswap.sweep.run_folder.lock import Lock
from ckptswap.sweep.run_folder.plan_file import RunMetric
from ckptswap.sweep.stopping import Stop

Progress = Callable[[int, int], None]
PAUSE = 1.0  # seconds between two looks at the worst drops
SHOWN = 5
REFRESH, SPARE = 5.0, 50.0  # seconds between two tables at the least, and as many times as one of them takes


class OutOfTime(Exception):
    """The budget is used up; the text says how far the work came."""


@dataclass(frozen=True)
class Listeners:
    """Who is told of a sweep at work: how many blocks are done of how many; once a second the cells with the worst
    mean drops so far; now and then the table so far. `stop` is looked at after each block."""

    progress: Progress | None = None
    live: Callable[[Sequence[tuple[Cell, float]]], None] | None = None
    news: Callable[[Analysis], None] | None = None
    stop: Stop = field(default_factory=Stop)


class Leaderboard:
    """The ranking so far: mean drops by a metric that is a mean over samples; `direction` is `max` or `min`.

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
    def of(cls, metric: RunMetric, plan: Plan, blocks: Blocks) -> "Leaderboard | None":
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
        means = {variant: total / samples for variant, (total, samples) in self._sums.items()}
        return heapq.nlargest(count, means.items(), key=lambda pair: pair[1])


class BlockProgress:
    """Counts finished blocks (of each of the `variants` on so many `batches`), tells the listeners, and ends the
    work when it is time, asked for, or another's. `table` gives the table so far, once there can be one."""

    deadline: float | None = None
    board: Leaderboard | None = None
    table: Callable[[], Analysis] | None = None

    def __init__(
        self, listeners: Listeners, lock: Lock, variants: Collection[str], batches: int, cells: Iterable[Cell]
    ) -> None:
        self._listeners, self._lock = listeners, lock
        self._cells = {cell.variant: cell for cell in cells}
        self._variants, self._batches = variants, range(batches)
        self._done, self._total = 0, batches * len(variants)
        self._shown, self._next_news = 0.0, time.monotonic() + REFRESH

    def begin(self, known: Blocks) -> None:
        """Count what is there."""
        places = ((variant, number) for variant in self._variants for number in self._batches)
        self._done = sum(not known.lacks(*place) for place in places)
        self._count(0)

    def widen(self, variants: Iterable[str], known: Blocks) -> None:
        """Count the blocks of further variants, too."""
        self._variants = [*self._variants, *variants]
        self._total = len(self._batches) * len(self._variants)
        self.begin(known)

    def expect(self, variants: Iterable[str], known: Blocks) -> None:
        """Only these variants may need more: what others lack is not waited for."""
        places = ((variant, number) for variant in variants for number in self._batches)
        self._total = self._done + sum(known.lacks(*place) for place in places)

    def __call__(self, block: Block | None) -> None:
        """A block is done; None for one of the baseline's, which has no drop."""
        self._count(1)
        if block is not None:
            self._tell_worst(block)
            now = time.monotonic()
            if self.table and self._listeners.news and now > self._next_news:
                self._listeners.news(self.table())
                took = time.monotonic() - now
                self._next_news = now + max(REFRESH, SPARE * took)
        self.check()

    def check(self) -> None:
        """Raises what is to end the work."""
        self._lock.check()
        done = f"{self._done:,} of {self._total:,} blocks are done"
        self._listeners.stop.check(done)
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise OutOfTime(done)

    def _tell_worst(self, block: Block) -> None:
        if self.board is None or self._listeners.live is None or block.variant not in self._cells:
            return
        self.board.add(block)
        now = time.monotonic()
        if now - self._shown > PAUSE:
            self._shown = now
            self._listeners.live([(self._cells[variant], drop) for variant, drop in self.board.worst(SHOWN)])

    def _count(self, count: int) -> None:
        self._done += count
        if self._listeners.progress:
            self._listeners.progress(min(self._done, self._total), self._total)
