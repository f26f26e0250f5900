"""Folders of `torch.distributed.checkpoint`: a pickle `.metadata`, and `.distcp` files of pieces of tensors.

torch's own readers unpickle `.metadata` without a guard; ours builds inert values only. Each piece is a zip of
torch.save at an offset of a .distcp file, opened when it is first read; a tensor is a tiling of such pieces.
"""

import io
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from math import prod
from typing import Any, NamedTuple

from ckptswap import dtypes
from ckptswap.checkpoint import Checkpoint
from ckptswap.entries import Tensor, with_key
from ckptswap.errors import FormatError
from ckptswap.formats.archive import Archive, ZipChecksums
from ckptswap.formats.format import Format
from ckptswap.formats.inert import CONSTRUCTORS, Build, Inert, enum_member, inert, plain_dict, shown
from ckptswap.formats.objects import is_plain_name
from ckptswap.formats.pickles import INSTRUCTIONS_MOST, PICKLE_MOST, read_pickle
from ckptswap.formats.state_dict import INFLATED_FREE, StateDict, refuse_inflated
from ckptswap.formats.strided import Piece, PieceSource
from ckptswap.formats.torch_pickle import DTYPES, PATHS, View, are_counts, dtype_of, view_fault
from ckptswap.formats.torch_zip import read_content
from ckptswap.storage import ByteSource, Folder, Slice

_NAME_MOST = 255
_PIECES_FREE = 1000
_DIMENSIONS_MOST = 64
METADATA = ".metadata"
_ROOM = "torch.distributed.checkpoint."
_SHARDED = "torch.distributed._shard.sharded_tensor.metadata."
_ENUMS = frozenset([f"{_ROOM}metadata._MEM_FORMAT_ENCODING", f"{_SHARDED}MEM_FORMAT_ENCODING"])
_INERT = [
    *(f"{_ROOM}metadata.{name}" for name in (
        "Metadata", "TensorStorageMetadata", "BytesStorageMetadata", "ChunkStorageMetadata", "TensorProperties",
        "MetadataIndex", "StorageMeta")),
    *(f"{_ROOM}filesystem.{name}" for name in ("_StorageInfo", "_StoragePrefix")),
    *_ENUMS, f"{_SHARDED}TensorProperties",
    *(f"torch.{name}" for name in DTYPES),
    "torch.serialization._get_layout", *PATHS,
]  # fmt: skip
INSTRUCTIONS_A_PIECE = 500  # how many the pickle of one tensor may have
PIECE_LEAST = 512  # bytes that the zip of a piece takes at least; torch's take a thousand and more
NAMES: Mapping[str, Build] = {
    **CONSTRUCTORS,
    **{name: inert(name) for name in _INERT},
    "builtins.getattr": enum_member(_ENUMS),
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
    """A tensor as the metadata gives it, checked; its chunks are opened when the first byte is read."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    chunks: tuple[Chunk, ...]

    def read_into(self, buffer: memoryview, offset: int) -> None:
        self._pieces.read_into(buffer, offset)

    @cached_property
    def _pieces(self) -> PieceSource:
        width = dtypes.bits(self.dtype) // 8
        return PieceSource(self.shape, width, [_piece(self, chunk) for chunk in self.chunks])


def open_distributed(file: ByteSource, folder: Folder, key: str | None = None) -> Checkpoint:
    """Open lazily; `key` is that of one of several maps. Raises `FormatError` for hostile or damaged metadata and
    for pieces that are not there."""
    content = _read_metadata(file, folder)
    with ExitStack() as stack:
        files = _Files(folder, stack)
        try:
            entries, paths = _entries(content, files)
        except _DamagedError as error:
            raise FormatError(f"{folder.name} is not a sound distributed checkpoint", remedy=str(error)) from None
        state = StateDict.of(_tree(entries, paths), lambda value: isinstance(value, Stored), folder.name, key)
        payloads = [chunk.payload for stored in state.tensors.values() for chunk in stored.chunks]
        tensors = [Tensor(name, value.shape, value.dtype, value) for name, value in state.tensors.items()]
        refuse_inflated(tensors, files.nbytes, folder.name)
        checkpoint = Checkpoint(tensors, path=with_key(folder.name, key), key=key, format=FORMAT.name,
                                sources=[file, *files.opened.values()], checksums=[ZipChecksums(payloads)],
                                notes=state.notes, unread=state.unread, beside=state.beside,
                                stale=state.stale)  # fmt: skip
        stack.pop_all()
        return checkpoint


def _read_metadata(file: ByteSource, folder: Folder) -> Any:
    try:
        raw = file.whole(PICKLE_MOST)
    except ValueError as error:
        raise FormatError(f"{file.name} cannot be read", remedy=f"it {error}") from None
    pieces = [name for name in folder.names() if name.endswith(".distcp") and folder.holds(name)]
    most = INSTRUCTIONS_MOST + 64 * (sum(map(folder.stored, pieces)) // PIECE_LEAST)
    return read_pickle(io.BytesIO(raw), NAMES, where=file.name, most=most,
                       remedy="save it again with torch.distributed.checkpoint, where you trust it")  # fmt: skip


class _Files:
    """The .distcp files of a folder, each opened once."""

    def __init__(self, folder: Folder, stack: ExitStack) -> None:
        self._folder, self._stack = folder, stack
        self.opened: dict[str, ByteSource] = {}
        self._taken = 0

    @property
    def nbytes(self) -> int:
        return sum(file.size for file in self.opened.values())

    def slice(self, name: Any, offset: Any, length: Any) -> Slice:
        """A piece's bytes. Pieces do not share them, so that all together take no more than the files have."""
        if not isinstance(name, str) or len(name) > _NAME_MOST or not is_plain_name(name):
            raise _DamagedError(f"it puts a tensor into {shown(name)!r}, which is not a plain file name")
        if name not in self.opened:
            if not self._folder.holds(name):
                raise _DamagedError(f"its file {name!r} is not there")
            self.opened[name] = self._folder.open(name)
            self._stack.callback(self.opened[name].close)
        file = self.opened[name]
        if not are_counts((offset, length)) or offset + length > file.size:
            raise _DamagedError(f"{name!r} is cut short")
        self._taken += length
        if self._taken > 2 * self.nbytes + INFLATED_FREE:
            raise _DamagedError(f"its pieces take more bytes than its files have, {self.nbytes:,}")
        return Slice(file, offset, length)


def _entries(content: Any, files: _Files) -> tuple[dict[str, Any], dict]:
    """Name → tensor (what describes it, where it is not a tensor), and name → path in the dict that was saved."""
    listed = _field(content, "state_dict_metadata", dict)
    places = _places(_field(content, "storage_data", dict))
    pieces = 0
    entries: dict[str, Any] = {}
    for name, described in listed.items():
        if not isinstance(name, str):
            raise _DamagedError("it names a tensor not by text")
        chunks = _state(described).get("chunks")
        pieces += len(chunks) if isinstance(chunks, list) else 0
        if pieces > 2 * len(places) + _PIECES_FREE:
            raise _DamagedError("it has more pieces of tensors than places for them")
        entries[name] = described if chunks is None else _stored(name, described, places, files)
    paths = _state(content).get("planner_data")
    return entries, paths if isinstance(paths, dict) else {}


def _places(storage: Mapping[Any, Any]) -> dict[tuple[str, str], Any]:
    """Where each piece lies, by its tensor's name and where it begins in it (`None`: all of it).

    A beginning is spelt out: as numbers they could be chosen so that all of them collide.
    """
    places = {}
    for index, place in storage.items():
        begins = _state(index).get("offset")
        if begins is not None and (not isinstance(begins, tuple | list) or len(begins) > _DIMENSIONS_MOST
                                   or not are_counts(begins)):  # fmt: skip
            raise _DamagedError("a piece begins nowhere")
        places[_field(index, "fqn", str), str(None if begins is None else tuple(begins))] = place
    return places


def _stored(name: str, described: Any, places: Mapping, files: _Files) -> Stored:
    shape, dtype = _shape(name, _field(described, "size", tuple)), _dtype(name, described)
    chunks = {}
    for chunk in _field(described, "chunks", list):
        begins, sizes = (_shape(name, _field(chunk, key, tuple)) for key in ("offsets", "sizes"))
        if not len(begins) == len(sizes) == len(shape):
            raise _DamagedError(f"a piece of {shown(name)!r} has other dimensions than it")
        place = places.get((name, str(begins))) or places.get((name, "None"))
        if place is None:
            raise _DamagedError(f"a piece of {shown(name)!r} is nowhere")
        where = _state(place) if prod(sizes) else {}
        if where.get("transform_descriptors"):
            raise _DamagedError(f"{shown(name)!r} is stored through an extension (compressed or encrypted)")
        if prod(sizes):
            payload = files.slice(where.get("relative_path"), where.get("offset"), where.get("length"))
            chunks[str(begins)] = Chunk(begins, sizes, payload)
    if prod(shape) and not _tile(list(chunks.values()), shape):
        raise _DamagedError(f"the pieces of {shown(name)!r} do not make up its {list(shape)}")
    return Stored(name, shape, dtype, tuple(chunks.values()))


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
    fault = f"{len(sizes)} dimensions" if len(sizes) > _DIMENSIONS_MOST else dtypes.shape_fault(sizes)
    if fault:
        raise _DamagedError(f"{shown(name)!r} has {fault}")
    return sizes


def _dtype(name: str, described: Any) -> str:
    properties = _state(described).get("properties")
    state = properties.state if isinstance(properties, Inert) else None
    first = state[0] if isinstance(state, tuple) and state else None
    spelt = dtype_of(state.get("dtype") if isinstance(state, dict) else first)
    if spelt is None:
        raise _DamagedError(f"{shown(name)!r} has no dtype that we know")
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


def _tree(entries: Mapping[str, Any], paths: Mapping) -> dict[Any, Any]:
    """The dict that was saved, two levels deep, so that the model's part of it can be told. A name is its path,
    joined by dots."""
    tree: dict[Any, Any] = {}
    for name, stored in entries.items():
        path = paths.get(name)
        top = path[0] if isinstance(path, tuple) and len(path) > 1 else None
        if isinstance(top, str) and name.startswith(f"{top[: len(name)]}."):
            below = tree.setdefault(top, {})
            if isinstance(below, dict):
                below[name[len(top) + 1 :]] = stored
        else:
            tree[name] = stored
    return tree


def _piece(stored: Stored, chunk: Chunk) -> Piece:
    where = f"{chunk.payload.name}, tensor {shown(stored.name)!r},"
    content, locate = read_content(Archive(chunk.payload), INSTRUCTIONS_A_PIECE)
    if not isinstance(content, View):
        raise FormatError(f"{where} holds no plain tensor", remedy="save it again")
    stretch = locate(content.storage)
    fault = view_fault(content, stretch.size)
    if content.shape != chunk.sizes or content.dtype != stored.dtype:
        fault = f"is {content.dtype} {list(content.shape)}, not {stored.dtype} {list(chunk.sizes)}"
    if fault:
        raise FormatError(f"{where} is damaged", remedy=f"a piece {fault}")
    start, strides = content.place(stretch)
    return Piece(stretch.file, start, strides, chunk.begins, chunk.sizes)


FORMAT = Format(
    "torch distributed",
    open_distributed,
    inside=lambda folder: METADATA if folder.holds(METADATA) else None,
    open_at=open_distributed,
)
