"""Damaged at random: a valid file with some bytes changed opens right or is refused, and nothing else happens."""

from __future__ import annotations

import contextlib
import io
import os
import random
import shutil
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
from format_samples import PLAIN, filled, torch_bytes, zip_bytes

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import CkptswapError
from ckptswap.formats import open_checkpoint, write_checkpoint
from ckptswap.formats.distributed import NAMES as DISTRIBUTED
from ckptswap.formats.pickles import read_pickle
from ckptswap.formats.torch_pickle import NAMES, Storages
from ckptswap.verify import verify

ROUNDS = 150
ARRAYS = {f"layer.{at}.weight": filled(dtype, (2, at % 4), at) for at, dtype in enumerate(PLAIN)}
TARGETS = ["a.safetensors", "a.pt", "a.npz", "deflated.npz", "legacy.pt", "a.safetensors.index.json"]
SPLICES = [
    b"",
    b"\x00" * 8,
    b"\xff" * 8,
    b"PK\x01\x02",
    b"PK\x03\x04",
    b"c",
    b"R",
    b"b",
    b"(",
    b"}",
    b'"',
    b"[" * 50,
]


def sample(folder: Path, target: str) -> Path:
    path = folder / target
    if target == "deflated.npz":
        np.savez_compressed(path, **ARRAYS)
    elif target == "legacy.pt":
        torch = pytest.importorskip("torch")
        torch.save({name: torch.from_numpy(array) for name, array in ARRAYS.items()}, path,
                   _use_new_zipfile_serialization=False)  # fmt: skip
    else:
        write_checkpoint(Checkpoint.from_arrays(ARRAYS, metadata={"a": "b"}), path)
    return path


def mutated(raw: bytes, chance: random.Random) -> bytes:
    """Some bits flipped, or a number put to an extreme, or a stretch cut out, doubled, or replaced."""
    out = bytearray(raw)
    for _ in range(chance.choice([1, 1, 2, 8])):
        at = chance.randrange(len(out))
        match chance.randrange(6):
            case 0 | 1:
                out[at] ^= 1 << chance.randrange(8)
            case 2:
                out[at] = chance.randrange(256)
            case 3:
                out[at : at + 8] = struct.pack("<Q", chance.choice([0, 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1]))
            case 4:
                del out[at : at + chance.randrange(1, 20)]
            case _:
                out[at:at] = chance.choice(SPLICES)
        out = out or bytearray(b"\x00")
    return bytes(out)


def survive(path: Path) -> None:
    """Open and read everything; any error but ours escapes and fails the test."""
    with contextlib.suppress(CkptswapError):
        read_all(path)
    assert not any("\n" in finding.text for finding in verify(path).findings)


def read_all(path: Path) -> dict[str, bytes]:
    with open_checkpoint(path) as found:
        return {name: found.read(name).tobytes() for name in found}


@pytest.mark.parametrize("target", TARGETS)
def test_flipped_bytes(target: str, tmp_path: Path) -> None:
    path = sample(tmp_path, target)
    raw = path.read_bytes()
    chance = random.Random(7)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(ROUNDS):
            path.write_bytes(mutated(raw, chance))
            survive(path)


@pytest.mark.parametrize("target", ["a.pt", "a.npz", "deflated.npz"])
def test_no_change_to_the_values_in_a_zip_escapes_verify(target: str, tmp_path: Path) -> None:
    """Whatever is flipped: the values that we read are the right ones, or verify objects."""
    path = sample(tmp_path, target)
    raw = path.read_bytes()
    chance = random.Random(8)
    for _ in range(60):
        out = bytearray(raw)
        out[chance.randrange(len(out))] ^= 1 << chance.randrange(8)
        path.write_bytes(bytes(out))
        if any("CRC" in finding.text or finding.place is None for finding in verify(path).findings):
            continue
        with contextlib.suppress(CkptswapError):
            assert read_all(path) == {name: array.tobytes() for name, array in ARRAYS.items()}


def _inner(raw: bytes, member: str) -> bytes:
    import zipfile

    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        return archive.read(member)


def test_a_mutated_pickle_behind_a_right_checksum(tmp_path: Path) -> None:
    raw = _inner(sample(tmp_path, "a.pt").read_bytes(), "archive/data.pkl")
    chance = random.Random(9)
    path = tmp_path / "b.pt"
    for _ in range(ROUNDS):
        path.write_bytes(torch_bytes(mutated(raw, chance)))
        survive(path)


def test_a_mutated_array_behind_a_right_checksum(tmp_path: Path) -> None:
    raw = _inner(sample(tmp_path, "a.npz").read_bytes(), "layer.1.weight.npy")
    chance = random.Random(10)
    path = tmp_path / "b.npz"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(ROUNDS):
            path.write_bytes(zip_bytes({"w.npy": mutated(raw, chance)}))
            survive(path)


def test_random_instructions_do_no_more_than_fail() -> None:
    """Opcodes at random, rich in the dangerous ones: only inert values or our refusal come of them."""
    words = [
        b"}", b"]", b")", b"(", b"t", b"\x85", b"\x86", b"R", b"b", b"\x81", b"\x92", b"o", b"u", b"s", b"a", b"e",
        b"d", b"l", b"0", b"1", b"2", b"N", b"K\x01", b"K\x00", b"X\x01\x00\x00\x00a", b"\x94", b"q\x00", b"h\x00",
        b"X\x07\x00\x00\x00storage", b"Q", b"\x8f", b"\x90", b"\x91", b"\x93", b"G" + bytes(8),
        b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch\nFloatStorage\n", b"ccollections\nOrderedDict\n",
        b"ctorch._tensor\n_rebuild_from_type_v2\n", b"ctorch\nSize\n", b"cbuiltins\nset\n", b"cposix\nsystem\n",
    ]  # fmt: skip
    chance = random.Random(11)
    for names in (NAMES, DISTRIBUTED):
        for _ in range(3000):
            raw = b"\x80\x04" + b"".join(chance.choices(words, k=chance.randrange(1, 25))) + b"."
            with contextlib.suppress(CkptswapError):
                read_pickle(io.BytesIO(raw), names, Storages(), where="a")


def test_mutated_distributed_metadata(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch.distributed.checkpoint as room

        room.save(
            {"model": {"w": torch.ones(3, 4), "b": torch.ones(3)}}, checkpoint_id=tmp_path / "d", no_dist=True
        )
    raw = (tmp_path / "d" / ".metadata").read_bytes()
    chance = random.Random(12)
    for _ in range(ROUNDS):
        (tmp_path / "d" / ".metadata").write_bytes(mutated(raw, chance))
        survive(tmp_path / "d")
    (tmp_path / "d" / ".metadata").write_bytes(raw)
    piece = tmp_path / "d" / "__0_0.distcp"
    raw = piece.read_bytes()
    for _ in range(ROUNDS // 3):
        piece.write_bytes(mutated(raw, chance))
        survive(tmp_path / "d")


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    for target in ("a.safetensors", "a.pt", "a.npz"):
        path = sample(tmp_path, target)
        size = path.stat().st_size
        for kept in range(0, size, max(1, size // 40)):
            shorter = tmp_path / f"short-{target}"
            shutil.copy(path, shorter)
            os.truncate(shorter, kept)
            with pytest.raises(CkptswapError):
                read_all(shorter)
