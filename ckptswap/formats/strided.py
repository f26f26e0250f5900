"""Tensors whose bytes do not lie in one piece: views with strides, and tensors cut into rectangles.

A stretch of the tensor's C-order bytes is a few boxes; each is read from the pieces it meets, in reads that take
little more than what is wanted, so that memory stays flat whatever the strides.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from ckptswap.sources import FileRange
from ckptswap.storage import ByteSource

SPAN_MOST = 1 << 23  # bytes read at once, wanted or not
SPAN_SMALL = 1 << 16  # a read this short costs less than several shorter ones
_WORDS = {1: "u1", 2: "u2", 4: "u4", 8: "u8", 16: "c16"}

Box = tuple[tuple[int, int], ...]  # start and stop in each dimension


@dataclass(frozen=True)
class Piece:
    """A rectangle of a tensor: where it begins in the tensor, its sizes, and where and how its bytes lie."""

    file: ByteSource
    offset: int
    strides: tuple[int, ...]
    begins: tuple[int, ...]
    sizes: tuple[int, ...]

    @property
    def box(self) -> Box:
        return tuple((begin, begin + size) for begin, size in zip(self.begins, self.sizes, strict=True))


@dataclass(frozen=True)
class PieceSource:
    """A tensor put together from pieces; `strides` and `offset` of each are in bytes."""

    shape: tuple[int, ...]
    itemsize: int
    pieces: Sequence[Piece]

    def read_into(self, buffer: memoryview, offset: int) -> None:
        first, last = offset // self.itemsize, -(-(offset + len(buffer)) // self.itemsize)
        values = np.empty(last - first, _WORDS[self.itemsize])
        done = 0
        for box in boxes(self.shape, first, last):
            sizes = tuple(stop - start for start, stop in box)
            count = prod(sizes)
            self._read_box(values[done : done + count].reshape(sizes), box)
            done += count
        skipped = offset - first * self.itemsize
        buffer[:] = values.view(np.uint8)[skipped : skipped + len(buffer)].data

    def _read_box(self, out: np.ndarray, box: Box) -> None:
        for piece in self.pieces:
            shared = [(max(a, c), min(b, d)) for (a, b), (c, d) in zip(box, piece.box, strict=True)]
            if all(start < stop for start, stop in shared):
                index: list[Any] = [slice(a - c, b - c) for (a, b), (c, _) in zip(shared, box, strict=True)]
                part = out[(*index, ...)]  # the dots keep a scalar an array
                inside = [a - begin for (a, _), begin in zip(shared, piece.begins, strict=True)]
                at = piece.offset + sum(i * stride for i, stride in zip(inside, piece.strides, strict=True))
                _fill(part, piece.file, at, piece.strides)


def boxes(shape: tuple[int, ...], first: int, last: int) -> Iterator[Box]:
    """The elements first … last − 1 in C order as boxes, in order: at most two for each dimension.

    >>> list(boxes((3, 4), 2, 12))
    [((0, 1), (2, 4)), ((1, 3), (0, 4))]
    """
    if first >= last:
        return
    if not shape:
        yield ()
        return
    inner = shape[1:]
    row = prod(inner)
    begin, whole_begin, whole_end, end = first // row, -(-first // row), last // row, (last - 1) // row
    if begin < whole_begin:
        stop = min(row, last - begin * row)
        yield from (((begin, begin + 1), *box) for box in boxes(inner, first - begin * row, stop))
    if whole_begin < whole_end:
        yield ((whole_begin, whole_end), *((0, size) for size in inner))
    if max(whole_begin, whole_end) <= end:
        yield from (((end, end + 1), *box) for box in boxes(inner, 0, last - end * row))


def _fill(out: np.ndarray, file: ByteSource, offset: int, strides: Sequence[int]) -> None:
    """Read a strided view that begins at `offset`, splitting it where it is thin or long."""
    span = sum((size - 1) * stride for size, stride in zip(out.shape, strides, strict=True)) + out.itemsize
    if span <= SPAN_MOST and (span <= SPAN_SMALL or span <= 2 * out.nbytes):
        raw = np.empty(span, np.uint8)
        file.pread_into(raw.data, offset)
        out[...] = np.ndarray(out.shape, out.dtype, raw, strides=tuple(strides))
        return
    axis = max(range(out.ndim), key=lambda dimension: (out.shape[dimension] > 1, strides[dimension]))
    half = out.shape[axis] // 2
    low, high = np.split(out, [half], axis)
    _fill(low, file, offset, strides)
    _fill(high, file, offset + half * strides[axis], strides)


def contiguous(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """The strides in bytes of a C-contiguous array.

    >>> contiguous((2, 3, 4), 4)
    (48, 16, 4)
    """
    return tuple(itemsize * prod(shape[axis + 1 :]) for axis in range(len(shape)))


def strided(
    file: ByteSource, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int
) -> FileRange | PieceSource:
    """The source of a tensor with these strides (in bytes): a plain range where it lies in one piece."""
    plain = contiguous(shape, itemsize)
    if 0 in shape or all(size == 1 or ours == c for size, ours, c in zip(shape, strides, plain, strict=True)):
        return FileRange(file, offset)
    return PieceSource(shape, itemsize, [Piece(file, offset, strides, (0,) * len(shape), shape)])
