"""Where a tensor's bytes come from: a range of a file, memory, a blend of two sources, another dtype."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ckptswap import dtypes
from ckptswap.errors import FormatError, UsageError
from ckptswap.storage import ByteSource

CHUNK = 1 << 20  # bytes read at once where a tensor is streamed: small enough to stay in a core's cache
PAGE = 4096


def page_aligned(size: int) -> np.ndarray:
    """A buffer of `size` bytes that begins at a page.

    malloc begins large blocks 16 bytes after one. Where the target lies 1 to 31 bytes after the source modulo a
    page, the kernel's copying took four times as long on the processor that we measured (AMD EPYC, `rep movsb`).

    >>> page_aligned(100).shape
    (100,)
    """
    room = np.empty(size + PAGE - 1, np.uint8)
    begin = -room.__array_interface__["data"][0] % PAGE
    return room[begin : begin + size]


class TensorSource(Protocol):
    """Where a tensor's bytes come from: C-contiguous, little-endian, read in any order, by whole elements."""

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill `buffer` with the tensor's bytes from `offset` on."""


def chunks(source: TensorSource, nbytes: int, size: int = CHUNK) -> Iterator[np.ndarray]:
    """The first `nbytes` of a source in order, as uint8 arrays of at most `size` bytes; the buffer is reused.

    >>> [part.tolist() for part in chunks(MemorySource(memoryview(b"abc")), 3, size=2)]
    [[97, 98], [99]]
    """
    expect(source, nbytes)
    buffer = page_aligned(min(size, nbytes))
    for start in range(0, nbytes, size):
        part = buffer[: min(size, nbytes - start)]
        source.read_into(part.data, start)
        yield part


def expect(source: TensorSource, nbytes: int, offset: int = 0) -> None:
    """Tell a file which of a tensor's bytes will be read in order."""
    if isinstance(source, FileRange):
        source.file.expect(nbytes, source.offset + offset)


@dataclass(frozen=True)
class MemorySource:
    """Bytes that are in memory already."""

    content: memoryview

    def read_into(self, buffer: memoryview, offset: int) -> None:
        buffer[:] = self.content[offset : offset + len(buffer)]


@dataclass(frozen=True)
class ConstantSource:
    """One element's bytes, over and over.

    >>> [part.tolist() for part in chunks(ConstantSource(b"\\x01\\x02"), 4)]
    [[1, 2, 1, 2]]
    """

    element: bytes

    def read_into(self, buffer: memoryview, offset: int) -> None:
        np.frombuffer(buffer, np.uint8).reshape(-1, len(self.element))[:] = np.frombuffer(self.element, np.uint8)


@dataclass(frozen=True, slots=True)
class FileRange:
    """A tensor whose bytes lie in one piece in a byte source."""

    file: ByteSource
    offset: int

    def read_into(self, buffer: memoryview, offset: int) -> None:
        self.file.pread_into(buffer, self.offset + offset)


@dataclass(frozen=True)
class BlendSource:
    """(1 − alpha) × recipient + alpha × donor, computed in double precision and rounded once, chunk by chunk.

    The parts of a complex value are values of their own. Where both sides have the same bits, they stay: rounding
    would change some of them, and NaN.
    """

    recipient: TensorSource
    donor: TensorSource
    dtype: str
    alpha: float

    def read_into(self, buffer: memoryview, offset: int) -> None:
        values = dtypes.to_numpy(dtypes.part(self.dtype))
        ours, theirs = (np.empty(len(buffer), np.uint8) for _ in range(2))
        self.recipient.read_into(ours.data, offset)
        self.donor.read_into(theirs.data, offset)
        same = (ours == theirs).reshape(-1, values.itemsize).all(axis=1)
        with np.errstate(all="ignore"):
            mixed = (1 - self.alpha) * ours.view(values).astype(np.float64)
            mixed += self.alpha * theirs.view(values).astype(np.float64)
            blend = dtypes.rounded(mixed, values)
        np.copyto(blend, ours.view(values), where=same)
        buffer[:] = blend.view(np.uint8).data


@dataclass(frozen=True)
class CastSource:
    """Plain numbers in another dtype; floats are rounded once."""

    source: TensorSource
    dtype: str
    wanted: str

    def read_into(self, buffer: memoryview, offset: int) -> None:
        have, want = dtypes.to_numpy(self.dtype), dtypes.to_numpy(self.wanted)
        values = np.empty(len(buffer) // want.itemsize, have)
        self.source.read_into(values.view(np.uint8).data, offset // want.itemsize * have.itemsize)
        given = np.frombuffer(buffer, want)
        with np.errstate(all="ignore"):  # what is beyond the dtype becomes infinite, as everywhere
            if self._is_rounded:
                given[:] = dtypes.rounded(values.astype(np.float64), want)
            else:
                np.copyto(given, values, casting="unsafe")

    @property
    def _is_rounded(self) -> bool:
        """Between floats, but to doubles, which hold them all."""
        kinds = (self.dtype, self.wanted)
        is_real = all(dtypes.is_float(kind) and not dtypes.is_complex(kind) for kind in kinds)
        return is_real and self.wanted != "F64"


def array_of(name: object, values: Any) -> np.ndarray:
    """A tensor's values as numpy sees them, not copied where that can be.

    Raises `UsageError` for what is not an array under a name, `FormatError` for a torch tensor that is not dense.

    >>> array_of("w", np.ones(2))
    array([1., 1.])
    """
    if not isinstance(name, str) or not hasattr(values, "__array__"):
        remedy = "give a map from names to arrays or torch tensors, such as `model.state_dict()`"
        raise UsageError(f"a checkpoint cannot hold {name!r}: {type(values).__name__}", remedy=remedy)
    if not hasattr(values, "detach"):
        return np.asarray(values)
    try:
        return _array_of_torch(values)
    except (AttributeError, TypeError, RuntimeError):
        what = f"{values.dtype} on {values.device}, {values.layout}"
        raise FormatError(f"tensor {name!r} is {what}", remedy="make it a dense tensor of numbers") from None


def _array_of_torch(tensor: Any) -> np.ndarray:
    """A tensor's bits. numpy itself knows neither bfloat16 nor the 8-bit floats: they are handed over as bytes."""
    try:
        return tensor.numpy(force=True)
    except TypeError:
        import ml_dtypes
        import torch

        raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        return raw.view(getattr(ml_dtypes, str(tensor.dtype).removeprefix("torch."))).reshape(tensor.shape)
