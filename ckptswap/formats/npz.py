"""Archives of `numpy.savez`: a zip of .npy files, stored or compressed. Objects are refused; nothing is unpickled.
The metadata is the archive's comment, which numpy skips.

Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

import ast
import json
import warnings
import zipfile
from collections.abc import Iterable
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ckptswap import dtypes
from ckptswap.checkpoint import Checkpoint
from ckptswap.entries import Entry, Tensor
from ckptswap.errors import FormatError
from ckptswap.formats.archive import ALIGNMENT, ZIP_MAGIC, Archive, ZipChecksums, add_member
from ckptswap.formats.format import Format
from ckptswap.formats.objects import strings
from ckptswap.formats.strided import contiguous, strided
from ckptswap.formats.target import Target
from ckptswap.storage import ByteSource, Folder

MAGIC = b"\x93NUMPY"
HEADER_MOST = 10_000  # numpy's own bound on a header, in bytes
COMMENT_MOST = 65_535


def _claims(head: bytes, source: ByteSource) -> bool:
    """A zip whose first member is an array: its name stands right at the beginning."""
    length = int.from_bytes(head[26:28], "little")
    return head.startswith(ZIP_MAGIC) and source.pread(length, 30).endswith(b".npy")


def open_npz(file: ByteSource, folder: Folder | None = None) -> Checkpoint:
    """Open lazily; raises `FormatError` for objects, text, big-endian numbers, and what is damaged."""
    archive = Archive(file)
    tensors = [_tensor(archive, member) for member in archive.members]
    return Checkpoint(tensors, path=file.name, format=FORMAT.name, metadata=_metadata(archive.comment),
                      sources=[file], checksums=[ZipChecksums([file])])  # fmt: skip


def _tensor(archive: Archive, member: str) -> Tensor:
    name = member.removesuffix(".npy")
    if name == member:
        raise FormatError(f"{archive.file.name} holds {member!r} beside its arrays", remedy="take it out")
    file, start = archive.place(member)
    try:
        dtype, shape, is_fortran, size = _header(file, start, archive.members[member].size)
    except ValueError as error:
        raise FormatError(f"{archive.file.name} cannot be read", remedy=f"its array {name!r} {error}") from None
    width = dtypes.bits(dtype) // 8
    strides = contiguous(shape[::-1], width)[::-1] if is_fortran else contiguous(shape, width)
    return Tensor(name, shape, dtype, strided(file, start + size, shape, strides, width))


def _header(file: ByteSource, start: int, size: int) -> tuple[str, tuple[int, ...], bool, int]:
    """The dtype, the shape, whether the order is Fortran's, and the header's own size, of a .npy file of `size`
    bytes from `start` on; raises `ValueError` that ends a sentence."""
    head = file.pread(min(size, 12), start)
    if len(head) < 12 or not head.startswith(MAGIC) or head[6] not in (1, 2, 3):
        raise ValueError("is not a .npy file")
    before, width = (10, 2) if head[6] == 1 else (12, 4)
    length = int.from_bytes(head[8 : 8 + width], "little")
    if length > HEADER_MOST or before + length > size:
        raise ValueError("has a header that is cut short or too long")
    fields = _literal(file.pread(length, start + before))
    dtype, shape = _dtype(fields["descr"]), fields["shape"]
    fault = dtypes.shape_fault(shape) if isinstance(shape, tuple) else "no shape"
    if fault or not isinstance(fields["fortran_order"], bool):
        raise ValueError(f"has {fault or 'no order'}")
    if prod(shape) * dtypes.bits(dtype) // 8 != size - before - length:
        raise ValueError(f"is {dtype} {list(shape)} but takes {size - before - length:,} B")
    return dtype, shape, fields["fortran_order"], before + length


def _literal(raw: bytes) -> dict:
    try:
        with warnings.catch_warnings(action="ignore"):  # Python's parser warns of odd literals
            fields = ast.literal_eval(raw.decode("utf-8").strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise ValueError("has a header that cannot be parsed") from None
    if not isinstance(fields, dict) or set(fields) != {"descr", "fortran_order", "shape"}:
        raise ValueError("has a header of another form")
    return fields


def _dtype(descr: object) -> str:
    if not isinstance(descr, str):
        raise ValueError("is a table of records, not a tensor")
    try:
        with warnings.catch_warnings(action="ignore"):  # of dtypes that are on their way out
            dtype = np.dtype(descr)
    except (TypeError, ValueError, SyntaxError):
        raise ValueError(f"has the unknown dtype {descr[:20]!r}") from None
    spelt = dtypes.from_numpy(dtype)
    if dtype.hasobject:
        raise ValueError("holds Python objects, which would have to be unpickled; it was not loaded")
    if dtype.byteorder == ">":
        raise ValueError("was saved big-endian; save it again little-endian")
    if spelt is None:
        raise ValueError(f"has the dtype {descr[:20]!r}, which is not a tensor's; .npz has no bf16 or fp8")
    return spelt


def _metadata(comment: bytes) -> dict[str, str]:
    """What we wrote as the archive's comment; anybody else's comment is none."""
    try:
        return strings(json.loads(comment))
    except (ValueError, RecursionError):
        return {}


def write_npz(entries: Iterable[Entry], target: Target) -> None:
    """Stream entries into a new file, atomically.

    Raises `FormatError` for a dtype that numpy lacks (bf16, fp8), a name that no zip archive can hold, and
    metadata for which there is no room.
    """
    headers = [(entry, _written_header(entry, target.path)) for entry in entries]
    comment = json.dumps(dict(target.metadata)).encode("ascii") if target.metadata else b""
    if len(comment) > COMMENT_MOST:
        raise FormatError(f"{target.path} has no room for {len(comment):,} bytes of metadata",
                          remedy="write .safetensors instead")  # fmt: skip
    with target.file() as file, zipfile.ZipFile(file, "w") as archive:
        archive.comment = comment
        for entry, header in headers:

            def fill(out: BinaryIO, entry: Entry = entry, header: bytes = header) -> None:
                out.write(header)
                target.stream(entry, out)

            add_member(archive, f"{entry.name}.npy", len(header) + entry.nbytes, fill)


def _written_header(entry: Entry, path: Path) -> bytes:
    if entry.dtype not in dtypes.NUMPY:
        raise FormatError(f"{path} cannot hold {entry.name!r}", remedy=f"numpy has no {entry.dtype}")
    try:
        is_too_long = len(entry.name.encode("utf-8")) > 65_000
    except UnicodeEncodeError:
        is_too_long = True
    if "\x00" in entry.name or is_too_long:
        raise FormatError(f"{path} cannot hold {entry.name!r:.80}", remedy="a zip archive has no such name")
    descr = dtypes.to_numpy(entry.dtype).str
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {entry.shape!r}, }}"
    room = -(len(MAGIC) + 4 + len(text) + 1) % ALIGNMENT
    return MAGIC + b"\x01\x00" + (len(text) + room + 1).to_bytes(2, "little") + f"{text}{' ' * room}\n".encode()


FORMAT = Format("npz", open_npz, what="a zip archive, as torch and numpy write them", claims=_claims,
                suffixes=(".npz",), write=write_npz)  # fmt: skip
