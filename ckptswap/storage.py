"""Bytes on disk: a byte source, with a size and ranged reads, from which values come."""

from __future__ import annotations

import contextlib
import os
import resource
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ckptswap.errors import FileError, FormatError
from ckptswap.plainfiles import open_plain


class ByteSource(Protocol):
    """What a format reads from. A local file today; ranged reads of a remote one fit the same shape."""

    @property
    def name(self) -> str:
        """What to call it in a message."""

    @property
    def size(self) -> int:
        """In bytes."""

    def pread_into(self, buffer: memoryview, offset: int) -> None:
        """Fill `buffer` from `offset` on; raises `FormatError` when the bytes are not there."""


class LocalFile:
    """A file opened for ranged reads that many threads may share.

    A checkpoint of a thousand shards is a thousand of these. Only so many are really open; another is opened again
    when it is read, and must then still be the same file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.name = str(path)
        self._fd = -1
        self._users = 0
        self._closed = False
        self._identity: tuple[int, int] | None = None
        self._stamp = (0, 0)
        with self.descriptor():
            self.size = self._stamp[0]

    @contextlib.contextmanager
    def descriptor(self) -> Iterator[int]:
        """Its file descriptor, which stays open inside the block."""
        fd = self._lend()
        try:
            yield fd
        finally:
            self._give_back()

    def pread_into(self, buffer: memoryview, offset: int) -> None:
        done = 0
        while done < len(buffer):
            count = self._read(buffer[done:], offset + done)
            if count == 0:
                raise FormatError(f"{self.name} ended at byte {offset + done}", remedy="it is cut short")
            done += count

    def _read(self, buffer: memoryview, offset: int) -> int:
        fd = self._lend()
        try:
            count = os.preadv(fd, [buffer], offset)
            self._check(os.fstat(fd))
            return count
        except OSError as error:
            raise FileError(f"{self.name} cannot be read ({error.strerror})", remedy="was it closed?") from None
        finally:
            self._give_back()

    def pread(self, size: int, offset: int) -> bytes:
        """At most `size` bytes from `offset` on; fewer only at the file's end."""
        with self.descriptor() as fd:
            found = os.pread(fd, size, offset)
            self._check(os.fstat(fd))
            return found

    def check_unchanged(self) -> None:
        """Raises `FileError` when somebody wrote to the file since it was opened."""
        with self.descriptor() as fd:
            self._check(os.fstat(fd))

    def _check(self, status: os.stat_result) -> None:
        if (status.st_size, status.st_mtime_ns) != self._stamp:
            raise FileError(f"{self.name} changed while it was being read", remedy="run again when it rests")

    def close(self) -> None:
        with _LOCK:
            self._closed = True
            self._drop()

    def _lend(self) -> int:
        with _LOCK:
            if self._closed:
                raise FileError(f"{self.name} cannot be read", remedy="was it closed?")
            if self._fd < 0:
                self._open()
            self._users += 1
            _OPEN[self] = None
            _OPEN.move_to_end(self)
            return self._fd

    def _give_back(self) -> None:
        with _LOCK:
            self._users -= 1
            if self._closed:
                self._drop()

    def _open(self) -> None:
        """Open it, for the first time or again, and close what was used longest ago where too many are open."""
        for other in [each for each in _OPEN if not each._users][: max(0, len(_OPEN) + 1 - _most_open())]:
            other._drop()
        self._fd = open_plain(self.path)
        status = os.fstat(self._fd)
        if self._identity is None:
            self._identity = status.st_dev, status.st_ino
            self._stamp = status.st_size, status.st_mtime_ns
        elif self._identity != (status.st_dev, status.st_ino):
            self._drop()
            raise FileError(f"{self.name} changed while it was being read", remedy="run again when it rests")

    def _drop(self) -> None:
        if self._fd >= 0 and not self._users:
            os.close(self._fd)
            self._fd = -1
            _OPEN.pop(self, None)


_LOCK = threading.Lock()
_OPEN: OrderedDict[LocalFile, None] = OrderedDict()
"""The files whose descriptors are open, the one that was used longest ago first."""


def _most_open() -> int:
    """A quarter of what the system grants, so that enough is left to others, and not more than 256."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 256 if soft == resource.RLIM_INFINITY else max(4, min(256, soft // 4))


@dataclass(frozen=True)
class Slice:
    """A stretch of a byte source as a byte source of its own."""

    file: ByteSource
    start: int
    size: int
    name: str

    def pread_into(self, buffer: memoryview, offset: int) -> None:
        if offset < 0 or offset + len(buffer) > self.size:
            raise FormatError(f"{self.name} ended at byte {self.size}", remedy="it is cut short")
        self.file.pread_into(buffer, self.start + offset)


@contextlib.contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[LocalFile]:
    """A file that is closed when the block fails, and else stays open for its checkpoint to close."""
    file = LocalFile(path)
    try:
        yield file
    except BaseException:
        file.close()
        raise


@dataclass(frozen=True, slots=True)
class FileRange:
    """A tensor whose bytes lie in one piece in a byte source."""

    file: ByteSource
    offset: int

    def read_into(self, buffer: memoryview, offset: int) -> None:
        self.file.pread_into(buffer, self.offset + offset)
