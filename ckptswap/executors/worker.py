"""A worker: does one shard of a worker spec.

    python -P -m ckptswap.executors.worker SPEC SHARD SHA256

What is done already is not done again, so that a worker may be killed and begun anew at any time. SIGTERM, or its
standard input being closed, lets it finish the block in hand.
"""

import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from pkgutil import resolve_name

from ckptswap.errors import CkptswapError, Stopped
from ckptswap.executors.worker_spec import WorkerSpec, read_worker_spec
from ckptswap.scoring.allocator import keep_freed_memory
from ckptswap.sweep.stopping import Stop, on_signals

LOOK = 0.5  # seconds between two looks for the file that asks a spec's workers to end


def work(spec: WorkerSpec, shard: int, stop: Stop) -> None:
    """Do a shard. Raises `Stopped` where that was asked for, and what the work raises."""
    writer = f"{spec.token}-{shard}-{secrets.token_hex(3)}"  # one a life, since a dead one may not be dead
    do = resolve_name(spec.work)
    do(spec.folder, spec.common, spec.shards[shard], writer, _StopByFile(stop, spec.stop_file))


class _StopByFile(Stop):
    """Another stop, which is also requested by a file's being there."""

    def __init__(self, stop: Stop, file: Path) -> None:
        super().__init__()
        self._stop, self._file, self._looked = stop, file, time.monotonic()

    def check(self, done: str) -> None:
        if time.monotonic() - self._looked > LOOK:
            self._looked = time.monotonic()
            if self._file.exists():
                self._stop.request()
        self._stop.check(done)


def main() -> None:
    """The worker as a program of its own."""
    keep_freed_memory()
    path, shard, seal, *rest = sys.argv[1:]
    with on_signals(signal.SIGINT, signal.SIGTERM, patient=True) as stop:
        if "--tethered" in rest:
            at_end_of_input(stop.request)
        try:
            work(read_worker_spec(path, seal), int(shard), stop)
        except CkptswapError as error:
            if not isinstance(error, Stopped):
                print(error, file=sys.stderr)
            sys.exit(error.exit_code)


def at_end_of_input(then: Callable[[], object]) -> None:
    """Call `then` once nobody holds the other end of our input: who began this process may die without a word."""

    def wait() -> None:
        while os.read(0, 4096):
            pass
        then()

    threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    main()
