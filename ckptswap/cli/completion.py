"""What TAB offers: tensor names, layers and kinds of the checkpoint that the command line names so far. A file's
header is read each time, nothing else. Whatever goes wrong, nothing is offered: a shell is no place for errors."""

import os
import resource
import shlex
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import accumulate, islice, takewhile
from typing import Any

import typer

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import CkptswapError
from ckptswap.formats import open_checkpoint
from ckptswap.formats.opening import split_key
from ckptswap.naming import ALIASES, natural_key

MOST = 500  # more is nothing to choose from
LOOKED_AT, LONG = 1_000_000, 500  # words of a file that are looked at, and letters of one that may be offered
SECONDS, MEMORY = 3.0, 300_000_000
FILES = ("checkpoint", "recipient", "a", "donor", "b", "third", "checkpoints")
"""The parameters that name a checkpoint, in the order in which they are looked at."""

Words = Callable[[Checkpoint], Iterable[str]]


def _layers(checkpoint: Checkpoint) -> Iterator[str]:
    for entry in checkpoint.values():
        above = accumulate(entry.layer.split(".", LONG), "{}.{}".format)
        yield from takewhile(lambda word: len(word) <= LONG, above)


def _kinds(checkpoint: Checkpoint) -> Iterator[str]:
    there = {entry.kind for entry in checkpoint.values()}
    yield from there
    yield from (alias for alias, kinds in ALIASES.items() if there & set(kinds))


def _completing(words: Words) -> Callable[[typer.Context, str], list[str]]:
    """What typer asks: words that go on from what stands behind the last comma."""

    def complete(context: typer.Context, incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        fitting: set[str] = set()
        with suppress(Exception), _limits():
            for path in _paths(context.params):
                with suppress(CkptswapError, OSError):
                    fitting |= _words(path, words, last)
                if fitting:
                    break
        return [f"{before}{comma}{word}" for word in sorted(fitting, key=natural_key)[:MOST]]

    return complete


complete_names = _completing(lambda checkpoint: [*checkpoint, *_kinds(checkpoint)])
complete_layers, complete_kinds = _completing(_layers), _completing(_kinds)


def _paths(given: dict[str, Any]) -> Iterator[str]:
    """Those that click has read, then words that are files: click drops arguments before an unfinished option."""
    for name in FILES:
        value = given.get(name)
        yield from [value] if isinstance(value, str) else value or ()
    for variable in ("COMP_WORDS", "_TYPER_COMPLETE_ARGS"):  # bash; zsh, fish and PowerShell
        with suppress(ValueError):
            words = shlex.split(os.environ.get(variable, ""))
            yield from (word for word in words if os.path.exists(split_key(word)[0]))


def _words(path: str, words: Words, beginning: str) -> set[str]:
    """Of the first words of a file (many files have fewer), those that begin so, and say nothing else to a shell,
    which puts what is chosen on its line as it is."""
    with open_checkpoint(path) as checkpoint:
        looked_at = islice(words(checkpoint), LOOKED_AT)
        fitting = (word for word in looked_at if len(word) <= LONG and word.startswith(beginning))
        return {word for word in fitting if shlex.quote(word) == word and "," not in word}


@contextmanager
def _limits() -> Iterator[None]:
    """Seconds of processor time and memory while a shell waits: the file may be a stranger's. A process of its own
    is limited only, in which nothing else runs."""
    if "_CKPTSWAP_COMPLETE" not in os.environ:
        yield
        return
    with open("/proc/self/statm", "rb") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = size + MEMORY if hard == resource.RLIM_INFINITY else min(hard, size + MEMORY)
    before = signal.signal(signal.SIGPROF, _give_up)
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGPROF, before)


class _EnoughError(Exception):
    """The time is over."""


def _give_up(number: int, frame: object) -> None:
    raise _EnoughError
