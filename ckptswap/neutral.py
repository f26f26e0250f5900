"""What a checkpoint is without what training put into it: zeros, and normalisation at its identity.

A swap that costs nothing may say that the donor's values serve, or that no values are needed there at all. The
recipient's tensors under these values tell the two apart (`sweep.zero_control`).
"""

from collections.abc import Iterator

import numpy as np

from ckptswap import dtypes
from ckptswap.checkpoint import Checkpoint
from ckptswap.entries import Entry, Tensor
from ckptswap.sources import ConstantSource

ONES = frozenset({"bn.running_var", "bn.weight", "norm.weight"})
"""Kinds that leave what they normalise as it is at 1; all others hold nothing at 0."""
PIECE = 1 << 16
"""Bytes that are looked at in one go: most tensors differ from a constant in their first ones."""


def neutral(recipient: Checkpoint) -> Checkpoint:
    """The recipient with every float tensor's values replaced, none of them stored; what is no float stays.

    >>> own = {"bn.running_mean": np.full(2, 3.0), "bn.running_var": np.full(2, 9.0), "fc.bias": np.ones(2)}
    >>> made = neutral(Checkpoint.from_arrays(own))
    >>> [made.read(name).tolist() for name in made]
    [[0.0, 0.0], [1.0, 1.0], [0.0, 0.0]]
    """
    return recipient.holding(_tensors(recipient))


def _tensors(recipient: Checkpoint) -> Iterator[Tensor]:
    for name, entry in recipient.items():
        value = _value(entry)
        if value is not None:
            yield Tensor(name, entry.shape, entry.dtype, ConstantSource(value.tobytes()))


def _value(entry: Entry) -> np.ndarray | None:
    """The value that all of its elements get (shape ()), in its dtype; None where it keeps its own."""
    if not dtypes.is_float(entry.dtype):
        return None
    wanted = 1.0 if entry.kind in ONES else 0.0
    value = np.array(wanted).astype(dtypes.to_numpy(entry.dtype))
    return value if value == wanted else None  # powers of two alone (F8_E8M0) have no zero


def is_neutral(entry: Entry) -> bool:
    """Whether a tensor holds these values already, so that replacing them would show nothing.

    >>> [is_neutral(entry) for entry in Checkpoint.from_arrays({"a": np.zeros(2), "b": np.arange(2.0)}).values()]
    [True, False]
    """
    value = _value(entry)
    return value is None or all((piece.view(value.dtype) == value).all() for piece in entry.chunks(PIECE))
