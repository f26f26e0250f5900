"""`FILE.plug`: a line of JSON, `[name, dtype, shape]` for each tensor, then their bytes, one after the other."""

from __future__ import annotations

import json
from collections.abc import Iterable
from math import prod

from ckptswap.checkpoint import Checkpoint, Entry, Tensor
from ckptswap.dtypes import bits
from ckptswap.errors import FormatError
from ckptswap.formats.format import Format
from ckptswap.formats.target import Target
from ckptswap.sources import FileRange
from ckptswap.storage import ByteSource, Folder

MARK = b"PLUG1 "
HEADER_MOST = 1 << 20


def opened(source: ByteSource, folder: Folder) -> Checkpoint:
    """Where each tensor lies; no value is read."""
    line, found, _ = source.pread(min(HEADER_MOST, source.size), 0).partition(b"\n")
    try:
        tensors, at = [], len(line) + len(found)
        for name, dtype, shape in json.loads(line.removeprefix(MARK)):
            tensors.append(Tensor(name, tuple(shape), dtype, FileRange(source, at)))
            at += prod(shape) * bits(dtype) // 8
    except (ValueError, TypeError, KeyError) as error:
        raise FormatError(f"{source.name} is damaged ({error})", remedy="save it again") from None
    if at != source.size:
        raise FormatError(f"{source.name} is cut short, or too long", remedy="save it again")
    return Checkpoint(tensors, path=source.name, format="plug", sources=[source])


def written(entries: Iterable[Entry], target: Target) -> None:
    """A header, then every tensor, a chunk at a time; the file takes its place when all is there."""
    entries = list(entries)
    with target.file() as file:
        header = [[entry.name, entry.dtype, list(entry.shape)] for entry in entries]
        file.write(MARK + json.dumps(header).encode() + b"\n")
        for entry in entries:
            target.stream(entry, file)


FORMAT = Format(
    "plug",
    opened,
    what="a file of the plugin",
    claims=lambda head, source: head.startswith(MARK),
    suffixes=(".plug",),
    write=written,
)
