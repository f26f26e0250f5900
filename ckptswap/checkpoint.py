"""A checkpoint in memory: a lazy ordered map from names to entries; values are read only when asked for.

A variant is a checkpoint too: `overlay` lays some entries of a donor over a recipient without reading a byte.
"""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np

from ckptswap import dtypes
from ckptswap.errors import FileError, FormatError, MismatchError, UsageError, listing, near
from ckptswap.naming import classify, is_counter
from ckptswap.plainfiles import open_plain
from ckptswap.ties import Ties, ties_of

CHUNK = 1 << 20
"""Bytes read at once where a tensor is streamed: small enough to stay in a core's cache."""


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


NAME_SHOWN = 80
"""Letters of a name that a sentence has room for."""


class Source(Protocol):
    """Where a tensor's bytes come from: C-contiguous, little-endian, read in any order, by whole elements."""

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill `buffer` with the tensor's bytes from `offset` on."""


@dataclass(frozen=True)
class MemorySource:
    """Bytes that are in memory already."""

    data: memoryview

    def read_into(self, buffer: memoryview, offset: int) -> None:
        buffer[:] = self.data[offset : offset + len(buffer)]


@dataclass(frozen=True)
class BlendSource:
    """(1 − alpha) × recipient + alpha × donor, computed in double precision and rounded once, chunk by chunk.

    The parts of a complex value are values of their own. Where both sides have the same bits, they stay: rounding
    would change some of them, and NaN.
    """

    recipient: Source
    donor: Source
    dtype: str
    alpha: float

    def read_into(self, buffer: memoryview, offset: int) -> None:
        values = dtypes.to_numpy({"C64": "F32", "C128": "F64"}.get(self.dtype, self.dtype))
        ours, theirs = (np.empty(len(buffer), np.uint8) for _ in range(2))
        self.recipient.read_into(ours.data, offset)
        self.donor.read_into(theirs.data, offset)
        same = (ours == theirs).reshape(-1, values.itemsize).all(axis=1)
        with np.errstate(all="ignore"):
            mixed = (1 - self.alpha) * ours.view(values).astype(np.float64)
            mixed += self.alpha * theirs.view(values).astype(np.float64)
            found = dtypes.rounded(mixed, values)
        np.copyto(found, ours.view(values), where=same)
        buffer[:] = found.view(np.uint8).data


@dataclass(frozen=True)
class CastSource:
    """Plain numbers in another dtype, rounded as numpy does."""

    source: Source
    dtype: str
    wanted: str

    def read_into(self, buffer: memoryview, offset: int) -> None:
        have, want = dtypes.to_numpy(self.dtype), dtypes.to_numpy(self.wanted)
        values = np.empty(len(buffer) // want.itemsize, have)
        self.source.read_into(values.view(np.uint8).data, offset // want.itemsize * have.itemsize)
        buffer[:] = values.astype(want).view(np.uint8).data


@dataclass(frozen=True, slots=True)
class Tensor:
    """What a format finds of one tensor, before names are classified."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    source: Source


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor's name, place, shape and dtype (as safetensors spells it); not its values.

    >>> entry = Checkpoint.from_arrays({"c.weight": np.zeros((4, 3, 3, 3), np.float32)})["c.weight"]
    >>> entry.layer, entry.kind, entry.numel, entry.nbytes
    ('c', 'conv.weight', 108, 432)
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    layer: str
    kind: str
    source: Source = field(compare=False, repr=False)

    @property
    def numel(self) -> int:
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        return (self.numel * dtypes.bits(self.dtype) + 7) // 8

    def compatible(self, other: Entry) -> bool:
        """Whether the other may take its place: of its shape and dtype; what counts batches, of any number type.

        >>> name = "bn.num_batches_tracked"
        >>> old, new = (Checkpoint.from_arrays({name: np.array(9, dtype)}) for dtype in (np.float32, np.int64))
        >>> new[name].compatible(old[name])
        True
        """
        if self.shape != other.shape or self.dtype == other.dtype:
            return self.shape == other.shape
        return is_counter(self.name) and dtypes.is_number(self.dtype) and dtypes.is_number(other.dtype)

    def chunks(self, size: int = CHUNK) -> Iterator[np.ndarray]:
        """The tensor's bytes in order, as uint8 arrays of at most `size` bytes; the buffer is reused."""
        buffer = page_aligned(min(size, self.nbytes))
        for start in range(0, self.nbytes, size):
            part = buffer[: min(size, self.nbytes - start)]
            self.source.read_into(part.data, start)
            yield part


NAME_MOST = 10_000
"""Letters of a tensor's name. Real ones have some hundred, and what looks at a name's parts takes their square."""


def _refuse_long_names(tensors: Iterable[Tensor], path: str) -> None:
    longest = max((tensor.name for tensor in tensors), key=len, default="")
    if len(longest) > NAME_MOST:
        raise FormatError(
            f"{path} has a tensor whose name takes {len(longest):,} letters, beginning {longest[:40]!r}",
            remedy=f"{NAME_MOST:,} is the most",
        )


class Checkpoint(Mapping[str, Entry]):
    """A lazy ordered map name → `Entry`, in the order of the file.

    `path` and `format` say where it came from, `metadata` what the file says of itself, `notes` what a reader
    should know (optimizer state beside the tensors, a prefix, shared storage), `unread` what holds values of the
    model and is no tensor that could be read (name → what it is). `files` are the files whose bytes it stands
    for, `renames` the names that are not the file's own (old → new), `ties` the names that are known to be one
    tensor, `beside` the keys of what a file holds besides the tensors. Use it as a context manager, or call
    `close`.

    >>> a = Checkpoint.from_arrays({"w": np.arange(3.0)})
    >>> list(a), a["w"].dtype, a.read("w").tolist()
    (['w'], 'F64', [0.0, 1.0, 2.0])
    """

    def __init__(
        self,
        tensors: Iterable[Tensor],
        *,
        path: str,
        format: str,
        metadata: Mapping[str, str] | None = None,
        notes: Iterable[str] = (),
        files: Iterable[Path] = (),
        close: Callable[[], None] | None = None,
        renames: Mapping[str, str] | None = None,
        unread: Mapping[str, str] | None = None,
        ties: Ties | None = None,
        beside: Iterable[str] = (),
    ) -> None:
        found = list(tensors)
        _refuse_long_names(found, path)
        places = classify({tensor.name: tensor.shape for tensor in found})
        self._entries = {
            tensor.name: Entry(tensor.name, tensor.shape, tensor.dtype, *places[tensor.name], tensor.source)
            for tensor in found
        }
        self.path = path
        self.format = format
        self.metadata: Mapping[str, str] = dict(metadata or {})
        self.notes = tuple(notes)
        self.unread: Mapping[str, str] = dict(unread or {})
        self.files = tuple(files)
        self._stamps = {path: _stamp(path) for path in self.files}
        self.renames: Mapping[str, str] = dict(renames or {})
        self.ties = ties or Ties()
        self.beside = tuple(beside)
        self._close = close

    def __getitem__(self, name: str) -> Entry:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __eq__(self, other: object) -> bool:
        """Identity: a mapping's own equality would call checkpoints equal whose values were never compared."""
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Checkpoint {self.path!r} ({self.format}, {len(self)} tensors)>"

    def close(self) -> None:
        """Let go of the file. Values cannot be read afterwards."""
        if self._close:
            self._close()
            self._close = None

    @property
    def nbytes(self) -> int:
        """Bytes of tensor data, headers not counted."""
        return sum(entry.nbytes for entry in self.values())

    def tied(self, ties: Ties) -> Checkpoint:
        """The same checkpoint, in which these of its names are known to be one tensor too."""
        known = ties.among(self).joined(self.ties)
        if known == self.ties:
            return self
        found = copy.copy(self)
        found.ties, found._close = known, self.close
        return found

    def also_named(self, names: Mapping[str, str]) -> Checkpoint:
        """The same checkpoint, whose tensors have these names too, or instead (new → old).

        >>> list(Checkpoint.from_arrays({"w": np.zeros(1)}).also_named({"v": "w"}))
        ['w', 'v']
        """
        if not names:
            return self
        found = copy.copy(self)
        shapes = {name: self[names.get(name, name)].shape for name in dict.fromkeys([*self, *names])}
        places = classify(shapes)
        new = {name: replace(self[old], name=name, layer=places[name][0], kind=places[name][1])
               for name, old in names.items()}  # fmt: skip
        found._entries = {**self._entries, **new}
        found._close = self.close
        return found

    def entry(self, name: str) -> Entry:
        """The entry of that name; raises `MismatchError` with near names when there is none."""
        if name not in self:
            raise MismatchError(f"{self.path} has no tensor {name!r}", remedy=near(name, self) or "see `show`")
        return self[name]

    @property
    def unread_note(self) -> str:
        """What holds values and is not read, as a sentence; empty where all is.

        >>> Checkpoint([], path="a.pt", format="torch", unread={"anchors": "a numpy array"}).unread_note
        'a.pt: 1 entry holds values that are not read: anchors (a numpy array)'
        """
        if not self.unread:
            return ""
        named = listing([f"{name[:NAME_SHOWN]} ({what})" for name, what in self.unread.items()], most=5)
        are = "1 entry holds" if len(self.unread) == 1 else f"{len(self.unread):,} entries hold"
        return f"{self.path}: {are} values that are not read: {named}"

    def read(self, name: str) -> np.ndarray:
        """One tensor's values: a fresh, writable, C-contiguous array (packed dtypes: their raw bytes)."""
        entry = self.entry(name)
        raw = page_aligned(entry.nbytes)
        if entry.nbytes:
            entry.source.read_into(raw.data, 0)
        if dtypes.is_packed(entry.dtype):
            return raw
        return raw.view(dtypes.to_numpy(entry.dtype)).reshape(entry.shape)

    def sha256(self) -> str:
        """The hash by which results name this checkpoint.

        One file: that file's SHA-256, as `sha256sum` prints it. A folder: the SHA-256 of the lines that
        `sha256sum` would print for its files. No file: names, dtypes, shapes and bytes of the tensors. Raises
        `FileError` when a file is gone, or no longer the one that was opened.
        """
        digest = self._sha256()
        self.check_files()
        return digest

    def check_files(self) -> None:
        """Raises `FileError` when a file was replaced or written to: its path then leads to other bytes."""
        for path, stamp in self._stamps.items():
            if _stamp(path) != stamp:
                raise FileError(f"{path} changed while it was being read", remedy="run again when it rests")

    def _sha256(self) -> str:
        if len(self.files) == 1:
            return sha256_of(self.files[0])
        digest = hashlib.sha256()
        for path in sorted(self.files):
            digest.update(os.fsencode(f"{sha256_of(path)}  {path.name}\n"))
        if not self.files:
            for entry in self.values():
                digest.update(repr((entry.name, entry.dtype, entry.shape)).encode("utf-8", "surrogatepass"))
                for chunk in entry.chunks():
                    digest.update(chunk.data)
        return digest.hexdigest()

    @classmethod
    def from_arrays(
        cls,
        arrays: Mapping[str, Any],
        *,
        metadata: Mapping[str, str] | None = None,
        path: str = "<memory>",
    ) -> Checkpoint:
        """A checkpoint of numpy arrays or torch tensors in memory, such as a `state_dict`, which are not copied.

        Raises `FormatError` for a dtype that has no spelling, `UsageError` for what is no array under a name.
        """
        tensors = [_tensor(name, array) for name, array in arrays.items()]
        ties = ties_of({name: array for name, array in arrays.items() if hasattr(array, "detach")})
        return cls(tensors, path=path, format="memory", metadata=metadata, ties=ties)


def _stamp(path: Path) -> tuple[int, ...] | None:
    """What tells a file from another under its name, and from itself as it was; None where there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def sha256_of(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal; raises `FileError` when they cannot be read."""
    try:
        with open(open_plain(path), "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        reason = f"{os.fspath(path)} cannot be read for its hash ({error.strerror})"
        raise FileError(reason, remedy="was it moved?") from None


def overlay(recipient: Checkpoint, donor: Checkpoint, names: Iterable[str], *, alpha: float = 1.0) -> Checkpoint:
    """The recipient with the named entries taken from the donor: a variant, and a checkpoint like any other.

    `alpha` 1 takes the donor's bits, 0 keeps the recipient's, between them floats are interpolated and
    everything else stays the recipient's. Raises `MismatchError` where a name is missing, or where shape or
    dtype differ.

    >>> a = Checkpoint.from_arrays({"w": np.zeros(2), "b": np.zeros(2)})
    >>> b = Checkpoint.from_arrays({"w": np.ones(2), "b": np.ones(2)})
    >>> variant = overlay(a, b, ["w"])
    >>> variant.read("w").tolist(), variant.read("b").tolist()
    ([1.0, 1.0], [0.0, 0.0])
    """
    taken = {name: graft(recipient.entry(name), donor.entry(name), alpha) for name in names}
    entries = (taken.get(name, entry) for name, entry in recipient.items())
    return Checkpoint(
        (Tensor(entry.name, entry.shape, entry.dtype, entry.source) for entry in entries),
        path=recipient.path,
        format="overlay",
        metadata=recipient.metadata,
        notes=recipient.notes,
        unread=recipient.unread,
        ties=recipient.ties.unbroken(taken),
    )


def graft(ours: Entry, theirs: Entry, alpha: float = 1.0) -> Entry:
    """The recipient's entry with the donor's values, as `overlay` takes them. Raises `MismatchError`."""
    if not ours.compatible(theirs):
        raise MismatchError(
            f"{ours.name!r} is {theirs.dtype} {list(theirs.shape)} in the donor "
            f"but {ours.dtype} {list(ours.shape)} in the recipient",
            remedy="select tensors that fit, or skip the others",
        )
    given = theirs.source if ours.dtype == theirs.dtype else CastSource(theirs.source, theirs.dtype, ours.dtype)
    if alpha == 1:
        return replace(ours, source=given)
    if alpha == 0 or not dtypes.is_float(ours.dtype):
        return ours
    return replace(ours, source=BlendSource(ours.source, given, ours.dtype, alpha))


def _tensor(name: str, values: Any) -> Tensor:
    array = _array(name, values)
    dtype = dtypes.from_numpy(array.dtype)
    if dtype is None:
        raise FormatError(f"tensor {name!r} has the dtype {array.dtype}", remedy="convert it to a number type")
    plain = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
    return Tensor(name, array.shape, dtype, MemorySource(plain.reshape(-1).view(np.uint8).data))


def _array(name: object, values: Any) -> np.ndarray:
    """A tensor's values as numpy sees them."""
    if not isinstance(name, str) or not hasattr(values, "__array__"):
        raise UsageError(
            f"a checkpoint cannot hold {name!r}: {type(values).__name__}",
            remedy="give a map from names to arrays or torch tensors, such as `model.state_dict()`",
        )
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
