"""Names of one tensor in checkpoints that do not say so: missing ones, contradictions, and guesses from bytes.

Files of safetensors keep no sharing: a tied tensor stands there twice, or under one of its names. Where no model
tells, names whose bytes are equal in the recipient and in the donor, and differ between the two, are taken to be
one tensor: training keeps no two tensors equal. Constant tensors (biases of zeros) and whole numbers are no
evidence by themselves, and follow the tensors of their layers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Sequence, Set
from functools import lru_cache
from typing import TypeVar

import numpy as np
import xxhash

from ckptswap import dtypes
from ckptswap.checkpoint import Checkpoint, Entry
from ckptswap.naming import is_counter, split_name
from ckptswap.ties import Group, Ties, merged

PROBE = 4096
"""Bytes by which tensors are told apart before all of their bytes are read."""
Item = TypeVar("Item")


def with_twins(checkpoint: Checkpoint, ties: Ties) -> Checkpoint:
    """The checkpoint in which a tensor that has one of its names has all of them.

    >>> found = with_twins(Checkpoint.from_arrays({"embed": np.ones(2)}), Ties((("embed", "head"),)))
    >>> found.read("head").tolist()
    [1.0, 1.0]
    """
    missing = {
        name: there
        for group in ties.same
        if (there := next((other for other in group if other in checkpoint), None)) is not None
        for name in group
        if name not in checkpoint
    }
    completed = tuple(group for group in ties.same if any(name in missing for name in group))
    return checkpoint.also_named(missing).tied(Ties(completed, completed))


def contradictions(checkpoint: Checkpoint, ties: Ties) -> dict[Group, Group]:
    """The groups of names of one tensor under which a checkpoint holds different values, each with two such names;
    counters may.
    """
    disagreeing = {group: _disagreeing(checkpoint, group) for group in ties.same if not is_counter(group[0])}
    return {group: two for group, two in disagreeing.items() if two}


def _disagreeing(checkpoint: Checkpoint, group: Group) -> Group:
    first, *others = checkpoint.ties.once(name for name in group if name in checkpoint) or [""]
    return next(((first, other) for other in others if not alike(checkpoint[first], checkpoint[other])), ())


def alike(a: Entry, b: Entry) -> bool:
    """Whether two tensors have the same shape, dtype and bytes."""
    if (a.shape, a.dtype) != (b.shape, b.dtype):
        return False
    return all(np.array_equal(ours, theirs) for ours, theirs in zip(a.chunks(), b.chunks(), strict=True))


def probable_ties(recipient: Checkpoint, donor: Checkpoint, names: Iterable[str]) -> Ties:
    """Groups with one of these names, and with others or with names that the donor lacks, that are one tensor as
    far as bytes tell.

    Only tensors of equal shape and dtype are looked at, a first stretch of each, and all of those whose stretches
    are equal. A name that the donor lacks counts as equal there.

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

    def theirs(key: Callable[[Entry], Hashable]) -> Callable[[Entry], Hashable]:
        return lambda entry: key(donor[entry.name]) if _fits(entry, donor) else None

    def is_asked_for(group: Sequence[Entry]) -> bool:
        return any(each.name in near for each in group) and any(
            each.name not in wanted or each.name not in donor for each in group
        )

    floats = [each for each in recipient.values() if dtypes.is_float(each.dtype) and each.numel > 1]
    for form in _equal(floats, lambda entry: (entry.shape, entry.dtype), is_asked_for):
        for begun in _equal(form, _probe, is_asked_for):
            for same in _equal(begun, _hash, is_asked_for):
                for group in _equal_or_missing(same, theirs(_hash)):
                    if is_asked_for(group) and _is_evidence(group[0], donor, group):
                        yield group


def _equal(
    entries: Iterable[Entry], key: Callable[[Entry], Hashable], wanted: Callable[[Sequence[Entry]], bool]
) -> Iterator[list[Entry]]:
    yield from (group for group in _grouped(entries, key).values() if len(group) > 1 and wanted(group))


def _equal_or_missing(entries: Sequence[Entry], key: Callable[[Entry], Hashable]) -> list[list[Entry]]:
    """Those of one key; those without any join them where there is but one."""
    groups = _grouped(entries, key)
    if groups.pop(None, []) and len(groups) == 1:
        return [list(entries)]
    return [group for group in groups.values() if len(group) > 1]


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
    digest = lru_cache(maxsize=None)(_digest)
    for layers in dict.fromkeys(tuple(split_name(name)[0] for name in group) for group in evident):
        roles = dict.fromkeys(name.removeprefix(layer) for layer in layers for name in inside.get(layer, ()))
        for role in roles:
            named = [layer + role for layer in dict.fromkeys(layers) if layer + role in recipient]
            for same in _grouped(named, lambda name: digest(recipient, name)).values():
                yield from _alike_in(donor, same, wanted, digest)


def _alike_in(
    donor: Checkpoint, names: Sequence[str], wanted: Set[str], digest: Callable[[Checkpoint, str], Hashable]
) -> Iterator[Group]:
    """Those that are equal in the donor too; a name that it lacks is one with each that is wanted."""
    missing = [name for name in names if name not in donor]
    for same in _grouped([name for name in names if name in donor], lambda name: digest(donor, name)).values():
        yield tuple(same)
        if missing and not wanted.isdisjoint([*same, *missing]):
            yield (same[0], *missing)
    if missing:
        yield tuple(missing)


def _grouped(items: Iterable[Item], key: Callable[[Item], Hashable]) -> dict[Hashable, list[Item]]:
    groups: dict[Hashable, list[Item]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return groups


def _digest(checkpoint: Checkpoint, name: str) -> Hashable:
    entry = checkpoint[name]
    return entry.shape, entry.dtype, _hash(entry)


def _fits(entry: Entry, donor: Checkpoint) -> bool:
    theirs = donor.get(entry.name)
    return theirs is not None and (theirs.shape, theirs.dtype) == (entry.shape, entry.dtype)


def _probe(entry: Entry) -> bytes:
    raw = bytearray(min(PROBE, entry.nbytes))  # whole values: every width divides it
    entry.source.read_into(memoryview(raw), 0)
    return bytes(raw)


def _width(entry: Entry) -> int:
    """Bytes of one value; 1 for packed ones."""
    return max(1, dtypes.bits(entry.dtype) // 8)


def _hash(entry: Entry) -> bytes:
    digest = xxhash.xxh3_128()
    for chunk in entry.chunks():
        digest.update(chunk.data)
    return digest.digest()


def _is_constant(entry: Entry) -> bool:
    width, first = _width(entry), None
    for chunk in entry.chunks():
        values = chunk.reshape(-1, width)
        first = values[:1].copy() if first is None else first
        if not (values == first).all():
            return False
    return True
