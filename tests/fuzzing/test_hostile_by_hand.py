"""Files that were thought out: a few bytes that would take much time or memory, load code, or lead elsewhere."""

from __future__ import annotations

import io
import pickle
import resource
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from format_samples import field, npy_bytes, safetensors_bytes, tensor_pickle, text, torch_bytes, zip_bytes
from specimens import stored_zip
from test_read_only_hostile import fact, gguf_bytes, onnx_bytes, onnx_field

from ckptswap.errors import FormatError
from ckptswap.formats import apart
from ckptswap.formats.opening import open_in
from ckptswap.storage import ByteSource, MemoryFile, MemoryFolder

FLOOR = 160 << 20
"""Bytes that any of these files may take: two million instructions of a pickle may make as many empty maps."""
TENSOR = tensor_pickle()[2:-1]


def opened(name: str, raw: bytes) -> int:
    """How many tensors there are."""
    with open_in(MemoryFolder({name: raw}, "folder"), name) as found:
        for entry in found.values():
            for _ in entry.chunks():
                pass
        return len(found)


def twice_itself(levels: int = 40) -> bytes:
    """A list that holds twice a list that holds twice …: spelt out, a text of 2^40 parts."""
    number = struct.Struct("<I").pack
    inner = b"]K\x01a\x94" + b"".join(b"0](" + (b"j" + number(at)) * 2 + b"e\x94" for at in range(levels))
    said = (
        b"(" + text("pytorch-lightning_version") + text("2") + text("hyper_parameters") + b"}" + text("a") + inner
    )
    return torch_bytes(b"\x80\x04}" + said + b"s" + text("state_dict") + TENSOR + b"u.")


def nameless(*parts: bytes) -> bytes:
    return onnx_field(2, 1) + onnx_field(8, b"w") + b"".join(parts)


def many(of: bytes, count: int) -> bytes:
    return b"\x80\x04" + of * count + b"."


REFUSED: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "numbers without values": ("a.onnx", lambda: onnx_bytes(nameless(b"\x25" * 5 * 20_000)), "one by one"),
    "a million dimensions": (
        "a.onnx",
        lambda: onnx_bytes(nameless(onnx_field(1, b"\x01" * 9_000_000))),
        "64 numbers",
    ),
    "sparse tensors": ("a.onnx", lambda: onnx_field(1, 8) + onnx_field(7, b"\x7a\x00" * 20_000), "sparse tensors"),
    "a node of many parts": (
        "a.onnx",
        lambda: onnx_field(1, 8) + onnx_field(7, onnx_field(1, b"\x12\x00" * 20_000)),
        "parts",
    ),
    "texts of nothing": (
        "a.gguf",
        lambda: gguf_bytes(facts=fact(9, struct.pack("<IQ", 8, 3_000_000) + bytes(24_000_000))),
        "is the most",
    ),
    "a million tensors": ("a.gguf", lambda: gguf_bytes(bytes(24_000_000), counts=(1_000_000, 0)), "is the most"),
    "a list of lists": (
        "a.safetensors",
        lambda: safetensors_bytes(b'{"a":[' + b"[]," * 999_999 + b"[]]}"),
        "parts",
    ),
    "an index of maps": (
        "a.safetensors.index.json",
        lambda: b'{"weight_map":[' + b"{}," * 999_999 + b"{}]}",
        "parts",
    ),
    "maps of nothing": ("a.pt", lambda: torch_bytes(many(b"}", 400_000)), "no tensors"),
    "tuples in tuples": (
        "a.pt",
        lambda: torch_bytes(b"\x80\x04}" + text("w") + b")" + b"\x85" * 150_000 + b"s."),
        "no tensors",
    ),
    "lists in lists": (
        "a.pt",
        lambda: torch_bytes(b"\x80\x04}" + text("w") + b"]" * 60_000 + b"a" * 59_999 + b"s."),
        "no tensors",
    ),
    "a memo out of order": ("a.pt", lambda: torch_bytes(b"\x80\x04}r\xff\xff\xff\x7f."), "impossible way"),
    "bzip2": (
        "a.npz",
        lambda: zip_bytes({"a.npy": npy_bytes(np.ones(2))}, zipfile.ZIP_BZIP2),
        "a way we do not read",
    ),
    "LZMA": (
        "a.npz",
        lambda: zip_bytes({"a.npy": npy_bytes(np.ones(2))}, zipfile.ZIP_LZMA),
        "a way we do not read",
    ),
    "a header of brackets": (
        "a.npz",
        lambda: stored_zip({"a.npy": b"\x93NUMPY\x01\x00\x10\x27" + b"(" * 10_000}),
        "cannot be parsed",
    ),
    "weights that are packed": (
        "a.keras",
        lambda: zip_bytes({"metadata.json": b"{}", "model.weights.h5": bytes(99)}, zipfile.ZIP_DEFLATED),
        "compressed",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_a_sentence_and_little_memory(case: str) -> None:
    name, make, fault = REFUSED[case]
    raw = make()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(FormatError) as refusal:
        opened(name, raw)
    assert fault in str(refusal.value)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 <= FLOOR + 4 * len(raw)


def test_hyperparameters_that_hold_one_another_are_not_spelt_out() -> None:
    assert opened("a.ckpt", twice_itself()) == 1


def test_an_array_that_is_not_named_by_text_is_refused() -> None:
    """It becomes a tensor among others only once their map is known."""
    array = pickle.dumps(np.ones(2), protocol=2)[2:-1]
    with pytest.raises(FormatError, match="names a tensor a tuple, not by text"):
        opened("a.pt", torch_bytes(tensor_pickle()[:-1] + b")" + array + b"s."))


def test_an_odd_integer_of_numbers_in_onnx() -> None:
    """Complex numbers written one by one are of no width that integers have."""
    tensor = onnx_field(1, 1) + onnx_field(2, 15) + onnx_field(8, b"w") + onnx_field(7, b"\x01\x02")
    assert opened("a.onnx", onnx_bytes(tensor)) == 1


def test_names_of_ten_thousand_letters_take_no_square() -> None:
    units = ["weight._a.", "lora_A.", "parametrizations.weight.", "1.0.", "weight_packed_", "_", "7", "module."]
    names = [(unit * 10_000)[:9_990] for unit in units]
    header = {name: field("F32", [0], 0, 0) for name in names}
    assert opened("a.safetensors", safetensors_bytes(header)) == len(names)


def test_a_name_of_a_million_letters_is_not_said_in_full() -> None:
    with pytest.raises(FormatError) as refusal:
        opened("a.safetensors.index.json", b'{"weight_map":{"w":"' + b"a" * 1_000_000 + b'"}}')
    assert len(str(refusal.value)) < 5_000


# Zip archives of which two readers see two things ---------------------------------------------------------------

ZIP = stored_zip({"a.npy": npy_bytes(np.ones(2)), "b.npy": npy_bytes(np.zeros(2))})
DIRECTORY, END = ZIP.index(b"PK\x01\x02"), ZIP.index(b"PK\x05\x06")


def patched(at: int, raw: bytes) -> bytes:
    return ZIP[:at] + raw + ZIP[at + len(raw) :]


def zip64(count: int, located: int = END, offset: int = DIRECTORY) -> bytes:
    sizes = struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, count, count, END - DIRECTORY, offset)
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 0xFFFF, 0xFFFF, 0xFFFF_FFFF, 0xFFFF_FFFF, 0)
    return ZIP[:END] + b"PK\x06\x06" + sizes + b"PK\x06\x07" + struct.pack("<IQI", 0, located, 1) + end


TWO_THINGS = {
    "a count in 64 bits": (zip64(1 << 60), "does not list"),
    "one member fewer": (zip64(1), "does not list 1 members"),
    "a record elsewhere": (zip64(2, located=9), "where it says"),
    "an offset beyond": (zip64(2, offset=1 << 63), "outside the file"),
    "another method in the local header": (patched(8, b"\x08"), "disagree about 'a.npy'"),
    "other sizes in the local header": (patched(18, b"\x01\0\0\0\x01\0\0\0"), "disagree about 'a.npy'"),
    "another checksum in the local header": (patched(14, b"abcd"), "disagree about 'a.npy'"),
    "another name in the local header": (patched(30, b"c"), "disagree about 'a.npy'"),
    "sizes in an extra field that is not there": (patched(18, b"\xff" * 8), "disagree about 'a.npy'"),
    "a longer local header": (patched(28, b"\x40\0"), "overlaps"),
    "something behind its end": (ZIP + b"x", "does not end where it says"),
}


@pytest.mark.parametrize("case", TWO_THINGS)
def test_an_archive_that_contradicts_itself(case: str) -> None:
    raw, fault = TWO_THINGS[case]
    assert opened("a.npz", ZIP) == opened("a.npz", zip64(2)) == 2
    with pytest.raises(FormatError) as refusal:
        opened("a.npz", raw)
    assert fault in str(refusal.value)


# HDF5: its library in C works apart ------------------------------------------------------------------------------


def hdf5(fill: Callable[..., object]) -> bytes:
    h5py = pytest.importorskip("h5py")
    with h5py.File(out := io.BytesIO(), "w") as file:
        fill(file)
    return out.getvalue()


def test_every_way_of_storing_gives_its_values() -> None:
    """Chunks that fit and do not, checked and not, shuffled, empty, of either order of bytes, in the header."""
    random = np.random.default_rng(0)
    arrays = {
        f"{kind}{at}": random.normal(size=shape).astype(kind)
        for kind in ("<f4", ">f8", "<i2", ">u4", "<c8")
        for at, shape in enumerate([(7,), (5, 9), (3, 4, 5)])
    }

    def fill(file: object) -> None:
        for name, array in arrays.items():
            chunks = tuple(max(1, size // 2) for size in array.shape)
            for way in (
                {},
                {"shuffle": True, "compression": 9},
                {"fletcher32": True},
                {"chunks": chunks, "shuffle": True},
            ):
                file.create_dataset(f"{name}/{len(file.get(name, ()))}", data=array, **way)  # type: ignore[attr-defined]
        sparse = file.create_dataset("sparse", (10, 10), ">i4", chunks=(4, 4), fillvalue=3)  # type: ignore[attr-defined]
        sparse[5, 5] = 9

    wanted = {f"{name}.{way}": array for name, array in arrays.items() for way in range(4)}
    wanted["sparse"] = np.full((10, 10), 3)
    wanted["sparse"][5, 5] = 9
    with open_in(MemoryFolder({"a.h5": hdf5(fill)}), "a.h5") as found:
        assert set(found) == set(wanted)
        for name, array in wanted.items():
            np.testing.assert_array_equal(found.read(name), array)
            own = array.astype(array.dtype.newbyteorder("<")).astype(found.read(name).dtype).tobytes()
            assert b"".join(part.tobytes() for part in found[name].chunks(16)) == own


def test_a_chunk_whose_checksum_is_wrong_is_damaged() -> None:
    raw = hdf5(lambda file: file.create_dataset("w", data=np.arange(100, 108), fletcher32=True))
    at = raw.index(np.arange(100, 108).tobytes())
    with pytest.raises(FormatError, match="checksum is wrong"):
        opened("a.h5", raw[:at] + b"\x01" + raw[at + 1 :])


def test_no_filter_s_code_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dataset may name a filter of another library's, which HDF5 would load from folders that the user has."""
    raw = hdf5(lambda file: file.create_dataset("w", data=np.arange(64.0), chunks=(16,), compression="gzip"))
    at = raw.index(b"deflate\x00") - 8
    raw = raw[:at] + (32015).to_bytes(2, "little") + raw[at + 2 :]
    with open_in(MemoryFolder({"a.h5": raw}), "a.h5") as found:
        assert [str(what) for what in found.unread.values()] == ["a dataset packed by HDF5's filter 32015"]
    import h5py

    from ckptswap.formats.hdf5_walk import walk

    before = h5py.h5pl.size()
    seen = apart.apart(lambda file: (walk(file), h5py.h5pl.size())[1], MemoryFile(raw))
    assert (seen, h5py.h5pl.size()) == (0, before)


@pytest.mark.parametrize(
    "work",
    [
        lambda file: __import__("os").kill(__import__("os").getpid(), 11),
        lambda file: __import__("os")._exit(3),
        lambda file: bytearray(4 << 30) and None,
        lambda file: file.pread_into(memoryview(bytearray(9)), 99),
        lambda file: object(),
    ],
)
def test_work_apart_that_fails_is_a_refusal(work: Callable[[ByteSource], object]) -> None:
    """It crashes, ends, takes much memory, reads beyond the end, or gives what is no answer."""
    with pytest.raises((ValueError, FormatError)) as refusal:
        apart.apart(work, MemoryFile(b"abc", "a.h5"))
    assert "\n" not in str(refusal.value)


def test_work_apart_that_never_ends_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "SECONDS_FREE", 1)

    def forever(file: ByteSource) -> None:
        while True:
            pass

    with pytest.raises(ValueError, match="cannot be followed"):
        apart.apart(forever, MemoryFile(b"abc", "a.h5"))


def test_what_reading_the_file_raises_is_raised_here() -> None:
    class Gone(MemoryFile):
        def pread_into(self, buffer: memoryview, offset: int) -> None:
            raise FormatError("a.h5 changed while it was being read")

    with pytest.raises(FormatError, match="changed while"):
        apart.apart(lambda file: file.pread(1, 0).hex(), Gone(b"abc", "a.h5"))
