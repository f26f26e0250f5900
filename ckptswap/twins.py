"""Names of one tensor in checkpoints that do not say so: missing ones, contradictions, and guesses from bytes.

Files of safetensors keep no sharing. Where no model tells, names whose bytes are equal in the recipient and in the
donor, and differ between the two, are taken to be one tensor: training keeps no two tensors equal. Constants
(biases of zeros) and whole numbers are no evidence by themselves, and follow the tensors of their layers.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Sequence, Set
from functools import cache
from typing import TypeVar

import numpy as np
import xxhash

from ckptswap import dtypes
from ckptswap.checkpoint import Checkpoint
from ckptswap.entries import Entry
from ckptswap.naming import is_counter, split_name
from ckptswap.ties import Group, Ties, merged

PROBE = 4096  # bytes by which tensors are told apart before all of their bytes are read
Item = TypeVar("Item")


def with_twins(checkpoint: Checkpoint, ties: Ties) -> Checkpoint:
    """The checkpoint in which a tensor that has one of its names has all of them.

    >>> whole = with_twins(Checkpoint.from_arrays({"embed": np.ones(2)}), Ties((("embed", "head"),)))
    >>> whole.read("head").tolist()
    [1.0, 1.0]
    """
    begun = {group: [name for name in group if name in checkpoint] for group in ties.same}
    completed = tuple(group for group, there in begun.items() if 0 < len(there) < len(group))
    missing = {name: begun[group][0] for group in completed for name in group if name not in checkpoint}
    return checkpoint.also_named(missing).tied(Ties(completed, completed))


def contradictions(checkpoint: Checkpoint, ties: Ties) -> dict[Group, Group]:
    """The groups of names of one tensor under which a checkpoint holds different values, each with two such names;
    counters may."""
    unlike: dict[Group, Group] = {}
    for group in ties.same:
        here = [] if is_counter(group[0]) else checkpoint.ties.once(name for name in group if name in checkpoint)
        odd = next((name for name in here[1:] if not alike(checkpoint[here[0]], checkpoint[name])), None)
        if odd is not None:
            unlike[group] = here[0], odd
    return unlike


def alike(a: Entry, b: Entry) -> bool:
    """Whether two tensors have the same shape, dtype and bytes."""
    if (a.shape, a.dtype) != (b.shape, b.dtype):
        return False
    return all(np.array_equal(ours, theirs) for ours, theirs in zip(a.chunks(), b.chunks(), strict=True))


def probable_ties(recipient: Checkpoint, donor: Checkpoint, names: Iterable[str]) -> Ties:
    """Groups with one of these names, and with others or with names that the donor lacks, that are one tensor as
    far as bytes tell. A name that the donor lacks counts as equal there.

    >>> def pair(value): return Checkpoint.from_arrays(dict.fromkeys("ab", np.arange(4.0) + value))
    >>> probable_ties(pair(0), pair(1), ["a"]).same
    (('a', 'b'),)
    """
    wanted = set(names)
    if len(wanted) == len(recipient) and all(name in donor for name in wanted):
        return Ties()
    layers = {split_name(name)[0] for name in wanted}
    near = {name for name in recipient if name in wanted or split_name(name)[0] in layers}
    evident = [tuple(entry.name for entry in group) for group in _evident(recipient, donor, near, wanted)]
    following = _following(recipient, donor, evident, wanted)
    groups = [group for group in merged([*evident, *following]) if not wanted.isdisjoint(group)]
    return Ties(tuple(groups), tuple(groups))


def _evident(
    recipient: Checkpoint, donor: Checkpoint, near: Collection[str], wanted: Collection[str]
) -> Iterator[list[Entry]]:
    """Groups by their bytes alone, some of whose names are `near`, and some not `wanted` or not the donor's."""

    def is_asked_for(group: Sequence[Entry]) -> bool:
        here = [entry.name for entry in group]
        return any(name in near for name in here) and any(name not in wanted or name not in donor for name in here)

    groups = [[entry for entry in recipient.values() if dtypes.is_float(entry.dtype) and entry.numel > 1]]
    keys: list[Callable[[Entry], Hashable]] = [lambda entry: (entry.shape, entry.dtype), _probe, _hash]
    for key in keys:
        parts = [part for group in groups for part in _grouped(group, key).values()]
        groups = [part for part in parts if len(part) > 1 and is_asked_for(part)]
    for same in groups:
        there = _grouped(same, lambda entry: _hash(donor[entry.name]) if _fits(entry, donor) else None)
        if there.pop(None, []) and len(there) == 1:  # those that it lacks join the others where these are equal
            there = {None: same}
        for group in there.values():
            if len(group) > 1 and is_asked_for(group) and _is_evidence(group[0], donor, group):
                yield group


def _is_evidence(entry: Entry, donor: Checkpoint, group: Sequence[Entry]) -> bool:
    """Whether anything is at stake, and more than a constant is equal."""
    theirs = next(donor[other.name] for other in group if _fits(other, donor))
    return not alike(entry, theirs) and not (_is_constant(entry) and _is_constant(theirs))


def _following(
    recipient: Checkpoint, donor: Checkpoint, evident: Sequence[Group], wanted: Set[str]
) -> Iterator[Group]:
    """What is no evidence, in layers that are one by another tensor."""
    known = {name for group in evident for name in group}
    inside = _grouped(wanted - known, lambda name: split_name(name)[0])

    @cache
    def digest(checkpoint: Checkpoint, name: str) -> Hashable:
        entry = checkpoint[name]
        return entry.shape, entry.dtype, _hash(entry)

    def alike_in_donor(same: Sequence[str]) -> Iterator[Group]:
        """Those that are equal in the donor too; a name that it lacks is one with each that is wanted."""
        missing = [name for name in same if name not in donor]
        there = [name for name in same if name in donor]
        for group in _grouped(there, lambda name: digest(donor, name)).values():
            yield tuple(group)
            if missing and not wanted.isdisjoint([*group, *missing]):
                yield (group[0], *missing)
        if missing:
            yield tuple(missing)

    for layers in dict.fromkeys(tuple(split_name(name)[0] for name in group) for group in evident):
        roles = dict.fromkeys(name.removeprefix(layer) for layer in layers for name in inside.get(layer, ()))
        for role in roles:
            named = [layer + role for layer in dict.fromkeys(layers) if layer + role in recipient]
            for same in _grouped(named, lambda name: digest(recipient, name)).values():
                yield from alike_in_donor(same)


def _grouped(items: Iterable[Item], key: Callable[[Item], Hashable]) -> dict[Hashable, list[Item]]:
    groups: dict[Hashable, list[Item]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return groups


def _fits(entry: Entry, donor: Checkpoint) -> bool:
    theirs = donor.get(entry.name)
    return theirs is not None and (theirs.shape, theirs.dtype) == (entry.shape, entry.dtype)


def _probe(entry: Entry) -> bytes:
    raw = bytearray(min(PROBE, entry.nbytes))  # whole values: every width divides it
    entry.source.read_into(memoryview(raw), 0)
    return bytes(raw)


def _hash(entry: Entry) -> bytes:
    digest = xxhash.xxh3_128()
    for chunk in entry.chunks():
        digest.update(chunk.data)
    return digest.digest()


def _is_constant(entry: Entry) -> bool:
    width, first = max(1, dtypes.bits(entry.dtype) // 8), None  # of packed ones, bytes
    for chunk in entry.chunks():
        values = chunk.reshape(-1, width)
        first = values[:1].copy() if first is None else first
        if not (values == first).all():
            return False
    return True
