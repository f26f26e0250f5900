"""Fingerprints: the hashes that sha256sum and xxhsum print."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import pytest
import xxhash

from ckptswap import checkpoint as checkpoints
from ckptswap import fingerprint as module
from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import FileError
from ckptswap.fingerprint import fingerprint
from ckptswap.storage import LocalFile


def checkpoint(folder: Path, **contents: bytes) -> Checkpoint:
    for name, raw in contents.items():
        (folder / name).write_bytes(raw)
    return Checkpoint([], path=str(folder), format="f", sources=[LocalFile(folder / name) for name in contents])


def test_small_files_have_a_sha256(tmp_path: Path) -> None:
    assert fingerprint(checkpoint(tmp_path, a=b"abc")) == {"sha256": hashlib.sha256(b"abc").hexdigest()}


def test_large_files_have_an_xxh3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHA256_MOST", 10)
    monkeypatch.setattr(checkpoints, "CHUNK", 4)
    raw = b"x" * 11
    assert fingerprint(checkpoint(tmp_path, a=raw)) == {"xxh3_128": xxhash.xxh3_128_hexdigest(raw)}
    assert "sha256" in fingerprint(checkpoint(tmp_path, a=raw[1:]))


def test_large_folders_have_an_xxh3_of_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHA256_MOST", 10)
    lines = "".join(
        f"{xxhash.xxh3_128_hexdigest(raw)}  {name}\n" for name, raw in (("a", b"1" * 6), ("b", b"2" * 6))
    )
    found = fingerprint(checkpoint(tmp_path, b=b"2" * 6, a=b"1" * 6))
    assert found == {"xxh3_128": xxhash.xxh3_128_hexdigest(lines.encode())}


def test_a_long_hash_can_be_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHA256_MOST", 0)
    stop = threading.Event()
    stop.set()
    assert fingerprint(checkpoint(tmp_path, a=b"abc"), stop) == {"xxh3_128": xxhash.xxh3_128_hexdigest(b"")}


def test_a_file_that_went_away_is_named(tmp_path: Path) -> None:
    gone = checkpoint(tmp_path, a=b"abc")
    (tmp_path / "a").unlink()
    with pytest.raises(FileError, match="cannot be read again"):
        fingerprint(gone)
