"""Where samples come from: something that has them by number, or batches as somebody else made them.

Either way they become `DecodedSample`s, copied out of whatever memory the source may use again.
"""

import hashlib
from collections.abc import Generator, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from ckptswap.errors import DataError, UsageError
from ckptswap.statistics import Drawn
from ckptswap.task.callables import faults_of
from ckptswap.task.data.draw import drawn_of
from ckptswap.task.data.folder import FolderSamples
from ckptswap.task.data.grouping import Group, grouped, label_of, labels_of, plain_label, plain_labels
from ckptswap.task.data.normalize import normalizer, resizer
from ckptswap.task.limit import Limit
from ckptswap.task.order import batches_by_group, batches_of, joined_groups, reordered, reordered_by_group
from ckptswap.task.prefetch import read_ahead
from ckptswap.task.spec import TaskSpec
from ckptswap.task.tree import Form, Tree, bytes_of, described, form_of, leaves, sample_at, sizes_of, tree_of

AHEAD = 2
"""Batches that are read ahead."""
LABELS = ("labels", "label")
"""Under which a dict holds its own target."""
READERS = 4
"""Threads that decode a folder's files, and no more than the task may use."""

Kind = tuple[Form, ...]
"""The forms of a sample's input and target."""


@dataclass(frozen=True)
class DecodedSample:
    """inputs and targets as trees, the same where the input is the target.

    `digest` is the SHA-256 of their shapes, dtypes and bytes; samples of one `kind` fit into one batch.
    """

    inputs: Tree
    targets: Tree
    group: Group
    kind: Kind
    digest: bytes

    @classmethod
    def of(cls, inputs: Tree, targets: Tree, group: Group) -> "DecodedSample":
        parts = (inputs,) if targets is inputs else (inputs, targets)
        kind = tuple(map(form_of, parts))
        digest = hashlib.sha256(repr(kind).encode())
        for part in parts:
            for piece in bytes_of(part):
                digest.update(piece)
        return cls(inputs, targets, group, kind, digest.digest())

    @property
    def label(self) -> int:
        """The class, where the target is one whole number; -1 for any other target."""
        target = self.targets
        is_class = isinstance(target, Tensor) and target is not self.inputs and target.numel() == 1
        return int(target) if is_class and not (target.is_floating_point() or target.is_complex()) else -1

    @property
    def nbytes(self) -> int:
        parts = (self.inputs,) if self.targets is self.inputs else (self.inputs, self.targets)
        return sum(leaf.nbytes for leaf in leaves(parts))


class SampleReader:
    """`again`: whether samples can be read a second time. `samples`: how many, None while that is unknown.
    `drawn`: what part of the data they are, None where they are all of it; known when the last one is read.
    """

    again: bool
    samples: int | None
    drawn: Drawn | None = None

    def __init__(self, name: str, spec: TaskSpec) -> None:
        self.name, self.spec = name, spec
        self._normalize, self._resize = normalizer(spec.normalize), resizer(spec.resize)

    def number(self, place: int) -> int:
        """Which sample of the data is in a place."""
        return place

    def first(self) -> Generator[DecodedSample]:
        """All of them, in the order of the data."""
        raise NotImplementedError

    def read(self, places: Sequence[int]) -> Generator[DecodedSample]:
        """Those in these places, once more, and ahead of the caller until the iterator is closed."""
        raise NotImplementedError

    def batches(self, kinds: Sequence[Hashable], first: Sequence[int] = ()) -> list[np.ndarray]:
        """The places (n,) of each batch, in the order of the walk, of samples of these kinds; those in the places
        `first` come before all others, with what is in the same ready-made batch."""
        raise NotImplementedError

    def by_group(self, kinds: Sequence[Hashable], groups: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
        """The same for a walk by groups (N,), and the groups that it goes by (N,)."""
        raise NotImplementedError

    def _parts(self, item: object, where: str) -> tuple[Tree, Tree, tuple[Any, ...]]:
        """(input, target[, group]) of a sample or of a batch: two trees, and a tuple of what else there is.

        A dict alone holds its target itself, as `labels` or `label`.
        """
        parts = tuple(item) if isinstance(item, tuple | list) else _labelled(item)
        least = 1 if self.spec.target == "input" else 2
        most = 3 if self.spec.group is None else 2  # the group is no part any more
        if not least <= len(parts) <= most:
            raise DataError(
                f"{where} is {_describe(item)}",
                remedy="it must be (input, target) or (input, target, group), or a dict with labels; "
                "kl, agreement and output-mse need no target",
            )
        is_own = self.spec.target == "input"
        inputs = self._inputs(parts[0], where)
        targets = inputs if is_own else tree_of(parts[1], where)
        if self.spec.resize:
            inputs, targets = self._resized(inputs, targets, where)
        inputs = self._normalize(inputs) if isinstance(inputs, Tensor) else inputs
        return inputs, inputs if is_own else targets, parts[2:]

    def _resized(self, inputs: Tree, targets: Tree, where: str) -> tuple[Tree, Tree]:
        """An image, and a mask or image of its size."""
        if not isinstance(inputs, Tensor) or inputs.dim() < 3:
            raise UsageError(f"--resize is for images, and {where} has {described(inputs)}", remedy="leave it out")
        is_of_size = isinstance(targets, Tensor) and targets.dim() > 1 and targets.shape[-2:] == inputs.shape[-2:]
        return self._resize(inputs), self._resize(targets) if is_of_size else targets

    def _inputs(self, value: object, where: str) -> Tree:
        inputs = tree_of(value, where)
        if not leaves(inputs):
            raise DataError(f"{where} holds a {type(value).__name__}", remedy="it must hold tensors or arrays")
        if self.spec.normalize and not isinstance(inputs, Tensor):
            raise UsageError(
                f"--normalize is for inputs of one tensor, and {where} has {described(inputs)}",
                remedy="normalize them where they are made",
            )
        return inputs


class NumberedReader(SampleReader):
    """Samples by number: a folder, or somebody's Dataset, which only one thread at a time may use."""

    again = True

    def __init__(self, name: str, items: Any, spec: TaskSpec) -> None:
        super().__init__(name, spec)
        self._items = items
        own: tuple[Sequence[int], Drawn] | None = getattr(items, "drawn", None)  # `Texts` has drawn already
        with faults_of(name, DataError):
            taken = own or drawn_of(items, Limit.of(spec.limit))
        self._numbers, self.drawn = taken
        self.samples = len(self._numbers)
        self._threads = min(READERS, spec.threads) if isinstance(items, FolderSamples) else 1

    def first(self) -> Generator[DecodedSample]:
        every = range(self.samples or 0)
        return self.read(every) if self._threads > 1 else (self._sample(place) for place in every)

    def read(self, places: Sequence[int]) -> Generator[DecodedSample]:
        return read_ahead(self._sample, places, threads=self._threads, ahead=AHEAD * self.spec.batch_size)

    def batches(self, kinds: Sequence[Hashable], first: Sequence[int] = ()) -> list[np.ndarray]:
        return batches_of(kinds, self.spec.batch_size, first)

    def by_group(self, kinds: Sequence[Hashable], groups: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
        return batches_by_group(kinds, groups, self.spec.batch_size), groups

    def number(self, place: int) -> int:
        return self._numbers[place]

    def _sample(self, place: int) -> DecodedSample:
        number = self.number(place)
        where = f"sample {number} of {self.name}"
        with faults_of(where, DataError):
            item = self._items[number]
        item, told = grouped(item, self.spec.group, where)
        inputs, targets, rest = self._parts(item, where)
        group = [label_of(value, where) for value in told] or [plain_label(value, where) for value in rest]
        return DecodedSample.of(inputs, targets, tuple(group))


class BatchReader(SampleReader):
    """Batches as they were made; they keep what they hold, and only their order is ours. A limit takes the first
    samples: to draw some, all would have to be made, of which there may be no end."""

    again = False

    def __init__(self, name: str, items: Iterable[Any], spec: TaskSpec) -> None:
        super().__init__(name, spec)
        self._items = items
        self._sizes: list[int] = []
        self.samples = None

    def first(self) -> Generator[DecodedSample]:
        limit = Limit.of(self.spec.limit)
        left = None if limit is None else limit.samples
        with faults_of(self.name, DataError):
            items = iter(self._items)
        self._sizes = []
        while left != 0:
            with faults_of(self.name, DataError):
                item = next(items, self)
            if item is self:
                return
            samples = self._batch(item, f"batch {len(self._sizes)} of {self.name}")[:left]
            left = None if left is None else left - len(samples)
            self._sizes.append(len(samples))
            yield from samples
        self.drawn = Drawn(None)

    def read(self, places: Sequence[int]) -> Generator[DecodedSample]:
        assert not places, "batches that somebody else makes cannot be read again"
        yield from ()

    def batches(self, kinds: Sequence[Hashable], first: Sequence[int] = ()) -> list[np.ndarray]:
        return reordered(self._sizes, first)

    def by_group(self, kinds: Sequence[Hashable], groups: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
        joined = joined_groups(self._sizes, groups)
        return reordered_by_group(self._sizes, joined), joined

    def _batch(self, item: object, where: str) -> list[DecodedSample]:
        item, told = grouped(item, self.spec.group, where)
        inputs, targets, rest = self._parts(item, where)
        groups = [labels_of(values, where) for values in told] or [plain_labels(values, where) for values in rest]
        counts = [*sizes_of(inputs), *sizes_of(targets), *map(len, groups)]
        if min(counts) != max(counts) or not counts[0]:
            raise DataError(f"{where} has {counts} inputs, targets and groups", remedy="yield as many of each")
        samples = []
        for at, group in enumerate(groups[0] if groups else [()] * counts[0]):
            own = sample_at(inputs, at)
            samples.append(DecodedSample.of(own, own if targets is inputs else sample_at(targets, at), group))
        return samples


def _labelled(item: object) -> tuple[object, ...]:
    """A dict without its labels, and these; anything else is an input alone."""
    if not isinstance(item, Mapping):
        return (item,)
    label = next((name for name in LABELS if name in item), None)
    return (item,) if label is None else ({key: item[key] for key in item if key != label}, item[label])


def _describe(item: object) -> str:
    return f"a tuple of {len(item)}" if isinstance(item, tuple | list) else f"a {type(item).__name__}"
