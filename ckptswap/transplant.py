"""Give one checkpoint some tensors of another: a plan that can be printed, and a file written by byte ranges.

A recipient in safetensors files is copied by the kernel and only the taken tensors' bytes are written over it
(`formats.patch`), so that the cost is that of copying the file.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path

import numpy as np

from ckptswap import dtypes
from ckptswap.checkpoint import Checkpoint, Entry, overlay
from ckptswap.errors import MismatchError, UsageError, listing, near
from ckptswap.fingerprint import fingerprint
from ckptswap.formats import write_checkpoint
from ckptswap.formats.atomic import refuse_existing
from ckptswap.formats.checksums import checked_bytes, refuse_damaged
from ckptswap.formats.patch import Patch, patch_file, patch_folder, patches
from ckptswap.formats.sharded import INDEX
from ckptswap.formats.streaming import Progress, later, watch_of
from ckptswap.selection import Selection
from ckptswap.version import __version__

METADATA_KEY = "ckptswap.transplant"
"""Where the latest transplant is told; what it said of earlier ones moves to `.1`, `.2` … in their order."""
NAMED_MOST = 10
FILE_SUFFIXES = (".safetensors", ".npz", ".pt", ".pth", ".bin", ".ckpt")


@dataclass(frozen=True)
class Misfit:
    """A selected tensor that the donor cannot give, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Transplant:
    """What will be taken, and what will not.

    `kept` names what an `alpha` between 0 and 1 leaves alone, since it cannot be mixed: integers, packed floats.
    `taken` is all that was selected and fits, `moved` that of it which gets values of the donor.
    """

    donor: Checkpoint
    recipient: Checkpoint
    selection: Selection
    alpha: float
    taken: tuple[Entry, ...]
    misfits: tuple[Misfit, ...]
    kept: tuple[str, ...]
    warnings: tuple[str, ...]

    @cached_property
    def variant(self) -> Checkpoint:
        """The result as a checkpoint, without writing anything."""
        return overlay(self.recipient, self.donor, (entry.name for entry in self.taken), alpha=self.alpha)

    @cached_property
    def moved(self) -> tuple[Entry, ...]:
        """What gets values of the donor: nothing when `alpha` is 0, and not what is kept."""
        kept = set(self.kept)
        return tuple(entry for entry in self.taken if entry.name not in kept) if self.alpha else ()

    @cached_property
    def changed(self) -> tuple[str, ...]:
        """The names of those whose bytes the donor changes; reads values, up to the first that differs."""
        return tuple(entry.name for entry in self.moved if _differs(entry, self.variant[entry.name]))

    @property
    def default_output(self) -> Path:
        """RECIPIENT+SELECTION@DONOR.safetensors, safe in a shell, in the current folder; a sharded recipient gives
        a folder, without suffix."""
        suffix = "" if self.is_sharded else ".safetensors"
        return Path(f"{_stem(self.recipient)}+{_slug(self.selection)}@{_stem(self.donor)}{suffix}")

    @property
    def is_sharded(self) -> bool:
        """Whether the recipient lies in several files."""
        return self.recipient.format.startswith("sharded")


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
    link: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Carry a plan out and return the path written (default: `plan.default_output`).

    A sharded recipient gives a folder, unless `out` names a file; shards that do not change are copied, or
    hard-linked with `link`. Atomic: the name holds the old content or the new. Raises `FileError` when the file
    exists and `force` is not given, or the folder exists; `UsageError` for a `link` without shards. The output's
    metadata adds where it came from to what the recipient said.
    """
    target = plan.default_output if out is None else Path(out)
    folder = _is_folder(plan, out)
    if not folder:
        refuse_existing(target, force=force)
    parts = _patched(plan, target, folder)
    if link and not (parts and folder):
        raise UsageError("there are no shards to link", remedy="--link goes with a sharded recipient and a folder")
    checked = checked_bytes(plan.donor, plan.recipient)
    size = sum(part.nbytes for part in parts) if parts else plan.variant.nbytes
    watch = watch_of(progress, checked + size)
    refuse_damaged(plan.donor, plan.recipient, watch=watch)
    with _hashing(plan) as metadata:
        if parts and folder:
            patch_folder(parts, target, draft=_draft(plan), metadata=metadata, link=link, watch=watch)
        elif parts:
            patch_file(parts[0], target, draft=_draft(plan), metadata=metadata, force=force, watch=watch)
        else:
            place = f"{target}/" if folder else target
            rest = later(progress, checked)
            write_checkpoint(plan.variant, place, metadata=metadata(), force=force, progress=rest)
    return target


def _patched(plan: Transplant, target: Path, folder: bool) -> list[Patch] | None:
    """The recipient's files, where the output is to be the same ones with other bytes in places."""
    parts = patches(plan.recipient, {entry.name: plan.variant[entry.name] for entry in plan.taken})
    is_one = parts is not None and len(parts) == 1 and target.suffix in ("", ".safetensors")
    return parts if folder or is_one else None


def _is_folder(plan: Transplant, out: str | os.PathLike[str] | None) -> bool:
    """Whether a folder of shards is to be written: asked for by a final `/`, or as the recipient is one."""
    if out is None:
        return plan.is_sharded
    name = os.fspath(out)
    return name.endswith("/") or (plan.is_sharded and not name.endswith((*FILE_SUFFIXES, INDEX)))


@contextmanager
def _hashing(plan: Transplant) -> Iterator[Callable[[], Mapping[str, str]]]:
    """Hash both sides beside the copying; gives what waits for the hashes and makes the metadata of them.

    Leaving the block stops what still runs: an interrupt does not wait for a hash that nobody wants.
    """
    stop = threading.Event()
    with ThreadPoolExecutor(2) as pool:
        hashes = [pool.submit(fingerprint, each, stop) for each in (plan.donor, plan.recipient)]
        try:
            yield lambda: _metadata(plan, *(each.result() for each in hashes))
        finally:
            stop.set()


def _differs(ours: Entry, theirs: Entry) -> bool:
    return any(not np.array_equal(a, b) for a, b in zip(ours.chunks(), theirs.chunks(), strict=True))


def _misfit(ours: Entry, donor: Checkpoint) -> str | None:
    theirs = donor.get(ours.name)
    if theirs is None:
        return "the donor has none"
    if (ours.shape, ours.dtype) != (theirs.shape, theirs.dtype):
        return f"donor {theirs.dtype} {list(theirs.shape)}, recipient {ours.dtype} {list(ours.shape)}"
    return None


def _refusal(donor: Checkpoint, recipient: Checkpoint, misfits: Mapping[str, str]) -> MismatchError:
    """Near names only for those that are shown: looking for them among thousands takes long."""
    lines = [f"{name}: {reason}" for name, reason in misfits.items()]
    for at, name in enumerate(list(misfits)[:NAMED_MOST]):
        hint = near(name, donor, count=1) if name not in donor else ""
        lines[at] += f" ({hint})" if hint else ""
    return MismatchError(
        f"{len(misfits)} of the selected tensors cannot go from {donor.path} into {recipient.path} "
        f"({listing(lines, NAMED_MOST)})",
        remedy="narrow the selection, or leave these out with --skip-missing",
    )


def _warnings(donor: Checkpoint, recipient: Checkpoint, selection: Selection, kept: Sequence[str]) -> list[str]:
    fates = {
        "it also carries": "it does not fit the new tensors and is not written",
        "these share their bytes": "they are written apart",
    }
    said = [f"{recipient.path}: {note}; {fate}" for note in recipient.notes
            for beginning, fate in fates.items() if note.startswith(beginning)]  # fmt: skip
    extra = [name for name, entry in donor.items() if entry in selection and name not in recipient]
    if extra:
        said.append(
            f"the recipient has no place for {len(extra)} of the donor's selected tensors: {listing(extra, 3)}"
        )
    if kept:
        said.append(
            f"what is no plain float cannot be interpolated and stays the recipient's: {listing(kept, most=3)}"
        )
    return said


def _stem(checkpoint: Checkpoint) -> str:
    path = Path(checkpoint.path)
    if path.name == "model.safetensors.index.json" and path.absolute().parent.name:
        return _safe(path.absolute().parent.name)[:80] or "checkpoint"  # every such index has that name
    return _safe(Path(checkpoint.path.removesuffix(".safetensors.index.json")).stem)[:80] or "checkpoint"


def _slug(selection: Selection) -> str:
    patterns = [
        *selection.only,
        *(f"not-{each}" for each in selection.exclude),
        *selection.layers,
        *selection.kind,
    ]
    slug = "_".join(_safe(each) or "any" for each in patterns) or "all"
    if len(slug) <= 80:
        return slug
    rest = hashlib.sha256("\0".join(patterns).encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{slug[:60]}-and-more-{rest}"  # two selections that begin alike are two files


def _safe(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._+@]+", "-", text.lstrip("=")).strip("-")


def _metadata(plan: Transplant, donor: Mapping[str, str], recipient: Mapping[str, str]) -> dict[str, str]:
    said = dict(plan.recipient.metadata)
    earlier = said.pop(METADATA_KEY, None)
    if earlier is not None:
        said[next(key for at in count(1) if (key := f"{METADATA_KEY}.{at}") not in said)] = earlier
    return {**said, METADATA_KEY: _origin(plan, donor, recipient)}


def _draft(plan: Transplant) -> dict[str, str]:
    """The metadata before the hashes are known; none is longer than a SHA-256."""
    return _metadata(plan, {"sha256": "0" * 64}, {"sha256": "0" * 64})


def _origin(plan: Transplant, donor: Mapping[str, str], recipient: Mapping[str, str]) -> str:
    """Where the output came from, as JSON for its metadata."""
    origin = {
        "version": __version__,
        "donor": {"path": plan.donor.path, **donor},
        "recipient": {"path": plan.recipient.path, **recipient},
        "selection": plan.selection.flags(),
        "alpha": plan.alpha,
        "tensors": len(plan.moved),
        "skipped": [misfit.name for misfit in plan.misfits],
    }
    renamed = {side: dict(each.renames) for side, each in (("donor", plan.donor), ("recipient", plan.recipient))}
    return json.dumps(origin | ({"renamed": renamed} if any(renamed.values()) else {}))
