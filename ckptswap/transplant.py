"""Give one checkpoint some tensors of another: a plan that can be printed, and a file written by byte ranges.

A recipient in safetensors files is copied by the kernel and only the taken tensors' bytes are written over it
(`formats.patch`), so that the cost is that of copying the file.
"""

import hashlib
import json
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import count
from pathlib import Path

from ckptswap import dtypes
from ckptswap.checkpoint import Checkpoint, checked_bytes, overlay, refuse_damaged, stale_note
from ckptswap.entries import Entry, with_key
from ckptswap.errors import MismatchError, UsageError, listing, near
from ckptswap.fingerprint import fingerprint
from ckptswap.formats import refuse_unread, suffixes, writer
from ckptswap.formats.atomic import refuse_existing
from ckptswap.formats.companions import companions
from ckptswap.formats.patch import FolderPatch, Patch, patches
from ckptswap.formats.sharded import DEFAULT_INDEX
from ckptswap.formats.target import Target
from ckptswap.formats.torch_patch import TorchPatch, torch_patch
from ckptswap.formats.torch_tensors import SUFFIXES as TORCH_SUFFIXES
from ckptswap.formats.torchscript import FORMAT as TORCHSCRIPT
from ckptswap.naming import is_counter
from ckptswap.precision import cast_like, told
from ckptswap.selection import Selection
from ckptswap.ties import Ties, equal
from ckptswap.twins import alike, contradictions, probable_ties, with_twins
from ckptswap.version import __version__
from ckptswap.watching import Progress, watch_of

METADATA_KEY = "ckptswap.transplant"
"""Where the latest transplant is told; what it said of earlier ones moves to `.1`, `.2` … in their order."""
NAMED_MOST = 10
_VERSION = re.compile(r"@[0-9a-f]{40}|\?hidden=[0-9a-f]{12}$")
"""What paths elsewhere have beside their names: a commit, or what stands for a secret."""


@dataclass(frozen=True)
class Misfit:
    """A selected tensor that the donor cannot give, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Transplant:
    """What will be taken, and what will not.

    `kept` names what an `alpha` between 0 and 1 leaves alone, since it cannot be mixed: integers, packed floats.
    `taken` is all that was selected and fits, `moved` that of it which gets values of the donor. `cast` tells what
    is rounded to the recipient's dtype, and how.
    """

    donor: Checkpoint
    recipient: Checkpoint
    selection: Selection
    alpha: float
    taken: tuple[Entry, ...]
    misfits: tuple[Misfit, ...]
    kept: tuple[str, ...]
    warnings: tuple[str, ...]
    cast: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def variant(self) -> Checkpoint:
        """The result as a checkpoint, without writing anything."""
        kept = set(self.kept)
        names = (entry.name for entry in self.taken if entry.name not in kept)
        return overlay(self.recipient, self.donor, names, alpha=self.alpha)

    @cached_property
    def moved(self) -> tuple[Entry, ...]:
        """What gets values of the donor: nothing when `alpha` is 0, and not what is kept."""
        kept = set(self.kept)
        return tuple(entry for entry in self.taken if entry.name not in kept) if self.alpha else ()

    @cached_property
    def changed(self) -> tuple[str, ...]:
        """The names of those whose bytes the donor changes; reads values, up to the first that differs."""
        return tuple(entry.name for entry in self.moved if not alike(entry, self.variant[entry.name]))

    @property
    def default_output(self) -> Path:
        """RECIPIENT+SELECTION@DONOR.safetensors, safe in a shell, in the current folder; a recipient that is a
        folder gives a folder, without suffix."""
        suffix = "" if self.recipient.home else ".safetensors"
        return Path(f"{_stem(self.recipient)}+{_slug(self.selection)}@{_stem(self.donor)}{suffix}")


def plan_transplant(
    donor: Checkpoint,
    recipient: Checkpoint,
    selection: Selection | None = None,
    *,
    alpha: float = 1.0,
    skip_missing: bool = False,
    cast: bool = False,
) -> Transplant:
    """Decide which of the recipient's selected tensors come from the donor; nothing is written.

    `alpha` 1 takes the donor's values, 0 keeps the recipient's, between them floats are interpolated. Raises
    `MismatchError` naming every tensor that the donor lacks or has in another shape or dtype, unless `cast`
    rounds its floats to the recipient's dtype, or `skip_missing` leaves it out (what counts batches may be
    lacking, as in old files, or be of another number type); `SelectionError` when nothing is selected;
    `UsageError` for an alpha outside 0…1.

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
    if guessed := probable_ties(recipient, donor, [entry.name for entry in wanted]):
        recipient = recipient.tied(guessed)
        wanted = chosen.pick(recipient)
    given, (donor, done) = donor, cast_like(donor, wanted) if cast else (donor, {})
    donor = with_twins(donor, recipient.ties)
    misfits = _misfits(wanted, donor, recipient.ties)
    needed = {name: reason for name, reason in misfits.items() if name in donor or not is_counter(name)}
    if needed and not skip_missing:
        raise _refusal(donor, recipient, needed)
    taken = tuple(entry for entry in wanted if entry.name not in misfits)
    if not taken:
        raise MismatchError(f"{donor.path} has none of the selected tensors in the shape of {recipient.path}",
                            remedy="compare them with `ckptswap diff`")  # fmt: skip
    kept = tuple(_unblended(taken, recipient.ties)) if 0 < alpha < 1 else ()
    left = tuple(Misfit(name, reason) for name, reason in misfits.items())
    done = {entry.name: done[entry.name] for entry in taken if entry.name in done}
    warnings = (*_tied(taken, recipient, chosen, guessed), *_warnings(donor, recipient, chosen, kept),
                *told(given, donor, done))  # fmt: skip
    return Transplant(donor, recipient, chosen, alpha, taken, left, kept, warnings, done)


def transplant(
    plan: Transplant,
    out: str | os.PathLike[str] | None = None,
    *,
    force: bool = False,
    link: bool = False,
    drop_unread: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Carry a plan out and return the path written (default: `plan.default_output`).

    A recipient that is a folder gives a folder, with the other files in it, unless `out` names a file; shards that
    do not change are copied, or hard-linked with `link`. A file of torch gives a file of torch in which all else
    stays; what is lost otherwise is told by `left_behind`. Atomic: the name holds the old content or the new.
    Raises `FileError` when the file exists and `force` is not given, or the folder exists; `UsageError` for a
    `link` without shards; `FormatError` where values of the recipient are not read and would be lost, unless
    `drop_unread`. The output's metadata adds where it came from to what the recipient said.
    """
    target = plan.default_output if out is None else Path(out)
    folder = _is_folder(plan, out)
    if not folder:
        refuse_existing(target, force=force)
    rewrite = _rewrite(plan, out, target, link, drop_unread)
    watch = watch_of(progress, checked_bytes(plan.donor, plan.recipient) + rewrite.nbytes)
    refuse_damaged(plan.donor, plan.recipient, watch=watch)
    made_of = (*plan.donor.files, *plan.recipient.files)
    others = companions(plan.recipient).taken if folder else ()
    draft = _metadata(plan, {"sha256": "0" * 64}, {"sha256": "0" * 64})  # no other hash is longer
    with _hashing(plan) as metadata:
        rewrite.write(Target(target, draft, force, made_of, watch, others=others), metadata)
    return target


@dataclass(frozen=True)
class _Afresh:
    """The variant written tensor by tensor, in the format that the output's name says."""

    variant: Checkpoint
    writer: Callable[[Iterable[Entry], Target], None]

    @property
    def nbytes(self) -> int:
        return self.variant.nbytes

    def write(self, target: Target, final: Callable[[], Mapping[str, str]]) -> None:
        self.writer(self.variant.values(), replace(target, metadata={**self.variant.metadata, **final()}))


def _rewrite(
    plan: Transplant, out: str | os.PathLike[str] | None, target: Path, link: bool, drop_unread: bool
) -> Patch | FolderPatch | TorchPatch | _Afresh:
    """The cheapest way to the output: the recipient's own files with other bytes in places, where that can be."""
    folder = _is_folder(plan, out)
    parts = patches(plan.recipient, {entry.name: plan.variant[entry.name] for entry in plan.taken})
    home = plan.recipient.home
    if link and not (parts and folder and home and home.has_index):
        raise UsageError("there are no shards to link", remedy="--link goes with a sharded recipient and a folder")
    if parts and folder:
        return FolderPatch(parts, link, has_index=home is None or home.has_index)
    if parts and len(parts) == 1 and target.suffix in ("", ".safetensors"):
        return parts[0]
    if (spliced := _spliced(plan, out)) is not None:
        return spliced
    refuse_unread(plan.recipient, drop_unread)
    return _Afresh(plan.variant, writer(f"{target}/" if folder else target))


def opened_by(plan: Transplant, out: str | os.PathLike[str]) -> str:
    """What opens the variant once it is written: the path, with the recipient's key where its other maps stay."""
    is_one_of_several = plan.recipient.key is not None and _spliced(plan, out) is not None
    return with_key(os.fspath(out), plan.recipient.key if is_one_of_several else None)


def left_behind(plan: Transplant, out: str | os.PathLike[str] | None = None) -> list[str]:
    """What the recipient holds that will not be written, or that changes with what is taken, a sentence each.

    To be said before anything is written: without it a graft may not load where its recipient did.
    """
    recipient = plan.recipient
    spliced = _spliced(plan, out)
    sentences = []
    if spliced is not None:
        if keys := spliced.sharing():
            sentences.append(f"what shares bytes with the taken changes with it: {listing(keys)}")
        if spliced.is_old:
            sentences.append("a file from before torch 1.6 has no room to say where it came from")
    elif recipient.beside:
        suffix = _torch_suffix(recipient, recipient.sources[0].name) or TORCH_SUFFIXES[0]
        way = f" (-o FILE{suffix} keeps it)" if _spliced(plan, f"x{suffix}") else ""
        sentences.append(f"what lies beside the tensors is not written: {listing(recipient.beside)}{way}")
    if left := companions(recipient).staying(into_folder=_is_folder(plan, out)):
        sentences.append(f"these files beside the weights are not taken along: {listing(left)}")
    return [f"{recipient.path}: {sentence}" for sentence in sentences]


def _torch_suffix(recipient: Checkpoint, path: str | os.PathLike[str]) -> str | None:
    """The ending of a name that promises a file of torch, of a recipient's own kind."""
    own = TORCHSCRIPT.suffixes if recipient.format == TORCHSCRIPT.name else ()
    return next((suffix for suffix in (*TORCH_SUFFIXES, *own) if os.fspath(path).endswith(suffix)), None)


def _spliced(plan: Transplant, out: str | os.PathLike[str] | None) -> TorchPatch | None:
    """What to replace in a file of torch, where the output is one too, and all else in it can stay."""
    if out is None or not _torch_suffix(plan.recipient, out) or _is_folder(plan, out):
        return None
    return torch_patch(plan.recipient, {entry.name: plan.variant[entry.name] for entry in plan.moved})


def _is_folder(plan: Transplant, out: str | os.PathLike[str] | None) -> bool:
    """Whether a folder is to be written: asked for by a final `/`, or as the recipient is one."""
    is_one = plan.recipient.home is not None
    if out is None:
        return is_one
    name = os.fspath(out)
    return name.endswith("/") or (is_one and not name.endswith(suffixes()))


@contextmanager
def _hashing(plan: Transplant) -> Iterator[Callable[[], Mapping[str, str]]]:
    """Hash both sides beside the copying; gives what waits for the hashes and makes the metadata of them.

    Leaving the block stops what still runs: an interrupt does not wait for a hash that nobody wants.
    """
    stop = threading.Event()
    with ThreadPoolExecutor(2) as pool:
        hashes = [pool.submit(fingerprint, side, stop) for side in (plan.donor, plan.recipient)]
        try:
            yield lambda: _metadata(plan, *(digest.result() for digest in hashes))
        finally:
            stop.set()


def _misfits(wanted: Sequence[Entry], donor: Checkpoint, ties: Ties) -> dict[str, str]:
    """What cannot be taken, and why; names that belong together are taken together or not at all."""
    reasons = {}
    for ours in wanted:
        theirs, unread = donor.get(ours.name), donor.unread.get(ours.name)
        if theirs is None:
            reasons[ours.name] = f"the donor has {f'{unread} there, which is not read' if unread else 'none'}"
        elif not ours.compatible(theirs):
            sides = f"donor {theirs.dtype} {list(theirs.shape)}, recipient {ours.dtype} {list(ours.shape)}"
            reasons[ours.name] = sides
    for group, two in contradictions(donor, ties.among({entry.name for entry in wanted})).items():
        reasons |= dict.fromkeys(group, f"{' and '.join(two)} are one tensor, but the donor's differ")
    for name in list(reasons):
        reasons |= {other: f"goes with {name}" for other in ties.group(name) if other not in reasons}
    return reasons


def _refusal(donor: Checkpoint, recipient: Checkpoint, misfits: Mapping[str, str]) -> MismatchError:
    """Near names only for those that are shown: looking for them among thousands takes long."""
    lines = [f"{name}: {reason}" for name, reason in misfits.items()]
    for at, name in enumerate(list(misfits)[:NAMED_MOST]):
        hint = near(name, donor, count=1) if name not in donor else ""
        lines[at] += f" ({hint})" if hint else ""
    fault = f"{len(misfits)} of the selected tensors cannot go from {donor.path} into {recipient.path}"
    can_be_cast = bool(cast_like(donor, [recipient[name] for name in misfits])[1])
    remedy = "narrow the selection, or leave these out with --skip-missing"
    if can_be_cast:
        remedy = f"--cast takes floats in the recipient's dtype; else {remedy}"
    elif all(entry.kind.startswith("lora.") for entry in donor.values()):
        remedy = "the donor has only the factors of an adapter (LoRA): peft:FOLDER is its base with these added"
    elif not any(name in recipient for name in donor):
        remedy = "they share no name: give checkpoints of one network, or say which names match by --map OLD=NEW"
    return MismatchError(f"{fault} ({listing(lines, NAMED_MOST)})", remedy=remedy)


def _unblended(taken: Iterable[Entry], ties: Ties) -> Iterator[str]:
    """What cannot be interpolated: integers, and all parts of a quantised weight."""
    return (entry.name for entry in taken if entry.name in ties.parts or not dtypes.is_float(entry.dtype))


def _tied(taken: Sequence[Entry], recipient: Checkpoint, selection: Selection, guessed: Ties) -> Iterator[str]:
    """What is taken though the selection does not name it: the other names of a tensor."""
    more = {entry.name for entry in taken if entry not in selection} if recipient.ties else set()
    groups = [group for group in recipient.ties.together if not more.isdisjoint(group)]
    parts = [group for group in groups if group in recipient.ties.quantised]
    guesses = [group for group in groups if guessed.group(group[0]) == group]
    for some, why in (
        (
            [group for group in groups if group not in parts and group not in guesses],
            "share their bytes in the recipient",
        ),
        (guesses, "hold equal bytes in both files, and count as one tensor"),
        (parts, "are parts of one quantised weight"),
    ):
        if some:
            also = sum(name in more for group in some for name in group)
            sign = " = " if all(group in recipient.ties.same for group in some) else " + "
            names = "1 name is taken that was" if also == 1 else f"{also} names are taken that were"
            yield f"{names} not selected, since they {why}: {equal(some, sign)}"


def _warnings(
    donor: Checkpoint, recipient: Checkpoint, selection: Selection, kept: Sequence[str]
) -> Iterator[str]:
    if recipient.stale:
        yield f"{recipient.path}: {stale_note(recipient.stale)}; it does not fit the new tensors"
    if recipient.unread:
        yield recipient.unread_note
    if extra := [name for name, entry in donor.items() if entry in selection and name not in recipient]:
        yield f"the recipient has no place for {len(extra)} of the donor's selected tensors: {listing(extra, 3)}"
    if kept:
        why = "what is not a plain float cannot be interpolated and stays the recipient's"
        yield f"{why}: {listing(kept, most=3)}"


def _stem(checkpoint: Checkpoint) -> str:
    """What a file is called without its ending, and the key of its map."""
    place = _VERSION.sub("", checkpoint.place)
    path = Path(place)
    folder = path.absolute().parent.name if path.name == DEFAULT_INDEX else ""  # every such index has that name
    stem = folder or Path(place.removesuffix(".safetensors.index.json")).stem
    return _safe(stem if checkpoint.key is None else f"{stem}-{checkpoint.key}")[:80] or "checkpoint"


def _slug(selection: Selection) -> str:
    excluded = [f"not-{pattern}" for pattern in selection.exclude]
    patterns = [*selection.only, *excluded, *selection.layers, *selection.kind]
    slug = "_".join(_safe(pattern) or "any" for pattern in patterns) or "all"
    if len(slug) <= 80:
        return slug
    rest = hashlib.sha256("\0".join(patterns).encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{slug[:60]}-and-more-{rest}"  # two selections that begin alike are two files


def _safe(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._+@]+", "-", text.lstrip("=")).strip("-")


def _metadata(plan: Transplant, donor: Mapping[str, str], recipient: Mapping[str, str]) -> dict[str, str]:
    """What the recipient said, and where the output came from, as JSON, by the hashes of both sides."""
    metadata = dict(plan.recipient.metadata)
    if (earlier := metadata.pop(METADATA_KEY, None)) is not None:
        metadata[next(key for at in count(1) if (key := f"{METADATA_KEY}.{at}") not in metadata)] = earlier
    origin = {
        "version": __version__,
        "donor": {"path": plan.donor.path, **donor},
        "recipient": {"path": plan.recipient.path, **recipient},
        "selection": plan.selection.flags(),
        "alpha": plan.alpha,
        "tensors": len(plan.moved),
        "skipped": [misfit.name for misfit in plan.misfits],
    }
    if plan.cast:
        origin["cast"] = dict(plan.cast)
    renamed = {"donor": dict(plan.donor.renames), "recipient": dict(plan.recipient.renames)}
    return {**metadata, METADATA_KEY: json.dumps(origin | ({"renamed": renamed} if any(renamed.values()) else {}))}
