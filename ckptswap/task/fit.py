"""How a checkpoint's tensors meet a model's: which go in, and what stands in the way."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from ckptswap import dtypes
from ckptswap.checkpoint import Checkpoint
from ckptswap.checkpoint import Tensor as Named
from ckptswap.entries import Entry
from ckptswap.errors import listing
from ckptswap.naming import is_counter
from ckptswap.renaming import aligned_with, limited
from ckptswap.selection import Selection
from ckptswap.shape_order import by_shape_order, paired_words
from ckptswap.sources import MemorySource
from ckptswap.ties import covered

State = Mapping[str, Tensor]
"""A model's tensors by name."""


@dataclass(frozen=True)
class Fit:
    """A checkpoint against a model, under the model's names.

    `own` are the model's tensors as entries, `checkpoint` has all of the file's, `said` tells what was taken off
    their names. `loaded` are the names that go in; `missing` those of the model that the file lacks, `unexpected`
    those of the file that the model lacks (counters aside), `unlike` those of both that have another shape or
    another sort of number, and why. `pairs` tell which names were paired by order and shape.
    """

    own: Checkpoint
    checkpoint: Checkpoint
    said: str | None
    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    unlike: Mapping[str, str]
    pairs: tuple[str, ...] = ()

    @property
    def problems(self) -> str:
        """What is in the way, in words: ten names of each sort and a count; '' where all fits."""
        sorts = {"missing": self.missing, "unexpected": self.unexpected, "mismatched": tuple(self.unlike.values())}
        return "; ".join(f"{len(names)} {word} ({listing(names)})" for word, names in sorts.items() if names)

    @property
    def kept(self) -> tuple[str, ...]:
        """The model's tensors into which nothing is loaded, counters aside."""
        return (*self.missing, *self.unlike)

    @property
    def left(self) -> tuple[str, ...]:
        """The file's tensors that go nowhere."""
        return (*self.unexpected, *self.unlike)

    def preceded_by(self, what: str | None) -> "Fit":
        """The same, after something that was done to names before."""
        sentences = [sentence for sentence in (what, self.said) if sentence]
        return replace(self, said="; ".join(sentences) or None)

    def paired(self, state: State) -> "Fit":
        """The fit with what has no namesake paired by order and shape. Raises `MismatchError` where these do not
        tell."""
        checkpoint, rules = by_shape_order(self.checkpoint, self.own)
        pairs = tuple(paired_words(checkpoint.path, self.own.path, rules))
        return replace(fit_of(state, checkpoint), said=self.said, pairs=pairs)

    def leaving(self, names: Container[str]) -> "Fit":
        """The same, as if the file did not hold these, for which the model has no place."""
        unexpected = tuple(name for name in self.unexpected if name not in names)
        if len(unexpected) == len(self.unexpected):
            return self
        kept = [name for name in self.checkpoint if name in self.own or name not in names]
        return replace(self, checkpoint=limited(self.checkpoint, kept), unexpected=unexpected)

    def without(self, patterns: Sequence[str]) -> "Fit":
        """The fit with what these name, on either side, taken for no problem."""
        if not patterns:
            return self
        names = Selection.parse(only=patterns)
        return Fit(
            self.own,
            self.checkpoint,
            self.said,
            self.loaded,
            tuple(name for name in self.missing if self.own[name] not in names),
            tuple(name for name in self.unexpected if self.checkpoint[name] not in names),
            {name: why for name, why in self.unlike.items() if self.own[name] not in names},
            self.pairs,
        )

    @cached_property
    def taken(self) -> Checkpoint:
        """The tensors that go in."""
        is_whole = len(self.loaded) == len(self.checkpoint)
        return self.checkpoint if is_whole else limited(self.checkpoint, self.loaded)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was taken off names, and what goes nowhere."""
        count = f"{len(self.left)} of {len(self.checkpoint)}"
        left = f"{self.checkpoint.path}: left out, not fitting the model: {count} tensors ({listing(self.left)})"
        return (*([self.said] if self.said else []), *self.pairs, *([left] if self.left else []))


def fit_of(state: State, checkpoint: Checkpoint) -> Fit:
    """Hold a checkpoint against a model's tensors: names and shapes, and the sort of the numbers; no values.

    Names are brought together where wrappers or a prefix explain them, and a tensor is there under any of its
    names, or as part of another. A float may have another precision; whole numbers and floats do not mix, but for
    `num_batches_tracked`, which may also be missing on either side.
    """
    checkpoint, said = aligned_with(checkpoint, state, "the model")
    there = {*checkpoint, *covered(state, checkpoint)}
    unlike = {name: _unlike(checkpoint[name], state[name]) for name in state if name in checkpoint}
    return Fit(
        entries_of(state),
        checkpoint,
        said,
        loaded=tuple(name for name, why in unlike.items() if not why),
        missing=tuple(name for name in state if name not in there and not is_counter(name)),
        unexpected=tuple(name for name in checkpoint if name not in state and not is_counter(name)),
        unlike={name: why for name, why in unlike.items() if why},
    )


def entries_of(state: State) -> Checkpoint:
    """A model's tensors as entries, which have layers and kinds; without values."""
    nothing = MemorySource(memoryview(b""))
    return Checkpoint(
        (Named(name, tuple(value.shape), "F32", nothing) for name, value in state.items()),
        path="the model",
        format="memory",
    )


def tensors_of(values: Mapping[str, object]) -> dict[str, Tensor]:
    """What of a state dict is a tensor."""
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}


def _unlike(entry: Entry, value: Tensor) -> str:
    """Both sides of a mismatch, '' where they fit."""
    if entry.shape != tuple(value.shape):
        return f"{entry.name}: {list(entry.shape)} in the file, {list(value.shape)} in the model"
    sorts = _sort(entry), _sort_of(value)
    if sorts[0] == sorts[1] or (is_counter(entry.name) and {*sorts} <= {"float", "whole"}):
        return ""
    return f"{entry.name}: {entry.dtype} in the file, {str(value.dtype).removeprefix('torch.')} in the model"


def _sort(entry: Entry) -> str:
    if dtypes.is_packed(entry.dtype):
        return "packed"
    if entry.dtype[0] == "C":
        return "complex"
    if dtypes.is_float(entry.dtype):
        return "float"
    return "bool" if entry.dtype == "BOOL" else "whole"


def _sort_of(value: Tensor) -> str:
    if value.dtype.is_complex:
        return "complex"
    if value.dtype.is_floating_point:
        return "float"
    return "bool" if value.dtype == torch.bool else "whole"
