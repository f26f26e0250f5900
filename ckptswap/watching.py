"""Who watches long work: told of bytes as they are done."""

from collections.abc import Callable

Watch = Callable[[int], None]  # told of each number of bytes done
Progress = Callable[[int, int], None]  # told of the bytes done and of all there are to do


def unwatched(count: int) -> None:
    """Nobody watches."""


def watch_of(progress: Progress | None, total: int) -> Watch:
    """A watch that adds up for a progress bar.

    >>> watch = watch_of(lambda done, total: print(done, "of", total), 10)
    >>> watch(4)
    4 of 10
    """
    if progress is None:
        return unwatched
    done = 0

    def watch(count: int) -> None:
        nonlocal done
        done += count
        progress(done, total)

    return watch
