"""Whether a checkpoint is whole: its structure, its checksums, its values and its names."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ckptswap import dtypes
from ckptswap.checkpoint import Checkpoint, Entry
from ckptswap.errors import FormatError
from ckptswap.formats import open_checkpoint
from ckptswap.formats.archive import ZIP_MAGIC, Archive
from ckptswap.formats.local import LocalFile
from ckptswap.formats.streaming import Progress, Watch, watch_of


@dataclass(frozen=True)
class Finding:
    """One fault: the tensor or file it is in (None: the whole checkpoint), and what it is."""

    place: str | None
    text: str


@dataclass(frozen=True)
class Report:
    """What was looked at and found. `format` is None where the checkpoint could not be opened."""

    path: str
    format: str | None
    tensors: int
    bytes: int
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        return not self.findings


def verify(path: str | os.PathLike[str], progress: Progress | None = None) -> Report:
    """Read a whole checkpoint in flat memory and say what is wrong with it.

    Looked for: a damaged or hostile structure, records of a zip whose CRC is wrong, values that are NaN or
    infinite, names with control characters. Raises `FileError` only where there is nothing to look at.

    >>> import numpy as np, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/a.npz", w=np.array([1, np.nan, np.inf]))
    ...     [finding.text for finding in verify(f"{folder}/a.npz").findings]
    ['1 NaN and 1 infinite of 3 in all']
    """
    try:
        checkpoint = open_checkpoint(path)
    except FormatError as error:
        return Report(os.fspath(path), None, 0, 0, (Finding(None, str(error)),))
    with checkpoint:
        watch = watch_of(progress, checkpoint.nbytes + sum(os.path.getsize(file) for file in _zips(checkpoint)))
        findings = (*_names(checkpoint), *_checksums(checkpoint, watch), *_values(checkpoint, watch))
        return Report(checkpoint.path, checkpoint.format, len(checkpoint), checkpoint.nbytes, findings)


def refuse_damaged(*checkpoints: Checkpoint) -> None:
    """Raises `FormatError` where a record of a torch or npz file does not have its checksum.

    For whoever is about to copy or compare values, since those formats alone can tell a flipped bit.
    """
    for checkpoint in checkpoints:
        for finding in _checksums(checkpoint, watch_of(None, 0)):
            raise FormatError(f"{finding.place or checkpoint.path} is damaged", remedy=finding.text)


def _names(checkpoint: Checkpoint) -> Iterator[Finding]:
    for name in checkpoint:
        if not name.isprintable():
            yield Finding(name, "its name has control characters")


def _checksums(checkpoint: Checkpoint, watch: Watch) -> Iterator[Finding]:
    for path in _zips(checkpoint):
        file = LocalFile(path)
        try:
            yield from _damaged(Archive(file), watch)
        finally:
            file.close()
    if checkpoint.format == "torch distributed":
        from ckptswap.formats.distributed import payloads

        try:
            for archive in payloads(checkpoint):
                yield from _damaged(archive, lambda count: None)
        except FormatError as error:
            yield Finding(None, str(error))


def _damaged(archive: Archive, watch: Watch) -> Iterator[Finding]:
    """torch can be told not to compute checksums, and then records zeros; such an archive is left unjudged."""
    ignored = 0 if all(member.crc == 0 for member in archive.members.values()) else None
    for name in archive.damaged(watch, ignore_crc=ignored):
        yield Finding(archive.file.name, f"its record {name!r} is damaged (its CRC is wrong)")


def _zips(checkpoint: Checkpoint) -> list[os.PathLike[str]]:
    return [path for path in checkpoint.files if _is_zip(path)]


def _is_zip(path: os.PathLike[str]) -> bool:
    if not os.path.exists(path):
        return False  # gone since it was opened: what reads it next says so
    with open(path, "rb") as file:
        return file.read(len(ZIP_MAGIC)) == ZIP_MAGIC and not os.fspath(path).endswith(".distcp")


def _values(checkpoint: Checkpoint, watch: Watch) -> Iterator[Finding]:
    for name, entry in checkpoint.items():
        try:
            nan, infinite = _non_finite(entry, watch)
        except FormatError as error:
            yield Finding(name, str(error))
            continue
        if nan or infinite:
            yield Finding(name, f"{nan} NaN and {infinite} infinite of {entry.numel:,} in all")


def _non_finite(entry: Entry, watch: Watch) -> tuple[int, int]:
    """Counts of NaN and of infinite elements; a complex one counts once."""
    nan = infinite = 0
    for chunk in entry.chunks():
        if dtypes.is_float(entry.dtype):
            values = chunk.view(dtypes.to_numpy(entry.dtype))
            is_nan = np.isnan(values)
            nan += int(np.count_nonzero(is_nan))
            infinite += int(np.count_nonzero(~np.isfinite(values) & ~is_nan))
        watch(len(chunk))
    return nan, infinite
