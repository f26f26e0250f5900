"""Give one checkpoint some tensors of another: a plan that can be printed, and a file written by byte ranges.

A recipient in one safetensors file is copied by the kernel and only the taken tensors' bytes are written over it,
so that the cost is that of copying the file.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ckptswap import dtypes
from ckptswap.checkpoint import Checkpoint, Entry, overlay
from ckptswap.errors import FormatError, MismatchError, UsageError, listing, near
from ckptswap.fingerprint import fingerprint
from ckptswap.formats import write_checkpoint
from ckptswap.formats.atomic import atomic_file, refuse_existing
from ckptswap.formats.local import FileRange, LocalFile
from ckptswap.formats.safetensors import FORMAT as SAFETENSORS
from ckptswap.formats.safetensors import encode_header, pad_header
from ckptswap.selection import Selection
from ckptswap.version import __version__

METADATA_KEY = "ckptswap.transplant"
PAGE = 4096
COPY = 1 << 26
"""Bytes that the kernel is asked to copy at once: few enough to show progress."""
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Misfit:
    """A selected tensor that the donor cannot give, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Transplant:
    """What will be taken, and what will not. `kept` are integers that an `alpha` between 0 and 1 leaves alone."""

    donor: Checkpoint
    recipient: Checkpoint
    selection: Selection
    alpha: float
    taken: tuple[Entry, ...]
    misfits: tuple[Misfit, ...]
    kept: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def variant(self) -> Checkpoint:
        """The result as a checkpoint, without writing anything."""
        return overlay(self.recipient, self.donor, (entry.name for entry in self.taken), alpha=self.alpha)

    @property
    def default_output(self) -> Path:
        """RECIPIENT+SELECTION@DONOR.safetensors, safe in a shell, in the current folder."""
        return Path(f"{_stem(self.recipient)}+{_slug(self.selection)}@{_stem(self.donor)}.safetensors")


def plan_transplant(
    donor: Checkpoint,
    recipient: Checkpoint,
    selection: Selection | None = None,
    *,
    alpha: float = 1.0,
    skip_missing: bool = False,
) -> Transplant:
    """Decide which of the recipient's selected tensors come from the donor; nothing is written.

    `alpha` 1 takes the donor's values, 0 keeps the recipient's, between them floats are interpolated. Raises
    `MismatchError` naming every tensor that the donor lacks or has in another shape or dtype, unless
    `skip_missing`; `SelectionError` when nothing is selected; `UsageError` for an alpha outside 0…1.

    >>> import numpy as np
    >>> a = Checkpoint.from_arrays({"c.bias": np.ones(2), "c.weight": np.ones((2, 1, 1))})
    >>> b = Checkpoint.from_arrays({"c.bias": np.zeros(2), "c.weight": np.zeros((2, 1, 1))})
    >>> [entry.name for entry in plan_transplant(a, b, Selection.parse(kind=["conv.bias"])).taken]
    ['c.bias']
    """
    if not 0 <= alpha <= 1:
        raise UsageError(f"alpha is {alpha}", remedy="it goes from 0 (the recipient) to 1 (the donor)")
    chosen = selection or Selection()
    wanted = chosen.pick(recipient)
    misfits = {entry.name: reason for entry in wanted if (reason := _misfit(entry, donor))}
    if misfits and not skip_missing:
        raise _refusal(donor, recipient, misfits)
    taken = tuple(entry for entry in wanted if entry.name not in misfits)
    if not taken:
        raise MismatchError(f"{donor.path} has none of the selected tensors in the shape of {recipient.path}",
                            remedy="compare them with `ckptswap diff`")  # fmt: skip
    kept = tuple(entry.name for entry in taken if 0 < alpha < 1 and not dtypes.is_float(entry.dtype))
    found = tuple(Misfit(name, reason) for name, reason in misfits.items())
    warnings = tuple(_warnings(donor, recipient, chosen, kept))
    return Transplant(donor, recipient, chosen, alpha, taken, found, kept, warnings)


def transplant(
    plan: Transplant,
    out: str | os.PathLike[str] | None = None,
    *,
    force: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Carry a plan out and return the path written (default: `plan.default_output`).

    Atomic: the name holds the old content or the new. Raises `FileError` when the file exists and `force` is not
    given. The output's metadata adds where it came from to what the recipient said.
    """
    target = Path(out) if out is not None else plan.default_output
    refuse_existing(target, force=force)
    file = _whole_file(plan.recipient)
    if file and target.suffix == ".safetensors":
        _patch(plan, file, target, force=force, progress=progress)
    else:
        metadata = {METADATA_KEY: _origin(plan, fingerprint(plan.donor), fingerprint(plan.recipient))}
        write_checkpoint(plan.variant, target, metadata=metadata, force=force)
    return target


def _misfit(ours: Entry, donor: Checkpoint) -> str | None:
    theirs = donor.get(ours.name)
    if theirs is None:
        hint = near(ours.name, donor, count=1)
        return f"the donor has none{f' ({hint})' if hint else ''}"
    if (ours.shape, ours.dtype) != (theirs.shape, theirs.dtype):
        return f"donor {theirs.dtype} {list(theirs.shape)}, recipient {ours.dtype} {list(ours.shape)}"
    return None


def _refusal(donor: Checkpoint, recipient: Checkpoint, misfits: Mapping[str, str]) -> MismatchError:
    lines = [f"{name}: {reason}" for name, reason in misfits.items()]
    return MismatchError(
        f"{len(misfits)} of the selected tensors do not fit from {donor.path} into {recipient.path} "
        f"({listing(lines, most=10)})",
        remedy="narrow the selection, or leave these out with --skip-missing",
    )


def _warnings(donor: Checkpoint, recipient: Checkpoint, selection: Selection, kept: Sequence[str]) -> list[str]:
    said = [f"{recipient.path}: {note}; it does not fit the new tensors and is not written"
            for note in recipient.notes if note.startswith("it also carries")]  # fmt: skip
    extra = [name for name, entry in donor.items() if entry in selection and name not in recipient]
    if extra:
        said.append(
            f"{len(extra)} selected tensors of the donor have no place in the recipient: {listing(extra, 3)}"
        )
    if kept:
        said.append(f"integers cannot be interpolated and stay the recipient's: {listing(kept, most=3)}")
    return said


def _stem(checkpoint: Checkpoint) -> str:
    return _safe(Path(checkpoint.path).stem) or "checkpoint"


def _slug(selection: Selection) -> str:
    patterns = [
        *selection.only,
        *(f"not-{each}" for each in selection.exclude),
        *selection.layers,
        *selection.kind,
    ]
    slug = "_".join(_safe(each) or "any" for each in patterns) or "all"
    return slug if len(slug) <= 80 else f"{slug[:60]}-and-more"


def _safe(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._+@]+", "-", text.lstrip("=")).strip("-")


def _origin(plan: Transplant, donor: Mapping[str, str], recipient: Mapping[str, str]) -> str:
    """Where the output came from, as JSON for its metadata."""
    origin = {
        "version": __version__,
        "donor": {"path": plan.donor.path, **donor},
        "recipient": {"path": plan.recipient.path, **recipient},
        "selection": plan.selection.flags(),
        "alpha": plan.alpha,
        "tensors": len(plan.taken),
        "skipped": [misfit.name for misfit in plan.misfits],
    }
    return json.dumps(origin)


def _whole_file(recipient: Checkpoint) -> LocalFile | None:
    """The one file in which a safetensors recipient lies; None for every other kind of recipient."""
    files = {id(entry.source.file): entry.source.file for entry in recipient.values()
             if isinstance(entry.source, FileRange)}  # fmt: skip
    file = next(iter(files.values()), None)
    return file if recipient.format == SAFETENSORS and len(files) == 1 and isinstance(file, LocalFile) else None


def _patch(plan: Transplant, file: LocalFile, target: Path, *, force: bool, progress: Progress | None) -> None:
    """The recipient's data as it is, then the taken ranges over it, then the header into room kept for it.

    The data keeps its place modulo a page, without which the kernel could neither share nor quickly copy it.
    """
    places = {name: _place(entry) for name, entry in plan.recipient.items()}
    old_start = min(places.values())
    offsets = {name: (place - old_start, place - old_start + plan.recipient[name].nbytes)
               for name, place in places.items()}  # fmt: skip
    blank = _header(plan, offsets, {"sha256": "0" * 64}, {"sha256": "0" * 64})
    new_start = len(blank) + (old_start - len(blank)) % PAGE
    meter = _Meter(file.size - old_start + sum(entry.nbytes for entry in plan.taken), progress)
    with ThreadPoolExecutor(2) as pool, atomic_file(target, force=force) as out:
        hashes = [pool.submit(fingerprint, each) for each in (plan.donor, plan.recipient)]
        _copy(file, old_start, out, new_start, meter)
        for entry in plan.taken:
            _overwrite(plan.variant[entry.name], out, places[entry.name] - old_start + new_start, meter)
        header = _header(plan, offsets, *(each.result() for each in hashes))
        out.seek(0)
        out.write(pad_header(header, new_start))
        file.check_unchanged()


def _place(entry: Entry) -> int:
    assert isinstance(entry.source, FileRange)
    return entry.source.offset


def _header(
    plan: Transplant,
    offsets: Mapping[str, tuple[int, int]],
    donor: Mapping[str, str],
    recipient: Mapping[str, str],
) -> bytes:
    metadata = {**plan.recipient.metadata, METADATA_KEY: _origin(plan, donor, recipient)}
    return encode_header(plan.recipient.values(), offsets, metadata)


class _Meter:
    """Adds up what has been written and tells whoever watches."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self.total, self.done, self.progress = total, 0, progress

    def add(self, count: int) -> None:
        self.done += count
        if self.progress:
            self.progress(self.done, self.total)


def _copy(file: LocalFile, start: int, out: BinaryIO, at: int, meter: _Meter) -> None:
    """The kernel's own copy, which shares blocks where the file system can; plain reads where it cannot copy."""
    while start < file.size:
        try:
            count = os.copy_file_range(file.fileno(), out.fileno(), min(COPY, file.size - start), start, at)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
            count = os.pwrite(out.fileno(), file.pread(COPY, start), at)
        if count == 0:
            raise FormatError(f"{file.name} ended at byte {start}", remedy="it was cut short while being copied")
        start, at = start + count, at + count
        meter.add(count)


def _overwrite(entry: Entry, out: BinaryIO, at: int, meter: _Meter) -> None:
    for chunk in entry.chunks():
        done = 0
        while done < len(chunk):
            done += os.pwrite(out.fileno(), chunk.data[done:], at + done)
        at += len(chunk)
        meter.add(len(chunk))
