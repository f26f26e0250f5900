"""What a model is scored on: the same batches in the same order, every time.

A data spec is a folder (see `folder`), or names a source of the registry (`NAME:REST`) or a callable
(`file.py:name`, `package.module:name`), which is called with `data_args` and returns one of two things:

- something with `__getitem__` and `__len__` (a map-style Dataset, a list): its items are *samples*, (input,
  target) or (input, target, group), or the input alone where the target is the input;
- anything else that can be iterated (a generator, a DataLoader): it yields *batches* (input, target[, groups]),
  which keep their composition.

A dict alone is an input that holds its target itself, as `labels` or `label`.

An input or a target is a tensor, an array, or numbers; or a tuple or dict of such (`tree`). A model gets a tuple
by position and a dict by name, without the names that none of its arguments has. A group is a whole number or a
text, one a sample, or the part that `group` names (see `grouping`); without groups each sample is its own.

The *place* of a sample is its number in the data's own order, and all that is told per sample is told in that
order. Batches are walked by *number*, in a seeded random order (see `order`): samples are put in batches of
`batch_size` of one shape, ready-made batches are reordered as they are. A task may ask for a walk by groups
instead (`TaskSpec.walk`), in which the samples of a group come one after the other.
"""

import hashlib
import os
from collections.abc import Callable, Container, Generator, Hashable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch.utils.data import IterableDataset

from ckptswap.errors import DataError, UsageError, brief, near
from ckptswap.registry import names, source_of
from ckptswap.task import in_memory
from ckptswap.task.callables import call, faults_of, is_callable_spec, load_callable
from ckptswap.task.data import random
from ckptswap.task.data.folder import FolderSamples
from ckptswap.task.data.grouping import Group
from ckptswap.task.data.layouts import ignored_of
from ckptswap.task.data.preprocessing import AUTO, normalization_of
from ckptswap.task.data.readers import BatchReader, DecodedSample, NumberedReader, SampleReader
from ckptswap.task.data.request import DataRequest
from ckptswap.task.limit import Limit
from ckptswap.task.metrics import load_metrics
from ckptswap.task.order import in_data_order, spread
from ckptswap.task.spec import TaskSpec
from ckptswap.task.threads import pinned_threads
from ckptswap.task.tree import Form, Tree, names_of, stacked, without_plain

MEMORY = 2 << 30
"""Bytes of samples kept in memory; the others are decoded again in every pass."""

NOT_DRAWN = ": batches as somebody makes them cannot be drawn from without making all; return a Dataset for that"

Key = TypeVar("Key", bound=Hashable)
Progress = Callable[[int, int | None], None]
"""Called with the samples done and, where it is known, how many there are."""


@dataclass(frozen=True)
class Batch:
    """inputs and targets, trees of tensors (n, …), one where the input is the target, and `places` (n,) int64."""

    inputs: Tree
    targets: Tree
    places: np.ndarray

    def __len__(self) -> int:
        return len(self.places)


class Data:
    """The samples of a task, read once when it is built, and kept up to `memory` bytes.

    `samples` = N. In the data's order: `groups` (N,) int64, numbered as they first appear, and `units` (N,) int64,
    equal where samples are drawn together: the number of the batch for ready-made batches, and where shapes
    differ; else each sample is its own. In a walk `by_group` units are its groups. By the number of the batch:
    `places`, of each the samples' places (n,). `shapes` maps each shape of an input (…) to the first batch that
    has it, `forms` each (number of samples, shape and dtype of an input), which `batch_forms` has by the number of
    the batch; `names` are those that inputs have, where they are dicts; `notes` say what was done unasked, `drawn`
    of what the samples are a part. So many `screen_samples`, spread over classes, groups and the data, come before
    all others. Raises `UsageError` where these are all.
    """

    def __init__(
        self,
        source: SampleReader,
        progress: Progress | None = None,
        memory: int = MEMORY,
        notes: Sequence[str] = (),
        screen_samples: int | None = None,
        *,
        by_group: bool = False,
    ) -> None:
        self._source = source
        self._kept: dict[int, DecodedSample] = {}
        known = [(own.group, own.kind, own.digest, own.label) for own in self._first(progress, memory)]
        if not known:
            raise DataError(f"{source.name} holds no samples", remedy="check --data and --data-args")
        groups, kinds, self._digests, classes = zip(*known, strict=True)
        self.samples = len(known)
        self.drawn = source.drawn
        self.notes = (*notes, *_drawn_words(source, self.samples))
        self.groups = _numbered(groups, source.name)
        if by_group:
            batches, self.units = source.by_group(kinds, self.groups)
            self.places = tuple(batches)
        else:
            first = self._spread(classes, screen_samples) if screen_samples else []
            self.places = tuple(source.batches(kinds, first))
            self.units = self._units(alone=source.again and len(set(kinds)) == 1)
        inputs = [kinds[places[0]][0] for places in self.places]
        self.shapes = _first_of_each([_shape(form) for form in inputs])
        self.batch_forms = [(size, *form) for size, form in zip(self.sizes, inputs, strict=True)]
        self.forms = _first_of_each(self.batch_forms)
        self.names = tuple(dict.fromkeys(name for form in inputs for name in names_of(form)))
        self._whole = dict(self._assembled())

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many samples each batch holds, by number."""
        return tuple(len(places) for places in self.places)

    def number(self, place: int) -> int:
        """Which sample of the data is in a place; another number where they are drawn."""
        return self._source.number(place)

    def batches(self) -> Generator[Batch]:
        """Every batch, by ascending number. Raises `DataError` where a second reading gives other values."""
        with closing(self.numbered()) as numbered_batches:
            for _, batch in numbered_batches:
                yield batch

    def numbered(self, wanted: Container[int] | None = None) -> Generator[tuple[int, Batch]]:
        """The batches with the wanted numbers, or all, in ascending order; no other is decoded.

        What is not kept is read ahead by threads that live as long as the iterator: use it up, or close it. What
        is kept comes as the same tensors each time: write to none.
        """
        numbers = [number for number in range(len(self.places)) if wanted is None or number in wanted]
        apart = [number for number in numbers if number not in self._whole]
        left = [at for number in apart for at in self.places[number].tolist() if at not in self._kept]
        with closing(self._source.read(left)) as again:
            for number in numbers:
                yield number, self._whole.get(number) or self._batch(number, again)

    def _spread(self, classes: Sequence[int], count: int) -> list[int]:
        if count >= self.samples:
            remedy = f"give fewer than {self.samples}, or sweep without a screen"
            raise UsageError(f"--screen sample:{count} is no part of {self.samples} samples", remedy=remedy)
        return spread(classes, self.groups.tolist(), count)

    def fingerprint(self) -> str:
        """SHA-256 over every sample's shapes, dtypes and bytes, and over the groups, in the data's order."""
        return hashlib.sha256(b"".join(self._digests) + self.groups.astype("<i8").tobytes()).hexdigest()

    def composition(self) -> str | None:
        """SHA-256 over which samples share a ready-made batch; None where the task's batch size says it."""
        batches = self._units(alone=False).astype("<i8")
        return None if self._source.again else hashlib.sha256(batches.tobytes()).hexdigest()

    def _first(self, progress: Progress | None, memory: int) -> Iterator[DecodedSample]:
        """The first reading: keeps the first samples, as many as there is room for, and passes on all of them."""
        room = memory
        with closing(self._source.first()) as samples:
            for at, sample in enumerate(samples):
                room -= sample.nbytes
                if room >= 0:
                    self._kept[at] = sample
                elif not self._source.again:
                    raise DataError(
                        f"{self._source.name} yields more than {memory / 2**30:.3g} GB",
                        remedy="return a Dataset, which can be read again, or pass --limit",
                    )
                if progress:
                    progress(at + 1, self._source.samples)
                yield sample

    def _assembled(self) -> Iterator[tuple[int, Batch]]:
        """The batches whose samples are all kept; they take their place in memory."""
        for number, places in enumerate(self.places):
            if all(at in self._kept for at in places.tolist()):
                yield number, _together([self._kept.pop(at) for at in places.tolist()], places)

    def _batch(self, number: int, again: Iterator[DecodedSample]) -> Batch:
        places = self.places[number]
        return _together([self._sample(at, again) for at in places.tolist()], places)

    def _sample(self, at: int, again: Iterator[DecodedSample]) -> DecodedSample:
        kept = self._kept.get(at)
        if kept is not None:
            return kept
        sample = next(again)
        if sample.digest != self._digests[at]:
            raise DataError(
                f"sample {self.number(at)} of {self._source.name} has other values when it is read again",
                remedy="seed it",
            )
        return sample

    def _units(self, *, alone: bool) -> np.ndarray:
        if alone:
            return np.arange(self.samples, dtype=np.int64)
        numbers = [np.full(len(places), number, np.int64) for number, places in enumerate(self.places)]
        return in_data_order(numbers, self.places)


def load_data(
    spec: TaskSpec, progress: Progress | None = None, memory: int = MEMORY, *, folder: Path | None = None
) -> Data:
    """Find and read the data of a task, and keep `memory` bytes of it. `folder` is that of the checkpoint, which
    may have a tokenizer, or say how images are normalized.

    Where no metric needs labels, none are asked for: inputs may stand alone. Raises `DataError` where it cannot be
    found, read or paired.

    >>> load_data(TaskSpec(data="lab:mni", limit=3)).samples
    3
    """
    name = named(spec, folder)
    if not any(metric.needs_labels for metric in load_metrics(spec)):
        spec = replace(spec, target="input")
    request = DataRequest(spec, folder)
    items = _find(name, request)
    normalization = normalization_of(request) if spec.normalize == AUTO else None
    if normalization:
        spec = replace(spec, normalize=normalization.text)
    if isinstance(items, IterableDataset):
        raise DataError(
            f"{spec.data} is an IterableDataset", remedy="put it in a DataLoader, which yields batches"
        )
    if isinstance(items, FolderSamples):  # whose files' names have told the groups
        spec = replace(spec, group=None)
    if hasattr(items, "__getitem__") and hasattr(items, "__len__"):
        source: SampleReader = NumberedReader(name, items, spec)
    elif isinstance(items, Iterable):
        source = BatchReader(name, items, spec)
    else:
        raise DataError(f"{spec.data} is {brief(items)}", remedy="give a Dataset or a list, or yield batches")
    with pinned_threads(spec.threads):  # as in every later reading, since a Dataset may well use torch
        notes = (*getattr(items, "notes", ()), *([normalization.note] if normalization else []))
        return Data(source, progress, memory, notes, spec.screen_samples, by_group=spec.walk == "groups")


def named(spec: TaskSpec, folder: Path | None = None) -> str:
    """What the spec names as data; `folder` is that of the checkpoint. Raises `DataError` where it names none.

    >>> named(TaskSpec(data="scans"))
    'scans'
    """
    if spec.data is not None:
        return spec.data
    is_of_tokens = random.known_vocabulary(DataRequest(spec, folder)) is not None
    own = "text:FILE (a document a line)" if is_of_tokens else "FOLDER (images/ and masks/, or one folder a class)"
    without = "random:tokens:32" if is_of_tokens else "random:3x224x224"
    raise DataError(
        "no data is named",
        remedy=f"pass --data {own}, npz:FILE or file.py:function; without any data, --data {without} --metric kl "
        "says how far outputs move",
    )


def implied(spec: TaskSpec) -> TaskSpec:
    """The spec with what the look of a data folder says: which mask value is not scored."""
    if spec.data is None or spec.ignore is not None or not os.path.isdir(spec.data):
        return spec
    return replace(spec, ignore=ignored_of(Path(spec.data)))


def _find(name: str, request: DataRequest) -> Any:
    spec, registered = request.spec, source_of("data", name)
    if name.startswith(in_memory.PREFIX):
        return in_memory.samples(name, spec.data_args)
    if registered is not None:
        source, rest = registered
        with faults_of(name, DataError):
            return source.made(rest, spec.data_args, *((request,) if source.is_told else ()))
    if is_callable_spec(name) and not Path(name).is_dir():
        return call(name, load_callable(name, DataError, names("data")), spec.data_args, DataError)
    meant = near(name.partition(":")[0], names("data")) if ":" in name and not Path(name).exists() else ""
    if meant:
        raise DataError(f"there is no data {name!r}", remedy=meant)
    return FolderSamples(name, target=spec.target, ignore=spec.ignore, group=spec.group, args=spec.data_args)


def _numbered(groups: Sequence[Group], name: str) -> np.ndarray:
    """Each sample's group as a number (N,) int64, in the order in which they appear."""
    if len({len(group) for group in groups}) > 1:
        raise DataError(f"only some samples of {name} have a group", remedy="give one to each, or to none")
    if not groups[0]:
        return np.arange(len(groups), dtype=np.int64)
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    return np.array([numbers[group] for group in groups], np.int64)


def _drawn_words(source: SampleReader, samples: int) -> Iterator[str]:
    """Which part of the data is taken; nothing where no limit is given."""
    limit = Limit.of(source.spec.limit)
    if source.drawn is None:
        if limit and limit.samples > samples:
            yield f"{source.name}: there are {samples:,} samples, and all are taken"
        return
    why = "" if source.again or limit is None or limit.is_first else NOT_DRAWN
    seed = "" if source.drawn.seed is None else f" (seed {source.drawn.seed})"
    yield f"{source.name}: {source.drawn.words(samples)}{seed}{why}"


def _shape(form: Form) -> tuple[Any, ...]:
    """Of an input of one tensor (shape, dtype) the shape; of others all there is."""
    return form[0] if len(form) == 2 and isinstance(form[1], torch.dtype) else form


def _first_of_each(keys: Sequence[Key]) -> dict[Key, int]:
    firsts: dict[Key, int] = {}
    for number, key in enumerate(keys):
        firsts.setdefault(key, number)
    return firsts


def _together(samples: Sequence[DecodedSample], places: np.ndarray) -> Batch:
    inputs = stacked([without_plain(sample.inputs) for sample in samples])
    if samples[0].targets is samples[0].inputs:
        return Batch(inputs, inputs, places)
    return Batch(inputs, stacked([sample.targets for sample in samples]), places)
