"""Broken and malicious files of the formats that are read and not written: each is refused in one sentence."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from format_samples import write

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
        path.write_bytes(whole[:size])
        try:
            with open_checkpoint(path) as found:
                for name in found:
                    found.read(name)
        except CkptswapError:
            pass


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
