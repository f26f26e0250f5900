"""`--mode lattice`: every set of a few parts as a cell, and what it costs beyond the sum of its parts."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations

from ckptswap.errors import UsageError, listing
from ckptswap.naming import is_counter
from ckptswap.selection import Part
from ckptswap.statistics import Interval
from ckptswap.sweep.result import Row

MOST = 8
"""Parts: their sets are 255."""
AND = " + "


def refuse_way(way: Sequence[str]) -> None:
    """Raises `UsageError` for a split whose parts have no short names of their own."""
    if len(way) != 1 or way[0] in ("tensor", "all"):
        raise UsageError(
            f"--mode lattice takes sets of parts, not of {','.join(way)}",
            remedy="use --by kind, layer, block, depth:N or re:PATTERN",
        )


def sets_of(parts: Sequence[Part]) -> Iterator[tuple[Part, tuple[str, ...]]]:
    """Every set of two parts and more as one part, small ones first, and what its parts are called.

    >>> kinds = [Part(None, kind, (f"c.{kind}",)) for kind in ("conv.bias", "conv.weight", "bn.bias")]
    >>> [part.kind for part, _ in sets_of(kinds)][-2:]
    ['conv.weight + bn.bias', 'conv.bias + conv.weight + bn.bias']

    Parts of which nothing can be read in eval mode are in none. Raises `UsageError` for more than `MOST` of them.
    """
    read = [part for part in parts if not all(map(is_counter, part.names))]
    if len(read) > MOST:
        names = listing([name_of(part) for part in read], most=MOST)
        raise UsageError(
            f"--mode lattice of {len(read)} parts has {2 ** len(read) - 1:,} sets ({names})",
            remedy=f"choose {MOST} parts at most, with --kind, --layers, --only or --exclude",
        )
    for size in range(2, len(read) + 1):
        for chosen in combinations(read, size):
            yield _joined(chosen), tuple(map(name_of, chosen))


def name_of(part: Part) -> str:
    """What a part is called: its layer, block or kind."""
    return next((name for name in (part.layer, part.block, part.kind) if name is not None), "")


def _joined(parts: Sequence[Part]) -> Part:
    columns = zip(*((part.layer, part.kind, part.block) for part in parts), strict=True)
    layer, kind, block = (AND.join(map(str, names)) if None not in names else None for names in columns)
    return Part(layer, kind, tuple(name for part in parts for name in part.names), block)


def with_interactions(
    rows: Sequence[Row], columns: Mapping[int, object], contrast: Callable[[Mapping[int, float]], Interval]
) -> tuple[Row, ...]:
    """The rows, those of sets with their drop less the sum of their parts' own drops.

    `columns` has the indices of the rows that have a drop, `contrast` weighs some of these.
    """
    alone = {(row.by, row.donor, row.parts[0]): at for at, row in enumerate(rows) if len(row.parts) == 1}

    def told(at: int, row: Row) -> Row:
        own = [alone.get((row.by, row.donor, part)) for part in row.parts]
        if len(own) < 2 or not all(index in columns for index in [at, *own]):
            return row
        weights = {at: 1.0} | {index: -1.0 for index in own if index is not None}
        return replace(row, interaction=contrast(weights))

    return tuple(told(at, row) for at, row in enumerate(rows))
