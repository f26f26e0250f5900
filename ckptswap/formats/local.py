"""Bytes on disk: a byte source with a size and ranged reads, which is all that a format needs to open a file."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ckptswap.errors import FileError, FormatError


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
    """A file opened for ranged reads that many threads may share."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.name = str(path)
        self._fd = open_readable(self.path)
        status = os.fstat(self._fd)
        self.size = status.st_size
        self._stamp = (status.st_size, status.st_mtime_ns)

    def pread_into(self, buffer: memoryview, offset: int) -> None:
        done = 0
        while done < len(buffer):
            count = self._read(buffer[done:], offset + done)
            if count == 0:
                raise FormatError(f"{self.name} ended at byte {offset + done}", remedy="it is cut short")
            done += count
        self.check_unchanged()

    def _read(self, buffer: memoryview, offset: int) -> int:
        try:
            return os.preadv(self._fd, [buffer], offset)
        except OSError as error:
            raise FileError(f"{self.name} cannot be read ({error.strerror})", remedy="was it closed?") from None

    def pread(self, size: int, offset: int) -> bytes:
        """At most `size` bytes from `offset` on; fewer only at the file's end."""
        found = os.pread(self._fd, size, offset)
        self.check_unchanged()
        return found

    def fileno(self) -> int:
        return self._fd

    def check_unchanged(self) -> None:
        """Raises `FileError` when somebody wrote to the file since it was opened."""
        status = os.fstat(self._fd)
        if (status.st_size, status.st_mtime_ns) != self._stamp:
            raise FileError(f"{self.name} changed while it was being read", remedy="run again when it rests")

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


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


def open_readable(path: Path) -> int:
    """A file descriptor for reading; raises `FileError` saying why there is none."""
    return _explained(path, lambda: os.open(path, os.O_RDONLY | os.O_CLOEXEC))


def _explained(path: Path, action: Callable[[], int]) -> int:
    try:
        return action()
    except FileNotFoundError:
        raise FileError(f"{path} does not exist", remedy=_nearby(path)) from None
    except PermissionError:
        raise FileError(f"{path} cannot be read", remedy="ask for permission to read it") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise FileError(f"{path} cannot be opened ({reason})", remedy="check the path") from None


def _nearby(path: Path) -> str:
    from ckptswap.errors import near

    try:
        siblings = [each.name for each in path.parent.iterdir()]
    except OSError:
        return f"there is no folder {path.parent} either"
    return near(path.name, siblings) or "check the path"
