"""Folders of `torch.distributed.checkpoint`: a pickle `.metadata`, and `.distcp` files of pieces of tensors.

torch's own readers unpickle `.metadata` without a guard; ours builds inert values only. Each piece is a zip of
torch.save at an offset of a .distcp file, opened when it is first read; a tensor is a tiling of such pieces.
"""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import groupby
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from ckptswap import dtypes
from ckptswap.checkpoint import Checkpoint, Tensor
from ckptswap.errors import FormatError
from ckptswap.formats.archive import Archive
from ckptswap.formats.local import LocalFile, Slice
from ckptswap.formats.objects import is_plain_name
from ckptswap.formats.pickles import PICKLE_MOST, Build, Global, Inert, inert, plain_dict, read_pickle
from ckptswap.formats.strided import Piece, PieceSource
from ckptswap.formats.torch_pickle import (
    DTYPES,
    Unreadable,
    View,
    beside,
    find_map,
    left_out,
    notes_on,
    view_fault,
)
from ckptswap.formats.torch_zip import read_content

FORMAT = "torch distributed"
METADATA = ".metadata"
_ROOM = "torch.distributed.checkpoint."
_SHARDED = "torch.distributed._shard.sharded_tensor.metadata."
_INERT = [
    *(f"{_ROOM}metadata.{name}" for name in (
        "Metadata", "TensorStorageMetadata", "BytesStorageMetadata", "ChunkStorageMetadata", "TensorProperties",
        "MetadataIndex", "StorageMeta", "_MEM_FORMAT_ENCODING")),
    *(f"{_ROOM}filesystem.{name}" for name in ("_StorageInfo", "_StoragePrefix")),
    *(f"{_SHARDED}{name}" for name in ("TensorProperties", "MEM_FORMAT_ENCODING")),
    *(f"torch.{name}" for name in DTYPES),
    "torch.serialization._get_layout", "pathlib.Path", "pathlib.PosixPath", "pathlib.WindowsPath",
]  # fmt: skip
NAMES: Mapping[str, Build] = {
    **{name: inert(name) for name in _INERT},
    "torch.Size": lambda arguments: tuple(arguments[0]),
    "collections.OrderedDict": plain_dict,
}
"""Every global that a `.metadata` may ask for, and what stands in for it."""


class _DamagedError(ValueError):
    """What is wrong with the metadata, as the end of a sentence."""


class Chunk(NamedTuple):
    """A rectangle of a tensor: where it begins, its sizes, and the file and bytes that hold it."""

    begins: tuple[int, ...]
    sizes: tuple[int, ...]
    payload: Slice


@dataclass(frozen=True)
class Stored:
    """A tensor as the metadata gives it, checked."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    chunks: tuple[Chunk, ...]


@dataclass
class TiledSource:
    """A tensor put together from its chunks, which are opened when the first byte is read."""

    stored: Stored
    _pieces: PieceSource | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def read_into(self, buffer: memoryview, offset: int) -> None:
        with self._lock:
            if self._pieces is None:
                width = dtypes.bits(self.stored.dtype) // 8
                pieces = [_piece(self.stored, chunk, width) for chunk in self.stored.chunks]
                self._pieces = PieceSource(self.stored.shape, width, pieces)
        self._pieces.read_into(buffer, offset)


def open_distributed(folder: Path) -> Checkpoint:
    """Open lazily; raises `FormatError` for hostile or damaged metadata and for pieces that are not there."""
    content = _read_metadata(folder / METADATA)
    with ExitStack() as stack:
        files = _Files(folder, stack)
        try:
            entries, paths = _entries(content, files)
        except _DamagedError as error:
            raise FormatError(f"{folder} is no sound distributed checkpoint", remedy=str(error)) from None
        tree = _tree(entries, paths)
        key, found = find_map(tree, _is_stored, str(folder))
        tensors = {name: value for name, value in found.items() if isinstance(value, Stored)}
        return Checkpoint(
            [Tensor(name, each.shape, each.dtype, TiledSource(each)) for name, each in tensors.items()],
            path=str(folder),
            format=FORMAT,
            notes=[*notes_on(tree, key, _is_stored), *left_out(found, _is_stored)],
            files=[folder / METADATA, *files.paths],
            close=stack.pop_all().close,
            beside=beside(tree, _is_stored),
        )


def payloads(checkpoint: Checkpoint) -> Iterator[Archive]:
    """The zip of every piece of a distributed checkpoint, for whoever checks their CRCs."""
    for entry in checkpoint.values():
        if isinstance(entry.source, TiledSource):
            yield from (Archive(chunk.payload) for chunk in entry.source.stored.chunks)


def _read_metadata(path: Path) -> Any:
    file = LocalFile(path)
    try:
        if file.size > PICKLE_MOST:
            raise FormatError(f"{path} takes {file.size:,} bytes", remedy=f"{PICKLE_MOST:,} is the most")
        raw = file.pread(file.size, 0)
    finally:
        file.close()
    return read_pickle(io.BytesIO(raw), NAMES, where=str(path),
                       remedy="save it again with torch.distributed.checkpoint, where you trust it")  # fmt: skip


class _Files:
    """The .distcp files of a folder, each opened once."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder, self._stack = folder, stack
        self._open: dict[str, LocalFile] = {}

    @property
    def paths(self) -> list[Path]:
        return [file.path for file in self._open.values()]

    def slice(self, name: Any, offset: Any, length: Any) -> Slice:
        if not isinstance(name, str) or not is_plain_name(name):
            raise _DamagedError(f"it puts a tensor into {repr(name)[:80]}, which is no plain file name")
        if name not in self._open:
            if not os.path.isfile(self._folder / name):
                raise _DamagedError(f"its file {name!r} is not there")
            self._open[name] = file = LocalFile(self._folder / name)
            self._stack.callback(file.close)
        file = self._open[name]
        if not _are_counts((offset, length)) or offset + length > file.size:
            raise _DamagedError(f"{name!r} is cut short")
        return Slice(file, offset, length, file.name)


def _entries(content: Any, files: _Files) -> tuple[dict[str, Stored | None], dict]:
    """Name → tensor (None for what is no tensor), and name → path in the dict that was saved."""
    listed = _field(content, "state_dict_metadata", dict)
    places = {}
    for index, info in _field(content, "storage_data", dict).items():
        offset = _state(index).get("offset")
        places[_field(index, "fqn", str), tuple(offset) if isinstance(offset, tuple | list) else None] = info
    entries: dict[str, Stored | None] = {}
    for name, described in listed.items():
        if not isinstance(name, str):
            raise _DamagedError("it names a tensor not by text")
        is_tensor = "chunks" in _state(described)
        entries[name] = _stored(name, described, places, files) if is_tensor else None
    paths = _state(content).get("planner_data")
    return entries, paths if isinstance(paths, dict) else {}


def _stored(name: str, described: Any, places: Mapping, files: _Files) -> Stored:
    shape, dtype = _shape(name, _field(described, "size", tuple)), _dtype(name, described)
    chunks = {}
    for chunk in _field(described, "chunks", list):
        begins, sizes = (_shape(name, _field(chunk, key, tuple)) for key in ("offsets", "sizes"))
        if not len(begins) == len(sizes) == len(shape):
            raise _DamagedError(f"a piece of {name!r} has other dimensions than it")
        info = places.get((name, begins)) or places.get((name, None))
        if info is None:
            raise _DamagedError(f"a piece of {name!r} is nowhere")
        if prod(sizes):
            chunks[begins] = Chunk(begins, sizes, _payload(name, info, files))
    if prod(shape) and not _tile(list(chunks.values()), shape):
        raise _DamagedError(f"the pieces of {name!r} do not make up its {list(shape)}")
    return Stored(name, shape, dtype, tuple(chunks.values()))


def _payload(name: str, info: Any, files: _Files) -> Slice:
    state = _state(info)
    if state.get("transform_descriptors"):
        raise _DamagedError(f"{name!r} is stored through an extension (compressed or encrypted)")
    return files.slice(state.get("relative_path"), state.get("offset"), state.get("length"))


def _tile(chunks: Sequence[Chunk], shape: tuple[int, ...], axis: int = 0) -> bool:
    """Whether chunks cut a shape into slabs along each axis in turn, without gap or overlap."""
    if axis == len(shape):
        return len(chunks) == 1

    def interval(chunk: Chunk) -> tuple[int, int]:
        return chunk.begins[axis], chunk.begins[axis] + chunk.sizes[axis]

    reached = 0
    for (begin, end), slab in groupby(sorted(chunks, key=interval), key=interval):
        if begin != reached or not _tile(list(slab), shape, axis + 1):
            return False
        reached = end
    return reached == shape[axis]


def _shape(name: str, sizes: tuple) -> tuple[int, ...]:
    fault = dtypes.shape_fault(sizes)
    if fault:
        raise _DamagedError(f"{name!r} has {fault}")
    return sizes


def _dtype(name: str, described: Any) -> str:
    properties = _state(described).get("properties")
    state = properties.state if isinstance(properties, Inert) else None
    found = (
        state[0] if isinstance(state, tuple) and state else state.get("dtype") if isinstance(state, dict) else None
    )
    spelt = DTYPES.get(found.name.removeprefix("torch.")) if isinstance(found, Global) else None
    if spelt is None:
        raise _DamagedError(f"{name!r} has no dtype that we know")
    return spelt


def _state(described: Any) -> dict:
    if not isinstance(described, Inert) or not isinstance(described.state, dict | None):
        raise _DamagedError("its metadata is of another form")
    return described.state or {}


def _field(described: Any, key: str, kind: type) -> Any:
    value = _state(described).get(key)
    if not isinstance(value, kind):
        raise _DamagedError(f"its metadata has no sound {key!r}")
    return value


def _is_stored(value: Any) -> bool:
    return isinstance(value, Stored)


def _are_counts(values: tuple) -> bool:
    return all(type(value) is int and value >= 0 for value in values)


def _tree(entries: Mapping[str, Stored | None], paths: Mapping) -> dict[Any, Any]:
    """The dict that was saved, two levels deep, so that the model's part of it can be told."""
    tree: dict[Any, Any] = {}
    for name, stored in entries.items():
        path = paths.get(name)
        if isinstance(path, tuple) and len(path) > 1 and isinstance(path[0], str):
            below = tree.setdefault(path[0], {})
            if isinstance(below, dict):
                below[".".join(map(str, path[1:]))] = stored
        else:
            tree[name] = stored
    return tree


def _piece(stored: Stored, chunk: Chunk, width: int) -> Piece:
    """Open a chunk's zip and see that it holds what the metadata says."""
    where = f"{chunk.payload.name}, tensor {stored.name!r},"
    content, locate = read_content(Archive(chunk.payload))
    if isinstance(content, Unreadable) or not isinstance(content, View):
        raise FormatError(f"{where} holds no plain tensor", remedy="save it again")
    place = locate(content.storage)
    fault = view_fault(content, place.size)
    if content.shape != chunk.sizes or content.dtype != stored.dtype:
        fault = f"is {content.dtype} {list(content.shape)}, not {stored.dtype} {list(chunk.sizes)}"
    if fault:
        raise FormatError(f"{where} is damaged", remedy=f"a piece {fault}")
    strides = tuple(stride * width for stride in content.strides)
    start = place.offset + content.storage.start + content.offset * width
    return Piece(place.file, start, strides, chunk.begins, chunk.sizes)
