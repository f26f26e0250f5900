"""The safetensors format: a header length (u64), a JSON header, then the tensors' bytes.

`safe_open` judges the file; we then read the header ourselves, for the offsets and for what it lets pass
(duplicate keys), and the bytes by plain `pread` (its mmap would count the page cache as our memory).
Format: https://huggingface.co/docs/safetensors
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from math import prod
from pathlib import Path
from sys import intern
from typing import Any, NoReturn

from safetensors import SafetensorError, safe_open

from ckptswap import dtypes
from ckptswap.checkpoint import Checkpoint
from ckptswap.entries import Entry, Tensor
from ckptswap.errors import FormatError
from ckptswap.formats.format import Format
from ckptswap.formats.objects import check_density, parse_object
from ckptswap.formats.target import Target
from ckptswap.sources import FileRange
from ckptswap.storage import ByteSource, Folder, give_back

HEADER_MOST = 100_000_000  # the longest header that the reference implementation accepts, in bytes
LONG = 1 << 20  # bytes of a header from which on its reader's memory counts


def open_safetensors(file: ByteSource, folder: Folder | None = None) -> Checkpoint:
    """Open a file lazily; raises `FormatError` when it is damaged or hostile."""
    header, start = _read_header(file)
    metadata = header.pop("__metadata__", None) or {}
    tensors = list(_tensors(file, start, header))
    return Checkpoint(tensors, path=file.name, format=FORMAT.name, metadata=metadata, sources=[file])


def _read_header(file: ByteSource) -> tuple[dict[str, Any], int]:
    """The header, judged by the reference implementation and by us, and where the data begins."""
    length = int.from_bytes(file.pread(8, 0), "little")
    if file.size < 8 or length > file.size - 8:
        _refuse(file, f"its header is said to take {length:,} B, but the file has {file.size:,}")
    if length > HEADER_MOST:
        _refuse(file, f"its header is said to take {length:,} B; {HEADER_MOST:,} is the most")
    raw = file.pread(length, 8)
    try:
        check_density(raw)
        if fault := _judged(file, length.to_bytes(8, "little") + raw):
            _refuse(file, fault)
        return parse_object(raw), 8 + length  # judged before: what is not a header would take far more memory
    except ValueError as error:
        _refuse(file, f"its header {error}")


def _judged(file: ByteSource, head: bytes) -> str | None:
    """What the reference implementation has against a file. For a long header its own reading takes as much memory
    as ours, and is over before ours begins."""
    try:
        with file.lent(head) as path, safe_open(path, framework="np"):
            return None
    except (SafetensorError, OSError) as error:
        return str(error).removeprefix("Error while deserializing header: ")
    finally:
        if len(head) > LONG:
            give_back()


def _refuse(file: ByteSource, fault: str) -> NoReturn:
    raise FormatError(f"{file.name} is not a sound safetensors file", remedy=fault)


def _tensors(file: ByteSource, start: int, header: dict[str, Any]) -> Iterator[Tensor]:
    """All in their order, with one text for each dtype and one tuple for each shape; the header is used up."""
    shapes: dict[tuple[int, ...], tuple[int, ...]] = {}
    for name in list(header):
        field = header.pop(name)
        shape = tuple(field["shape"])
        yield _tensor(
            file, start, name, intern(field["dtype"]), shapes.setdefault(shape, shape), *field["data_offsets"]
        )


def _tensor(
    file: ByteSource, start: int, name: str, dtype: str, shape: tuple[int, ...], begin: int, end: int
) -> Tensor:
    if dtype not in dtypes.BITS:
        _refuse(file, f"tensor {name!r} has the dtype {dtype!r}, which this version does not know")
    if fault := dtypes.shape_fault(shape):
        _refuse(file, f"tensor {name!r} has {fault}")
    if (prod(shape) * dtypes.bits(dtype) + 7) // 8 != end - begin:
        _refuse(file, f"tensor {name!r} is {dtype} {list(shape)} but takes {end - begin:,} B")
    return Tensor(name, shape, dtype, FileRange(file, start + begin))


def write_safetensors(entries: Iterable[Entry], target: Target) -> None:
    """Stream entries into a new file, atomically. Wide dtypes come first, so that every tensor is aligned.

    The header keeps the order of the entries. Raises `FormatError` for a dtype or a name that safetensors lacks.
    """
    listed = list(entries)
    ordered = sorted(listed, key=lambda entry: -dtypes.bits(entry.dtype))
    try:
        header = encode_header(listed, _offsets(ordered, target.path), target.metadata)
    except UnicodeEncodeError:
        fault = f"{target.path} cannot hold a name or metadata that is not Unicode"
        raise FormatError(fault, remedy="rename it") from None
    with target.file() as file:
        file.write(header)
        for entry in ordered:
            target.stream(entry, file)


def encode_header(
    entries: Iterable[Entry], offsets: Mapping[str, tuple[int, int]], metadata: Mapping[str, str]
) -> bytes:
    """Length and JSON, padded with spaces so that the data starts at a multiple of 8."""
    fields: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    for entry in entries:
        place = list(offsets[entry.name])
        fields[entry.name] = {"dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": place}
    raw = json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    raw += b" " * (-len(raw) % 8)
    return len(raw).to_bytes(8, "little") + raw


def pad_header(header: bytes, size: int) -> bytes:
    """The same header in more room: spaces at the end of its JSON, which readers skip."""
    return (size - 8).to_bytes(8, "little") + header[8:] + b" " * (size - len(header))


def _offsets(entries: Iterable[Entry], path: Path) -> dict[str, tuple[int, int]]:
    offsets, start = {}, 0
    for entry in entries:
        if entry.dtype == "C128":
            raise FormatError(f"{path} cannot hold {entry.name!r}", remedy="safetensors has no C128")
        if entry.name == "__metadata__":
            raise FormatError(f"{path} cannot hold a tensor named '__metadata__'", remedy="rename it")
        offsets[entry.name] = (start, start + entry.nbytes)
        start += entry.nbytes
    return offsets


FORMAT = Format(
    "safetensors",
    open_safetensors,
    # A length that is possible and a `{` behind it: whatever magic number the length reads like, neither a zip nor
    # a pickle begins so. In a zip it would be a way of compressing that does not exist; a pickle would have to
    # begin with a text whose first letter is NUL.
    claims=lambda head, source: head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= HEADER_MOST,
    suffixes=(".safetensors",),
    promised=True,
    write=write_safetensors,
)
