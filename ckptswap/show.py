"""The numbers of a checkpoint's tensors, streamed."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ckptswap import dtypes
from ckptswap.checkpoint import Entry
from ckptswap.moments import Moments, moments_of


def statistics(entries: Iterable[Entry], progress: Callable[[int, int], None] | None = None) -> dict[str, Moments]:
    """Moments of each tensor by name; empty ones for packed dtypes, whose values cannot be told apart.

    >>> import numpy as np
    >>> from ckptswap.checkpoint import Checkpoint
    >>> found = statistics(Checkpoint.from_arrays({"w": np.array([1.0, 3.0])}).values())
    >>> found["w"].mean
    2.0
    """
    chosen = list(entries)
    total, done = sum(entry.nbytes for entry in chosen), 0
    found: dict[str, Moments] = {}
    for entry in chosen:
        moments = Moments()
        for chunk in entry.chunks() if not dtypes.is_packed(entry.dtype) else ():
            moments.add(moments_of(chunk, entry.dtype))
            done += chunk.size
            if progress:
                progress(done, total)
        found[entry.name] = moments
    return found
