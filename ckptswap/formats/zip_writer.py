"""Zip archives written as torch and numpy like them: members stored, each beginning at a multiple of 64 bytes."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable
from typing import BinaryIO

ALIGNMENT = 64
_EPOCH = (1980, 1, 1, 0, 0, 0)
_ZIP64_MOST = 0x7FFF_FFFF / 1.05
"""Beyond this size zipfile adds its own 20 bytes to a member's header."""
_ZIP64_EXTRA = 20
_PADDING_TAG = 0x4246  # "FB", which torch uses


def add_member(archive: zipfile.ZipFile, name: str, size: int, fill: Callable[[BinaryIO], object]) -> None:
    """Add a member of `size` bytes that `fill` writes; its time is fixed, so that equal content is equal bytes."""
    member = zipfile.ZipInfo(name, _EPOCH)
    member.file_size = size
    member.external_attr = 0o644 << 16
    assert archive.fp is not None
    member.extra = _padding(archive.fp.tell() + 30 + len(name.encode("utf-8")), is_large=size > _ZIP64_MOST)
    with archive.open(member, "w") as file:
        fill(file)  # type: ignore[arg-type]


def add_bytes(archive: zipfile.ZipFile, name: str, raw: bytes) -> None:
    """Add a small member."""
    add_member(archive, name, len(raw), lambda file: file.write(raw))


def _padding(header_end: int, *, is_large: bool) -> bytes:
    """An extra field after which the data is aligned."""
    begin = header_end + 4 + (_ZIP64_EXTRA if is_large else 0)
    count = -begin % ALIGNMENT
    return struct.pack("<HH", _PADDING_TAG, count) + b" " * count
