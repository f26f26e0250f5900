"""Archives of `numpy.savez`: a zip of .npy files, stored or compressed. Objects are refused; nothing is unpickled.

Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

from __future__ import annotations

import ast
import json
import warnings
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ckptswap import dtypes
from ckptswap.checkpoint import Checkpoint, Tensor
from ckptswap.errors import FormatError
from ckptswap.formats.archive import Archive
from ckptswap.formats.strided import contiguous, strided
from ckptswap.storage import ByteSource, LocalFile

FORMAT = "npz"
MAGIC = b"\x93NUMPY"
HEADER_MOST = 10_000
"""numpy's own bound on a header, in bytes."""


class Header(NamedTuple):
    """What a .npy file says of its array; `size` is the header's own, in bytes."""

    dtype: str
    shape: tuple[int, ...]
    is_fortran: bool
    size: int


def is_npz(archive: Archive) -> bool:
    """Whether every member is a .npy file."""
    return bool(archive.members) and all(name.endswith(".npy") for name in archive.members)


def open_npz(archive: Archive, file: LocalFile) -> Checkpoint:
    """Open lazily; raises `FormatError` for objects, text, big-endian numbers, and what is damaged."""
    return Checkpoint(
        [_tensor(archive, member) for member in archive.members],
        path=file.name,
        format=FORMAT,
        metadata=_metadata(archive.comment),
        files=[Path(file.name)],
        close=file.close,
    )


def _tensor(archive: Archive, member: str) -> Tensor:
    name = member.removesuffix(".npy")
    file, start = archive.place(member)
    try:
        header = _header(file, start, archive.members[member].size)
    except ValueError as error:
        raise FormatError(f"{archive.file.name} cannot be read", remedy=f"its array {name!r} {error}") from None
    width = dtypes.bits(header.dtype) // 8
    strides = _fortran(header.shape, width) if header.is_fortran else contiguous(header.shape, width)
    source = strided(file, start + header.size, header.shape, strides, width)
    return Tensor(name, header.shape, header.dtype, source)


def _fortran(shape: tuple[int, ...], width: int) -> tuple[int, ...]:
    return tuple(width * prod(shape[:axis]) for axis in range(len(shape)))


def _header(file: ByteSource, start: int, size: int) -> Header:
    """Read and judge a .npy header in `size` bytes from `start` on; raises `ValueError` that ends a sentence."""
    head = _bytes(file, start, min(size, 12))
    if len(head) < 12 or not head.startswith(MAGIC) or head[6] not in (1, 2, 3):
        raise ValueError("is no .npy file")
    before, width = (10, 2) if head[6] == 1 else (12, 4)
    length = int.from_bytes(head[8 : 8 + width], "little")
    if length > HEADER_MOST or before + length > size:
        raise ValueError("has a header that is cut short or too long")
    fields = _literal(_bytes(file, start + before, length))
    dtype, shape = _dtype(fields["descr"]), fields["shape"]
    fault = dtypes.shape_fault(shape) if isinstance(shape, tuple) else "no shape"
    if fault or not isinstance(fields["fortran_order"], bool):
        raise ValueError(f"has {fault or 'no order'}")
    if prod(shape) * dtypes.bits(dtype) // 8 != size - before - length:
        raise ValueError(f"is {dtype} {list(shape)} but takes {size - before - length:,} B")
    return Header(dtype, shape, fields["fortran_order"], before + length)


def _bytes(file: ByteSource, start: int, size: int) -> bytes:
    raw = bytearray(size)
    file.pread_into(memoryview(raw), start)
    return bytes(raw)


def _literal(raw: bytes) -> dict:
    try:
        with warnings.catch_warnings(action="ignore"):  # Python's parser warns of odd literals
            found = ast.literal_eval(raw.decode("utf-8").strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise ValueError("has a header that cannot be parsed") from None
    if not isinstance(found, dict) or set(found) != {"descr", "fortran_order", "shape"}:
        raise ValueError("has a header of another form")
    return found


def _dtype(descr: object) -> str:
    if not isinstance(descr, str):
        raise ValueError("is a table of records, no tensor")
    try:
        with warnings.catch_warnings(action="ignore"):  # of dtypes that are on their way out
            found = np.dtype(descr)
    except (TypeError, ValueError, SyntaxError):
        raise ValueError(f"has the unknown dtype {descr[:20]!r}") from None
    spelt = dtypes.from_numpy(found)
    if found.hasobject:
        raise ValueError("holds Python objects, which would have to be unpickled; it was not loaded")
    if found.byteorder == ">":
        raise ValueError("was saved big-endian; save it again little-endian")
    if spelt is None:
        raise ValueError(f"has the dtype {descr[:20]!r}, which is no tensor's; .npz has no bf16 or fp8")
    return spelt


def _metadata(comment: bytes) -> dict[str, str]:
    """What we wrote as the archive's comment; anybody else's comment is none."""
    try:
        found = json.loads(comment)
    except (ValueError, RecursionError):
        return {}
    return (
        {key: value for key, value in found.items() if isinstance(value, str)} if isinstance(found, dict) else {}
    )
