"""HDF5, as Keras and h5py write weights: datasets in groups; a tensor's name is its path, with dots.

h5py (extra `formats`) reads the structure, in a process of its own: damaged files crash its library, or keep it
busy for ever (`benchmarks/fuzz.py`). Values are then read from where it says that they lie, and unpacked here.
Links, and datasets whose values lie in other files, are not followed; code of filters is never loaded.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from ckptswap import dtypes
from ckptswap.checkpoint import Checkpoint, stale_note
from ckptswap.entries import Tensor, Unread
from ckptswap.errors import FormatError
from ckptswap.formats.apart import apart
from ckptswap.formats.chunked import ChunkSource, Packing
from ckptswap.formats.format import Format
from ckptswap.formats.hdf5_walk import walk
from ckptswap.formats.state_dict import INFLATED_FREE, inflated
from ckptswap.registry import library
from ckptswap.sources import ConstantSource, FileRange, MemorySource, TensorSource
from ckptswap.storage import ByteSource, Folder

MAGIC = b"\x89HDF\r\n\x1a\n"
LAYERS, LAYERS_MOST = "keras.layers", 1 << 20
"""The metadata key of a map from groups to the names of layers, as JSON, and its letters: Keras 3 calls groups by
their layers' classes."""
_STARTS = (0, 512, 1024, 2048)  # behind what a user may have put before, as MATLAB does


@dataclass(frozen=True, slots=True)
class SwappedSource:
    """Numbers whose bytes stand the other way round."""

    source: FileRange
    stored: np.dtype

    def read_into(self, buffer: memoryview, offset: int) -> None:
        self.source.read_into(buffer, offset)
        np.frombuffer(buffer, self.stored).byteswap(inplace=True)


def open_hdf5(file: ByteSource, folder: Folder | None = None) -> Checkpoint:
    """Open a file lazily. Raises `FormatError` when it is damaged or hostile, `DependencyError` without the extra
    `formats`."""
    library("h5py")
    try:
        found = apart(walk, file)
        tensors = [_tensor(file, name, about) for name, about in found["datasets"].items()]
        unread = {name: Unread(what, shape and tuple(shape)) for name, (what, shape) in found["unread"].items()}
    except (ValueError, TypeError, LookupError) as error:
        raise _refusal(file, str(error)) from None
    if not tensors and not unread:
        raise FormatError(f"{file.name} holds no tensors", remedy="it is an HDF5 file without datasets")
    if taken := inflated(tensors, file.size):
        raise _refusal(file, f"its datasets would take {taken:,} B, of {file.size:,} that are there")
    facts, layers, stale = found["facts"], json.dumps(found["layers"]), found["stale"]
    facts |= {LAYERS: layers} if found["layers"] and len(layers) <= LAYERS_MOST else {}
    return Checkpoint(tensors, path=file.name, format=FORMAT.name, metadata=facts, stale=stale,
                      notes=[stale_note(stale)] if stale else (), beside=stale, sources=[file],
                      unread=unread)  # fmt: skip


def _tensor(file: ByteSource, name: str, about: Mapping[str, Any]) -> Tensor:
    shape, dtype = tuple(about["shape"]), about["dtype"]
    stored = dtypes.to_numpy(dtype) if dtype != "BF16" else np.dtype("u2")
    stored = stored.newbyteorder(">") if about["is_big"] else stored
    return Tensor(name, shape, dtype, _source(file, name, shape, stored, about))


def _source(
    file: ByteSource, name: str, shape: tuple[int, ...], stored: np.dtype, about: Mapping[str, Any]
) -> TensorSource:
    if "values" in about:
        return MemorySource(_numbers(about["values"], stored).view(np.uint8).data)
    if "chunk" in about:
        return _in_chunks(file, name, shape, stored, about)
    if "offset" not in about:
        return ConstantSource(_numbers(about["fill"], stored).tobytes())
    size, offset = prod(shape) * stored.itemsize, about["offset"]
    if about["size"] != size or not 0 <= offset <= file.size - size:
        raise _refusal(file, f"dataset {name[:80]!r} ends at byte {offset + size:,} of {file.size:,}")
    place = FileRange(file, offset)
    return SwappedSource(place, stored) if stored.byteorder == ">" else place


def _in_chunks(
    file: ByteSource, name: str, shape: tuple[int, ...], stored: np.dtype, about: Mapping[str, Any]
) -> ChunkSource:
    packing = Packing(tuple(about["chunk"]), stored, about["filters"])
    places = {tuple(begins): (offset, size, left_out) for begins, offset, size, left_out in about["places"]}
    if len(packing.sizes) != len(shape) or not packing.nbytes:
        raise _refusal(file, f"the chunks of dataset {name[:80]!r} are not of its form")
    if packing.nbytes > max(INFLATED_FREE, 4 * file.size):
        raise _refusal(file, f"a chunk of dataset {name[:80]!r} would take {packing.nbytes:,} B")
    for offset, size, _ in places.values():
        if offset < 0 or size < 0 or offset + size > file.size:
            where = f"ends at byte {offset + size:,} of {file.size:,}"
            raise _refusal(file, f"a chunk of dataset {name[:80]!r} {where}")
    return ChunkSource(file, shape, packing, places, _numbers(about["fill"], stored)[0])


def _numbers(spelt: str, stored: np.dtype) -> np.ndarray:
    return np.frombuffer(bytes.fromhex(spelt), stored).astype(stored.newbyteorder("<"))


def _refusal(file: ByteSource, fault: str) -> FormatError:
    return FormatError(f"{file.name} is not a sound HDF5 file", remedy=fault)


FORMAT = Format("hdf5", open_hdf5, what="an HDF5 file, as Keras writes them", suffixes=(".h5", ".hdf5"),
                claims=lambda head, source: any(source.pread(8, at) == MAGIC for at in _STARTS))  # fmt: skip
