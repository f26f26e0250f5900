"""A worker: scores one shard of an order, and writes into a journal file of its own.

    python -P -m ckptswap.sweep.worker ORDER SHARD

It is told everything by the order's file, builds the task anew, and refuses to work where that gives other
conditions than the run's. What the journal holds already is not done again, so that a worker may be killed and
begun anew as often as may be. SIGTERM, or its standard input being closed, lets it finish the block in hand.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import CkptswapError, RunError, Stopped
from ckptswap.sweep.journal import Block, Journal, check_conditions, key_of
from ckptswap.sweep.order import Named, Order, read_order
from ckptswap.sweep.stopping import Stop, on_signals

if TYPE_CHECKING:
    from torch import Tensor

    from ckptswap.task import Task

STOP_SUFFIX = ".stop"
"""A file of this name beside an order asks all its workers to end."""
LOOK = 0.5
"""Seconds between two looks for it."""


def work(order: Order, shard: int, stop: Stop) -> None:
    """Score what the journal lacks of a shard.

    Raises `Stopped` where that was asked for, and `RunError` where the conditions are others here.
    """
    from ckptswap.sweep.conditions import conditions
    from ckptswap.sweep.engine import Engine
    from ckptswap.sweep.walk import walk
    from ckptswap.task import load_task

    os.chdir(order.cwd)
    sys.path += [each for each in order.places if each not in sys.path]
    folder = Path(order.folder)
    with contextlib.ExitStack() as stack:
        recipient = stack.enter_context(_opened(order.recipient))
        donors = [stack.enter_context(_given(each, recipient, order)) for each in order.donors]
        task = load_task(order.spec, recipient)
        found = conditions(task, donors, recipient)
        if key_of(found) != order.key:
            check_conditions(folder, found)
            raise RunError(f"{folder} belongs to another sweep by now", remedy="run the sweep again")
        engine = Engine(task, donors, recipient, order.engine, order.memory, _calibration(order, task))
        writer = f"{order.token}-{shard}-{secrets.token_hex(3)}"  # one a life, since a dead one may not be dead
        with Journal(folder, order.key, writer) as journal:
            told = _Told(order, stop)
            stop.check("nothing is done yet")
            walk(task, engine, order.shards[shard], journal, told, lambda _, every: every)


@contextlib.contextmanager
def _opened(source: Named) -> Iterator[Checkpoint]:
    from ckptswap.formats import open_checkpoint
    from ckptswap.renaming import renamed

    with open_checkpoint(source.path) as checkpoint:
        yield renamed(checkpoint, source.renames)


@contextlib.contextmanager
def _given(source: Named, recipient: Checkpoint, order: Order) -> Iterator[Checkpoint]:
    from ckptswap.renaming import renamed
    from ckptswap.sweep.donors import open_donor

    with open_donor(source.path, recipient, order.spec) as donor:
        yield renamed(donor, source.renames)


def _calibration(order: Order, task: Task) -> list[Tensor]:
    from ckptswap.sweep.recalibration import fingerprint, load_calibration

    if order.calibration is None:
        return []
    batches = load_calibration(order.calibration, task)
    if fingerprint(batches) != order.calibrated_on:
        raise RunError("the calibration data has other values by now", remedy="run the sweep again")
    return batches


class _Told:
    """Ends the work after a block, once that is asked for."""

    def __init__(self, order: Order, stop: Stop) -> None:
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
    from ckptswap.sweep.allocator import keep_freed_memory

    keep_freed_memory()
    path, shard, *rest = sys.argv[1:]
    with on_signals(signal.SIGINT, signal.SIGTERM, patient=True) as stop:
        if "--tethered" in rest:
            threading.Thread(target=_await_end_of_input, args=(stop,), daemon=True).start()
        try:
            work(read_order(path), int(shard), stop)
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
