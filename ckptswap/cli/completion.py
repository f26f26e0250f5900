"""What TAB offers: tensor names, layers and kinds of the checkpoint that the command line names so far.

A file's header is read each time, nothing else. Whatever goes wrong, nothing is offered: a shell is no place for
errors.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import typer

from ckptswap.errors import CkptswapError

if TYPE_CHECKING:
    from ckptswap.checkpoint import Checkpoint

MOST = 500
"""More is nothing to choose from."""
FILES = ("checkpoint", "recipient", "a", "donor", "b", "third", "checkpoints")
"""The parameters that name a checkpoint, in the order in which they are looked at."""

Words = Callable[["Checkpoint"], Iterable[str]]


def complete_names(context: typer.Context, incomplete: str) -> list[str]:
    """Tensor names and kinds, for `--only` and `--exclude`."""
    return _offered(context, incomplete, lambda found: [*found, *_kinds(found)])


def complete_layers(context: typer.Context, incomplete: str) -> list[str]:
    """Layers, and all that are above them, for `--layers`."""
    return _offered(context, incomplete, _layers)


def complete_kinds(context: typer.Context, incomplete: str) -> list[str]:
    """Kinds and aliases, for `--kind`."""
    return _offered(context, incomplete, _kinds)


def _layers(checkpoint: Checkpoint) -> Iterator[str]:
    from itertools import accumulate

    for entry in checkpoint.values():
        yield from accumulate(entry.layer.split("."), "{}.{}".format)


def _kinds(checkpoint: Checkpoint) -> Iterator[str]:
    from ckptswap.naming import ALIASES

    there = {entry.kind for entry in checkpoint.values()}
    yield from there
    yield from (alias for alias, kinds in ALIASES.items() if there & set(kinds))


def _offered(context: Any, incomplete: str, words: Words) -> list[str]:
    """Words that go on from what stands behind the last comma."""
    from ckptswap.naming import natural_key

    before, comma, last = incomplete.rpartition(",")
    found: set[str] = set()
    for path in _paths(context.params):
        with suppress(CkptswapError, OSError):
            found.update(_words(path, words))
        if found:
            break
    fitting = sorted((word for word in found if word.startswith(last)), key=natural_key)
    return [f"{before}{comma}{word}" for word in fitting[:MOST]]


def _paths(given: dict[str, Any]) -> Iterator[str]:
    """Those that click has read, then words that are files: click drops arguments before an unfinished option."""
    for name in FILES:
        value = given.get(name)
        yield from [value] if isinstance(value, str) else value or ()
    for variable in ("COMP_WORDS", "_TYPER_COMPLETE_ARGS"):  # bash; zsh, fish and PowerShell
        with suppress(ValueError):
            yield from filter(os.path.exists, shlex.split(os.environ.get(variable, "")))


def _words(path: str, words: Words) -> list[str]:
    from ckptswap.formats import open_checkpoint

    with open_checkpoint(path) as checkpoint:
        return [word for word in words(checkpoint) if _stands_alone(word)]


def _stands_alone(word: str) -> bool:
    """A shell puts what is chosen on its line as it is: a name must not be able to say anything else there."""
    return shlex.quote(word) == word and "," not in word
