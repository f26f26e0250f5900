"""A file that lies elsewhere as a byte source: fetched by stretches, of which the last are kept in memory."""

import threading
from collections import OrderedDict, deque
from typing import Protocol

from ckptswap.errors import FormatError
from ckptswap.storage import ByteSource, Version

BLOCK = 64 << 10  # bytes: the least that is fetched, as asking takes longer than so many take on their way
AHEAD_MOST = 1 << 20  # bytes fetched at once where small pieces are read in order
STRETCH = 8 << 20  # bytes fetched at once where it is known that they are wanted
KEPT = 64 << 20  # bytes kept of each file


class Reader(Protocol):
    """What fetches: `head` is what came with the first answer, from the beginning on."""

    name: str
    size: int
    head: bytes
    version: Version

    def fetch(self, size: int, offset: int) -> bytes:
        """Exactly these bytes; raises `FileError` where they cannot be had."""

    def close(self) -> None:
        """Let go of the connection."""


class FarFile(ByteSource):
    """A file elsewhere. Threads may share it; they wait for one another.

    >>> from types import SimpleNamespace
    >>> def fetch(size, offset):
    ...     print("fetching", size, "at", offset)
    ...     return bytes(size)
    >>> told = dict(name="far", size=1 << 20, head=b"head", version=Version(None, None))
    >>> file = FarFile(SimpleNamespace(**told, fetch=fetch))
    >>> file.pread(4, 0), file.pread(2, 100_000), file.pread(2, 70_000)
    fetching 65536 at 65536
    (b'head', b'\\x00\\x00', b'\\x00\\x00')
    """

    def __init__(self, reader: Reader) -> None:
        self.name, self.size, self.version = reader.name, reader.size, reader.version
        self._reader = reader
        self._lock = threading.Lock()
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._wanted: deque[tuple[int, int]] = deque(maxlen=8)  # several threads may each read something
        self._end, self._ahead = 0, BLOCK
        self._keep(reader.head, 0)

    def expect(self, size: int, offset: int) -> None:
        self._wanted.append((offset, offset + size))

    def pread_into(self, buffer: memoryview, offset: int) -> None:
        if offset < 0 or offset + len(buffer) > self.size:
            raise FormatError(f"{self.name} ended at byte {self.size}", remedy="it is cut short")
        done, end = 0, offset + len(buffer)
        with self._lock:
            while done < len(buffer):
                number, inside = divmod(offset + done, BLOCK)
                part = self._blocks.get(number)
                if part is None or len(part) <= inside:
                    self._fetch(number, end)
                    part = self._blocks[number]
                self._blocks.move_to_end(number)
                part = part[inside : inside + len(buffer) - done]
                buffer[done : done + len(part)] = part
                done += len(part)

    def _fetch(self, number: int, end: int) -> None:
        """Fetch the block of this number, and of those behind it as many as are wanted and not there."""
        start = number * BLOCK
        self._ahead = min(2 * self._ahead, AHEAD_MOST) if start == self._end else BLOCK
        wanted = [last for first, last in tuple(self._wanted) if first < start + BLOCK and start < last]
        if wanted:
            end = max(end, *wanted)
        elif start == self._end and end - start <= BLOCK:
            end = start + self._ahead
        stop = number + 1
        while stop * BLOCK < min(end, start + STRETCH) and stop not in self._blocks:
            stop += 1
        size = min(stop * BLOCK, self.size) - start
        self._keep(self._reader.fetch(size, start), start)
        self._end = stop * BLOCK

    def _keep(self, raw: bytes, start: int) -> None:
        for at in range(0, len(raw), BLOCK):
            self._blocks[(start + at) // BLOCK] = raw[at : at + BLOCK]
        while len(self._blocks) > max(1, KEPT // BLOCK):
            self._blocks.popitem(last=False)

    def close(self) -> None:
        self._reader.close()
        self._blocks.clear()
