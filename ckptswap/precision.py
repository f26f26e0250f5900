"""The same floats in another precision: compared as doubles, or rounded to what a recipient has."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np

from ckptswap import dtypes
from ckptswap.checkpoint import Checkpoint
from ckptswap.entries import Entry
from ckptswap.errors import listing
from ckptswap.sources import CastSource


def common_dtype(a: str, b: str) -> str | None:
    """In which the floats of two dtypes can be told apart exactly; None where one of them has no such.

    >>> common_dtype("F32", "BF16"), common_dtype("F32", "I64")
    ('F64', None)
    """
    if not dtypes.is_float(a) or not dtypes.is_float(b) or dtypes.is_complex(a) != dtypes.is_complex(b):
        return None
    return "C128" if dtypes.is_complex(a) else "F64"


def cast(entry: Entry, dtype: str) -> Entry:
    """The entry with its floats in another dtype, rounded once.

    >>> single = Checkpoint.from_arrays({"w": np.float32([1 / 3])})["w"]
    >>> [part.view(np.float16).tolist() for part in cast(single, "F16").chunks()]
    [[0.333251953125]]
    """
    return replace(entry, dtype=dtype, source=CastSource(entry.source, entry.dtype, dtype))


def cast_like(donor: Checkpoint, wanted: Iterable[Entry]) -> tuple[Checkpoint, dict[str, str]]:
    """The donor with what is wanted in the precision in which it is wanted; name → what was done, for each that
    had another.

    >>> half, single = (Checkpoint.from_arrays({"w": np.ones(2, kind)}) for kind in (np.float16, np.float32))
    >>> donor, done = cast_like(half, single.values())
    >>> donor["w"].dtype, done
    ('F32', {'w': 'F16 → F32'})
    """
    pairs = [(ours, donor[ours.name]) for ours in wanted if ours.name in donor]
    other = [(ours, theirs) for ours, theirs in pairs
             if ours.shape == theirs.shape and ours.dtype != theirs.dtype
             and common_dtype(ours.dtype, theirs.dtype)]  # fmt: skip
    if not other:
        return donor, {}
    done = {ours.name: f"{theirs.dtype} → {ours.dtype}" for ours, theirs in other}
    return donor.holding(cast(theirs, ours.dtype) for ours, theirs in other), done


def beyond(entry: Entry, dtype: str) -> int:
    """How many of its finite values a dtype cannot hold: they become infinite, or NaN; reads them."""
    if dtypes.largest(dtype) >= dtypes.largest(entry.dtype):
        return 0
    real, into = (dtypes.to_numpy(dtypes.part(each)) for each in (entry.dtype, dtype))
    return sum(_lost(chunk.view(real).astype(np.float64), into) for chunk in entry.chunks())


def _lost(values: np.ndarray, dtype: np.dtype) -> int:
    with np.errstate(all="ignore"):
        after = dtypes.rounded(values, dtype).astype(np.float64)
    return int((np.isfinite(values) & ~np.isfinite(after)).sum())


def told(before: Checkpoint, after: Checkpoint, done: Mapping[str, str]) -> Iterator[str]:
    """What a cast does to a donor's values, a sentence each."""
    for how in dict.fromkeys(done.values()):
        names = [name for name, own in done.items() if own == how]
        yield f"taken in the recipient's dtype ({how}): {listing(names, most=3)}"
    lost = {name: count for name in done if (count := beyond(before[name], after[name].dtype))}
    if lost:
        named = listing([f"{name} ({count:,})" for name, count in lost.items()], most=3)
        yield f"{sum(lost.values()):,} values are beyond the recipient's dtype, and are finite no more: {named}"
