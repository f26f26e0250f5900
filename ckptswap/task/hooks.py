"""The names under which a model's own hooks take the tensors of older files, as its `load_state_dict` would.

`torch.nn.utils.parametrizations.weight_norm` reads so what the older `weight_norm` wrote.
"""

from contextlib import suppress

import torch
from torch import nn

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import MismatchError
from ckptswap.renaming import aligned_with, renamed
from ckptswap.task.models.hf_names import as_loaded


def as_in(model: nn.Module, checkpoint: Checkpoint) -> tuple[Checkpoint, str | None]:
    """A checkpoint under the names that its tensors have in the model, as far as the model's library or its own
    hooks tell, and in words what was done.

    >>> import numpy as np
    >>> net = nn.utils.parametrizations.weight_norm(nn.Linear(2, 1, bias=False))
    >>> old = Checkpoint.from_arrays({"weight_g": np.ones((1, 1)), "weight_v": np.ones((1, 2))})
    >>> list(as_in(net, old)[0])
    ['parametrizations.weight.original0', 'parametrizations.weight.original1']
    """
    checkpoint, sentence = as_loaded(model, checkpoint)
    if not any(module._load_state_dict_pre_hooks for module in model.modules()):
        return checkpoint, sentence
    aligned, taken_off = aligned_with(checkpoint, model.state_dict(), "the model")
    new = _names_of_hooks(model, aligned)
    if not new:
        return checkpoint, sentence
    count = f"{len(new)} of the {len(checkpoint)} tensors of {checkpoint.path}"
    hooked = f"{count} are taken as the model's hooks name them"
    with suppress(MismatchError):  # two would have one name
        return renamed(aligned, new), "; ".join(filter(None, [sentence, taken_off, hooked]))
    return checkpoint, sentence


def _names_of_hooks(model: nn.Module, checkpoint: Checkpoint) -> dict[str, str]:
    """Names that become others of the model's. The hooks get tensors without values, and what they compute anew is
    left aside.
    """
    given = {name: torch.empty(entry.shape, device="meta") for name, entry in checkpoint.items()}
    own, names = dict(given), {id(tensor): name for name, tensor in given.items()}
    for path, module in model.named_modules(remove_duplicate=False):
        for hook in module._load_state_dict_pre_hooks.values():
            with suppress(Exception):  # the user's own, which may want values
                hook(own, f"{path}." if path else "", {}, False, [], [], [])
    state = model.state_dict()
    pairs = ((names.get(id(tensor)), new) for new, tensor in own.items() if new in state)
    return {old: new for old, new in pairs if old is not None and old != new}
