"""Bytes on disk ↔ `Checkpoint`. One file a format, each of them registered; nothing in a file is ever executed."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from ckptswap import registry
from ckptswap.checkpoint import Checkpoint, checked_bytes, refuse_damaged
from ckptswap.entries import Entry
from ckptswap.errors import FormatError, UsageError
from ckptswap.formats.companions import Companion
from ckptswap.formats.opening import open_checkpoint, open_in
from ckptswap.formats.sharded import write_sharded_folder
from ckptswap.formats.target import SHARD_SIZE, Target
from ckptswap.plainfiles import refuse_elsewhere
from ckptswap.watching import Progress, watch_of

__all__ = ["SHARD_SIZE", "open_checkpoint", "open_in", "refuse_unread", "suffixes", "write_checkpoint", "writer"]


def write_checkpoint(
    checkpoint: Checkpoint,
    path: str | os.PathLike[str],
    *,
    force: bool = False,
    shard_size: int = SHARD_SIZE,
    drop_unread: bool = False,
    progress: Progress | None = None,
    others: Iterable[Companion] = (),
) -> Path:
    """Write a checkpoint in the format that the path's ending names, atomically, and return where it is.

    `.safetensors` (also where there is no ending), `.npz`, `.pt` `.pth` `.bin` `.ckpt`; `.index.json` or a path
    that ends with `/` for shards of at most `shard_size` bytes, in a new folder with the `others`. `drop_unread`
    leaves out what holds values and is not read, which is else refused before anything is written. New files are
    no more open than the checkpoint's own. Raises `FileError` when the target exists and `force` is not given, or
    is a set of shards, which replaces nothing; `FormatError` when the format cannot hold a tensor or the source is
    damaged, `UsageError` for another ending.
    """
    refuse_unread(checkpoint, drop_unread)
    watch = watch_of(progress, checked_bytes(checkpoint) + checkpoint.nbytes)
    refuse_damaged(checkpoint, watch=watch)
    target = Target(Path(path), checkpoint.metadata, force, checkpoint.files, watch, shard_size, tuple(others))
    writer(path)(checkpoint.values(), target)
    return target.path


def refuse_unread(checkpoint: Checkpoint, drop_unread: bool) -> None:
    """Raises `FormatError` where what is about to be written would lack values, and that was not allowed."""
    if checkpoint.unread and not drop_unread:
        raise FormatError(f"{checkpoint.unread_note}, and would be lost",
                          remedy="leave them out with --drop-unread (in Python: drop_unread=True)")  # fmt: skip


def writer(path: str | os.PathLike[str]) -> Callable[[Iterable[Entry], Target], None]:
    """What writes the format that a path's ending names, safetensors, which is first, where it has none. Raises
    `UsageError`."""
    refuse_elsewhere(path)
    place = Path(path)
    if os.fspath(path).endswith("/"):
        return write_sharded_folder
    for known in registry.every("formats"):
        if known.write and (not place.suffix or known.is_named(place.name)):
            return known.write
    endings = ", ".join(suffixes())
    is_known = any(known.is_named(place.name) for known in registry.every("formats"))
    fault = "is of a format that is read and not written" if is_known else "names no format that we write"
    more = "; `ckptswap convert` makes such a file of it" if is_known else ""
    raise UsageError(f"{place} {fault}", remedy=f"end it with one of {endings}{more}")


def suffixes() -> tuple[str, ...]:
    """The endings of the names of files that can be written."""
    return tuple(suffix for known in registry.every("formats") if known.write for suffix in known.suffixes)
