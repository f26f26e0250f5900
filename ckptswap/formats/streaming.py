"""Values from a checkpoint into a file, a chunk at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO

from ckptswap.checkpoint import Entry

Watch = Callable[[int], None]
"""Told of each number of bytes done."""
Progress = Callable[[int, int], None]
"""Told of the bytes done and of all there are to do."""


def unwatched(count: int) -> None:
    """Nobody watches."""


def watch_of(progress: Progress | None, total: int) -> Watch:
    """A watch that adds up for a progress bar.

    >>> watch = watch_of(lambda done, total: print(done, "of", total), 10)
    >>> watch(4), watch(6)
    4 of 10
    10 of 10
    (None, None)
    """
    if progress is None:
        return unwatched
    done = 0

    def watch(count: int) -> None:
        nonlocal done
        done += count
        progress(done, total)

    return watch


def later(progress: Progress | None, before: int) -> Progress | None:
    """The same for work that begins when `before` bytes of other work are done."""
    return (lambda done, total: progress(before + done, before + total)) if progress else None


def stream(entry: Entry, file: BinaryIO, watch: Watch = unwatched) -> None:
    """Write all of a tensor's bytes."""
    for chunk in entry.chunks():
        file.write(chunk.data)
        watch(len(chunk))
