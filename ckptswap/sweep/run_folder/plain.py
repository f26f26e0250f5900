"""The files of a run folder: what they are called, and that they are plain, since a stranger's may hold symbolic
links and pipes: nothing in it leads elsewhere, nor keeps whoever reads it waiting."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, count
from pathlib import Path
from typing import BinaryIO

from ckptswap.errors import RunError

PLAN = "plan.json"
SAMPLES = "samples.json"
LOCK = "lock"
JOURNAL = "journal"  # a folder: a file for each writer
SPECS = "orders"  # a folder: what workers are told to do
STATE = "state.json"  # of earlier versions
FORMATS = ("json", "csv", "md", "html")

FILE_MOST = 4 << 30
SMALL = 1 << 20
"""Bytes. What is larger lies on the disk, if not in full: some file systems compress, by `DENSEST` at the most."""
DENSEST = 64


def read_plain(path: Path, most: int = FILE_MOST) -> bytes:
    """All bytes of a plain file. Raises `RunError` for a link, a pipe or a folder, and for what is larger than
    `most` bytes or next to nothing but a hole, `OSError` where it cannot be read."""
    with open_plain(path) as file:
        status = os.fstat(file.fileno())
        if status.st_size > min(most, max(SMALL, status.st_blocks * 512 * DENSEST)):
            raise RunError(f"{path} cannot be what a run remembers: it has {status.st_size:,} bytes",
                           remedy="take it away, or use another run folder")  # fmt: skip
        return file.read()


def open_plain(path: Path, mode: str = "rb", flags: int = os.O_RDONLY) -> BinaryIO:
    """Open a plain file, or make it where `flags` say so. Raises as `read_plain`."""
    refuse_odd(path)
    handle = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    return os.fdopen(handle, mode, buffering=0 if "a" in mode else -1)  # type: ignore[return-value]


def open_to_append(path: Path) -> BinaryIO:
    """Open a plain file to be written to at its end, unbuffered; it has no other name, in another folder. Raises
    as `read_plain`."""
    file = open_plain(path, "ab", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    if os.fstat(file.fileno()).st_nlink > 1:
        file.close()
        remedy = "copy it, and put the copy there"
        raise RunError(f"{path} has a second name elsewhere (a hard link)", remedy=remedy)
    return file


def refuse_odd(path: Path, *, folder: bool = False) -> None:
    """Raises `RunError` where a path is there and is a link, or not a file (folder); nothing is followed."""
    try:
        mode = os.lstat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    if stat.S_ISLNK(mode):
        remedy = "a run keeps its own files: put what it points to there"
        raise RunError(f"{path} is a symbolic link", remedy=remedy)
    if not (stat.S_ISDIR if folder else stat.S_ISREG)(mode):
        what = "folder" if folder else "file"
        raise RunError(f"{path} is not a plain {what}", remedy="take it away, or use another run folder")


def unused(path: Path) -> Path:
    """The path, or the first of `path.1`, `path.2`, … that is not there."""
    numbered = (path.with_name(f"{path.name}.{number}") for number in count(1))
    return next(place for place in chain([path], numbered) if not place.exists())


@contextmanager
def faults(what: str) -> Iterator[None]:
    """Turn the system's refusals (no space, no permission, no such folder) into a `RunError`."""
    try:
        yield
    except OSError as error:
        raise RunError(f"{what}: {error.strerror or error}", remedy="free space, or use another --run") from error
