"""What differs between two checkpoints: structure from the headers, numbers from one chunked pass over the data.

Bytes are compared first; where they are equal nothing else is computed but the count of what is not finite.
Memory does not depend on the size of the files.
"""

import contextlib
import math
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ckptswap import dtypes
from ckptswap.checkpoint import Checkpoint, checked_bytes, refuse_damaged
from ckptswap.cores import usable_cores
from ckptswap.entries import Entry
from ckptswap.errors import SelectionError, UsageError
from ckptswap.kernels import Kernel, kernel
from ckptswap.moments import Distance
from ckptswap.naming import natural_key
from ckptswap.precision import cast, common_dtype
from ckptswap.rulers import CompiledRuler
from ckptswap.selection import Selection
from ckptswap.sources import expect, page_aligned
from ckptswap.watching import Progress, Watch, unwatched, watch_of

READ = 1 << 20
"""Bytes read at once from each side: small enough for the cache, large enough that threads rarely meet at the
interpreter's lock."""
BLOCK = 1 << 23  # bytes of one tensor that one thread takes at a time

Map = Callable[..., Iterable[Any]]  # `map`, or one that uses threads

STATUSES = ("identical", "changed", "shape", "dtype", "only_a", "only_b", "unread")


@dataclass(frozen=True)
class Side:
    """One of the two: its path, how many tensors were looked at, and their bytes."""

    path: str
    tensors: int
    bytes: int


@dataclass(frozen=True, slots=True)
class TensorDiff:
    """One tensor on both sides, or a group of them (`name` None, `tensors` their count).

    `status` is one of `STATUSES`. `distance` is None where nothing was computed: another shape, one side only,
    structure only, a packed dtype whose bytes differ, or two dtypes that are not both floats, which are compared
    as doubles. `numel` is None where a side holds values that
    are not read.
    """

    name: str | None
    layer: str | None
    kind: str | None
    status: str
    shape_a: tuple[int, ...] | None
    shape_b: tuple[int, ...] | None
    dtype_a: str | None
    dtype_b: str | None
    numel: int | None
    distance: Distance | None = field(default=None, repr=False)
    tensors: int = 1
    block: str | None = None

    @property
    def changed(self) -> int | None:
        return self.distance.changed if self.distance else None


@dataclass(frozen=True, repr=False)
class Diff:
    """Rows in natural order of their names; `summary` counts the tensors of each status, shown or not."""

    a: Side
    b: Side
    rows: tuple[TensorDiff, ...]
    summary: Mapping[str, int]

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {status}" for status, count in self.summary.items() if count)
        return f"<Diff {self.a.path} → {self.b.path}: {counts or 'nothing to compare'}>"

    @property
    def differs(self) -> bool:
        """Whether anything is not the same on both sides, or was not compared: that is not known to be equal."""
        return any(count for status, count in self.summary.items() if status != "identical")

    def sorted(self, by: str = "name", top: int | None = None) -> "Diff":
        """The largest first (what has no number comes last), or in the order of names; only `top` of them, and
        of what did not change only where room is left.

        Before all others comes what holds NaN or Inf, of which no distance tells. `by` is a number of `Distance`;
        raises `UsageError` for another word.
        """
        if by != "name" and not hasattr(Distance, by):
            raise UsageError(f"cannot sort by {by!r}", remedy="use name, rmse, max_abs, rel_l2 or changed")
        rows = self.rows if by == "name" else sorted(self.rows, key=lambda row: _largest_first(row, by))
        rows = sorted(rows, key=lambda row: not (row.distance and row.distance.non_finite))
        if top is not None:
            rows = sorted(rows, key=lambda row: row.status in ("identical", "unread"))[:top]
        return replace(self, rows=tuple(rows))

    def grouped(self, by: Sequence[str]) -> "Diff":
        """The rows pooled by layer, block or kind, or by one of these and kind; a group has one row for each
        status in it. What is in no block goes by its layer."""
        return replace(self, rows=tuple(_pool_rows(self.rows, by)))


def diff(
    a: Checkpoint,
    b: Checkpoint,
    selection: Selection | None = None,
    *,
    values: bool = True,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Diff:
    """Compare two checkpoints tensor by tensor; `values=False` looks at the headers only.

    Raises `SelectionError` when the selection matches nothing on either side. Distances leave non-finite
    values out and count them; integers are subtracted exactly.

    >>> before = Checkpoint.from_arrays({"w": np.zeros(3, np.float32)})
    >>> after = Checkpoint.from_arrays({"w": np.array([0, 0, 3], np.float32)})
    >>> row = diff(before, after).rows[0]
    >>> row.status, row.changed, row.distance.max_abs
    ('changed', 1, 3.0)
    """
    unread = {**a.unread_entries, **b.unread_entries}
    names = _names(a, b, unread, selection or Selection())
    rows = [_structure(name, a, b, unread.get(name)) for name in names]
    if values:
        pairs = [_pair(a[row.name], b[row.name]) for row in rows if row.name is not None and _is_comparable(row)]
        watch = watch_of(progress, checked_bytes(a, b) + sum(ours.nbytes for ours, _ in pairs))
        refuse_damaged(a, b, watch=watch)
        measured = distances(pairs, threads=threads, watch=watch)
        for at, row in enumerate(rows):
            if _is_comparable(row):
                rows[at] = _measured(row, *next(measured))
    summary = {status: sum(row.status == status for row in rows) for status in STATUSES}
    return Diff(_side(a, names), _side(b, names), tuple(rows), summary)


def _names(a: Checkpoint, b: Checkpoint, unread: Mapping[str, Entry], selection: Selection) -> list[str]:
    """What is selected on either side, where a tensor may have another kind on the other: both are looked at."""
    names = {entry.name for side in (a, b) for entry in side.values() if entry in selection}
    names |= {name for name, entry in unread.items() if entry in selection}
    if not names:
        selection.pick(b)
    return sorted(names, key=natural_key)


def _side(checkpoint: Checkpoint, names: Iterable[str]) -> Side:
    looked_at = [checkpoint[name] for name in names if name in checkpoint]
    return Side(checkpoint.path, len(looked_at), sum(entry.nbytes for entry in looked_at))


def _largest_first(row: TensorDiff, by: str) -> tuple[bool, float]:
    number: float | None = getattr(row.distance, by, None)
    if number is None and row.distance is not None and row.distance.is_beyond:
        number = math.inf
    return (True, 0) if number is None else (False, -number)


def _structure(name: str, a: Checkpoint, b: Checkpoint, unread: Entry | None) -> TensorDiff:
    """What the headers tell. Kinds are the recipient's (B) where both sides have one."""
    ours, theirs = a.get(name), b.get(name)
    known = theirs or ours or unread
    assert known is not None
    sides = [name in side or name in side.unread for side in (a, b)]
    if not all(sides):
        status = "only_a" if sides[0] else "only_b"
    elif unread or ours is None or theirs is None:
        status = "unread"
    else:
        status = "shape" if ours.shape != theirs.shape else "dtype" if ours.dtype != theirs.dtype else "unread"
    shape_a, dtype_a = _seen(name, a)
    shape_b, dtype_b = _seen(name, b)
    numel = None if unread else known.numel
    sides_of = (status, shape_a, shape_b, dtype_a, dtype_b, numel)
    return TensorDiff(name, known.layer, known.kind, *sides_of, block=known.block)


def _seen(name: str, side: Checkpoint) -> tuple[tuple[int, ...] | None, str | None]:
    """Shape and dtype on one side, as far as it has them."""
    held = side.get(name) or side.unread.get(name)
    return (held.shape, held.dtype) if held else (None, None)


def _is_comparable(row: TensorDiff) -> bool:
    """Whether both sides have tensors of one shape, and of one dtype or of floats."""
    if row.status == "dtype" and row.dtype_a and row.dtype_b and row.numel is not None:
        return common_dtype(row.dtype_a, row.dtype_b) is not None
    return row.status == "unread" and row.numel is not None


def _pair(a: Entry, b: Entry) -> tuple[Entry, Entry]:
    """Both, in the dtype in which they are compared."""
    wide = None if a.dtype == b.dtype else common_dtype(a.dtype, b.dtype)
    return (cast(a, wide), cast(b, wide)) if wide else (a, b)


def _measured(row: TensorDiff, equal: bool, distance: Distance) -> TensorDiff:
    """The row with what was measured; equal floats of two precisions still have two dtypes."""
    if row.status == "dtype":
        return replace(row, distance=distance)
    known = None if dtypes.is_packed(row.dtype_a or "") and not equal else distance
    return replace(row, status="identical" if equal else "changed", distance=known)


@dataclass(frozen=True, slots=True)
class _Block:
    """A stretch of one pair of tensors."""

    pair: int
    a: Entry
    b: Entry
    start: int
    stop: int


class _Worker(threading.local):
    """Buffers of one thread, allocated at its first block."""

    def __init__(self, kernels: Mapping[str, Kernel]) -> None:
        self.a, self.b = page_aligned(READ), page_aligned(READ)
        self.ruler = CompiledRuler(READ, kernels)

    def chunks(self, block: _Block) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Where each chunk starts, and the bytes of both sides there."""
        for side in (block.a, block.b):
            expect(side.source, block.stop - block.start, block.start)
        for start in range(block.start, block.stop, READ):
            size = min(READ, block.stop - start)
            a, b = self.a[:size], self.b[:size]
            block.a.source.read_into(a.data, start)
            block.b.source.read_into(b.data, start)
            yield start, a, b

    def compare(self, block: _Block) -> tuple[bool, Distance]:
        """Whether all bytes are equal, and what is known then; else the whole distance."""
        same = Distance()
        for start, a, b in (chunks := self.chunks(block)):
            if self.ruler.same(a, b, block.a.dtype, same):
                continue
            if dtypes.is_packed(block.a.dtype):
                return False, Distance()
            total = self.ruler.distance(a, b, block.a.dtype)  # while the chunk is in the cache
            self._add(chunks, block.a.dtype, total)
            if start > block.start:
                total.add(self.measure(replace(block, stop=start)))
            return False, total
        return True, same

    def measure(self, block: _Block) -> Distance:
        """The whole distance of a stretch of a pair that differs somewhere."""
        total = Distance()
        if not dtypes.is_packed(block.a.dtype):
            self._add(self.chunks(block), block.a.dtype, total)
        return total

    def _add(self, chunks: Iterator[tuple[int, np.ndarray, np.ndarray]], dtype: str, total: Distance) -> None:
        for _, a, b in chunks:
            total.add(self.ruler.distance(a, b, dtype))


def distances(
    pairs: Sequence[tuple[Entry, Entry]],
    *,
    norms: bool = False,
    threads: int | None = None,
    watch: Watch = unwatched,
) -> Iterator[tuple[bool, Distance]]:
    """Whether the two of each pair, of one shape and dtype, hold the same bytes, and how far they are apart.

    First everything is compared, and what differs measured; then the equal stretches of tensors that differ
    elsewhere, since norms want all of a tensor. With `norms` those of equal tensors are right too, for whoever
    adds distances up; otherwise merely positive where they should be. A packed dtype counts no values.

    >>> a, b = (Checkpoint.from_arrays({"w": np.array([1.0, w])}) for w in (2.0, 4.0))
    >>> [(equal, distance.square) for equal, distance in distances([(a["w"], b["w"]), (a["w"], a["w"])])]
    [(False, 4.0), (True, 0.0)]
    """
    worker = _Worker(_kernels(pairs))
    blocks = [_Block(at, a, b, start, min(start + BLOCK, a.nbytes))
              for at, (a, b) in enumerate(pairs) for start in range(0, a.nbytes, BLOCK)]  # fmt: skip
    with _mapping(threads, blocks) as mapped:
        parts = []
        for block, part in zip(blocks, mapped(worker.compare, blocks), strict=True):
            watch(block.stop - block.start)
            parts.append(part)
        differing = {block.pair for block, (equal, _) in zip(blocks, parts, strict=True) if not equal}
        again = [at for at, block in enumerate(blocks) if parts[at][0] and (norms or block.pair in differing)]
        for at, whole in zip(again, mapped(worker.measure, [blocks[at] for at in again]), strict=True):
            parts[at] = (False, whole)
    ordered = deque(zip((block.pair for block in blocks), (part for _, part in parts), strict=True))
    del blocks, parts  # what is yielded is not kept here a second time
    for at in range(len(pairs)):
        total = ordered.popleft()[1] if ordered and ordered[0][0] == at else Distance()
        while ordered and ordered[0][0] == at:
            total.add(ordered.popleft()[1])
        yield at not in differing, total


def _kernels(pairs: Iterable[tuple[Entry, Entry]]) -> dict[str, Kernel]:
    """Compiled loops for the dtypes of which there is enough."""
    nbytes: Counter[str] = Counter()
    for entry, _ in pairs:
        nbytes[entry.dtype] += entry.nbytes
    return {dtype: loops for dtype, size in nbytes.items() if (loops := kernel(dtype, size))}


@contextlib.contextmanager
def _mapping(threads: int | None, blocks: Sequence[_Block]) -> Iterator[Map]:
    """`map`, by as many threads as help: none for what takes less time than to start them.

    Like the executor's own context, but an interrupt does not wait for all that is still queued.
    """
    if threads is None and sum(block.stop - block.start for block in blocks) <= BLOCK:
        yield map
        return
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(threads or min(usable_cores(), 8))
    try:
        yield pool.map
    finally:
        pool.shutdown(cancel_futures=True)


def _pool_rows(rows: Iterable[TensorDiff], by: Sequence[str]) -> Iterator[TensorDiff]:
    unknown = [way for way in by if way not in ("layer", "kind", "block")]
    if unknown or not by:
        fault = f"cannot group by {', '.join(unknown) or 'nothing'}"
        raise SelectionError(fault, remedy="use layer, block or kind, or one of these and kind")
    groups: dict[tuple, list[TensorDiff]] = {}
    for row in rows:
        block = row.block if "block" in by else None
        layer = row.layer if "layer" in by or ("block" in by and block is None) else None
        groups.setdefault((layer, block, row.kind if "kind" in by else None, row.status), []).append(row)
    for (layer, block, kind, status), members in groups.items():
        distances_of = [member.distance for member in members if member.distance]
        numels = [member.numel for member in members if member.numel is not None]
        # Unknown of a group is what is unknown of one member.
        distance = _sum(distances_of) if len(distances_of) == len(members) else None
        numel = sum(numels) if len(numels) == len(members) else None
        tensors = sum(member.tensors for member in members)
        nowhere = (None, None, None, None)
        yield TensorDiff(None, layer, kind, status, *nowhere, numel, distance, tensors, block)


def _sum(distances: Iterable[Distance]) -> Distance:
    total = Distance()
    for distance in distances:
        total.add(distance)
    return total
