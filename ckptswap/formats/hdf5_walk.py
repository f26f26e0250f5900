"""What h5py finds in an HDF5 file, as plain data: its library in C is not trusted with it (see `apart`).

No value is read but those that lie in the structure itself.
"""

import io
import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ckptswap import dtypes
from ckptswap.entries import NAME_MOST
from ckptswap.errors import FormatError
from ckptswap.formats.archive import RawReader
from ckptswap.formats.chunked import UNDONE
from ckptswap.naming import natural_key
from ckptswap.registry import library
from ckptswap.storage import ByteSource

DEPTH_MOST = 50
MEMBERS_MOST = 1_000_000
CHUNKS_MOST = 1_000_000
COMPACT_MOST = 1 << 16  # bytes of values in a dataset's header: HDF5's own bound
MODEL, OPTIMIZERS = "model_weights", ("optimizer_weights", "optimizer")
"""The groups of a whole model's file: its weights, and what belongs to training."""
_FACTS = ("keras_version", "backend")


def walk(file: ByteSource) -> dict[str, Any]:
    """A file's datasets by name (`datasets`, `unread`), what it says of itself (`facts`), the names of layers by
    their groups (`layers`), and the groups that belong to training (`stale`). Raises `FormatError`, and what h5py
    raises."""
    h5py = library("h5py")
    for _ in range(h5py.h5pl.size()):  # where the library would look for code that unpacks what nothing else does
        h5py.h5pl.remove(0)
    root = h5py.File(io.BufferedReader(RawReader(file)), "r")
    found = _Walk(h5py, file)
    inside = [name for name in (MODEL, *OPTIMIZERS) if isinstance(root.get(name, getlink=True), h5py.HardLink)
              and isinstance(root[name], h5py.Group)]  # fmt: skip
    found.group(root[MODEL] if MODEL in inside else root)
    facts = {name: str(root.attrs[name])[:200] for name in _FACTS if name in root.attrs}
    return {"datasets": found.datasets, "unread": found.unread, "facts": facts, "layers": found.layers,
            "stale": [name for name in inside if name != MODEL]}  # fmt: skip


@dataclass
class _Walk:
    """Collects what a file's groups hold."""

    h5py: Any
    file: ByteSource
    datasets: dict[str, dict[str, Any]] = field(default_factory=dict)
    unread: dict[str, tuple[str, Any]] = field(default_factory=dict)
    layers: dict[str, str] = field(default_factory=dict)
    seen: set[int] = field(default_factory=set)
    members: int = 0
    chunks: int = 0

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
            self.unread[path] = "a link, which is not followed", None
            return
        held = group[name]
        if isinstance(held, self.h5py.Group):
            self.group(held, path, depth + 1)
        elif isinstance(held, self.h5py.Dataset):
            self.dataset(held, re.sub(r":\d+$", "", path))  # TensorFlow's names of variables end so

    def dataset(self, held: Any, name: str) -> None:
        if name in self.datasets or name in self.unread:
            raise self.refusal(f"it names {name[:80]!r} twice")
        if fault := self.odd(held):
            self.unread[name] = fault, held.shape
        elif fault := dtypes.shape_fault(held.shape):
            raise self.refusal(f"dataset {name[:80]!r} has {fault}")
        else:
            about = {"shape": held.shape, "dtype": _spelt(held), "is_big": held.dtype.byteorder == ">"}
            self.datasets[name] = {**about, **self.place(held, name)}

    def odd(self, held: Any) -> str | None:
        """Why a dataset's values are not read; None where they are."""
        plist = held.id.get_create_plist()
        if held.is_virtual or plist.get_external_count():
            return "a dataset whose values lie in other files"
        if held.shape is None or _spelt(held) is None or not self.is_plain(held):
            return f"a dataset of {str(held.dtype)[:80]}"
        packed = [number for number in _filters(plist) if number not in UNDONE]
        return f"a dataset packed by HDF5's filter {packed[0]}" if packed else None

    def is_plain(self, held: Any) -> bool:
        """Whether the file has the numbers as numpy has them, and not of some other form."""
        if held.dtype.kind == "b":  # h5py's truth is a number of one byte with two names
            return bool(held.id.get_type().get_size() == 1)
        return bool(held.id.get_type().equal(self.h5py.h5t.py_create(held.dtype)))

    def place(self, held: Any, name: str) -> dict[str, Any]:
        """Where a dataset's values lie."""
        plist, layouts = held.id.get_create_plist(), self.h5py.h5d
        layout = plist.get_layout()
        fill = np.asarray(held.fillvalue, held.dtype).tobytes().hex()
        if layout == layouts.CHUNKED:
            places = self.places(held)
            return {"chunk": held.chunks, "filters": _filters(plist), "fill": fill, "places": places}
        if layout == layouts.COMPACT:
            if held.size * held.dtype.itemsize > COMPACT_MOST:
                raise self.refusal(f"dataset {name[:80]!r} does not fit into its header")
            return {"values": np.asarray(held[()]).tobytes().hex()}
        offset, size = held.id.get_offset(), held.id.get_storage_size()
        return {"fill": fill} if offset is None or not size else {"offset": offset, "size": size}

    def places(self, held: Any) -> list[tuple[Any, ...]]:
        """Where each chunk begins in the tensor, where its bytes lie, how many, and which filters it left out."""
        places: list[tuple[Any, ...]] = []

        def add(chunk: Any) -> None:
            self.chunks += 1
            if self.chunks > CHUNKS_MOST:
                raise self.refusal(f"it holds more than {CHUNKS_MOST:,} chunks")
            places.append((chunk.chunk_offset, chunk.byte_offset, chunk.size, chunk.filter_mask))

        held.id.chunk_iter(add)
        return places

    def refusal(self, fault: str) -> FormatError:
        return FormatError(f"{self.file.name} is not a sound HDF5 file", remedy=fault)


def _filters(plist: Any) -> list[int]:
    """The number of each filter, in the order of writing."""
    return [plist.get_filter(at)[0] for at in range(plist.get_nfilters())]


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
