"""The safetensors format: a header length (u64), a JSON header, then the tensors' bytes.

`safe_open` judges the file; we then read the header ourselves, for the offsets and for what it lets pass
(duplicate keys), and the bytes by plain `pread` (its mmap would count the page cache as our memory).
Format: https://huggingface.co/docs/safetensors
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path
from typing import NamedTuple, NoReturn

from ckptswap import dtypes
from ckptswap.checkpoint import Checkpoint, Entry, Tensor
from ckptswap.errors import FormatError
from ckptswap.formats.atomic import atomic_file
from ckptswap.formats.objects import parse_object
from ckptswap.formats.sniff import HEADER_MOST
from ckptswap.formats.streaming import Watch, stream, unwatched
from ckptswap.storage import FileRange, LocalFile, opened

FORMAT = "safetensors"


class Layout(NamedTuple):
    """Where things lie: the header's fields in their order, and where the data begins."""

    header: dict[str, dict]
    metadata: dict[str, str]
    data_start: int


def open_safetensors(path: Path) -> Checkpoint:
    """Open a file lazily; raises `FormatError` when it is damaged or hostile."""
    with opened(path) as file:
        layout = read_layout(file)
        tensors = [_tensor(file, layout, name) for name in layout.header]
        return Checkpoint(
            tensors, path=file.name, format=FORMAT, metadata=layout.metadata, files=[file.path], close=file.close
        )


def read_layout(file: LocalFile) -> Layout:
    """The header, judged by the reference implementation and by us; raises `FormatError`."""
    length = int.from_bytes(file.pread(8, 0), "little")
    if file.size < 8 or length > file.size - 8:
        _refuse(file, f"its header is said to take {length:,} B, but the file has {file.size:,}")
    if length > HEADER_MOST:
        _refuse(file, f"its header is said to take {length:,} B; {HEADER_MOST:,} is the most")
    header = _parse(file, file.pread(length, 8))
    _judge(file)
    metadata = header.pop("__metadata__", None) or {}
    return Layout(header, metadata, 8 + length)


def _judge(file: LocalFile) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file.name, framework="np"):
            pass
    except (SafetensorError, OSError) as error:
        _refuse(file, str(error).removeprefix("Error while deserializing header: "))


def _parse(file: LocalFile, raw: bytes) -> dict:
    try:
        return parse_object(raw)
    except ValueError as error:
        _refuse(file, f"its header {error}")


def _refuse(file: LocalFile, fault: str) -> NoReturn:
    raise FormatError(f"{file.name} is not a sound safetensors file", remedy=fault)


def _tensor(file: LocalFile, layout: Layout, name: str) -> Tensor:
    field = layout.header[name]
    dtype, shape, (begin, end) = field["dtype"], tuple(field["shape"]), field["data_offsets"]
    if not dtypes.known(dtype):
        _refuse(file, f"tensor {name!r} has the dtype {dtype!r}, which this version does not know")
    fault = dtypes.shape_fault(shape)
    if fault:
        _refuse(file, f"tensor {name!r} has {fault}")
    if (prod(shape) * dtypes.bits(dtype) + 7) // 8 != end - begin:
        _refuse(file, f"tensor {name!r} is {dtype} {list(shape)} but takes {end - begin:,} B")
    return Tensor(name, shape, dtype, FileRange(file, layout.data_start + begin))


def write_safetensors(
    entries: Iterable[Entry],
    path: Path,
    *,
    metadata: Mapping[str, str],
    force: bool = False,
    made_of: Iterable[Path] = (),
    watch: Watch = unwatched,
) -> None:
    """Stream entries into a new file, atomically. Wide dtypes come first, so that every tensor is aligned.

    The header keeps the order of the entries. Raises `FormatError` for a dtype or a name that safetensors lacks.
    """
    listed = list(entries)
    ordered = sorted(listed, key=lambda entry: -dtypes.bits(entry.dtype))
    try:
        header = encode_header(listed, _offsets(ordered, path), metadata)
    except UnicodeEncodeError:
        raise FormatError(
            f"{path} cannot hold a name or metadata that is not Unicode", remedy="rename it"
        ) from None
    with atomic_file(path, force=force, made_of=made_of) as file:
        file.write(header)
        for entry in ordered:
            stream(entry, file, watch)


def encode_header(
    entries: Iterable[Entry], offsets: Mapping[str, tuple[int, int]], metadata: Mapping[str, str]
) -> bytes:
    """Length and JSON, padded with spaces so that the data starts at a multiple of 8."""
    fields: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    for entry in entries:
        fields[entry.name] = {
            "dtype": entry.dtype,
            "shape": list(entry.shape),
            "data_offsets": list(offsets[entry.name]),
        }
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
