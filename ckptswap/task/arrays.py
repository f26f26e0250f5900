"""Arrays as tensors and back, with the same bits."""

import numpy as np
import torch
from torch import Tensor

from ckptswap import dtypes

_REINTERPRETED = {1: np.uint8, 2: np.uint16}
_PLAIN = frozenset(
    ["F64", "F32", "F16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL", "C64", "C128"]
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


def bytes_of(tensor: Tensor) -> np.ndarray:
    """A tensor's bytes (nbytes,) in the order of its elements.

    >>> bytes_of(torch.ones(1, dtype=torch.bfloat16)).tolist()
    [128, 63]
    """
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
