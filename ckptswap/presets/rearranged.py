"""A tensor whose values are another's, in another order or shape; made when they are first read."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ckptswap import dtypes
from ckptswap.checkpoint import Checkpoint, page_aligned
from ckptswap.entries import Entry, Tensor
from ckptswap.errors import FormatError

Arrange = Callable[[np.ndarray], np.ndarray]
KEPT = 2  # tensors that are kept whole, since they are read in pieces


@dataclass(frozen=True, eq=False)
class RearrangedSource:
    """The values that `arrange` makes of an entry's."""

    entry: Entry
    arrange: Arrange

    def read_into(self, buffer: memoryview, offset: int) -> None:
        buffer[:] = _values(self)[offset : offset + len(buffer)].data


def rearranged(side: Checkpoint, name: str, arrange: Arrange) -> Tensor:
    """The tensor that `arrange` makes of one's array; its shape is found without reading. Raises `FormatError` for
    one of which it can make nothing, as its shape is not what its name tells.

    >>> side = Checkpoint.from_arrays({"kernel": np.arange(6.0).reshape(2, 3)})
    >>> side.holding([rearranged(side, "kernel", np.transpose)]).read("kernel").tolist()
    [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]
    """
    entry = side[name]
    like = np.broadcast_to(np.zeros((), dtypes.to_numpy(entry.dtype)), entry.shape)
    try:
        with np.errstate(all="ignore"):
            shape = arrange(like).shape
    except (ValueError, IndexError):  # numpy's
        fault = f"{name} of {side.path} is {list(entry.shape)}, which does not fit its name and what the file says"
        raise FormatError(fault, remedy="leave --map-preset out, and pair names by --map OLD=NEW") from None
    return Tensor(entry.name, shape, entry.dtype, RearrangedSource(entry, arrange))


@lru_cache(maxsize=KEPT)
def _values(source: RearrangedSource) -> np.ndarray:
    """All bytes of the tensor that a source makes."""
    entry = source.entry
    raw = page_aligned(entry.nbytes)
    if entry.nbytes:
        entry.source.read_into(raw.data, 0)
    array = raw.view(dtypes.to_numpy(entry.dtype)).reshape(entry.shape)
    with np.errstate(all="ignore"):  # values may be anything
        made = np.ascontiguousarray(source.arrange(array), array.dtype)
    return made.reshape(-1).view(np.uint8)
