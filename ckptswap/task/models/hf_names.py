"""The names under which transformers loads a file: it renames, fuses and splits tensors of older forms.

The library's own table of conversions is asked, as its `from_pretrained` asks it; what a conversion computes is
computed when it is read.
"""

import copy
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import nn

from ckptswap import dtypes
from ckptswap.checkpoint import Checkpoint
from ckptswap.entries import Entry, Tensor
from ckptswap.errors import ModelError
from ckptswap.formats.torch_pickle import DTYPES
from ckptswap.registry import library
from ckptswap.renaming import aligned_with, renamed
from ckptswap.task.arrays import bytes_of, to_torch
from ckptswap.task.callables import first_line

_NOT_SAVED_ANY_MORE = {"rotary_emb.inv_freq": r"rotary_emb\.inv_freq$", "position_ids": r"(^|\.)position_ids$"}
"""Buffers that old files hold and that the library computes now, and the names that it leaves unread then."""


@dataclass(frozen=True, eq=False)
class Conversion:
    """Tensors of a file that become others in the model: `members` are these, each with the pattern of the
    library's that it fits; `first` is the name of the first that comes of them.
    """

    model: Any
    converter: Any
    first: str
    members: tuple[tuple[str, Entry], ...]

    def run(self, read: Callable[[Entry], torch.Tensor]) -> dict[str, torch.Tensor]:
        """What comes of the members, by name. Raises `ModelError` where the library cannot convert them."""
        converter = copy.deepcopy(self.converter)
        for pattern, entry in self.members:
            converter.add_tensor(self.first, entry.name, pattern, read(entry))
        try:
            made = converter.convert(self.first, model=self.model, config=self.model.config)
        except Exception as error:  # the library's own, of any class
            names = f"{self.members[0][1].name} and {len(self.members) - 1} more"
            raise ModelError(f"transformers cannot convert {names}", remedy=first_line(error)) from None
        return {name: value[0] if isinstance(value, list) else value for name, value in made.items()}

    def tensors(self) -> Iterator[Tensor]:
        """What comes of the members, not computed yet."""
        for name, value in self.run(_without_values).items():
            dtype = DTYPES[str(value.dtype).removeprefix("torch.")]
            yield Tensor(name, tuple(value.shape), dtype, _ConvertedSource(self, name))


@dataclass(frozen=True)
class _ConvertedSource:
    conversion: Conversion
    name: str

    def read_into(self, buffer: memoryview, offset: int) -> None:
        buffer[:] = _computed(self.conversion)[self.name].data[offset : offset + len(buffer)]


@lru_cache(maxsize=1)
def _computed(conversion: Conversion) -> dict[str, Any]:
    """Kept while its chunks are read: a conversion wants its tensors whole."""
    return {name: bytes_of(value) for name, value in conversion.run(_values).items()}


def _values(entry: Entry) -> torch.Tensor:
    raw = np.empty(entry.nbytes, np.uint8)
    entry.source.read_into(raw.data, 0)
    return to_torch(raw.view(dtypes.to_numpy(entry.dtype)).reshape(entry.shape))


def _without_values(entry: Entry) -> torch.Tensor:
    like = to_torch(np.empty(0, dtypes.to_numpy(entry.dtype)))
    return torch.empty(entry.shape, dtype=like.dtype, device="meta")


def as_loaded(model: nn.Module, checkpoint: Checkpoint) -> tuple[Checkpoint, str | None]:
    """A checkpoint under the names that its tensors have in a model of transformers, and in words what was done;
    of any other model, the checkpoint itself.

    >>> as_loaded(nn.Linear(1, 1), checkpoint := Checkpoint.from_arrays({}))[0] is checkpoint
    True
    """
    modeling = sys.modules.get("transformers.modeling_utils")
    if modeling is None or not isinstance(model, modeling.PreTrainedModel):
        return checkpoint, None
    places, taken_off = _places(model, checkpoint), None
    if not any(places):  # perhaps since a wrapper's names stand before those that the library knows
        checkpoint, taken_off = aligned_with(checkpoint, model.state_dict(), "the model")
        places = _places(model, checkpoint) if taken_off else places
    new, conversions = places
    if not new and not conversions:
        return checkpoint, taken_off
    converted = [tensor for conversion in conversions for tensor in conversion.tensors()]
    taken = {entry.name for conversion in conversions for _, entry in conversion.members}
    changed = f"{len(new) + len(taken)} of the {len(checkpoint)} tensors of {checkpoint.path}"
    sentence = f"{changed} are taken as transformers loads them, to match the model"
    return (
        renamed(checkpoint, new).holding(converted, without=taken),
        f"{taken_off}; {sentence}" if taken_off else sentence,
    )


def _places(model: Any, checkpoint: Checkpoint) -> tuple[dict[str, str], list[Conversion]]:
    """New names for the tensors that are only renamed, and the conversions of the others."""
    loading = library("transformers.core_model_loading")
    transforms = library("transformers.conversion_mapping").get_model_conversion_mapping(model)
    renamings = [known for known in transforms if isinstance(known, loading.WeightRenaming)]
    converters = [known for known in transforms if isinstance(known, loading.WeightConverter)]
    by_pattern = {pattern: known for known in converters for pattern in known.source_patterns}
    state, prefix = model.state_dict(), model.base_model_prefix
    new, reached = dict[str, str](), set[str]()
    members: dict[str, list[tuple[str, Entry]]] = defaultdict(list)
    for name in sorted(checkpoint, key=loading.dot_natural_key):
        target, pattern = loading.rename_source_key(name, renamings, converters, prefix, state)
        if target not in state and name in state:
            target, pattern = name, None
        if target not in state:
            continue
        if pattern is not None:
            members[target].append((pattern, checkpoint[name]))
        elif target != name and target not in checkpoint and target not in reached:
            new[name] = target
            reached.add(target)
    conversions = [
        Conversion(model, by_pattern[group[0][0]], first, tuple(group)) for first, group in members.items()
    ]
    return new, conversions


def unread(model: nn.Module, names: Iterable[str]) -> set[str]:
    """Which of these, for which a model has no place, its library leaves unread: buffers that old files hold."""
    modeling = sys.modules.get("transformers.modeling_utils")
    if modeling is None or not isinstance(model, modeling.PreTrainedModel):
        return set()
    buffers = [name for name, _ in model.named_buffers()]
    old = [pattern for end, pattern in _NOT_SAVED_ANY_MORE.items() if any(own.endswith(end) for own in buffers)]
    patterns = [re.compile(pattern) for pattern in (*(model._keys_to_ignore_on_load_unexpected or ()), *old)]
    return {name for name in names if any(test.search(name) for test in patterns)}
