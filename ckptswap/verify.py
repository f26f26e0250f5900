"""Whether a checkpoint is whole: its structure, its checksums, its values and its names."""

import os
from collections.abc import Iterator
from dataclasses import dataclass

from ckptswap import dtypes
from ckptswap.checkpoint import Checkpoint, checked_bytes
from ckptswap.errors import FormatError
from ckptswap.formats import open_checkpoint
from ckptswap.moments import all_finite, non_finite
from ckptswap.watching import Progress, Watch, watch_of


@dataclass(frozen=True)
class Fault:
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
    findings: tuple[Fault, ...]

    @property
    def ok(self) -> bool:
        return not self.findings


def verify(path: str | os.PathLike[str], progress: Progress | None = None) -> Report:
    """Read a whole checkpoint in flat memory and say what is wrong with it.

    Looked for: a damaged or hostile structure, records of a zip whose CRC is wrong, values that are NaN or
    infinite, names with control characters, and values that are not read, of which nothing is known. Raises
    `FileError` only where there is nothing to look at.

    >>> import numpy as np, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/a.npz", w=np.array([1, np.nan, np.inf]))
    ...     [finding.text for finding in verify(f"{folder}/a.npz").findings]
    ['1 NaN and 1 infinite of 3 in all']
    """
    try:
        checkpoint = open_checkpoint(path)
    except FormatError as error:
        return Report(os.fspath(path), None, 0, 0, (Fault(None, str(error)),))
    with checkpoint:
        watch = watch_of(progress, checked_bytes(checkpoint) + checkpoint.nbytes)
        damaged = (Fault(file, fault) for file, fault in checkpoint.damage(watch))
        odd = (Fault(name, "its name has control characters") for name in checkpoint if not name.isprintable())
        unread = (Fault(name, f"{what}, which is not read") for name, what in checkpoint.unread.items())
        findings = (*odd, *unread, *damaged, *_values(checkpoint, watch))
        return Report(checkpoint.path, checkpoint.format, len(checkpoint), checkpoint.nbytes, findings)


def _values(checkpoint: Checkpoint, watch: Watch) -> Iterator[Fault]:
    """What is not finite; a complex number counts once."""
    for name, entry in checkpoint.items():
        nan = infinite = 0
        try:
            for chunk in entry.chunks():
                if dtypes.is_float(entry.dtype) and not all_finite(chunk, entry.dtype):
                    counts = non_finite(chunk, entry.dtype)
                    nan, infinite = nan + counts[0], infinite + counts[1]
                watch(len(chunk))
        except FormatError as error:
            yield Fault(name, str(error))
        else:
            if nan or infinite:
                yield Fault(name, f"{nan} NaN and {infinite} infinite of {entry.numel:,} in all")
