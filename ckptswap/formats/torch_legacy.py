"""Files of `torch.save` before torch 1.6: five pickles in a row, then each storage's length and bytes."""

import io
from collections.abc import Mapping
from functools import partial
from typing import Any, BinaryIO

from ckptswap import dtypes
from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import FormatError
from ckptswap.formats.archive import RawReader
from ckptswap.formats.format import Format
from ckptswap.formats.pickles import PICKLE_MOST, read_pickle
from ckptswap.formats.torch_pickle import NAMES, Locate, Storage, Storages, Stretch
from ckptswap.formats.torch_tensors import SUFFIXES, checkpoint_of
from ckptswap.storage import ByteSource, Folder, Slice

MAGIC = 0x1950A86A20F9469CFC6C
_MAGIC_BYTES = MAGIC.to_bytes(10, "little")
_GREETING = 32  # bytes in which it lies, after the protocol and a frame
PROTOCOL = 1001
GREETING_MOST = 1000  # instructions of a small pickle; torch writes some twenty


def _claims(head: bytes, source: ByteSource) -> bool:
    """A pickle of protocol 2 to 5 that begins with torch's number."""
    return _is_pickle(head) and _MAGIC_BYTES in head[:_GREETING]


def is_plain(head: bytes, source: ByteSource) -> bool:
    """Whether a file is a pickle of these protocols, and not torch's."""
    return _is_pickle(head) and _MAGIC_BYTES not in head[:_GREETING]


def _is_pickle(head: bytes) -> bool:
    return head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")


def open_torch_legacy(file: ByteSource, folder: Folder | None = None, key: str | None = None) -> Checkpoint:
    """Open lazily; `key` is that of one of several maps. Raises `FormatError` for what is damaged, hostile, or a
    pickle of another kind."""
    return checkpoint_of(*read_content(file), file, FORMAT.name, key)


def read_content(file: ByteSource) -> tuple[Any, Locate]:
    """What a file's pickle holds, inert, and where its storages lie."""
    stream = _stream(file)
    _check_greeting(stream, file.name)
    storages = Storages()
    content = read_pickle(stream, NAMES, storages, where=file.name, unknown=True)
    places = _places(file, stream, storages)

    def locate(storage: Storage) -> Stretch:
        if storage.key not in places:
            raise FormatError(f"{file.name} is damaged", remedy=f"storage {storage.key} is not in it")
        return places[storage.key]

    return content, locate


def _stream(file: ByteSource) -> BinaryIO:
    """The file from its beginning, as far as pickles may reach: at once, or piecemeal where it is far away."""
    if file.version is None:
        return io.BytesIO(file.pread(PICKLE_MOST, 0))
    return io.BufferedReader(RawReader(Slice(file, 0, min(file.size, PICKLE_MOST))))


def _check_greeting(stream: BinaryIO, where: str) -> None:
    read = partial(read_pickle, stream, NAMES, where=where, most=GREETING_MOST)
    if read() != MAGIC:
        raise FormatError(
            f"{where} is damaged", remedy="it begins like a file of torch.save, and does not go on so"
        )
    if read() != PROTOCOL:
        raise FormatError(f"{where} has an unknown version of torch's legacy format", remedy="save it again")
    system = read()
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise FormatError(f"{where} was saved big-endian", remedy="save it again on a little-endian machine")


def _places(file: ByteSource, stream: BinaryIO, roots: Mapping[str, Storage]) -> dict[str, Stretch]:
    """Where each storage lies: they follow one another in the order of the last pickle's keys."""
    keys = read_pickle(stream, NAMES, where=file.name)
    if not isinstance(keys, list) or not all(isinstance(key, str) and key in roots for key in keys):
        raise FormatError(f"{file.name} is damaged", remedy="it lists storages that no tensor uses")
    places, at = {}, stream.tell()
    for key in keys:
        raw = file.pread(8, at)
        numel = int.from_bytes(raw, "little")
        width = dtypes.bits(roots[key].dtype) // 8
        if len(raw) < 8 or at + 8 + numel * width > file.size:
            raise FormatError(f"{file.name} is cut short", remedy=f"storage {key} is not there to its end")
        places[key] = Stretch(file, at + 8, numel * width)
        at += 8 + numel * width
    return places


FORMAT = Format(
    "torch legacy",
    open_torch_legacy,
    what="a pickle, as torch writes them",
    claims=_claims,
    suffixes=SUFFIXES,
    open_at=open_torch_legacy,
)
