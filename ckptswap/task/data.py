"""What a model is scored on: the same batches in the same order, every time.

A data spec is a folder (see `folder`), `lab:NAME`, or a callable `file.py:name` / `package.module:name` that is
called with `data_args` and returns one of two things:

- something with `__getitem__` and `__len__` (a map-style Dataset, a list): its items are *samples*, (input,
  target) or (input, target, group), or the input alone where the target is the input;
- anything else that can be iterated (a generator, a DataLoader): it yields *batches* (input, target[, groups]),
  which are taken as they come.

Samples are put in batches of `batch_size` neighbours; a batch ends early where the next sample has another
shape. A group is anything hashable, one a sample; without groups each sample is its own.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from ckptswap.errors import DataError, UsageError, near
from ckptswap.task.callables import call, faults_of, is_callable_spec, load_callable
from ckptswap.task.folder import FolderSamples
from ckptswap.task.spec import TaskSpec

MEMORY = 2 << 30
"""Bytes of batches kept in memory; the rest is decoded again in every pass."""

Progress = Callable[[int, int | None], None]
"""Called with the samples done and, where it is known, how many there are."""


@dataclass(frozen=True)
class Batch:
    """inputs (N, …), targets (N, …), and a group for each sample; None where it is its own."""

    inputs: Tensor
    targets: Tensor
    groups: tuple[Hashable, ...] | None

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def nbytes(self) -> int:
        return self.inputs.nbytes + (0 if self.targets is self.inputs else self.targets.nbytes)

    def digest(self) -> bytes:
        """Shapes, dtypes and bytes."""
        digest = hashlib.sha256()
        for each in (self.inputs, self.targets):
            digest.update(repr((tuple(each.shape), each.dtype)).encode())
            digest.update(each.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return digest.digest()


class Data:
    """The samples of a task. `groups` (N,) int64, numbered as they first appear; `samples` = N.

    Everything is decoded once when it is built, and kept up to `MEMORY` bytes.
    """

    def __init__(self, source: Source, progress: Progress | None = None) -> None:
        self._source = source
        self._kept: list[Batch] = []
        self._digests: list[bytes] = []
        labels: list[Hashable] = []
        room = MEMORY
        for batch in source.batches(0):
            if progress:
                progress(len(labels) + len(batch), source.samples)
            labels += batch.groups or [("alone", len(labels) + at) for at in range(len(batch))]
            self._digests.append(batch.digest())
            room -= batch.nbytes
            if room >= 0:
                self._kept.append(replace(batch, groups=None))
            elif not source.again:
                raise DataError(
                    f"{source.name} yields more than {MEMORY >> 30} GB",
                    remedy="return a Dataset, which can be read again, or pass --limit",
                )
        if not labels:
            raise DataError(f"{source.name} holds no samples", remedy="check --data and --data-args")
        numbers = {label: number for number, label in enumerate(dict.fromkeys(labels))}
        self.groups = np.array([numbers[label] for label in labels], np.int64)
        self.samples = len(labels)

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """(inputs, targets) in fixed order; raises `DataError` where a second reading gives other values."""
        yield from ((batch.inputs, batch.targets) for batch in self._kept)
        if len(self._kept) == len(self._digests):
            return
        done = sum(len(batch) for batch in self._kept)
        for batch, digest in zip(self._source.batches(done), self._digests[len(self._kept) :], strict=True):
            if batch.digest() != digest:
                raise DataError(f"{self._source.name} gives other values when read again", remedy="seed it")
            yield batch.inputs, batch.targets

    def fingerprint(self) -> str:
        """SHA-256 over every tensor's shape, dtype and bytes, in order, and over the groups."""
        return hashlib.sha256(b"".join(self._digests) + self.groups.astype("<i8").tobytes()).hexdigest()


def load_data(spec: TaskSpec, progress: Progress | None = None) -> Data:
    """Find and read the data of a task. Raises `DataError` where it cannot be found, read or paired.

    >>> load_data(TaskSpec(data="lab:mni", limit=3)).samples
    3
    """
    if spec.data is None:
        raise DataError(
            "no data is named", remedy="pass --data, for example --data FOLDER or --data file.py:function"
        )
    found = _find(spec.data, spec)
    if isinstance(found, IterableDataset):
        raise DataError(
            f"{spec.data} is an IterableDataset", remedy="put it in a DataLoader, which yields batches"
        )
    if spec.group and not isinstance(found, FolderSamples):
        raise UsageError(
            "--group goes by file names, and only a folder has them", remedy="yield the group instead"
        )
    if hasattr(found, "__getitem__") and hasattr(found, "__len__"):
        return Data(SampleSource(spec.data, found, spec), progress)
    if isinstance(found, Iterable):
        return Data(BatchSource(spec.data, found, spec), progress)
    raise DataError(f"{spec.data} is a {type(found).__name__}", remedy="return a Dataset, or yield batches")


def _find(name: str, spec: TaskSpec) -> Any:
    if name.startswith("lab:"):
        datasets = importlib.import_module("ckptswap.lab.data").DATASETS
        key = name.removeprefix("lab:")
        if key not in datasets:
            remedy = near(key, datasets) or f"use one of {', '.join(datasets)}"
            raise DataError(f"the lab has no data {key!r}", remedy=remedy)
        return call(name, datasets[key], spec.data_args, DataError)
    if is_callable_spec(name) and not Path(name).is_dir():
        return call(name, load_callable(name, DataError), spec.data_args, DataError)
    if spec.data_args:
        raise UsageError(f"a folder takes no --data-args ({', '.join(spec.data_args)})", remedy="leave them out")
    return FolderSamples(name, target=spec.target, ignore=spec.ignore, group=spec.group, limit=spec.limit)


class Source:
    """Where batches come from. `again`: whether they can be read a second time; `samples`: None while unknown."""

    again = True
    samples: int | None = None

    def __init__(self, name: str, spec: TaskSpec) -> None:
        self.name, self.spec = name, spec
        self.normalize = _normalizer(spec.normalize)

    def batches(self, start: int) -> Iterator[Batch]:
        """From sample `start` on, which must be the first of a batch."""
        raise NotImplementedError

    def _batch(self, item: object, where: str, groups: Callable[[Any], tuple[Hashable, ...]]) -> Batch:
        """(input, target[, group]) of one sample or of a batch, as tensors."""
        parts = tuple(item) if isinstance(item, tuple | list) else (item,)
        least = 1 if self.spec.target == "input" else 2
        if not least <= len(parts) <= 3:
            raise DataError(
                f"{where} is {_describe(item)}", remedy="it must be (input, target) or (input, target, group)"
            )
        inputs = self.normalize(_tensor(parts[0], where))
        targets = inputs if self.spec.target == "input" else _tensor(parts[1], where)
        return Batch(inputs, targets, groups(parts[2]) if len(parts) == 3 else None)


class SampleSource(Source):
    """Samples by number, put together here."""

    def __init__(self, name: str, samples: Any, spec: TaskSpec) -> None:
        super().__init__(name, spec)
        self._items = samples
        self.samples = min(len(samples), spec.limit or len(samples))

    def batches(self, start: int) -> Iterator[Batch]:
        waiting: list[Batch] = []
        for at in range(start, self.samples or 0):
            sample = self._sample(at)
            if waiting and (len(waiting) == self.spec.batch_size or not _alike(sample, waiting[0])):
                yield _together(waiting, self.name)
                waiting = []
            waiting.append(sample)
        if waiting:
            yield _together(waiting, self.name)

    def _sample(self, at: int) -> Batch:
        where = f"sample {at} of {self.name}"
        with faults_of(where, DataError):
            item = self._items[at]
        sample = self._batch(item, where, lambda group: (_label(group, where),))
        inputs = sample.inputs[None]
        return Batch(inputs, inputs if sample.targets is sample.inputs else sample.targets[None], sample.groups)


class BatchSource(Source):
    """Batches as somebody else made them."""

    def __init__(self, name: str, batches: Iterable[Any], spec: TaskSpec) -> None:
        super().__init__(name, spec)
        self._items = batches
        self.again = False

    def batches(self, start: int) -> Iterator[Batch]:
        left = self.spec.limit
        with faults_of(self.name, DataError):
            items = iter(self._items)
        for at in range(1 << 62):
            if left == 0:
                return
            with faults_of(self.name, DataError):
                item = next(items, self)
            if item is self:
                return
            batch = self._whole_batch(item, f"batch {at} of {self.name}", left)
            left = None if left is None else left - len(batch)
            yield batch

    def _whole_batch(self, item: object, where: str, left: int | None) -> Batch:
        batch = self._batch(item, where, lambda groups: _labels(groups, where))
        counts = [len(each) if each.dim() else 0 for each in (batch.inputs, batch.targets)]
        counts += [len(batch.groups)] if batch.groups is not None else []
        if min(counts) != max(counts) or not counts[0]:
            raise DataError(f"{where} has {counts} inputs, targets and groups", remedy="yield as many of each")
        inputs = batch.inputs[:left]
        targets = inputs if batch.targets is batch.inputs else batch.targets[:left]
        return Batch(inputs, targets, batch.groups[:left] if batch.groups else None)


def _alike(a: Batch, b: Batch) -> bool:
    return a.inputs.shape == b.inputs.shape and a.targets.shape == b.targets.shape


def _together(samples: Sequence[Batch], name: str) -> Batch:
    if len({sample.groups is None for sample in samples}) > 1:
        raise DataError(f"only some samples of {name} have a group", remedy="give one to each, or to none")
    inputs = torch.cat([sample.inputs for sample in samples])
    same = samples[0].targets is samples[0].inputs
    targets = inputs if same else torch.cat([sample.targets for sample in samples])
    groups = tuple(label for sample in samples for label in sample.groups or ())
    return Batch(inputs, targets, groups or None)


def _tensor(value: object, where: str) -> Tensor:
    if isinstance(value, np.ndarray) and not value.flags.writeable:
        value = value.copy()  # torch warns of arrays that it could write through
    try:
        return torch.as_tensor(value).detach().cpu()
    except (TypeError, ValueError, RuntimeError):
        raise DataError(
            f"{where} holds a {type(value).__name__}", remedy="it must hold tensors or arrays"
        ) from None


def _labels(values: Any, where: str) -> tuple[Hashable, ...]:
    if not isinstance(values, Iterable) or isinstance(values, str) or getattr(values, "shape", None) == ():
        raise DataError(f"{where} has the groups {values!r}", remedy="yield one for each sample of the batch")
    return tuple(_label(each, where) for each in values)


def _label(value: Any, where: str) -> Hashable:
    label = value.tolist() if isinstance(value, Tensor | np.ndarray | np.generic) else value
    if not isinstance(label, Hashable):
        raise DataError(f"{where} has the group {label!r}", remedy="a group must be a number or a text")
    return label


def _describe(item: object) -> str:
    return f"a tuple of {len(item)}" if isinstance(item, tuple | list) else f"a {type(item).__name__}"


def _normalizer(text: str | None) -> Callable[[Tensor], Tensor]:
    """From 'MEAN/STD', one value or one a channel, to a function of (…, C, H, W)."""
    if text is None:
        return lambda image: image
    try:
        mean, std = (torch.tensor([float(each) for each in part.split(",")]) for part in text.split("/"))
    except ValueError:
        raise UsageError(f"--normalize {text!r} is not MEAN/STD", remedy="write for example 0.5/0.25") from None
    if not (torch.isfinite(mean).all() and torch.isfinite(std).all() and (std > 0).all()):
        raise UsageError(
            f"--normalize {text!r} is not finite, or a STD is not above 0", remedy="check the numbers"
        )

    def normalize(image: Tensor) -> Tensor:
        channels = image.shape[-3] if image.dim() >= 3 else 1
        if {len(mean), len(std)} - {1, channels} or not image.is_floating_point():
            raise UsageError(
                f"--normalize {text} does not fit {image.dtype} images of {channels} channels",
                remedy="give one value, or one a channel",
            )
        return (image - mean.view(-1, 1, 1)) / std.view(-1, 1, 1)

    return normalize
