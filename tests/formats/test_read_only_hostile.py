"""Broken and malicious files of the formats that are read and not written: each is refused in one sentence."""

from __future__ import annotations

import json
import os
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from format_samples import write, zip_bytes

from ckptswap.errors import CkptswapError, FormatError
from ckptswap.formats import open_checkpoint

U64_MOST = 2**64 - 1


def refused(path: Path, fault: str) -> None:
    with pytest.raises(FormatError) as refusal:
        open_checkpoint(path)
    assert fault in str(refusal.value)
    assert str(path) in str(refusal.value)


def cut_short(path: Path, whole: bytes, steps: int = 60) -> None:
    """Whatever the length, it is refused or gives what is there, and never raises an error of another's."""
    for size in range(1, len(whole), max(1, len(whole) // steps)):
        read_or_refuse(path, whole[:size])


def read_or_refuse(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with suppress(CkptswapError), open_checkpoint(path) as found:
        for name in found:
            found.read(name)


def gguf_text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def gguf_tensor(name: bytes = b"w", shape: tuple = (4,), kind: int = 0, offset: int = 0, count: int = 0) -> bytes:
    return (gguf_text(name) + struct.pack("<I", count or len(shape)) + struct.pack(f"<{len(shape)}Q", *shape)
            + struct.pack("<IQ", kind, offset))  # fmt: skip


def gguf_bytes(*tensors: bytes, facts: bytes = b"", version: int = 3, counts: tuple | None = None) -> bytes:
    number, of_facts = counts or (len(tensors), bool(facts))
    head = b"GGUF" + struct.pack("<IQQ", version, number, of_facts) + facts + b"".join(tensors)
    return head + bytes(-len(head) % 32 + 64)


def fact(kind: int, value: bytes, key: bytes = b"k") -> bytes:
    return gguf_text(key) + struct.pack("<I", kind) + value


NEST = struct.pack("<IQ", 9, 1)
GGUF = {
    "alone": (b"GGUF", "the file ends"),
    "of another version": (gguf_bytes(version=7), "version 7"),
    "big-endian": (gguf_bytes(version=3 << 24), "big-endian"),
    "too many tensors": (gguf_bytes(counts=(U64_MOST, 0)), f"{U64_MOST:,} tensors"),
    "too many facts": (gguf_bytes(counts=(0, 2**40)), "facts"),
    "a long text": (gguf_bytes(facts=fact(8, struct.pack("<Q", 2**50))), "the file ends"),
    "a long array": (gguf_bytes(facts=fact(9, struct.pack("<IQ", 0, 2**60))), "values"),
    "a long array of texts": (gguf_bytes(facts=fact(9, struct.pack("<IQ", 8, 2**60))), "values"),
    "arrays in arrays": (gguf_bytes(facts=fact(9, NEST * 50)), "nests arrays"),
    "an unknown value": (gguf_bytes(facts=fact(77, bytes(8))), "unknown type 77"),
    "not UTF-8": (gguf_bytes(gguf_tensor(b"\xff\xfe")), "not UTF-8"),
    "no alignment": (gguf_bytes(facts=fact(4, bytes(4), b"general.alignment")), "alignment is '0'"),
    "many dimensions": (gguf_bytes(gguf_tensor(count=2**31)), "dimensions"),
    "a vast shape": (gguf_bytes(gguf_tensor(shape=(2**40, 2**40))), "more elements than"),
    "a shape that lies": (gguf_bytes(gguf_tensor(shape=(400,))), "ends at byte"),
    "an offset beyond": (gguf_bytes(gguf_tensor(offset=2**60)), "ends at byte"),
    "overlap": (gguf_bytes(gguf_tensor(b"a"), gguf_tensor(b"b", offset=8)), "'b' lies over another"),
    "one name twice": (gguf_bytes(gguf_tensor(), gguf_tensor(offset=32)), "'w' twice"),
}  # fmt: skip


@pytest.mark.parametrize("case", GGUF)
def test_gguf(case: str, tmp_path: Path) -> None:
    content, fault = GGUF[case]
    refused(write(tmp_path / "a.gguf", content), fault)


def test_gguf_cut_short(tmp_path: Path) -> None:
    cut_short(tmp_path / "a.gguf", gguf_bytes(gguf_tensor(), facts=fact(8, gguf_text(b"x" * 20))))


def test_a_header_of_a_gigabyte_is_refused_unread(tmp_path: Path) -> None:
    path = write(tmp_path / "a.gguf", gguf_bytes(facts=fact(9, struct.pack("<IQ", 0, 1 << 30))))
    with path.open("ab") as file:
        file.truncate(1 << 31)
    refused(path, "for which it is too short")


def test_blocks_that_do_not_fit_and_types_that_nobody_knows(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    refused(write(tmp_path / "a.gguf", gguf_bytes(gguf_tensor(shape=(33,), kind=8))), "not in blocks of 32")
    with open_checkpoint(
        write(tmp_path / "b.gguf", gguf_bytes(gguf_tensor(), gguf_tensor(b"v", kind=99)))
    ) as found:
        assert list(found) == ["w"]
        assert str(found.unread["v"]) == "a tensor of ggml's type 99"


def _circle(file: Any) -> None:
    file["a/w"] = np.zeros(2)
    file["a/again"] = file["a"]


def _vast(file: Any) -> None:
    file.create_dataset("w", (2**40,), "f4", chunks=(1024,))


def _twins(file: Any) -> None:
    file["a.b"], file["a/b"] = np.zeros(2), np.zeros(2)


def _deep(file: Any) -> None:
    file["/".join("a" * 60)] = np.zeros(2)


HDF5 = {_circle: "holds itself", _vast: "would take", _twins: "'a.b' twice", _deep: "too deep"}


@pytest.mark.parametrize("make", HDF5)
def test_hdf5(make: Any, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        make(file)
    refused(tmp_path / "a.h5", HDF5[make])


def test_hdf5_opens_no_other_file(tmp_path: Path) -> None:
    """Whatever a file points at beside itself is not opened: a pipe would wait for ever."""
    h5py = pytest.importorskip("h5py")
    os.mkfifo(tmp_path / "other.h5")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["w"] = np.zeros(2)
        file["elsewhere"] = h5py.ExternalLink(tmp_path / "other.h5", "w")
        file["soft"] = h5py.SoftLink("/elsewhere")
        file["optimizer"] = h5py.ExternalLink(tmp_path / "other.h5", "w")
        file.create_dataset("raw", (2,), "f4", external=[(str(tmp_path / "other.h5"), 0, 8)])
        layout = h5py.VirtualLayout((2,), "f4")
        layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "w", (2,), "f4")
        file.create_virtual_dataset("virtual", layout)
    with open_checkpoint(tmp_path / "a.h5") as found:
        assert list(found) == ["w"]
        assert {name: str(what)[:6] for name, what in found.unread.items()} == {
            "elsewhere": "a link", "soft": "a link", "raw": "a data", "virtual": "a data",
        }  # fmt: skip


def test_hdf5_cut_short_and_flipped(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(path := tmp_path / "a.h5", "w") as file:
        file["layers/dense/vars/0"] = np.ones((20, 5), "f4")
        file.create_dataset("packed", data=np.arange(100.0), chunks=(50,), compression="gzip")
    whole = path.read_bytes()
    cut_short(path, whole, steps=10)  # a process is begun for each
    random = np.random.default_rng(0)
    for _ in range(10):
        flipped = bytearray(whole)
        flipped[random.integers(len(whole))] = random.integers(256)
        read_or_refuse(path, bytes(flipped))


def test_an_archive_of_keras_without_weights(tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    refused(
        write(tmp_path / "a.keras", zip_bytes({"metadata.json": b"{}", "x": b""})), "has no 'model.weights.h5'"
    )
    content = zip_bytes({"metadata.json": b"{}", "model.weights.h5": b"no"})
    refused(write(tmp_path / "b.keras", content), "b.keras is not a sound HDF5 file")


def onnx_field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, bytes):
        return _varint(number << 3 | 2) + _varint(len(value)) + value
    return _varint(number << 3) + _varint(value)


def _varint(value: int) -> bytes:
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])


def onnx_bytes(*tensors: bytes) -> bytes:
    return onnx_field(1, 8) + onnx_field(7, b"".join(onnx_field(5, tensor) for tensor in tensors))


def onnx_tensor(*dims: int, raw: bytes = bytes(8), kind: int = 1, **external: str) -> bytes:
    pairs = [onnx_field(1, key.encode()) + onnx_field(2, value.encode()) for key, value in external.items()]
    values = onnx_field(14, 1) + b"".join(onnx_field(13, pair) for pair in pairs) if pairs else onnx_field(9, raw)
    return b"".join(onnx_field(1, dim) for dim in dims) + onnx_field(2, kind) + onnx_field(8, b"w") + values


def onnx_nested(deep: int) -> bytes:
    """Graphs in nodes of graphs."""
    graph = b""
    for _ in range(deep):
        graph = onnx_field(1, onnx_field(5, onnx_field(6, graph)))
    return onnx_field(1, 8) + onnx_field(7, graph)


ONNX = {
    "a shape that lies": (onnx_bytes(onnx_tensor(3)), "is F32 [3] but takes 8 B"),
    "a vast shape": (onnx_bytes(onnx_tensor(2**40, 2**40)), "more elements than"),
    "many dimensions": (onnx_bytes(onnx_tensor(*[1] * 65)), "too many dimensions"),
    "one name twice": (onnx_bytes(onnx_tensor(2), onnx_tensor(2)), "'w' twice"),
    "two graphs": (onnx_bytes() + onnx_bytes(), "2 graphs"),
    "no graph": (onnx_field(1, 8) + onnx_field(2, bytes(4)), "no graphs"),
    "cut short": (onnx_bytes(onnx_tensor(2))[:-3], "cut short"),
    "a field of a gigabyte": (onnx_field(1, 8) + _varint(7 << 3 | 2) + _varint(1 << 30), "cut short"),
    "a number without end": (onnx_field(1, 8) + b"\xff" * 30, "does not end"),
    "an unknown kind": (onnx_field(1, 8) + b"\x3f\x00", "unknown kind 7"),
    "graphs in graphs": (onnx_nested(40), "nested more than 32 deep"),
    "too many fields": (onnx_field(1, 8) + onnx_field(7, b"\x10\x00" * 2_000_001), "fields"),
    "elsewhere": (onnx_bytes(onnx_tensor(2, location="../secret")), "not a file beside it"),
    "the root": (onnx_bytes(onnx_tensor(2, location="/etc/passwd")), "not a file beside it"),
    "nowhere": (onnx_bytes(onnx_tensor(2, location="gone")), "not a file beside it"),
    "beyond": (onnx_bytes(onnx_tensor(2, location="data", offset="10")), "no room for it"),
    "below": (onnx_bytes(onnx_tensor(2, location="data", offset="-1")), "no room for it"),
}  # fmt: skip


@pytest.mark.parametrize("case", ONNX)
def test_onnx(case: str, tmp_path: Path) -> None:
    content, fault = ONNX[case]
    write(tmp_path / "data", bytes(16))
    refused(write(tmp_path / "a.onnx", content), fault)


def test_onnx_cut_short(tmp_path: Path) -> None:
    cut_short(tmp_path / "a.onnx", onnx_bytes(onnx_tensor(2), onnx_tensor(1, raw=bytes(4), kind=3)))


def exported_bytes(**about: object) -> bytes:
    plain = {"dtype": 7, "sizes": [{"as_int": 2}], "strides": [{"as_int": 1}], "storage_offset": {"as_int": 0}}
    fields = {"path_name": about.pop("path_name", "weight_0"), "use_pickle": False, "tensor_meta": plain | about}
    config = json.dumps({"config": {"w": fields}}).encode()
    return zip_bytes({"e/data/weights/weight_0": bytes(8), "e/data/weights/model_weights_config.json": config})


EXPORTED = {
    "a shape that lies": (exported_bytes(sizes=[{"as_int": 3}]), "beyond its storage"),
    "a vast shape": (exported_bytes(sizes=[{"as_int": 2**62}], strides=[{"as_int": 0}]), "more elements"),
    "below zero": (exported_bytes(sizes=[{"as_int": -1}]), "below zero"),
    "a symbol": (exported_bytes(sizes=[{"as_expr": "s0"}]), "not of this form"),
    "no strides": (exported_bytes(strides=[]), "impossible strides"),
    "an offset": (exported_bytes(storage_offset={"as_int": 9}), "beyond its storage"),
    "elsewhere": (exported_bytes(path_name="../../x"), "has no 'e/data/weights/../../x'"),
    "no list": (zip_bytes({"e/data/weights/weight_0": bytes(8)}), "no model_weights_config.json"),
    "another list": (zip_bytes({"e/data/weights/model_weights_config.json": b"[]"}), "not a JSON object"),
    "cut short": (exported_bytes()[:-30], "zip archive"),
}  # fmt: skip


@pytest.mark.parametrize("case", EXPORTED)
def test_torch_export(case: str, tmp_path: Path) -> None:
    content, fault = EXPORTED[case]
    refused(write(tmp_path / "a.pt2", content), fault)
