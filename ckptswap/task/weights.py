"""A checkpoint's tensors into a model, all or nothing.

Not smp's `load_state_dict`, which can change the caller's dict and skip mismatched shapes.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from ckptswap import dtypes
from ckptswap.checkpoint import Checkpoint, Entry
from ckptswap.errors import MismatchError, ModelError, listing
from ckptswap.formats.checksums import refuse_damaged
from ckptswap.ties import Ties, equal, extent_of, ties_of
from ckptswap.twins import contradictions

_REINTERPRETED = {1: np.uint8, 2: np.uint16}


def load_into(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Copy every tensor of the checkpoint into the model; nothing is copied unless all of them fit.

    Names and shapes must be equal; only a missing `num_batches_tracked` is forgiven, as torch itself does for old
    files, and a name of a tensor that is there under another. A float may have another precision (`copy_` rounds
    it); whole numbers and floats do not mix. Raises `MismatchError` with the missing, the unexpected and the
    mismatched tensors, ten of each and a count, and where names of one tensor hold different values; `FormatError`
    when a checksum is wrong.

    >>> model = nn.Linear(1, 1)
    >>> load_into(model, Checkpoint.from_arrays({"weight": np.ones((1, 1)), "bias": np.zeros(1)}))
    >>> model.weight.item()
    1.0
    """
    state = check_fit(model, checkpoint)
    refuse_damaged(checkpoint)
    refuse_contradictions(checkpoint, ties_of(state))
    with torch.no_grad():
        for name, value in state.items():
            if name in checkpoint:
                value.copy_(to_torch(checkpoint.read(name)))


def refuse_contradictions(checkpoint: Checkpoint, ties: Ties) -> None:
    """Raises `MismatchError` where the names of one tensor of the model hold different values in the file."""
    found = list(contradictions(checkpoint, ties).values())
    if found:
        said = equal(found, " ≠ ")
        raise MismatchError(
            f"{checkpoint.path} holds different values under names of one tensor of the model ({said}), of which "
            "torch would silently keep the last",
            remedy="write it anew with the right ones under all of these names, or under one of them",
        )


def to_torch(array: np.ndarray) -> Tensor:
    """An array as a tensor with the same bits; bf16 and the 8-bit floats included.

    >>> to_torch(np.zeros(2, dtypes.to_numpy("BF16"))).dtype
    torch.bfloat16
    """
    if array.dtype.kind != "V" and dtypes.from_numpy(array.dtype) in _PLAIN:
        return torch.from_numpy(array)
    raw = torch.from_numpy(array.view(_REINTERPRETED[array.dtype.itemsize]))
    return raw.view(getattr(torch, array.dtype.name))


_PLAIN = frozenset(
    ["F64", "F32", "F16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL", "C64", "C128"]
)


def check_fit(model: nn.Module, checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The model's own tensors by name; raises `MismatchError`, as `load_into` does, where the checkpoint does
    not fit.
    """
    state = state_of(model)
    there = set(ties_of(state).closed_twins(checkpoint))
    missing = [name for name in state if name not in there and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in checkpoint if name not in state]
    unlike = [_pair(checkpoint[name], state[name]) for name in state if name in checkpoint]
    parts = [
        f"{len(names)} {word} ({listing(names)})"
        for word, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("mismatched", [each for each in unlike if each]),
        )
        if names
    ]
    if parts:
        raise MismatchError(
            f"{checkpoint.path} does not fit the model: {'; '.join(parts)}", remedy=_remedy(missing, unexpected)
        )
    return state


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """The model's own tensors by name. Raises `ModelError` where its `state_dict` gives copies: what is written to
    these does not reach the model.
    """
    first, again = model.state_dict(), model.state_dict()
    state = {name: value for name, value in first.items() if isinstance(value, Tensor)}
    copied = [
        name for name, value in state.items() if value.numel() and extent_of(value) != extent_of(again[name])
    ]
    if copied:
        raise ModelError(
            f"the model's state_dict() gives copies of its tensors ({listing(copied, most=3)}): what is written "
            "to them does not reach it",
            remedy="wrap it in a module without that hook",
        )
    return state


def _pair(entry: Entry, value: Tensor) -> str:
    """Both sides of a mismatch, '' where they fit."""
    if entry.shape != tuple(value.shape):
        return f"{entry.name}: {list(entry.shape)} in the file, {list(value.shape)} in the model"
    if _family(entry) != _family_of(value):
        return f"{entry.name}: {entry.dtype} in the file, {str(value.dtype).removeprefix('torch.')} in the model"
    return ""


def _family(entry: Entry) -> str:
    if dtypes.is_packed(entry.dtype):
        return "packed"
    if entry.dtype[0] == "C":
        return "complex"
    if dtypes.is_float(entry.dtype):
        return "float"
    return "bool" if entry.dtype == "BOOL" else "whole"


def _family_of(value: Tensor) -> str:
    if value.dtype.is_complex:
        return "complex"
    if value.dtype.is_floating_point:
        return "float"
    return "bool" if value.dtype == torch.bool else "whole"


def _remedy(missing: Iterable[str], unexpected: Iterable[str]) -> str:
    """Name the prefix when that is all that differs: a wrapper (DataParallel, Lightning) is the usual cause."""
    left = list(unexpected)
    prefixes = {name.partition(".")[0] + "." for name in left}
    if len(prefixes) == 1 and {name.partition(".")[2] for name in left} >= set(missing):
        prefix = prefixes.pop()
        return f"every name in the file begins with {prefix!r}; use --strip-prefix {prefix}"
    return "give the model's own arguments with --model and --model-args"
