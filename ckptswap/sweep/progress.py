"""How far a sweep is: what is told of it while it works, and what ends it before its end."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ckptswap.scoring.scorer import Block
from ckptswap.scoring.variant import BASELINE
from ckptswap.sweep.live import Leaderboard
from ckptswap.sweep.plan import Cell
from ckptswap.sweep.run_folder.blocks import Blocks
from ckptswap.sweep.run_folder.lock import Lock
from ckptswap.sweep.stopping import Stop

if TYPE_CHECKING:
    from ckptswap.sweep.runner import Sweep

Progress = Callable[[int, int], None]
"""Called with how many blocks (one variant on one batch) are done and how many there are."""
Live = Callable[[Sequence[tuple[Cell, float]]], None]
"""Called with the cells whose mean drops are the worst so far, and these."""
NEWS = 1.0
"""Seconds between two such calls."""
SHOWN = 5
REFRESH, SPARE = 5.0, 50.0
"""Seconds between two exports at the least, and as many times as one of them takes."""


class OutOfTime(Exception):
    """The budget is used up."""


class Meter:
    """Counts finished blocks for a progress bar, and ends the work when it is time, asked for, or another's."""

    deadline: float | None = None
    board: Leaderboard | None = None

    def __init__(
        self,
        proposal: Sweep,
        progress: Progress | None,
        live: Live | None,
        news: Callable[[], None] | None,
        stop: Stop,
        lock: Lock,
    ) -> None:
        self._proposal, self._stop, self._lock = proposal, stop, lock
        self._progress, self._live, self._news = progress, live, news
        self._cells = {cell.variant: cell for cell in proposal.plan.cells}
        self._done = self._total = 0
        self._shown, self._next_news = 0.0, time.monotonic() + REFRESH

    def begin(self, known: Blocks) -> None:
        """Count what is there."""
        numbers = range(len(self._proposal.scorer.layout.sizes))
        wanted = [BASELINE, *(variant.id for variant in self._proposal.variants)]
        self._done = sum(not known.lacks(variant, number) for variant in wanted for number in numbers)
        self._total = len(wanted) * len(numbers)
        self._count(0)

    def __call__(self, block: Block | None) -> None:
        """A block is done; None for one of the baseline's, which has no drop."""
        self._count(1)
        now = time.monotonic()
        if block and self.board and self._live and block.variant in self._cells:
            self.board.add(block)
            if now - self._shown > NEWS:
                self._shown = now
                worst = self.board.worst(SHOWN)
                self._live([(self._cells[variant], drop) for variant, drop in worst])
        if block and self._news and now > self._next_news:
            self._news()
            took = time.monotonic() - now
            self._next_news = now + max(REFRESH, SPARE * took)
        self.check()

    def check(self) -> None:
        """Raises what is to end the work."""
        self._lock.check()
        self._stop.check(f"{self._done} of {self._total} blocks are done")
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise OutOfTime

    def _count(self, count: int) -> None:
        self._done += count
        if self._progress:
            self._progress(min(self._done, self._total), self._total)
