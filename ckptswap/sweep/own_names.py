"""From the model's names, under which a sweep works, back to those of the files that commands are given."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Mapping

from ckptswap.checkpoint import Checkpoint
from ckptswap.wrappers import correspondence


def own_names(checkpoint: Checkpoint) -> dict[str, str]:
    """What each tensor is called in its file.

    >>> import numpy as np
    >>> from ckptswap.renaming import renamed
    >>> own_names(renamed(Checkpoint.from_arrays({"module.w": np.zeros(1)}), {"module.w": "w"}))
    {'w': 'module.w'}
    """
    old = {new: old for old, new in checkpoint.renames.items()}
    return {name: old.get(name, name) for name in checkpoint}


def map_flags(donor: Mapping[str, str], recipient: Mapping[str, str], names: Iterable[str]) -> tuple[str, ...]:
    """The flags under which `transplant` finds these tensors of two files by itself; both are `own_names`.

    >>> map_flags({"w": "net.w"}, {"w": "module.w"}, ["w"]), map_flags({"w": "net.w", "v": "v"}, {"w": "w"}, ["w"])
    ((), ('--map', 'net.w=w'))
    """
    names_of = correspondence(donor.values(), frozenset(recipient.values())).names
    pairs = [(donor[name], recipient[name]) for name in names]
    if all(names_of.get(ours, ours) == theirs for ours, theirs in pairs):
        return ()
    return tuple(
        word for ours, theirs in pairs if ours != theirs for word in ("--map", f"{glob.escape(ours)}={theirs}")
    )
