"""The format is told by all that it asks of the first bytes: no length of a header makes another of it."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from format_samples import legacy_bytes, npy_bytes, tensor_pickle, torch_bytes, write, zip_bytes
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptswap import registry
from ckptswap.checkpoint import Checkpoint, checked_bytes
from ckptswap.errors import FileError, FormatError
from ckptswap.formats import open_checkpoint, write_checkpoint
from ckptswap.formats.opening import HEAD
from ckptswap.storage import MemoryFile
from ckptswap.sweep.run_folder.overwrite import refuse_precious

W = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
LIKE_PICKLES = (640, 896, 1152, 1408, 65536 + 640, 3 * 65536 + 1408)
LIKE_GZIP, LIKE_ZIP = 0x8B1F, 0x04034B50
"""Lengths whose first bytes are the magic number of gzip (35,615), and that of zip (67 MB)."""


KINDS = {"safetensors": "safetensors", "npz": "zip", "torch": "zip", "torch legacy": "pickle", "pickle": "pickle",
         "gguf": "gguf", "hdf5": "hdf5"}  # fmt: skip


def kind_of(raw: bytes) -> str | None:
    """What the first format that claims a file is made of."""
    file = MemoryFile(raw)
    return next((KINDS[known.name] for known in registry.every("formats") if known.claims(raw[:HEAD], file)), None)


def sound(length: int) -> bytes:
    """A safetensors file whose header takes so many bytes."""
    raw = json.dumps({"w": W}, separators=(",", ":")).encode()
    return struct.pack("<Q", length) + raw.ljust(length) + np.arange(2, dtype=np.float32).tobytes()


def test_no_length_of_a_header_is_taken_for_anything_else() -> None:
    wrong = [length for length in range(8, 70_001) if kind_of(struct.pack("<Q", length) + b"{") != "safetensors"]
    assert wrong == []
    assert kind_of(struct.pack("<Q", 100_000_001) + b"{") is None


@pytest.mark.parametrize("length", [*LIKE_PICKLES, LIKE_GZIP])
@pytest.mark.parametrize("name", ["a.safetensors", "a.pt", "model"])
def test_sound_files_open_whatever_their_header_takes(length: int, name: str, tmp_path: Path) -> None:
    with open_checkpoint(write(tmp_path / name, sound(length))) as found:
        assert found.format == "safetensors"
        assert found.read("w").tolist() == [0, 1]
    with pytest.raises(FileError, match="is a checkpoint"):
        refuse_precious(tmp_path / name)


@given(length=st.integers(64, 70_000))
@settings(max_examples=60, deadline=None)
def test_sound_files_open_at_any_length(length: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    with open_checkpoint(write(tmp_path_factory.getbasetemp() / "any.safetensors", sound(length))) as found:
        assert found.read("w").tolist() == [0, 1]


def test_a_header_that_begins_like_a_zip_has_no_checksums_to_read(tmp_path: Path) -> None:
    with open_checkpoint(write(tmp_path / "a.safetensors", sound(LIKE_ZIP))) as found:
        assert checked_bytes(found) == 0


@pytest.mark.parametrize("wanted", [640, 896, 1152, 1408])
def test_what_we_write_is_what_we_read(wanted: int, tmp_path: Path) -> None:
    """Metadata fills the header up to a length that used to be called a pickle."""
    for room in range(wanted):
        checkpoint = Checkpoint.from_arrays({"w": np.arange(2.0)}, metadata={"m": "x" * room})
        path = write_checkpoint(checkpoint, tmp_path / "a.safetensors", force=True)
        if path.read_bytes()[:8] == struct.pack("<Q", wanted):
            break
    else:
        pytest.fail(f"no header of {wanted} bytes was written")
    with open_checkpoint(path) as found:
        assert found.read("w").tolist() == [0, 1]


OTHERS = {
    "torch zip": ("zip", torch_bytes()),
    "npz": ("zip", zip_bytes({"w.npy": npy_bytes(np.zeros(2))})),
    "npz, deflated": ("zip", zip_bytes({"w.npy": npy_bytes(np.zeros(2))}, zipfile.ZIP_DEFLATED)),
    "torch legacy": ("pickle", legacy_bytes(tensor_pickle(extra=b"N"))),
    **{f"protocol {at}": ("pickle", pickle.dumps({"w": [1.0]}, at)) for at in range(2, 6)},
    "a long text first": ("pickle", pickle.dumps("{" * 5000, 2)),
    "a long text of NULs first": ("pickle", pickle.dumps("\0" * 5000, 2)),
    "protocol 0": (None, pickle.dumps({"w": 1}, 0)),
    "GGUF": ("gguf", b"GGUF" + struct.pack("<IQQ", 3, 123, 0)),
    "HDF5": ("hdf5", b"\x89HDF\r\n\x1a\n" + b"{" * 8),
    "gzip": (None, b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03"),
    "an array": (None, npy_bytes(np.zeros(2))),
    "JSON": (None, b'{"metadata": {}}'),
    "an empty file": (None, b""),
    "one byte": (None, b"\x80"),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_nothing_else_is_taken_for_safetensors(name: str) -> None:
    wanted, raw = OTHERS[name]
    assert kind_of(raw) == wanted


@given(first=st.text(st.characters(codec="utf-8"), max_size=300), at=st.integers(2, 5))
def test_a_pickle_that_python_writes_is_never_taken_for_safetensors(first: str, at: int) -> None:
    for value in (first, {first: 1}, [first], (first,), {"state_dict": {first: 2.5}}):
        assert kind_of(pickle.dumps(value, at)) == "pickle" or first.startswith("\0{")


@given(name=st.text(max_size=40), compression=st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
def test_an_archive_is_never_taken_for_safetensors(name: str, compression: int) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        archive.writestr(name.encode("utf-8", "replace").decode().partition("\0")[0] or "w.npy", b"{" * 40)
    assert kind_of(out.getvalue()) == "zip"


@pytest.mark.parametrize("cut", [9, 64, 300, 640])
def test_a_cut_file_is_called_what_it_is(cut: int, tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors", sound(640)[:cut])
    with pytest.raises(FormatError, match=r"not a sound safetensors file: its header is said to take 640 B"):
        open_checkpoint(path)


FOREIGN = {
    "a.tflite": (b"\x1c\0\0\0TFL3" + bytes(40), "is a TensorFlow Lite model"),
    "pnet.lz4": (b"\x04\x22\x4d\x18" + bytes(40), r"with lz4, as joblib does it: .*`joblib\.load` it"),
    "lid.ftz": (b"\xba\x16\x4f\x2f" + bytes(40), "is a model of fastText"),
    "a.mlmodel": (b"\x08\x07\x12" + bytes(40), "is a Core ML model"),
    "saved_model.pb": (b"\x08\x01\x12" + bytes(40), "is the graph of a TensorFlow SavedModel"),
    "m-weights_manifest.json": (b'[{"weights": [', r"TensorFlow\.js model's weights: .*read_weights"),
    "net.data-00000-of-00001": (bytes(range(200, 256)), r"load_checkpoint\('net'\)"),
    "net.index": (bytes(range(200, 256)), r"load_checkpoint\('net'\)"),
    "a.bz2": (b"BZh9" + bytes(range(200, 256)), "bzip2: unpack it first"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_files_of_others_are_called_what_they_are(name: str, tmp_path: Path) -> None:
    content, what = FOREIGN[name]
    with pytest.raises(FormatError, match=what):
        open_checkpoint(write(tmp_path / name, content))


def test_so_are_their_folders(tmp_path: Path) -> None:
    for folder, file, what in (("nmp", "saved_model.pb", "SavedModel of TensorFlow"),
                               ("nmp.mlpackage", "Manifest.json", "Core ML package")):  # fmt: skip
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / file, b"{}")
        with pytest.raises(FormatError, match=f"is a {what}"):
            open_checkpoint(tmp_path / folder)
