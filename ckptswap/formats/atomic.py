"""Writing a file so that its name holds either the old content or the new, never a part of it."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ckptswap.errors import FileError


def refuse_existing(path: Path, *, force: bool) -> None:
    """Raises `FileError` when something is in the way; `force` allows a file to be replaced, never a folder."""
    if os.path.isdir(path):
        raise FileError(f"{path} is a folder", remedy="name a file to write")
    if os.path.exists(path) and not os.path.isfile(path):
        raise FileError(f"{path} is no plain file", remedy="name a file to write")
    if os.path.lexists(path) and not force:
        raise FileError(f"{path} exists already", remedy="write elsewhere with -o, or replace it with --force")
    if not os.path.isdir(path.parent):
        raise FileError(f"{path} cannot be written: there is no folder {path.parent}", remedy="make it first")


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str], *, force: bool = True) -> Iterator[BinaryIO]:
    """A binary file that takes the name `path` when the block ends well, and leaves no trace when it does not.

    Written beside its target, fsynced, renamed; with the mode that any new file gets. Raises `FileError` when
    something is in the way or the disk is full.
    """
    target = Path(path)
    refuse_existing(target, force=force)
    beside = target.parent / f".{target.name[:60]}.{secrets.token_hex(4)}.part"
    try:
        with open(beside, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        refuse_existing(target, force=force)
        os.replace(beside, target)
        sync_folder(target.parent)
    except OSError as error:
        reason = error.strerror or str(error)
        raise FileError(f"{target} could not be written ({reason})", remedy="nothing was left behind") from None
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()


def sync_folder(folder: Path) -> None:
    """Make the rename itself durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: str | os.PathLike[str], text: str, *, force: bool = True) -> None:
    """Write a text file atomically, in UTF-8."""
    with atomic_file(path, force=force) as file:
        file.write(text.encode("utf-8"))
