"""Ending a sweep on request: the first signal lets the block in hand be finished, the second ends at once."""

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

from ckptswap.errors import EXIT_INTERRUPTED, EXIT_TERMINATED, Stopped

_NEWS = b"\nckptswap: stopping after the block in hand; once more ends it at once\n"


class Stop:
    """A request to end, which whoever works looks at after each block.

    >>> stop = Stop()
    >>> stop.request(signal.SIGINT)
    >>> stop.check("3 of 9 blocks are done")
    Traceback (most recent call last):
    ckptswap.errors.Stopped: interrupted, 3 of 9 blocks are done: the same command continues
    """

    def __init__(self) -> None:
        self.signal: int | None = None

    def request(self, number: int = signal.SIGTERM) -> None:
        """Ask to end, as this signal would."""
        self.signal = number

    def check(self, done: str) -> None:
        """Raises `Stopped` once it was requested; `done` says how far the work has come."""
        if self.signal is None:
            return
        interrupted = self.signal == signal.SIGINT
        word, code = ("interrupted", EXIT_INTERRUPTED) if interrupted else ("terminated", EXIT_TERMINATED)
        raise Stopped(f"{word}, {done}", remedy="the same command continues", exit_code=code)


@contextmanager
def on_signals(*numbers: int, patient: bool = False, silent: bool = False) -> Iterator[Stop]:
    """A `Stop` that these signals request (default: SIGINT and SIGTERM). In the main thread only.

    The second signal has the effect that it had before, which is said unless it is to be `silent`; with `patient`
    it has none, for clusters that send one stop several times.
    """
    stop = Stop()
    before = {number: signal.getsignal(number) for number in numbers or (signal.SIGINT, signal.SIGTERM)}

    def request(number: int, frame: FrameType | None) -> None:
        stop.request(number)
        if not patient:
            _restore(before)
        if not patient and not silent:
            os.write(2, _NEWS)  # print may have been interrupted by this very signal

    for number in before:
        signal.signal(number, request)
    try:
        yield stop
    finally:
        _restore(before)


def _restore(before: Mapping[int, Any]) -> None:
    for number, handler in before.items():
        signal.signal(number, handler)
