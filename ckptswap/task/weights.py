"""A checkpoint's tensors into a model, all or nothing.

Not smp's `load_state_dict`, which can change the caller's dict and skip mismatched shapes.
"""

from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np
import torch
from torch import Tensor, nn

from ckptswap.checkpoint import Checkpoint, refuse_damaged
from ckptswap.errors import MismatchError, ModelError, listing
from ckptswap.naming import quantised
from ckptswap.task.arrays import bytes_of, to_torch
from ckptswap.task.fit import Fit, State, fit_of, tensors_of
from ckptswap.task.hooks import as_in
from ckptswap.task.models.hf_names import unread
from ckptswap.task.remedy import remedy
from ckptswap.ties import Group, Ties, equal, extent_of, ties_of
from ckptswap.twins import contradictions


def load_into(
    model: nn.Module,
    checkpoint: Checkpoint,
    *,
    exclude: Sequence[str] = (),
    partial: bool = False,
    match: str = "names",
) -> Fit:
    """Copy a checkpoint's tensors into the model; nothing unless it fits, as `check_fit` says.

    A float may have another precision (torch's `copy_` rounds it). Raises what `check_fit` raises, `MismatchError`
    where names of one tensor hold different values, and `FormatError` when a checksum is wrong.

    >>> import numpy as np
    >>> model = nn.Linear(1, 1)
    >>> wrapped = {"module.weight": np.ones((1, 1)), "module.bias": np.zeros(1)}
    >>> fit = load_into(model, Checkpoint.from_arrays(wrapped))
    >>> model.weight.item(), fit.said
    (1.0, "the tensors of <memory> are taken without the prefix 'module.', to match the model")
    """
    fit = check_fit(model, checkpoint, exclude=exclude, partial=partial, match=match)
    refuse_damaged(checkpoint)
    state = state_of(model)
    refuse_contradictions(fit, state)
    with torch.no_grad():
        for name in fit.loaded:
            state[name].copy_(to_torch(fit.checkpoint.read(name)))
    return fit


def check_fit(
    model: nn.Module,
    checkpoint: Checkpoint,
    *,
    exclude: Sequence[str] = (),
    partial: bool = False,
    match: str = "names",
) -> Fit:
    """How the checkpoint fits, when it does: names and shapes are equal, once wrappers' names are taken off.

    What `exclude` names (patterns, as the flag's) need not fit, and with `partial` nothing need, as long as
    something does. `num_batches_tracked` may be missing, as in old files, or of any number type, and so may a name
    of a tensor that is there under another. By a `match` of "shape-order" what has no namesake in the model is
    paired with it by order and shape first (`by_shape_order`, which raises its own). Raises `ModelError` as
    `state_of` does, and `MismatchError` with the missing, the unexpected and the mismatched tensors, ten of each
    and a count, and the flags that would help.
    """
    state = state_of(model)
    checkpoint, converted = as_in(model, checkpoint)
    fit = fit_of(state, checkpoint)
    if match == "shape-order":
        fit = fit.paired(state)
    fit = fit.preceded_by(converted).leaving(unread(model, fit.unexpected))
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
        is_packed = not set(copied).isdisjoint(chain.from_iterable(quantised(state)))
        raise ModelError(
            f"the model's state_dict() gives copies of its tensors ({listing(copied, most=3)}): what is written "
            "to them does not reach it",
            remedy="its library keeps quantised weights elsewhere: sweep the network as it was before"
            if is_packed
            else "wrap it in a module without that hook",
        )
    return state


def refuse_contradictions(fit: Fit, state: State) -> None:
    """Raises `MismatchError` where the names of one tensor of the model, or of parts of one, hold different values
    in the file.
    """
    ties, checkpoint = ties_of(state), fit.taken
    unlike = list(contradictions(checkpoint, ties).values()) or list(_overwritten(checkpoint, state, ties))
    if unlike:
        first = equal(unlike, " ≠ ")
        raise MismatchError(
            f"{checkpoint.path} holds different values under names of one tensor of the model ({first}), of which "
            "torch would silently keep the last",
            remedy="write it anew with the right ones under all of these names, or under one of them",
        )


def _overwritten(checkpoint: Checkpoint, state: State, ties: Ties) -> Iterator[Group]:
    """Of tensors of the model that share a part of their bytes: one whose values another's would write over."""
    for group in ties.among(checkpoint).together:
        own = [state[name] for name in group]
        if len(ties.once(group)) == 1 or len({tensor.dtype for tensor in own}) > 1:
            continue
        extents, width = [extent for tensor in own if (extent := extent_of(tensor))], own[0].element_size()
        begin, end = min(extent.begin for extent in extents), max(extent.end for extent in extents)
        memory = torch.empty((end - begin) // width, dtype=own[0].dtype)
        places = [
            torch.as_strided(memory, tensor.shape, tensor.stride(), (extent.begin - begin) // width)
            for tensor, extent in zip(own, extents, strict=True)
        ]
        meant = []
        for name, place in zip(group, places, strict=True):
            place.copy_(to_torch(checkpoint.read(name)))
            meant.append(bytes_of(place).copy())
        for name, place, value in zip(group, places, meant, strict=True):
            if not np.array_equal(bytes_of(place), value):
                yield name, group[-1]
                break
