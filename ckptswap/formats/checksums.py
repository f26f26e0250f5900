"""The checksums that torch and npz files carry: only they tell a flipped bit, so they come before the values."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import FormatError
from ckptswap.formats.sniff import HEAD, kind_of
from ckptswap.formats.streaming import Watch, unwatched
from ckptswap.storage import LocalFile

if TYPE_CHECKING:
    from ckptswap.formats.archive import Archive


def refuse_damaged(*checkpoints: Checkpoint, watch: Watch = unwatched) -> None:
    """Raises `FormatError` where a record does not have its checksum, for whoever is about to use values.

    `watch` is told of `checked_bytes` in all.
    """
    for checkpoint in checkpoints:
        for place, fault in damage(checkpoint, watch):
            raise FormatError(f"{place or checkpoint.path} is damaged", remedy=fault)


def checked_bytes(*checkpoints: Checkpoint) -> int:
    """How many bytes have a checksum, in what can be read.

    >>> import numpy as np
    >>> checked_bytes(Checkpoint.from_arrays({"w": np.zeros(3)}))
    0
    """
    total = 0
    for checkpoint in checkpoints:
        with suppress(FormatError):
            for archive in _archives(checkpoint):
                ignored = _ignored(archive)
                total += sum(member.size for member in archive.members.values() if member.crc != ignored)
    return total


def damage(checkpoint: Checkpoint, watch: Watch = unwatched) -> Iterator[tuple[str | None, str]]:
    """The file of each record whose checksum is wrong, and a sentence; all of the records are read."""
    try:
        for archive in _archives(checkpoint):
            for name in archive.damaged(watch, ignore_crc=_ignored(archive)):
                yield archive.file.name, f"its record {name!r} is damaged (its CRC is wrong)"
    except FormatError as error:
        yield None, str(error)


def _ignored(archive: Archive) -> int | None:
    """torch can be told to compute none, and then records zeros; such an archive is left unjudged."""
    return 0 if all(member.crc == 0 for member in archive.members.values()) else None


def _archives(checkpoint: Checkpoint) -> Iterator[Archive]:
    """The zips that a checkpoint lies in; what reads them is imported only where there are any."""
    if checkpoint.format == "torch distributed":
        from ckptswap.formats.distributed import payloads

        yield from payloads(checkpoint)
        return
    for path in filter(_is_zip, checkpoint.files):
        from ckptswap.formats.archive import Archive

        with closing(LocalFile(path)) as file:
            yield Archive(file)


def _is_zip(path: Path) -> bool:
    if not os.path.exists(path):
        return False  # gone since it was opened: what reads it next says so
    with open(path, "rb") as file:
        return kind_of(file.read(HEAD)) == "zip"
