"""Which names are one tensor, told by where their bytes lie.

`same` are names of one tensor (tied weights, a module registered twice). Others share part of their memory (a view
of a fused weight): `together` are all the names that a change of one reaches, and that are taken together.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from math import prod
from typing import Any, NamedTuple

from ckptswap.errors import listing

Group = tuple[str, ...]
WOVEN_MOST = 100
"""Tensors that are held against one another, where their stretches meet; of more, the stretches decide."""


class Extent(NamedTuple):
    """Where a tensor's bytes lie in a storage, in bytes, and in which form (shape, strides, dtype)."""

    storage: Hashable
    begin: int
    end: int
    form: Hashable
    steps: tuple[tuple[int, int], ...] = ()
    """Lengths and strides, in elements, of the dimensions of more than one; none for a plain run of bytes."""


@dataclass(frozen=True)
class Ties:
    """Groups of two names or more, the names in the order in which their model has them.

    >>> ties = Ties.of({"a": Extent(0, 0, 8, ()), "b": Extent(0, 0, 8, ()), "c": Extent(0, 4, 8, ())})
    >>> ties.same, ties.together
    ((('a', 'b'),), (('a', 'b', 'c'),))
    """

    same: tuple[Group, ...] = ()
    together: tuple[Group, ...] = ()
    quantised: tuple[Group, ...] = ()
    """The parts of one quantised weight each: values, scales, zero points; none means anything by itself."""

    @classmethod
    def of_parts(cls, groups: Iterable[Group]) -> Ties:
        """Of tensors that are one quantised weight together."""
        parts = _groups(groups)
        return cls((), parts, parts)

    @classmethod
    def of(cls, extents: Mapping[str, Extent]) -> Ties:
        """From where each tensor lies; one without bytes is tied to nothing."""
        names: dict[Extent, list[str]] = defaultdict(list)
        for name, extent in extents.items():
            if extent.end > extent.begin:
                names[extent].append(name)
        place = {name: at for at, name in enumerate(extents)}
        reached = (sorted(group, key=place.__getitem__) for group in _overlapping(names))
        return cls(_groups(names.values()), _groups(reached))

    def joined(self, other: Ties) -> Ties:
        """Both; groups that share a name become one."""
        if not other or not self:
            return self or other
        same = merged([*self.same, *other.same])
        quantised = tuple(dict.fromkeys([*self.quantised, *other.quantised]))
        return Ties(same, merged([*self.together, *other.together, *same]), quantised)

    def among(self, names: Collection[str]) -> Ties:
        """What is left of it among these names."""
        return self._changed(lambda group: [name for name in group if name in names])

    def renamed(self, names: Mapping[str, str]) -> Ties:
        """Under other names (old → new); what is not mentioned keeps its own."""
        return self._changed(lambda group: [names.get(name, name) for name in group])

    def unbroken(self, names: Collection[str]) -> Ties:
        """The groups all or none of whose names are among these."""
        return self._changed(lambda group: group if len({name in names for name in group}) == 1 else [])

    def _changed(self, change: Callable[[Group], Sequence[str]]) -> Ties:
        return Ties(*(_groups(map(change, groups)) for groups in (self.same, self.together, self.quantised)))

    @cached_property
    def parts(self) -> frozenset[str]:
        """All names of quantised weights' parts."""
        return frozenset(chain.from_iterable(self.quantised))

    def twins(self, name: str) -> Group:
        """All names of the tensor, this one included."""
        return self._same.get(name, (name,))

    def group(self, name: str) -> Group:
        """All names that are taken together with this one, which is one of them."""
        return self._together.get(name, (name,))

    def closed(self, names: Iterable[str]) -> list[str]:
        """These names and all that are taken together with them, each once."""
        closed: dict[str, None] = {}
        for name in names:
            if name not in closed:  # else its whole group is there
                closed.update(dict.fromkeys(self.group(name)))
        return list(closed)

    def once(self, names: Iterable[str]) -> list[str]:
        """The first of these names for each tensor."""
        firsts: dict[str, str] = {}
        for name in names:
            firsts.setdefault(self.twins(name)[0], name)
        return list(firsts.values())

    def __bool__(self) -> bool:
        return bool(self.together)

    def __str__(self) -> str:
        """What a reader should know, in one line."""
        have = "tensor has" if len(self.same) == 1 else "tensors have"
        parts = [f"{len(self.same)} {have} several names ({equal(self.same)})"] if self.same else []
        if self.quantised:
            weights = f"{len(self.quantised)} quantised weight{'s are' if len(self.quantised) > 1 else ' is'}"
            parts.append(f"{weights} in parts ({equal(self.quantised, ' + ')})")
        shared = [group for group in self.together if len({self.twins(name)[0] for name in group}) > 1]
        if others := [group for group in shared if group not in self.quantised]:
            parts.append(f"some share part of their bytes ({equal(others, ' + ')})")
        return "; ".join(parts)

    @cached_property
    def _same(self) -> dict[str, Group]:
        return {name: group for group in self.same for name in group}

    @cached_property
    def _together(self) -> dict[str, Group]:
        return {name: group for group in self.together for name in group}


def equal(groups: Sequence[Group], sign: str = " = ", most: int = 1) -> str:
    """The first groups in words, and how many more there are.

    >>> equal([("embed", "head"), ("a", "b")])
    'embed = head and 1 more'
    """
    words = [sign.join([*group[:3], *(["…"] if len(group) > 3 else [])]) for group in groups]
    return listing(words, most=most)


def _groups(groups: Iterable[Sequence[str]]) -> tuple[Group, ...]:
    return tuple(tuple(group) for group in groups if len(group) > 1)


def merged(groups: Iterable[Sequence[str]]) -> tuple[Group, ...]:
    """Groups that share a name as one, names in the order in which they first appear.

    >>> merged([("a", "b"), ("c", "d"), ("b", "e")])
    (('a', 'b', 'e'), ('c', 'd'))
    """
    above: dict[str, str] = {}
    for group in groups:
        for name in group:
            above.setdefault(name, name)
            above[_top(above, name)] = _top(above, group[0])
    members: dict[str, list[str]] = defaultdict(list)
    for name in above:
        members[_top(above, name)].append(name)
    return _groups(members.values())


def _top(above: dict[str, str], name: str) -> str:
    """The name that stands for a group, with the way to it halved for the next one."""
    while above[name] != name:
        above[name] = above[above[name]]
        name = above[name]
    return name


def _overlapping(names: Mapping[Extent, Sequence[str]]) -> Iterator[list[str]]:
    """Names whose stretches of one storage meet, be it through others between them."""
    storages: dict[Hashable, list[Extent]] = defaultdict(list)
    for extent in names:
        storages[extent.storage].append(extent)
    for extents in storages.values():
        runs: list[list[Extent]] = []
        reach = -1
        for extent in sorted(extents, key=lambda extent: (extent.begin, extent.end)):
            if extent.begin >= reach:
                runs.append([])
            runs[-1].append(extent)
            reach = max(reach, extent.end)
        for run in runs:
            yield from _meeting(run, names)


def _meeting(extents: Sequence[Extent], names: Mapping[Extent, Sequence[str]]) -> Iterator[list[str]]:
    """Of extents whose stretches meet, those together that have bytes in common: columns of a matrix have none."""
    groups: list[list[Extent]] = [] if len(extents) <= WOVEN_MOST else [list(extents)]
    for extent in extents if not groups else ():
        meeting = [group for group in groups if not all(_are_apart(other, extent) for other in group)]
        groups = [group for group in groups if group not in meeting]
        groups.append([*chain.from_iterable(meeting), extent])
    for group in groups:
        yield [name for extent in group for name in names[extent]]


def _are_apart(a: Extent, b: Extent) -> bool:
    """Whether two tensors surely have no byte in common: they lie apart, or side by side in the same rows."""
    if a.end <= b.begin or b.end <= a.begin:
        return True
    (row, own), (other_row, other) = _in_row(a), _in_row(b)
    shift = (b.begin - a.begin) % row
    return row == other_row and own <= shift and shift + other <= row


def _in_row(extent: Extent) -> tuple[int, int]:
    """How long the rows are of which a tensor takes a part (all of it: one row), and how much it takes of each."""
    outer = max((step for _, step in extent.steps), default=0)
    inner = sum((size - 1) * step for size, step in extent.steps if step != outer) + 1
    width = (extent.end - extent.begin) // (sum((size - 1) * step for size, step in extent.steps) + 1)
    return outer * width or extent.end - extent.begin, inner * width


def extent_of(tensor: Any) -> Extent | None:
    """Where a torch tensor lies in memory; None for one without bytes of its own (sparse, meta, empty)."""
    try:
        begin, size = tensor.data_ptr(), tensor.element_size()
        steps = [(length, step) for length, step in zip(tensor.shape, tensor.stride(), strict=True) if length > 1]
    except (RuntimeError, NotImplementedError, AttributeError):
        return None
    if not begin or not tensor.numel():
        return None
    last = sum((length - 1) * step for length, step in steps)
    form = tuple(tensor.shape), tuple(steps), tensor.dtype
    return Extent(str(tensor.device), begin, begin + (last + 1) * size, form, tuple(steps))


def covered(tensors: Mapping[str, Any], names: Iterable[str]) -> set[str]:
    """Which of these torch tensors have all of their bytes in those of the names: twins, and views of them."""
    extents = {name: extent for name, tensor in tensors.items() if (extent := extent_of(tensor))}
    given = {extents[name] for name in names if name in extents}
    runs: dict[Hashable, list[list[int]]] = defaultdict(list)
    for extent in sorted(filter(_is_dense, given), key=lambda extent: extent.begin):
        run = runs[extent.storage]
        if run and extent.begin <= run[-1][1]:
            run[-1][1] = max(run[-1][1], extent.end)
        else:
            run.append([extent.begin, extent.end])

    def is_inside(extent: Extent) -> bool:
        run = runs[extent.storage]
        at = bisect_right(run, extent.begin, key=lambda stretch: stretch[0]) - 1
        return at >= 0 and extent.end <= run[at][1]

    return {name for name, extent in extents.items() if extent in given or is_inside(extent)}


def _is_dense(extent: Extent) -> bool:
    """Whether it has every byte of its stretch."""
    last = sum((length - 1) * step for length, step in extent.steps)
    return last + 1 == prod(length for length, _ in extent.steps)


def ties_of(tensors: Mapping[str, Any]) -> Ties:
    """Which of these torch tensors are one, by their place in memory."""
    extents = {name: extent_of(tensor) for name, tensor in tensors.items()}
    return Ties.of({name: extent for name, extent in extents.items() if extent})
