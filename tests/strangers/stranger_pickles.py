"""Pickles and archives of a stranger's, put together opcode by opcode, without the code under test."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Iterable
from pathlib import Path

TRUE, NONE = b"\x88", b"N"
BEGIN, STOP = b"\x80\x04", b"."
EMPTY_MAP, EMPTY_TUPLE = b"}", b")"
MERSENNE = 2**61 - 1
"""Integers that are multiples of it have the hash 0."""


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def integer(value: int) -> bytes:
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return (b"\x8a" + bytes([len(raw)]) if len(raw) < 256 else b"\x8b" + struct.pack("<I", len(raw))) + raw


def put(at: int) -> bytes:
    return b"r" + struct.pack("<I", at)


def get(at: int) -> bytes:
    return b"j" + struct.pack("<I", at)


def many(*values: bytes) -> bytes:
    return b"(" + b"".join(values) + b"t"


def listed(values: Iterable[bytes]) -> bytes:
    return b"](" + b"".join(values) + b"e"


def mapped(*pairs: tuple[bytes, bytes]) -> bytes:
    return b"}(" + b"".join(key + value for key, value in pairs) + b"u"


def name_of(full: str) -> bytes:
    module, _, name = full.rpartition(".")
    return f"c{module}\n{name}\n".encode()


def called(full: str, *arguments: bytes) -> bytes:
    return name_of(full) + many(*arguments) + b"R"


def thing(full: str, state: bytes) -> bytes:
    """An object made by NEWOBJ, and its state."""
    return name_of(full) + b")\x81" + state + b"b"


def nest(depth: int = 60, seed: bytes = b"N", begin: bytes = b"", pair: bytes = b"\x86", first: int = 0) -> bytes:
    """A tuple of a tuple twice, of a tuple twice …: 2 to the power of `depth` values in some hundred bytes."""
    levels = (begin + get(first + at) + get(first + at) + pair + put(first + at + 1) for at in range(depth))
    return seed + put(first) + b"0" + b"".join(level + b"0" for level in levels) + get(first + depth)


def frozen_nest(depth: int = 60) -> bytes:
    """Frozensets of two frozensets, which are equal and are not the same: comparing them takes for ever."""
    code = b"(N\x91" + put(0) + b"0(\x88\x91" + put(1) + b"0"
    for at in range(2, 2 * depth, 2):
        code += b"(" + get(at - 2) + get(at - 1) + b"\x91" + put(at) + b"0"
        code += b"(" + get(at - 1) + get(at - 2) + b"\x91" + put(at + 1) + b"0"
    return code + b"(" + get(2 * depth - 2) + get(2 * depth - 1) + b"\x91"


def storage(
    key: bytes = text("0"), numel: bytes = integer(4), view: bytes = b"", where: bytes = text("cpu")
) -> bytes:
    return many(text("storage"), name_of("torch.FloatStorage"), key, where, numel, view) + b"Q"


def tensor(
    shape: Iterable[int] = (2, 2),
    strides: Iterable[int] = (2, 1),
    held: bytes = storage(),
    offset: bytes = integer(0),
    sizes: bytes = b"",
) -> bytes:
    steps = many(*map(integer, strides))
    view = (held, offset, sizes or many(*map(integer, shape)), steps, b"\x89", EMPTY_MAP)
    return called("torch._utils._rebuild_tensor_v2", *view)


def state(*pairs: tuple[bytes, bytes]) -> bytes:
    """A state dict of one sound tensor, and of what is given."""
    return mapped((text("w"), tensor()), *pairs)


def zipped(value: bytes, records: int = 1, **others: bytes) -> bytes:
    """An archive as torch.save writes it, of one pickle and storages of 16 bytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("archive/data.pkl", BEGIN + value + STOP)
        for at in range(records):
            archive.writestr(f"archive/data/{at}", bytes(range(16)))
        for name, raw in others.items():
            archive.writestr(f"archive/{name}", raw)
    return out.getvalue()


def legacy(value: bytes, keys: bytes = listed([text("0")])) -> bytes:
    greeting = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."
    system = b"\x80\x02}" + text("little_endian") + b"\x88s."
    return greeting + system + BEGIN + value + STOP + BEGIN + keys + STOP + struct.pack("<Q", 4) + bytes(range(16))


def with_metadata(depth: int) -> bytes:
    inner = "[" * depth + "]" * depth
    return zipped(state(), **{"ckptswap/metadata.json": json.dumps({"a": inner}).encode()})


PAYLOAD = zipped(tensor((4,), (1,)))
ROOM = "torch.distributed.checkpoint."


def described(
    name: bytes = text("w"),
    shape: bytes = many(integer(4)),
    begins: bytes = many(integer(0)),
    sizes: bytes = many(integer(4)),
    chunks: bytes = b"",
) -> bytes:
    """How `.metadata` describes a tensor of one piece."""
    properties = thing(f"{ROOM}metadata.TensorProperties", many(name_of("torch.float32")))
    corner, extent = called("torch.Size", begins), called("torch.Size", sizes)
    chunk = thing(
        f"{ROOM}metadata.ChunkStorageMetadata", mapped((text("offsets"), corner), (text("sizes"), extent))
    )
    return thing(f"{ROOM}metadata.TensorStorageMetadata", mapped(
        (text("properties"), properties), (text("size"), called("torch.Size", shape)),
        (text("chunks"), chunks or listed([chunk]))))  # fmt: skip


def index(name: bytes = text("w"), offset: bytes = NONE) -> bytes:
    return thing(f"{ROOM}metadata.MetadataIndex", mapped((text("fqn"), name), (text("offset"), offset)))


def place(
    path: bytes = text("__0_0.distcp"), offset: bytes = integer(0), length: bytes = integer(len(PAYLOAD))
) -> bytes:
    return thing(f"{ROOM}filesystem._StorageInfo", mapped(
        (text("relative_path"), path), (text("offset"), offset), (text("length"), length)))  # fmt: skip


def distributed(
    folder: Path,
    tensors: Iterable[tuple[bytes, bytes]] = ((text("w"), described()),),
    places: Iterable[tuple[bytes, bytes]] = ((index(), place()),),
    paths: bytes = NONE,
    payload: bytes = PAYLOAD,
) -> Path:
    """A folder of `torch.distributed.checkpoint`, with one file of pieces."""
    folder.mkdir()
    content = thing(f"{ROOM}metadata.Metadata", mapped(
        (text("state_dict_metadata"), mapped(*tensors)), (text("storage_data"), mapped(*places)),
        (text("planner_data"), paths)))  # fmt: skip
    (folder / ".metadata").write_bytes(BEGIN + content + STOP)
    (folder / "__0_0.distcp").write_bytes(payload)
    return folder
