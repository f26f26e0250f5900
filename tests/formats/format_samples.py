"""Checkpoints, pickles and archives that the format tests build by hand; and one way from format to format."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from hypothesis import strategies as st

from ckptswap.formats import open_checkpoint, write_checkpoint
from ckptswap.formats.companions import companions

PLAIN = ["F64", "F32", "F16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL", "C64"]
ML = {
    "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "F8_E4M3FNUZ": ml_dtypes.float8_e4m3fnuz,
    "F8_E5M2FNUZ": ml_dtypes.float8_e5m2fnuz,
    "F8_E8M0": ml_dtypes.float8_e8m0fnu,
}
CODES = dict(
    zip(PLAIN, ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?", "c8"], strict=True)
) | {"C128": "c16"}
NAMES = [
    "a.weight", "layer2.0.bias", "layer10.0.bias",
    "../up", "new\nline", "\x1b[31mred", "[red]", "<b>", "", "ü", "a b",
]  # fmt: skip
VICTIM = "posix.system"
EVIL = b"cposix\nsystem\n(X\x04\x00\x00\x00truetR"
"""The opcodes of `os.system("true")`, without beginning and STOP."""


def numpy_dtype(spelt: str) -> np.dtype:
    return np.dtype(ML[spelt]) if spelt in ML else np.dtype(CODES[spelt])


def filled(spelt: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """An array of random bits, NaN payloads included."""
    dtype = numpy_dtype(spelt)
    count = int(np.prod(shape, dtype=int)) * dtype.itemsize
    raw = np.random.default_rng(seed).integers(0, 2 if spelt == "BOOL" else 256, count, dtype=np.uint8)
    return raw.view(dtype).reshape(shape)


def arrays(dtypes: list[str], names: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, np.ndarray]]:
    """Checkpoints of a few tensors: scalars, empty ones, all dtypes, random bits."""
    shapes = st.lists(st.integers(0, 4), max_size=4).map(tuple)
    tensor = st.builds(filled, st.sampled_from(dtypes), shapes, st.integers(0, 1000))
    return st.dictionaries(names, tensor, min_size=1, max_size=6)


def safetensors_bytes(header: object, data: bytes = b"") -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def field(dtype: str, shape: list, begin: int, end: int) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def integer(value: int) -> bytes:
    return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)


def tensor_pickle(
    numel: int = 4, offset: int = 0, shape: tuple = (2, 2), strides: tuple = (2, 1), key: bytes = text("0"),
    storage: bytes = b"ctorch\nFloatStorage\n", extra: bytes = b"", name: bytes = text("w"),
) -> bytes:  # fmt: skip
    """A state dict of one tensor in protocol 2, as torch.save pickles it."""
    identity = b"(" + text("storage") + storage + key + text("cpu") + integer(numel) + extra + b"tQ"
    sizes = b"(" + b"".join(map(integer, shape)) + b"t(" + b"".join(map(integer, strides)) + b"t"
    view = b"ctorch._utils\n_rebuild_tensor_v2\n(" + identity + integer(offset) + sizes + b"\x89}tR"
    return b"\x80\x02}" + name + view + b"s."


def legacy_bytes(pickle: bytes, *, numel: int = 4, data: bytes = bytes(16), keys: bytes | None = None) -> bytes:
    greeting = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."
    system = b"\x80\x02}" + text("little_endian") + b"\x88s."
    used = b"\x80\x02]" + text("0") + b"a." if b"storage" in pickle else b"\x80\x02]."
    listed = used if keys is None else keys
    return greeting + system + pickle + listed + struct.pack("<Q", numel) + data


def zip_bytes(members: dict[str, bytes] | list[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, raw in members.items() if isinstance(members, dict) else members:
            archive.writestr(name, raw)
    return out.getvalue()


def torch_bytes(pickle: bytes | None = None, data: bytes = bytes(range(16)), **others: bytes) -> bytes:
    found = {f"archive/{name}": raw for name, raw in others.items()}
    return zip_bytes(
        {"archive/data.pkl": tensor_pickle() if pickle is None else pickle, "archive/data/0": data, **found}
    )


def npy_bytes(array: np.ndarray, header: bytes | None = None) -> bytes:
    out = io.BytesIO()
    if header is None:
        np.lib.format.write_array(out, array, allow_pickle=True)
    else:
        out.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + array.tobytes())
    return out.getvalue()


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def convert(source: Path | str, target: Path | str, **how: Any) -> Path:
    """A file in another format, as `ckptswap convert` writes it."""
    with open_checkpoint(source) as checkpoint:
        return write_checkpoint(checkpoint, target, others=companions(checkpoint).taken, **how)
