"""The numbers of a checkpoint's tensors, streamed."""

from collections import Counter
from collections.abc import Iterable

from ckptswap import dtypes
from ckptswap.checkpoint import Checkpoint, checked_bytes, refuse_damaged
from ckptswap.entries import Entry
from ckptswap.kernels import moments_kernel
from ckptswap.moments import Moments, moments_of
from ckptswap.watching import Progress, watch_of


def statistics(
    checkpoint: Checkpoint, entries: Iterable[Entry] | None = None, progress: Progress | None = None
) -> dict[str, Moments]:
    """Moments of each tensor by name, or of some; empty ones for packed dtypes, whose values cannot be told apart.

    Raises `FormatError` when a checksum is wrong.

    >>> import numpy as np
    >>> moments = statistics(Checkpoint.from_arrays({"w": np.array([1.0, 3.0])}))
    >>> moments["w"].mean
    2.0
    """
    chosen = list(checkpoint.values() if entries is None else entries)
    watch = watch_of(progress, checked_bytes(checkpoint) + sum(entry.nbytes for entry in chosen))
    refuse_damaged(checkpoint, watch=watch)
    moments_by_name: dict[str, Moments] = {}
    nbytes: Counter[str] = Counter()
    for entry in chosen:
        nbytes[entry.dtype] += entry.nbytes
    kernels = {dtype: moments_kernel(dtype, size) for dtype, size in nbytes.items()}
    for entry in chosen:
        moments = moments_by_name[entry.name] = Moments()
        for chunk in entry.chunks() if not dtypes.is_packed(entry.dtype) else ():
            moments.add(moments_of(chunk, entry.dtype, kernels[entry.dtype]))
            watch(chunk.size)
    return moments_by_name
