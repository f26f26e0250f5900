"""Tensors that are stored as a grid of equal boxes, packed or not, as HDF5 does; read in flat memory."""

import itertools
import threading
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np

from ckptswap.errors import FormatError
from ckptswap.formats.strided import Box, boxes
from ckptswap.storage import ByteSource

UNDONE = DEFLATE, SHUFFLE, FLETCHER32 = 1, 2, 3
"""HDF5's numbers of the filters that are undone here; others are code of other libraries'."""
KEPT = 16 << 20  # bytes of unpacked boxes that are kept for the stretch that is read next
_SUM = 4  # bytes of a checksum

Place = tuple[int, int, int]  # where a box's bytes begin, how many, and which filters were left out, a bit each


@dataclass(frozen=True)
class Packing:
    """How boxes are stored: their sizes, their numbers' dtype, and the filters in the order of writing."""

    sizes: tuple[int, ...]
    stored: np.dtype
    filters: Sequence[int]

    @property
    def nbytes(self) -> int:
        return prod(self.sizes) * self.stored.itemsize

    def unpacked(self, raw: bytes, left_out: int) -> np.ndarray:
        """A box's numbers. Raises `ValueError` that ends a sentence."""
        for at, number in reversed([*enumerate(self.filters)]):
            if left_out >> at & 1:
                continue
            if number == DEFLATE:
                raw = _inflated(raw, self.nbytes + _SUM)
            elif number == SHUFFLE:
                raw = _unshuffled(raw, self.stored.itemsize)
            else:
                raw = _summed(raw)
        if len(raw) != self.nbytes:
            raise ValueError(f"takes {len(raw):,} B, not {self.nbytes:,}")
        return np.frombuffer(raw, self.stored).reshape(self.sizes)


@dataclass(frozen=True)
class ChunkSource:
    """A tensor in boxes, by where each begins; one that is not there is full of `fill`."""

    file: ByteSource
    shape: tuple[int, ...]
    packing: Packing
    places: Mapping[tuple[int, ...], Place]
    fill: np.ndarray
    _kept: OrderedDict[tuple[int, ...], np.ndarray] = field(default_factory=OrderedDict, compare=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, compare=False, repr=False)

    def read_into(self, buffer: memoryview, offset: int) -> None:
        own = self.packing.stored.newbyteorder("<")
        first, done = offset // own.itemsize, 0
        out = np.frombuffer(buffer, own)
        for box in boxes(self.shape, first, first + out.size):
            sizes = tuple(stop - start for start, stop in box)
            self._fill(out[done : done + prod(sizes)].reshape(sizes), box)
            done += prod(sizes)

    def _fill(self, out: np.ndarray, box: Box) -> None:
        for begins in self._met(box):
            shared = [(max(a, at), min(b, at + size))
                      for (a, b), at, size in zip(box, begins, self.packing.sizes, strict=True)]  # fmt: skip
            into = tuple(slice(a - begin, b - begin) for (a, b), (begin, _) in zip(shared, box, strict=True))
            of = tuple(slice(a - at, b - at) for (a, b), at in zip(shared, begins, strict=True))
            values = self._box(begins)
            out[into] = self.fill if values is None else values[of]

    def _met(self, box: Box) -> Iterator[tuple[int, ...]]:
        """Where those boxes begin that share something with this one."""
        steps = zip(box, self.packing.sizes, strict=True)
        return itertools.product(*(range(start // size * size, stop, size) for (start, stop), size in steps))

    def _box(self, begins: tuple[int, ...]) -> np.ndarray | None:
        if begins not in self.places:
            return None
        with self._lock:
            if begins not in self._kept:
                self._kept[begins] = self._read(begins)
                while len(self._kept) > max(1, KEPT // self.packing.nbytes):
                    self._kept.popitem(last=False)
            self._kept.move_to_end(begins)
            return self._kept[begins]

    def _read(self, begins: tuple[int, ...]) -> np.ndarray:
        offset, size, left_out = self.places[begins]
        try:
            return self.packing.unpacked(self.file.pread(size, offset), left_out)
        except ValueError as error:
            raise FormatError(
                f"{self.file.name} is damaged", remedy=f"a chunk at {list(begins)} {error}"
            ) from None


def _inflated(raw: bytes, most: int) -> bytes:
    """The bytes that were deflated, of which no more than wanted are made."""
    stream = zlib.decompressobj()
    try:
        out = stream.decompress(raw, most)
    except zlib.error:
        raise ValueError("cannot be unpacked") from None
    if not stream.eof:
        raise ValueError("unpacks to more than it can hold, or is cut short")
    return out


def _unshuffled(raw: bytes, width: int) -> bytes:
    """Numbers whose first bytes lie together, then their second ones; what is left over stays behind them."""
    count = len(raw) // width
    together = np.frombuffer(raw, np.uint8, count * width).reshape(width, count)
    return together.T.tobytes() + raw[count * width :]


def _summed(raw: bytes) -> bytes:
    """What stands before its checksum, which has to be right: Fletcher's, of words of two bytes."""
    inner, told = raw[:-_SUM], int.from_bytes(raw[-_SUM:], "little")
    if len(raw) < _SUM or told not in (fletcher32(inner), _turned(fletcher32(inner))):
        raise ValueError("is damaged (its checksum is wrong)")
    return inner


def _turned(total: int) -> int:
    """As old versions on little-endian machines wrote it: the bytes of each half the other way round."""
    return (total & 0xFF00FF) << 8 | total >> 8 & 0xFF00FF


def fletcher32(raw: bytes) -> int:
    """HDF5's checksum of some bytes.

    >>> hex(fletcher32(b"abcde"))
    '0x4ff029c7'
    """
    words = np.frombuffer(raw + b"\0" * (len(raw) % 2), ">u2").astype(np.uint64)
    count = len(words)
    first = int(words.sum())
    # Each word counts in the second sum as often as words are left; stretches keep products below 2^64.
    second = 0
    for at in range(0, count, 65536):
        part = words[at : at + 65536]
        second += int((part * np.arange(count - at, count - at - len(part), -1, dtype=np.uint64)).sum())
    return _folded(second) << 16 | _folded(first)


def _folded(total: int) -> int:
    """Modulo 65,535, as sums with carries come to it: of what is not 0, never 0."""
    return (total - 1) % 65535 + 1 if total else 0
