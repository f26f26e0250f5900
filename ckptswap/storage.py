"""Where bytes come from: sources with a size and ranged reads, and folders of such, on the disk or in memory."""

import contextlib
import os
import resource
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from ckptswap.errors import FileError, FormatError, near
from ckptswap.plainfiles import open_plain


class Version(NamedTuple):
    """What tells a file that is not on this machine from others, and from itself as it was, without reading it:
    its SHA-256 where whoever keeps it says so, else a `text` (None: nobody tells)."""

    sha256: str | None
    text: str | None


class ByteSource:
    """What a format reads from: a file on this machine, bytes in memory, a stretch of another source.

    `name` is what to call it in a message, `size` its bytes, `path` where it lies on this machine (None: nowhere),
    `version` what is known of a file that lies elsewhere: whoever has it reads as little as can be.
    A new kind has to give `name`, `size` and `pread_into`.
    """

    name: str
    size: int
    path: Path | None = None
    version: Version | None = None

    def pread_into(self, buffer: memoryview, offset: int) -> None:
        """Fill `buffer` from `offset` on; raises `FormatError` when the bytes are not there."""
        raise NotImplementedError

    def expect(self, size: int, offset: int) -> None:
        """Be told that so many bytes will be read in order, so that they can be fetched by large pieces."""

    def pread(self, size: int, offset: int) -> bytes:
        """At most `size` bytes from `offset` on; fewer only at the end."""
        if raw := bytearray(max(0, min(size, self.size - offset))):
            self.pread_into(memoryview(raw), offset)
        return bytes(raw)

    def whole(self, most: int) -> bytes:
        """All bytes of a small file; raises `ValueError` that ends a sentence where there are more than `most`."""
        if self.size > most:
            raise ValueError(f"takes {self.size:,} bytes; {most:,} is the most")
        return self.pread(self.size, 0)

    @contextlib.contextmanager
    def lent(self, head: bytes) -> Iterator[str]:
        """A path under which another library finds these bytes, of which it looks at the first, `head`, and at how
        many there are: a file in memory, nothing but a hole behind them."""
        handle = os.memfd_create("head")
        try:
            os.write(handle, head)
            os.ftruncate(handle, self.size)
            yield f"/proc/self/fd/{handle}"
        finally:
            os.close(handle)

    def check_unchanged(self) -> None:
        """Raises `FileError` when somebody wrote to it since it was opened, or put another in its place."""

    def close(self) -> None:
        """Let go of it; nothing can be read afterwards."""


class MemoryFile(ByteSource):
    """Bytes in memory.

    >>> MemoryFile(b"abcdef", "a.bin").pread(9, 4)
    b'ef'
    """

    def __init__(self, content: bytes | memoryview, name: str = "<memory>") -> None:
        self.name = name
        self._content = memoryview(content)
        self.size = self._content.nbytes

    def pread_into(self, buffer: memoryview, offset: int) -> None:
        if offset < 0 or offset + len(buffer) > self.size:
            raise FormatError(f"{self.name} ended at byte {self.size}", remedy="it is cut short")
        buffer[:] = self._content[offset : offset + len(buffer)]


class LocalFile(ByteSource):
    """A file for ranged reads that many threads may share.

    Of the thousand of a sharded checkpoint only so many are really open; another is opened again when it is read,
    and must then still be the same file.
    """

    path: Path

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.name = str(path)
        self._fd = -1
        self._users = 0
        self._closed = False
        self._stamp: tuple[int, ...] = ()
        with self.descriptor() as fd:
            self.size = os.fstat(fd).st_size

    @contextlib.contextmanager
    def descriptor(self) -> Iterator[int]:
        """Its file descriptor, which stays open inside the block."""
        with _LOCK:
            if self._closed:
                raise FileError(f"{self.name} cannot be read", remedy="was it closed?")
            if self._fd < 0:
                self._open()
            self._users += 1
            _OPEN[self] = None
            _OPEN.move_to_end(self)
        try:
            yield self._fd
        finally:
            with _LOCK:
                self._users -= 1
                if self._closed:
                    self._drop()

    def pread_into(self, buffer: memoryview, offset: int) -> None:
        done = 0
        while done < len(buffer):
            with self._reading() as fd:
                count = os.preadv(fd, [buffer[done:]], offset + done)
            if count == 0:
                raise FormatError(f"{self.name} ended at byte {offset + done}", remedy="it is cut short")
            done += count

    def expect(self, size: int, offset: int) -> None:
        """Have them, or the first of many, brought from the disk meanwhile: where threads read here and there, the
        system does not see by itself what comes next."""
        if size >= _WORTH_SAYING and hasattr(os, "posix_fadvise"):
            with self._reading() as fd:
                os.posix_fadvise(fd, offset, min(size, _AHEAD), os.POSIX_FADV_WILLNEED)

    def pread(self, size: int, offset: int) -> bytes:
        with self._reading() as fd:
            return os.pread(fd, size, offset)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[int]:
        try:
            with self.descriptor() as fd:
                yield fd
                self._check(os.fstat(fd))
        except OSError as error:
            raise FileError(f"{self.name} cannot be read ({error.strerror})", remedy="was it closed?") from None

    @contextlib.contextmanager
    def lent(self, head: bytes) -> Iterator[str]:
        """The very file that is open, whatever lies at its path by now."""
        with self.descriptor() as fd:
            link = f"/proc/self/fd/{fd}"
            yield link if os.path.exists(link) else self.name

    def check_unchanged(self) -> None:
        try:
            self._check(os.stat(self.path))
        except OSError as error:
            fault = f"{self.name} cannot be read again ({error.strerror})"
            raise FileError(fault, remedy="was it moved?") from None

    def _check(self, status: os.stat_result) -> None:
        if _stamp(status) != self._stamp:
            raise FileError(f"{self.name} changed while it was being read", remedy="run again when it rests")

    def close(self) -> None:
        with _LOCK:
            self._closed = True
            self._drop()

    def _open(self) -> None:
        """Open it, for the first time or again, and close what was used longest ago where too many are open."""
        # Of what the system grants a quarter, so that enough is left to others, and not more than 256.
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = 256 if soft == resource.RLIM_INFINITY else max(4, min(256, soft // 4))
        for other in [file for file in _OPEN if not file._users][: max(0, len(_OPEN) + 1 - most)]:
            other._drop()
        self._fd = open_plain(self.path)
        self._stamp = self._stamp or _stamp(os.fstat(self._fd))
        try:
            self._check(os.fstat(self._fd))
        except FileError:
            self._drop()
            raise

    def _drop(self) -> None:
        if self._fd >= 0 and not self._users:
            os.close(self._fd)
            self._fd = -1
            _OPEN.pop(self, None)


_WORTH_SAYING = 1 << 20  # bytes
_AHEAD = 1 << 24  # few enough that they are still in memory when they are read
_LOCK = threading.Lock()
_OPEN: OrderedDict[LocalFile, None] = OrderedDict()
"""The files whose descriptors are open, the one that was used longest ago first."""


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    """What tells a file from another, and from itself as it was."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


class Slice(ByteSource):
    """A stretch of a byte source as a byte source of its own."""

    def __init__(self, file: ByteSource, start: int, size: int) -> None:
        self.name, self.size, self.version = file.name, size, file.version
        self._file, self._start = file, start

    def pread_into(self, buffer: memoryview, offset: int) -> None:
        if offset < 0 or offset + len(buffer) > self.size:
            raise FormatError(f"{self.name} ended at byte {self.size}", remedy="it is cut short")
        self._file.pread_into(buffer, self._start + offset)

    def expect(self, size: int, offset: int) -> None:
        self._file.expect(size, self._start + offset)


def give_back() -> None:
    """Have the C library return what it holds free to the system: another library's garbage, which no malloc of
    ours will use. Nothing happens where it cannot (only glibc has it)."""
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


@contextlib.contextmanager
def kept(source: ByteSource) -> Iterator[None]:
    """Close it when the block fails; else it stays open for its checkpoint to close."""
    try:
        yield
    except BaseException:
        source.close()
        raise


@dataclass(frozen=True)
class LocalFolder:
    """A folder on this machine, which lists and opens the files that lie beside one another.

    `name` is what to call it in a message, `path` where it lies on this machine (None: nowhere); `stored` are the
    bytes that a file takes where it is stored: a hole takes none. `open` raises `FileError`.
    """

    path: Path

    @property
    def name(self) -> str:
        return str(self.path)

    def names(self) -> list[str]:
        try:
            return sorted(os.listdir(self.path))
        except OSError as error:
            raise FileError(f"{self.name} cannot be read ({error.strerror})", remedy="check the path") from None

    def holds(self, name: str) -> bool:
        return os.path.isfile(self.path / name)

    def stored(self, name: str) -> int:
        return os.stat(self.path / name).st_blocks * 512

    def open(self, name: str) -> LocalFile:
        return LocalFile(self.path / name)


@dataclass(frozen=True)
class MemoryFolder:
    """The same of files in memory, by their names.

    >>> MemoryFolder({"a.bin": b"abc"}).open("a.bin").size
    3
    """

    content: Mapping[str, bytes]
    name: str = "<memory>"
    path = None

    def names(self) -> list[str]:
        return sorted(self.content)

    def holds(self, name: str) -> bool:
        return name in self.content

    def stored(self, name: str) -> int:
        return len(self.content[name])

    def open(self, name: str) -> MemoryFile:
        if name not in self.content:
            hint = near(name, self.content) or "check the name"
            raise FileError(f"{self.name} has no file {name!r}", remedy=hint)
        return MemoryFile(self.content[name], os.path.join(self.name, name))


class Folder(Protocol):
    """What lists and opens files that lie beside one another, as `LocalFolder` does; its `path` is None where it
    is not on this machine."""

    @property
    def name(self) -> str: ...

    @property
    def path(self) -> Path | None: ...

    def names(self) -> list[str]: ...

    def holds(self, name: str) -> bool: ...

    def stored(self, name: str) -> int: ...

    def open(self, name: str) -> ByteSource: ...
