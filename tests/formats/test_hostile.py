"""Broken and malicious files: each is refused in one paragraph that names the file and the fault."""

from __future__ import annotations

import gc
import io
import json
import pickle
import struct
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from format_samples import (
    EVIL,
    VICTIM,
    field,
    integer,
    legacy_bytes,
    npy_bytes,
    safetensors_bytes,
    tensor_pickle,
    text,
    torch_bytes,
    write,
    zip_bytes,
)

from ckptswap.errors import CkptswapError, FormatError
from ckptswap.formats import open_checkpoint
from ckptswap.formats.pickles import read_pickle
from ckptswap.verify import verify

F32 = field("F32", [1], 0, 4)
U64_MOST = 2**64 - 1

SAFETENSORS = {
    "empty": (b"", "is empty"),
    "seven bytes": (b"\x00" * 7, "header"),
    "header longer than any file": (struct.pack("<Q", U64_MOST) + b"{}", "header"),
    "header beyond 100 MB": (struct.pack("<Q", 100_000_001) + b"{" + bytes(100), "header"),
    "header longer than the file": (struct.pack("<Q", 50) + b"{}", "header"),
    "not UTF-8": (safetensors_bytes(b'{"\xff\xfe": 1}'), "UTF-8"),
    "not JSON": (safetensors_bytes(b"{'w': 1}"), "invalid JSON"),
    "not an object": (safetensors_bytes(b"[1, 2]"), "object"),
    "nested too deep": (safetensors_bytes(b'{"w":' + b"[" * 200_000 + b"]" * 200_000 + b"}"), "recursion limit"),
    "truncated data": (safetensors_bytes({"w": F32}, bytes(3)), "sound safetensors"),
    "trailing bytes": (safetensors_bytes({"w": F32}, bytes(5)), "sound safetensors"),
    "overlap": (safetensors_bytes({"w": F32, "v": field("F32", [1], 2, 6)}, bytes(6)), "sound safetensors"),
    "hole": (safetensors_bytes({"w": F32, "v": field("F32", [1], 8, 12)}, bytes(12)), "sound safetensors"),
    "begin after end": (safetensors_bytes({"w": field("F32", [1], 4, 0)}, bytes(4)), "sound safetensors"),
    "shape against size": (safetensors_bytes({"w": field("F32", [2], 0, 4)}, bytes(4)), "sound safetensors"),
    "overflow": (safetensors_bytes({"w": field("F32", [2**62, 2**62], 0, 4)}, bytes(4)), "sound safetensors"),
    "negative": (safetensors_bytes({"w": field("F32", [-1], 0, 4)}, bytes(4)), "sound safetensors"),
    "impossible though empty": (safetensors_bytes({"w": field("F32", [2**62, 0], 0, 0)}), "sound safetensors"),
    "65 dimensions": (safetensors_bytes({"w": field("F32", [1] * 65, 0, 4)}, bytes(4)), "65 dimensions"),
    "unknown dtype": (safetensors_bytes({"w": field("F33", [1], 0, 4)}, bytes(4)), "F33"),
    "duplicate tensor": (
        safetensors_bytes(f'{{"w": {json.dumps(F32)}, "w": {json.dumps(F32)}}}'.encode(), bytes(4)),
        "names 'w' twice",
    ),
    "duplicate metadata": (
        safetensors_bytes(b'{"__metadata__": {"a": "1", "a": "2"}, "w": %s}' % json.dumps(F32).encode(), bytes(4)),
        "names 'a' twice",
    ),
    "git-lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git-lfs"),
    "a zip": (zip_bytes({"readme.txt": b"hello"}), "is a zip archive"),
    "a sound torch file": (torch_bytes(), "is a zip archive, as torch and numpy write"),
    "a sound npz": (zip_bytes({"w.npy": npy_bytes(np.zeros(2))}), "is a zip archive"),
    "a sound legacy file": (legacy_bytes(tensor_pickle(extra=b"N")), "is a pickle"),
    "text": (b"Not found\n", "text, beginning 'Not found'"),
    "html": (b"<!DOCTYPE html><html><title>404</title>", "web page"),
    "zeros": (bytes(4096), "header"),
    "gzip": (b"\x1f\x8b\x08" + bytes(50), "gzip"),
}  # fmt: skip


class _Evil:
    def __reduce__(self) -> tuple:
        import os

        return os.system, ("true",)


def _bomb(opcode: bytes) -> bytes:
    return b"\x80\x04" + opcode


def _nested_key() -> bytes:
    """A dict whose key is a tuple nested very deep: hashing it would overflow C's stack, so it is not hashed."""
    return b"\x80\x02})" + b"\x85" * 300_000 + b"K\x01s."


FORBIDDEN = {
    "system": (b"\x80\x02}" + text("w") + EVIL + b"s.", VICTIM),
    "eval": (b"\x80\x02c__builtin__\neval\n(X\x01\x00\x00\x001tR.", "builtins.eval"),
    "stack global": (b"\x80\x04\x8c\x05posix\x8c\x06system\x93.", VICTIM),
    "getattr": (b"\x80\x02cbuiltins\ngetattr\n(}X\x01\x00\x00\x00atR.", "builtins.getattr"),
    "instance": (b"(X\x04\x00\x00\x00trueiposix\nsystem\n.", VICTIM),
    "torch's own unguarded loader": (b"\x80\x02ctorch.storage\n_load_from_bytes\n.", "_load_from_bytes"),
    "extension": (b"\x80\x02\x82\x01.", "extension 1"),
    "dotted name": (b"\x80\x04\x8c\x05torch\x8c\x10serialization.os\x93.", "torch.serialization.os"),
}
PICKLES = {
    "garbage": (b"\x80\x02" + bytes(range(200, 256)), "damaged pickle"),
    "no stop": (b"\x80\x02}", "damaged pickle"),
    "stack underflow": (b"\x80\x02R.", "damaged pickle"),
    "memo of nothing": (b"\x80\x02h\x07.", "damaged pickle"),
    "calls a tensor": (tensor_pickle()[:-1] + b")R.", "damaged pickle"),
    "memo far away": (_bomb(b"}r\xff\xff\xff\xff."), "counts its values in an impossible way"),
    "huge byte array": (_bomb(b"\x96" + struct.pack("<Q", 2**40) + b"."), "damaged pickle"),
    "huge string": (_bomb(b"\x8d" + struct.pack("<Q", 2**62) + b"."), "damaged pickle"),
    "huge frame": (_bomb(b"\x95" + struct.pack("<Q", 2**62) + b"}."), "holds no tensors"),
    "huge number": (b"\x80\x02I" + b"9" * 10_000 + b"\n.", "damaged pickle"),
    "key nested deep": (_nested_key(), "its keys are a tuple"),
    "list nested deep": (b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".", "a list"),
    "persistent id of another kind": (b"\x80\x02K\x01Q.", "not a storage"),
    "a storage that is not a storage": (
        tensor_pickle(storage=b"ccollections\nOrderedDict\n"), "no known kind",
    ),
    "unhashable key": (b"\x80\x02}]K\x01s.", "damaged pickle"),
    "no tensors": (b"\x80\x02}X\x01\x00\x00\x00aK\x01s.", "holds no tensors"),
    "not a map": (b"\x80\x02K\x01.", "but a number"),
    "key that is no text": (tensor_pickle(name=b"K\x05"), "not by text"),
    "beyond the storage": (tensor_pickle(offset=1), "beyond its storage"),
    "strides beyond the storage": (tensor_pickle(strides=(3, 1)), "beyond its storage"),
    "huge view": (tensor_pickle(shape=(2**62,), strides=(1,)), "more elements"),
    "zero strides of many": (tensor_pickle(shape=(2**62,), strides=(0,)), "more elements"),
    "negative stride": (tensor_pickle(strides=(-2, 1)), "impossible strides"),
    "negative offset": (tensor_pickle(offset=-1), "impossible strides"),
    "negative size": (tensor_pickle(shape=(-2, 2)), "below zero"),
    "fewer strides": (tensor_pickle(strides=(1,)), "impossible strides"),
    "65 dimensions": (tensor_pickle(shape=(1,) * 65, strides=(1,) * 65), "65 dimensions"),
}  # fmt: skip

ZIPS = {
    "truncated": (torch_bytes()[:-30], "zip archive"),
    "only its beginning": (b"PK\x03\x04" + bytes(20), "zip archive"),
    "no data.pkl": (zip_bytes({"archive/version": b"3", "archive/data/0": bytes(16)}), "no data.pkl"),
    "two data.pkl": (zip_bytes({"a/data.pkl": tensor_pickle(), "b/data.pkl": tensor_pickle()}), "2 data.pkl"),
    "no storage": (zip_bytes({"archive/data.pkl": tensor_pickle()}), "has no 'archive/data/0'"),
    "short storage": (torch_bytes(data=bytes(15)), "15 are there"),
    "storage larger than said": (torch_bytes(tensor_pickle(numel=3)), "beyond its storage"),
    "big-endian": (torch_bytes(byteorder=b"big"), "big-endian"),
    "TorchScript of old": (zip_bytes({"a/model.json": b"{}", "a/tensors/0": bytes(4)}), "torch 1.0 to 1.2"),
    "a package": (zip_bytes({"a/.data/extern_modules": b"", "a/m/m.pkl": b""}), "torch.package"),
    "deflate bomb": (
        zip_bytes({"archive/data.pkl": tensor_pickle(numel=10_000_000, shape=(10_000_000,), strides=(1,)),
                   "archive/data/0": bytes(40_000_000)}, zipfile.ZIP_DEFLATED), "compressed",
    ),
    "storage key that climbs": (torch_bytes(tensor_pickle(key=text("../data.pkl"))), "has no"),
}  # fmt: skip

LEGACY = {
    "no storages": (legacy_bytes(tensor_pickle(extra=b"N"), data=b""), "cut short"),
    "storage length": (legacy_bytes(tensor_pickle(extra=b"N"), numel=2**62), "cut short"),
    "keys of nothing": (
        legacy_bytes(tensor_pickle(extra=b"N"), keys=b"\x80\x02]" + text("9") + b"a."), "no tensor uses",
    ),
    "keys that are no list": (legacy_bytes(tensor_pickle(extra=b"N"), keys=b"\x80\x02K\x01."), "no tensor uses"),
    "storage not listed": (legacy_bytes(tensor_pickle(extra=b"N"), keys=b"\x80\x02]."), "is not in it"),
    "view outside": (
        legacy_bytes(tensor_pickle(numel=4, extra=b"(" + text("v") + integer(3) + integer(2) + b"t")),
        "lies outside it",
    ),
    "another version": (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xea\x03.", "unknown version"),
    "tar": (bytes(257) + b"ustar" + bytes(250), "tar archive"),
}  # fmt: skip


def _npy(header: bytes) -> bytes:
    return zip_bytes({"w.npy": npy_bytes(np.zeros(2, np.float32), header)})


NPZ = {
    "objects": (zip_bytes({"w.npy": npy_bytes(np.array([None]))}), "Python objects"),
    "text": (zip_bytes({"w.npy": npy_bytes(np.array(["a"]))}), "dtype '<U1'"),
    "big-endian": (zip_bytes({"w.npy": npy_bytes(np.zeros(2, ">f4"))}), "big-endian"),
    "records": (zip_bytes({"w.npy": npy_bytes(np.zeros(2, "i4,f4"))}), "records"),
    "bf16 as void": (zip_bytes({"w.npy": npy_bytes(np.zeros(2, "V2"))}), "no bf16"),
    "no magic": (zip_bytes({"w.npy": b"hello, world, hello"}), "not a .npy file"),
    "empty": (zip_bytes({"w.npy": b""}), "not a .npy file"),
    "short": (zip_bytes({"w.npy": npy_bytes(np.zeros(4))[:-1]}), "takes 31 B"),
    "long": (zip_bytes({"w.npy": npy_bytes(np.zeros(4)) + b"1"}), "takes 33 B"),
    "code in the header": (_npy(b"{'descr': __import__('os'), 'fortran_order': False, 'shape': ()}\n"), "parsed"),
    "deep header": (_npy(b"(" * 9000), "parsed"),
    "odd literal": (_npy(b"{'descr': 1is 2}"), "parsed"),
    "other keys": (_npy(b"{'descr': '<f4'}\n"), "another form"),
    "negative": (_npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (-2,)}\n"), "below zero"),
    "overflow": (
        _npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 4)}"), "more elements",
    ),
    "float size": (_npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (2.0,)}\n"), "not an integer"),
}  # fmt: skip


def _twice(first: str, second: str) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return zip_bytes([("archive/data.pkl", tensor_pickle()), (first, bytes(16)), (second, bytes(16))])


def _refused(path: Path, fault: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(CkptswapError) as caught:
            _read_all(path)
    said = str(caught.value)
    assert fault in said
    assert str(path) in said or path.name in said
    assert "\n" not in said
    assert "\x1b" not in said
    assert len(said) < 600 + len(str(path))
    assert "weights_only" not in said


def _read_all(path: Path) -> None:
    with open_checkpoint(path) as checkpoint:
        for name in checkpoint:
            checkpoint.read(name)


@pytest.mark.parametrize("case", SAFETENSORS)
def test_safetensors(case: str, tmp_path: Path) -> None:
    content, fault = SAFETENSORS[case]
    _refused(write(tmp_path / "a.safetensors", content), fault)


CONTAINERS = {"zip": torch_bytes, "legacy": legacy_bytes, "raw": lambda raw: raw}


@pytest.mark.parametrize("case", FORBIDDEN)
@pytest.mark.parametrize("container", CONTAINERS)
def test_pickles_that_ask_for_code(case: str, container: str, tmp_path: Path) -> None:
    raw, asked = FORBIDDEN[case]
    path = write(tmp_path / "a.pt", CONTAINERS[container](raw))
    if (case, container) == ("torch's own unguarded loader", "raw"):  # there it is read by our own
        _refused(path, "holds no map of tensors")
        return
    _refused(path, asked)
    _refused(path, "could run code; it was not loaded")


@pytest.mark.parametrize("case", PICKLES)
@pytest.mark.parametrize("container", CONTAINERS)
def test_pickles(case: str, container: str, tmp_path: Path) -> None:
    """A raw pickle is refused whatever it holds, so only a container's refusal has to say why."""
    raw, fault = PICKLES[case]
    _refused(write(tmp_path / "a.pt", CONTAINERS[container](raw)), fault if container != "raw" else "")


@pytest.mark.parametrize("protocol", range(6))
def test_a_raw_pickle_names_what_it_asks_for(protocol: int, tmp_path: Path) -> None:
    _refused(write(tmp_path / "a.ckpt", pickle.dumps({"w": _Evil()}, protocol)), VICTIM)


@pytest.mark.parametrize("case", ZIPS)
def test_zips(case: str, tmp_path: Path) -> None:
    content, fault = ZIPS[case]
    _refused(write(tmp_path / "a.bin", content), fault)


@pytest.mark.parametrize("case", LEGACY)
def test_legacy(case: str, tmp_path: Path) -> None:
    content, fault = LEGACY[case]
    _refused(write(tmp_path / "a.pth", content), fault)


@pytest.mark.parametrize("case", NPZ)
def test_npz(case: str, tmp_path: Path) -> None:
    content, fault = NPZ[case]
    _refused(write(tmp_path / "a.npz", content), fault)


def test_a_duplicate_member(tmp_path: Path) -> None:
    _refused(write(tmp_path / "a.pt", _twice("archive/data/0", "archive/data/0")), "twice")


def test_a_directory_that_disagrees_with_the_content(tmp_path: Path) -> None:
    content = torch_bytes().replace(b"archive/data/0", b"archive/data/1", 1)
    _refused(write(tmp_path / "a.pt", content), "disagree")


def test_a_deflate_bomb_is_read_in_the_memory_of_any_other(tmp_path: Path) -> None:
    """A thousand times as large as its file: 160 MB of zeros in 160 kB, compared and verified in a few MB."""
    described = b"{'descr': '<f4', 'fortran_order': False, 'shape': (40000000,), }"
    header = b"\x93NUMPY\x01\x00v\x00" + described.ljust(117) + b"\n"
    with (
        zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("w.npy", "w") as out,
    ):
        out.write(header)
        for _ in range(160):
            out.write(bytes(1_000_000))
    assert (tmp_path / "a.npz").stat().st_size < 200_000
    code = (
        "import resource, sys\n"
        "from ckptswap.diff import diff\n"
        "from ckptswap.formats import open_checkpoint\n"
        "from ckptswap.verify import verify\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024\n"
        "with open_checkpoint(sys.argv[1]) as a:\n"
        "    assert a['w'].numel == 40_000_000\n"
        "    before = peak()\n"
        "    assert diff(a, a).rows[0].status == 'identical'\n"
        "assert verify(sys.argv[1]).ok\n"
        "print(peak() - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "a.npz"], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 120


def test_a_size_that_deflate_cannot_reach(tmp_path: Path) -> None:
    content = zip_bytes({"w.npy": npy_bytes(np.zeros(1000))}, zipfile.ZIP_DEFLATED)
    for at in (22, content.rindex(b"PK\x01\x02") + 24):  # both of its headers say so
        content = content[:at] + struct.pack("<I", 2**31) + content[at + 4 :]
    _refused(write(tmp_path / "a.npz", content), "larger than it can be")


def test_an_encrypted_member(tmp_path: Path) -> None:
    content = bytearray(torch_bytes())
    content[content.rindex(b"PK\x01\x02") + 8] |= 1
    _refused(write(tmp_path / "a.pt", bytes(content)), "encrypted")


def test_a_flipped_pickle_byte_is_caught_on_opening(tmp_path: Path) -> None:
    _refused(write(tmp_path / "a.pt", torch_bytes().replace(b"X\x01\x00\x00\x00w", b"X\x01\x00\x00\x00v")), "CRC")


def test_a_flipped_payload_byte_is_caught_by_verify(tmp_path: Path) -> None:
    for name, content in (
        ("a.pt", torch_bytes()),
        ("a.npz", zip_bytes({"w.npy": npy_bytes(np.frombuffer(bytes(range(16)), "<f4"))})),
    ):
        at = content.index(bytes(range(8)))
        flipped = content[:at] + b"\x01" + content[at + 1 :]
        report = verify(write(tmp_path / name, flipped))
        assert [finding.text for finding in report.findings if "CRC" in finding.text], name


def test_a_flipped_byte_of_a_compressed_member_is_caught(tmp_path: Path) -> None:
    content = bytearray(
        zip_bytes({"w.npy": npy_bytes(np.random.default_rng(0).normal(size=500))}, zipfile.ZIP_DEFLATED)
    )
    content[2000] ^= 0xFF
    path = write(tmp_path / "a.npz", bytes(content))
    assert not verify(path).ok
    _refused(path, "w.npy")


def test_verify_reports_what_cannot_be_opened(tmp_path: Path) -> None:
    report = verify(write(tmp_path / "a.safetensors", b"hello"))
    assert (report.ok, report.format, report.tensors) == (False, None, 0)


def test_a_checksum_that_torch_did_not_compute_is_no_damage(tmp_path: Path) -> None:
    import torch

    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"w": torch.arange(4.0)}, tmp_path / "a.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    assert verify(tmp_path / "a.pt").ok
    with open_checkpoint(tmp_path / "a.pt") as found:
        assert found.read("w").tolist() == [0, 1, 2, 3]


def _shards(folder: Path, weight_map: object, **shards: dict) -> Path:
    for name, header in shards.items():
        size = max(each["data_offsets"][1] for each in header.values())
        write(folder / f"{name}.safetensors", safetensors_bytes(header, bytes(size)))
    return write(folder / "model.safetensors.index.json", json.dumps({"weight_map": weight_map}).encode())


INDEXES = {
    "missing shard": ({"w": "gone.safetensors"}, "not there"),
    "not in its shard": ({"w": "a.safetensors", "x": "a.safetensors"}, "'x' is not in its shard"),
    "in two shards": ({"w": "a.safetensors", "v": "b.safetensors"}, "'w' is in 'b.safetensors' but listed for"),
    "absent from the index": ({"v": "b.safetensors"}, "absent from the index"),
    "climbs": ({"w": "../a.safetensors"}, "not a plain file name"),
    "absolute": ({"w": "/etc/passwd"}, "not a plain file name"),
    "folder": ({"w": "sub/a.safetensors"}, "not a plain file name"),
    "backslash": ({"w": "..\\a.safetensors"}, "not a plain file name"),
    "dots": ({"w": ".."}, "not a plain file name"),
    "nul": ({"w": "a\x00"}, "not a plain file name"),
    "number": ({"w": 3}, "not a plain file name"),
    "no map": (None, "weight_map"),
    "empty map": ({}, "weight_map"),
    "itself": ({"w": "model.safetensors.index.json"}, "not a shard"),
}


@pytest.mark.parametrize("case", INDEXES)
@pytest.mark.parametrize("by_folder", [True, False])
def test_indexes(case: str, by_folder: bool, tmp_path: Path) -> None:
    weight_map, fault = INDEXES[case]
    index = _shards(tmp_path / "m", weight_map, a={"w": F32}, b={"v": F32, "w": field("F32", [1], 4, 8)})
    _refused(index.parent if by_folder else index, fault)


@pytest.mark.parametrize(
    "content", [b"{", b"[]", b'{"weight_map": 3}', b'{"weight_map": {"a": "b", "a": "c"}}', b"\xff"]
)
def test_an_index_that_is_none(content: bytes, tmp_path: Path) -> None:
    _refused(write(tmp_path / "m.index.json", content), "not a sound index")


def test_symlinked_shards_are_fine(tmp_path: Path) -> None:
    index = _shards(tmp_path / "m", {"w": "a.safetensors"}, a={"w": F32})
    (tmp_path / "blob").write_bytes((index.parent / "a.safetensors").read_bytes())
    (index.parent / "a.safetensors").unlink()
    (index.parent / "a.safetensors").symlink_to(tmp_path / "blob")
    with open_checkpoint(index.parent) as found:
        assert found.read("w").tolist() == [0.0]


def test_a_folder_of_nothing(tmp_path: Path) -> None:
    write(tmp_path / "a.pt", b"x")
    _refused(tmp_path, "name one of a.pt")


def test_nothing_ran_and_nothing_was_imported(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    evil = b"cposix\nsystem\n(" + text(f"touch {marker}") + b"tR"
    raw = b"\x80\x02" + evil + b"."
    files = {"z.pt": torch_bytes(raw), "l.pt": legacy_bytes(raw), "r.pt": raw, "zero.pt": evil + b"."}
    for name, content in files.items():
        _refused(write(tmp_path / name, content), VICTIM)
    assert not marker.exists()


def test_deep_structures_are_let_go_of_without_a_crash() -> None:
    from ckptswap.formats.pickles import read_pickle

    deep = read_pickle(io.BytesIO(b"\x80\x02" + b"]" * 300_000 + b"a" * 299_999 + b"."), {}, where="a")
    assert isinstance(deep, list)
    assert sys.getrecursionlimit() < 300_000


def test_garbage_is_collected_as_before_once_a_pickle_is_read_or_refused() -> None:
    """Meanwhile it is not: each collection would look through all that was read so far."""
    seen: list[bool] = []
    names = {"a.b": lambda arguments: seen.append(gc.isenabled())}
    read_pickle(io.BytesIO(b"ca\nb\n)R."), names, where="a.pkl")
    with pytest.raises(FormatError):
        read_pickle(io.BytesIO(b"cos\nsystem\n)R."), names, where="a.pkl")
    assert (seen, gc.isenabled()) == ([False], True)
    gc.disable()
    try:
        read_pickle(io.BytesIO(b"N."), names, where="a.pkl")
        assert not gc.isenabled()
    finally:
        gc.enable()
