"""A checkpoint's tensors into a model, all or nothing.

Not smp's `load_state_dict`, which can change the caller's dict and skip mismatched shapes.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ckptswap import dtypes
from ckptswap.checkpoint import Checkpoint, refuse_damaged
from ckptswap.errors import MismatchError, ModelError, listing
from ckptswap.task.fit import Fit, fit_of, tensors_of
from ckptswap.task.remedy import remedy
from ckptswap.ties import Ties, equal, extent_of, ties_of
from ckptswap.twins import contradictions

_REINTERPRETED = {1: np.uint8, 2: np.uint16}


def load_into(
    model: nn.Module, checkpoint: Checkpoint, *, exclude: Sequence[str] = (), partial: bool = False
) -> Fit:
    """Copy a checkpoint's tensors into the model; nothing unless it fits, as `check_fit` says.

    A float may have another precision (torch's `copy_` rounds it). Raises what `check_fit` raises, `MismatchError`
    where names of one tensor hold different values, and `FormatError` when a checksum is wrong.

    >>> model = nn.Linear(1, 1)
    >>> wrapped = {"module.weight": np.ones((1, 1)), "module.bias": np.zeros(1)}
    >>> fit = load_into(model, Checkpoint.from_arrays(wrapped))
    >>> model.weight.item(), fit.said
    (1.0, "the tensors of <memory> are taken without the prefix 'module.', to match the model")
    """
    fit = check_fit(model, checkpoint, exclude=exclude, partial=partial)
    refuse_damaged(checkpoint)
    state = state_of(model)
    refuse_contradictions(fit.taken, ties_of(state))
    with torch.no_grad():
        for name in fit.loaded:
            state[name].copy_(to_torch(fit.checkpoint.read(name)))
    return fit


def check_fit(
    model: nn.Module, checkpoint: Checkpoint, *, exclude: Sequence[str] = (), partial: bool = False
) -> Fit:
    """How the checkpoint fits, when it does: names and shapes are equal, once wrappers' names are taken off.

    What `exclude` names (patterns, as the flag's) need not fit, and with `partial` nothing need, as long as
    something does. `num_batches_tracked` may be missing, as in old files, or of any number type, and so may a name
    of a tensor that is there under another. Raises `ModelError` as `state_of` does, and `MismatchError` with the
    missing, the unexpected and the mismatched tensors, ten of each and a count, and the flags that would help.
    """
    state = state_of(model)
    fit = fit_of(state, checkpoint)
    judged = fit.without(exclude)
    if state and not fit.loaded and (partial or not judged.problems):
        raise MismatchError(f"nothing in {checkpoint.path} fits the model", remedy=remedy(state, checkpoint, fit))
    if judged.problems and not partial:
        raise MismatchError(
            f"{checkpoint.path} does not fit the model: {judged.problems}",
            remedy=remedy(state, checkpoint, judged),
        )
    return fit


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """The model's own tensors by name. Raises `ModelError` where its `state_dict` gives copies: what is written to
    these does not reach the model.
    """
    state, again = tensors_of(model.state_dict()), model.state_dict()
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


def refuse_contradictions(checkpoint: Checkpoint, ties: Ties) -> None:
    """Raises `MismatchError` where the names of one tensor of the model hold different values in the file."""
    unlike = list(contradictions(checkpoint, ties).values())
    if unlike:
        first = equal(unlike, " ≠ ")
        raise MismatchError(
            f"{checkpoint.path} holds different values under names of one tensor of the model ({first}), of which "
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
