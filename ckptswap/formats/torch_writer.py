"""Writing a plain state dict as `torch.save` would, streaming and without torch.

`torch.load(path, weights_only=True, mmap=True)` reads it. Metadata goes into a member that torch skips.
"""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import BinaryIO

from ckptswap.checkpoint import Entry
from ckptswap.errors import FormatError
from ckptswap.formats.atomic import atomic_file
from ckptswap.formats.streaming import Watch, stream, unwatched
from ckptswap.formats.strided import contiguous
from ckptswap.formats.torch_pickle import DTYPES, STORAGES
from ckptswap.formats.torch_zip import METADATA
from ckptswap.formats.zip_writer import add_member

PREFIX = "archive"
_STORAGE_OF = {dtype: name for name, dtype in reversed(list(STORAGES.items()))}
_NAME_OF = {dtype: name for name, dtype in DTYPES.items()}
_EMPTY_ORDERED_DICT = b"ccollections\nOrderedDict\n)R"


def write_torch(
    entries: Iterable[Entry],
    path: Path,
    *,
    metadata: Mapping[str, str],
    force: bool = False,
    made_of: Iterable[Path] = (),
    watch: Watch = unwatched,
) -> None:
    """Stream entries into a new file, atomically. Raises `FormatError` for a dtype that torch lacks."""
    listed = list(entries)
    small = {"data.pkl": _pickle(listed, path), "byteorder": b"little", "version": b"3\n"}
    if metadata:
        small[METADATA] = json.dumps(dict(metadata)).encode("ascii")
    with atomic_file(path, force=force, made_of=made_of) as file, zipfile.ZipFile(file, "w") as archive:
        for name, raw in small.items():
            add_member(archive, f"{PREFIX}/{name}", len(raw), partial(_write, raw))
        for at, entry in enumerate(listed):
            add_member(archive, f"{PREFIX}/data/{at}", entry.nbytes, partial(stream, entry, watch=watch))


def _write(raw: bytes, file: BinaryIO) -> None:
    file.write(raw)


def _pickle(entries: list[Entry], path: Path) -> bytes:
    """An OrderedDict of tensors, each with a storage of its own, in protocol 2."""
    items = (_text(entry.name) + _tensor(entry, str(at), path) for at, entry in enumerate(entries))
    return b"\x80\x02" + _EMPTY_ORDERED_DICT + b"(" + b"".join(items) + b"u."


def _tensor(entry: Entry, key: str, path: Path) -> bytes:
    if entry.dtype not in _NAME_OF:
        raise FormatError(f"{path} cannot hold {entry.name!r}", remedy=f"torch files have no {entry.dtype}")
    typed = entry.dtype in _STORAGE_OF
    storage = f"torch\n{_STORAGE_OF[entry.dtype]}Storage" if typed else "torch.storage\nUntypedStorage"
    identity = (b"(" + _text("storage") + f"c{storage}\n".encode() + _text(key) + _text("cpu")
                + _integer(entry.numel if typed else entry.nbytes) + b"tQ")  # fmt: skip
    view = _integer(0) + _integers(entry.shape) + _integers(contiguous(entry.shape, 1))
    dtype = b"" if typed else f"ctorch\n{_NAME_OF[entry.dtype]}\n".encode()
    rebuild = b"ctorch._utils\n_rebuild_tensor_v" + (b"2" if typed else b"3") + b"\n"
    return rebuild + b"(" + identity + view + b"\x89" + _EMPTY_ORDERED_DICT + dtype + b"tR"


def _text(text: str) -> bytes:
    raw = text.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(raw)) + raw


def _integer(value: int) -> bytes:
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def _integers(values: Iterable[int]) -> bytes:
    return b"(" + b"".join(map(_integer, values)) + b"t"
