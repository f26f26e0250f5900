"""HDF5, as Keras and h5py write weights: datasets in groups; a tensor's name is its path, with dots.

h5py (extra `formats`) reads the structure, through our byte source. What lies in one piece is then read plainly,
chunks and foreign byte orders by h5py. Links, and datasets whose values lie in other files, are not followed.
"""

import io
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from types import ModuleType
from typing import Any

import numpy as np

from ckptswap import dtypes
from ckptswap.checkpoint import Checkpoint, stale_note
from ckptswap.entries import NAME_MOST, Tensor, Unread
from ckptswap.errors import FormatError
from ckptswap.formats.archive import RawReader
from ckptswap.formats.format import Format
from ckptswap.formats.state_dict import inflated
from ckptswap.formats.strided import boxes
from ckptswap.naming import natural_key
from ckptswap.registry import library
from ckptswap.sources import FileRange, TensorSource
from ckptswap.storage import ByteSource, Folder

MAGIC = b"\x89HDF\r\n\x1a\n"
_STARTS = (0, 512, 1024, 2048)  # behind what a user may have put before, as MATLAB does
DEPTH_MOST = 50
LAYERS, LAYERS_MOST = "keras.layers", 1 << 20
"""The metadata key of a map from groups to the names of layers, as JSON, and its letters: Keras 3 calls groups by
their layers' classes."""
MEMBERS_MOST = 1_000_000
MODEL, OPTIMIZERS = "model_weights", ("optimizer_weights", "optimizer")
"""The groups of a whole model's file: its weights, and what belongs to training."""
_FACTS = ("keras_version", "backend")
_FAULTS = (OSError, ValueError, RuntimeError, KeyError, TypeError, UnicodeError, OverflowError, MemoryError)


@dataclass(frozen=True, slots=True)
class DatasetSource:
    """A dataset in chunks, packed or of a foreign byte order, read by h5py, box by box."""

    dataset: Any
    shape: tuple[int, ...]
    dtype: np.dtype
    where: str

    def read_into(self, buffer: memoryview, offset: int) -> None:
        first, count = offset // self.dtype.itemsize, len(buffer) // self.dtype.itemsize
        out, done = np.frombuffer(buffer, self.dtype), 0
        with _judged(self.where):
            for box in boxes(self.shape, first, first + count):
                part = np.asarray(self.dataset[tuple(slice(*sides) for sides in box)], self.dtype)
                out[done : done + part.size] = part.reshape(-1)
                done += part.size


@dataclass
class _Walk:
    """Collects what a file's groups hold."""

    h5py: ModuleType
    file: ByteSource
    tensors: dict[str, Tensor] = field(default_factory=dict)
    unread: dict[str, Unread] = field(default_factory=dict)
    layers: dict[str, str] = field(default_factory=dict)
    seen: set[int] = field(default_factory=set)
    members: int = 0

    def group(self, group: Any, above: str = "", depth: int = 0) -> None:
        address = self.h5py.h5o.get_info(group.id).addr
        if depth > DEPTH_MOST or address in self.seen:
            raise self.refusal(f"its group {above[:80]!r} holds itself, or lies too deep")
        self.seen.add(address)
        if above.endswith(".vars") and isinstance(layer := group.attrs.get("name"), str):
            self.layers[above.removesuffix(".vars")] = layer[:200]
        for name in _ordered(group):
            self.members += 1
            if self.members > MEMBERS_MOST:
                raise self.refusal(f"it holds more than {MEMBERS_MOST:,} groups and datasets")
            if depth or name not in OPTIMIZERS:
                self.member(group, name, f"{above}.{name}" if above else name, depth)

    def member(self, group: Any, name: str, path: str, depth: int) -> None:
        if len(path) > NAME_MOST:
            raise self.refusal(f"it has a name of {len(path):,} letters")
        if not isinstance(group.get(name, getlink=True), self.h5py.HardLink):
            self.unread[path] = Unread("a link, which is not followed")
            return
        held = group[name]
        if isinstance(held, self.h5py.Group):
            self.group(held, path, depth + 1)
        elif isinstance(held, self.h5py.Dataset):
            self.dataset(held, re.sub(r":\d+$", "", path))  # TensorFlow's names of variables end so

    def dataset(self, held: Any, name: str) -> None:
        if name in self.tensors or name in self.unread:
            raise self.refusal(f"it names {name[:80]!r} twice")
        if held.is_virtual or held.id.get_create_plist().get_external_count():
            self.unread[name] = Unread("a dataset whose values lie in other files")
        elif held.shape is None or (spelt := _spelt(held)) is None:
            self.unread[name] = Unread(f"a dataset of {held.dtype}", held.shape)
        elif fault := dtypes.shape_fault(held.shape):
            raise self.refusal(f"dataset {name[:80]!r} has {fault}")
        else:
            self.tensors[name] = Tensor(name, held.shape, spelt, self.source(held, name, spelt))

    def source(self, held: Any, name: str, spelt: str) -> TensorSource:
        offset, size = held.id.get_offset(), prod(held.shape) * held.dtype.itemsize
        is_whole = held.id.get_create_plist().get_layout() == self.h5py.h5d.CONTIGUOUS
        if not is_whole or offset is None or held.id.get_storage_size() != size or held.dtype.byteorder == ">":
            own = held.dtype.newbyteorder("=") if spelt != "BF16" else held.dtype
            return DatasetSource(held, held.shape, own, self.file.name)
        if offset + size > self.file.size:
            raise self.refusal(f"dataset {name[:80]!r} ends at byte {offset + size:,} of {self.file.size:,}")
        return FileRange(self.file, offset)

    def refusal(self, fault: str) -> FormatError:
        return FormatError(f"{self.file.name} is not a sound HDF5 file", remedy=fault)


def open_hdf5(file: ByteSource, folder: Folder | None = None) -> Checkpoint:
    """Open a file lazily. Raises `FormatError` when it is damaged or hostile, `DependencyError` without the extra
    `formats`."""
    h5py = library("h5py")
    with _judged(file.name):
        root = h5py.File(io.BufferedReader(RawReader(file)), "r")
        walk = _Walk(h5py, file)
        inside = [name for name in (MODEL, *OPTIMIZERS) if isinstance(root.get(name, getlink=True), h5py.HardLink)
                  and isinstance(root[name], h5py.Group)]  # fmt: skip
        walk.group(root[MODEL] if MODEL in inside else root)
        facts = {name: str(root.attrs[name])[:200] for name in _FACTS if name in root.attrs}
    layers = json.dumps(walk.layers)
    facts |= {LAYERS: layers} if walk.layers and len(layers) <= LAYERS_MOST else {}
    stale = [name for name in inside if name != MODEL]
    return _checkpoint(walk, facts, stale)


def _checkpoint(walk: _Walk, facts: Mapping[str, str], stale: list[str]) -> Checkpoint:
    if not walk.tensors and not walk.unread:
        raise FormatError(f"{walk.file.name} holds no tensors", remedy="it is an HDF5 file without datasets")
    if taken := inflated(walk.tensors.values(), walk.file.size):
        raise walk.refusal(f"its datasets would take {taken:,} B, of {walk.file.size:,} that are there")
    return Checkpoint(walk.tensors.values(), path=walk.file.name, format=FORMAT.name, metadata=facts, stale=stale,
                      notes=[stale_note(stale)] if stale else (), beside=stale, sources=[walk.file],
                      unread=walk.unread)  # fmt: skip


def _ordered(group: Any) -> list[str]:
    """The names in a group: in the order of the layers where Keras wrote it down, else numbers as numbers."""
    if "layer_names" not in group.attrs and group.id.get_create_plist().get_link_creation_order():
        return list(group)
    listed = np.atleast_1d(group.attrs.get("layer_names", ()))
    places = {name.decode() if isinstance(name, bytes) else name: at for at, name in enumerate(listed)}

    return sorted(group, key=lambda name: (places.get(name, len(places)), natural_key(name)))


def _spelt(held: Any) -> str | None:
    """The dtype; Keras keeps bfloat16 as 16 plain bits, and says so."""
    said = held.attrs.get("dtype")
    if said in ("bfloat16", b"bfloat16") and held.dtype.itemsize == 2:
        return "BF16"
    return None if held.dtype.hasobject or held.dtype.names else dtypes.from_numpy(held.dtype)


@contextmanager
def _judged(where: str) -> Iterator[None]:
    """Errors of h5py, which come of what the file holds, as ours."""
    try:
        yield
    except _FAULTS as error:
        lines = str(error).splitlines() or [type(error).__name__]
        raise FormatError(f"{where} is not a sound HDF5 file", remedy=lines[0][:200]) from None


FORMAT = Format("hdf5", open_hdf5, what="an HDF5 file, as Keras writes them", suffixes=(".h5", ".hdf5"),
                claims=lambda head, source: any(source.pread(8, at) == MAGIC for at in _STARTS))  # fmt: skip
