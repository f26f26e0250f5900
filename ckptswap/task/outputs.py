"""What a model gives: which tensor of it is scored, and between which values that lies."""

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from ckptswap.errors import ModelError

_OUTPUTS = ("logits", "out", "last_hidden_state")
"""What is scored of several outputs where nothing is said."""


def picked_of(given: object, key: str | None) -> Tensor:
    """The one tensor of what a model gave; `key` is a name or an index. Raises `ModelError` where it tells none.

    >>> import torch
    >>> picked_of({"logits": torch.ones(1), "loss": torch.zeros(1)}, None)
    tensor([1.])
    """
    if isinstance(given, Tensor):
        if key is not None:
            raise ModelError(f"the model gives one tensor, not {key!r}", remedy="leave --output-key out")
        return given
    choices = _choices(given)
    if key is None:
        key = next((name for name in _OUTPUTS if isinstance(choices.get(name), Tensor)), None)
    if not choices:
        raise ModelError(
            f"the model gives {type(given).__name__}", remedy="it must give a tensor, a dict or a tuple"
        )
    if key is None or key not in choices:
        what = "several outputs" if key is None else f"no output {key!r}"
        raise ModelError(f"the model gives {what}", remedy=f"pass --output-key, one of {', '.join(choices)}")
    picked = choices[key]
    if not isinstance(picked, Tensor):
        raise ModelError(f"output {key!r} of the model is a {type(picked).__name__}", remedy="it must be a tensor")
    return picked


def _choices(given: object) -> dict[str, object]:
    if isinstance(given, Mapping):
        return {str(name): value for name, value in given.items()}
    if isinstance(given, tuple | list):
        names = dict(zip(getattr(given, "_fields", ()), given, strict=False))
        return {**names, **{str(at): value for at, value in enumerate(given)}}
    return {}


def extent(output: Tensor) -> tuple[int, float, float]:
    """How many elements are NaN or infinite, and the least and the greatest of the others (inf, −inf without any).

    >>> import torch
    >>> extent(torch.tensor([1.0, float("nan"), 3.0]))
    (1, 1.0, 3.0)
    """
    if output.numel() and not output.is_complex():
        low, high = (end.item() for end in output.aminmax())
        if np.isfinite(low) and np.isfinite(high):  # NaN would have spread to both
            return 0, low, high
    finite = output[output.isfinite()]
    bad = output.numel() - finite.numel()
    return (bad, finite.min().item(), finite.max().item()) if finite.numel() else (bad, np.inf, -np.inf)
