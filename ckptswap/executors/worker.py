"""A worker: scores one shard of an order, and writes into a journal file of its own.

    python -P -m ckptswap.executors.worker ORDER SHARD SHA256

It is told everything by the order's file, which must have this checksum, builds the task anew, and refuses to work
where that gives other conditions than the run's. What the journal holds is not done again, so that a worker
may be killed and begun anew as often as may be. SIGTERM, or its standard input being closed, lets it finish the
block in hand.
"""

from __future__ import annotations

import os
import secrets
import signal
import sys
import threading
import time
from pathlib import Path

from ckptswap.errors import CkptswapError, Stopped
from ckptswap.scoring.scorer import Block
from ckptswap.sweep.loop import score_missing
from ckptswap.sweep.run_folder.journal import Journal
from ckptswap.sweep.stopping import Stop, on_signals
from ckptswap.sweep.worker_spec import WorkerSpec, read_worker_spec

STOP_SUFFIX = ".stop"
"""A file of this name beside an order asks all its workers to end."""
LOOK = 0.5
"""Seconds between two looks for it."""


def work(order: WorkerSpec, shard: int, stop: Stop) -> None:
    """Score what the journal lacks of a shard.

    Raises `Stopped` where that was asked for, and `RunError` where the conditions are others here.
    """
    from ckptswap.sweep.rebuild import rebuilt

    with rebuilt(order) as scorer:
        writer = f"{order.token}-{shard}-{secrets.token_hex(3)}"  # one a life, since a dead one may not be dead
        with Journal(Path(order.folder), order.key, writer) as journal:
            told = _Told(order, stop)
            stop.check("nothing is done yet")
            score_missing(scorer, order.shards[shard], journal, told)


class _Told:
    """Ends the work after a block, once that is asked for."""

    def __init__(self, order: WorkerSpec, stop: Stop) -> None:
        self._stop, self._file, self._looked, self._done = stop, stop_file(order.path), time.monotonic(), 0

    def __call__(self, block: Block) -> None:
        self._done += 1
        if time.monotonic() - self._looked > LOOK:
            self._looked = time.monotonic()
            if self._file.exists():
                self._stop.request()
        self._stop.check(f"{self._done} blocks are done")


def stop_file(order: Path) -> Path:
    """The file that asks an order's workers to end."""
    return order.with_suffix(STOP_SUFFIX)


def main() -> None:
    """The worker as a program of its own."""
    from ckptswap.scoring.allocator import keep_freed_memory

    keep_freed_memory()
    path, shard, seal, *rest = sys.argv[1:]
    with on_signals(signal.SIGINT, signal.SIGTERM, patient=True) as stop:
        if "--tethered" in rest:
            threading.Thread(target=_await_end_of_input, args=(stop,), daemon=True).start()
        try:
            work(read_worker_spec(path, seal), int(shard), stop)
        except Stopped as error:
            sys.exit(error.exit_code)
        except CkptswapError as error:
            print(error, file=sys.stderr)
            sys.exit(error.exit_code)


def _await_end_of_input(stop: Stop) -> None:
    """Whoever started this process holds the other end, and may die without a word."""
    while os.read(0, 4096):
        pass
    stop.request()


if __name__ == "__main__":
    main()
