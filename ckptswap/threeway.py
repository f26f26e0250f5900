"""Two checkpoints that came from one: which tensors each side changed, and which both did."""

from collections.abc import Mapping
from dataclasses import dataclass

from ckptswap.checkpoint import Checkpoint
from ckptswap.diff import Diff, Side, TensorDiff, diff
from ckptswap.naming import natural_key
from ckptswap.selection import Selection
from ckptswap.watching import Progress

STATUSES = ("unchanged", "a", "b", "same", "both", "unread")
"""Neither side changed it; only A did; only B did; both did, to the same; both did, differently; not compared."""


@dataclass(frozen=True)
class ThreeWayRow:
    """One tensor: what each side did to the base's, a row of a diff; None where it and the base lack it."""

    name: str
    layer: str | None
    kind: str | None
    status: str
    a: TensorDiff | None
    b: TensorDiff | None

    @property
    def non_finite(self) -> dict[str, tuple[int, int]]:
        """How many NaN and infinities each file holds; those without any, and what was not read, are left out."""
        counts_of: dict[str, tuple[int, int]] = {}
        for side, row in (("a", self.a), ("b", self.b)):
            if row and row.distance:
                counts_of["base"] = row.distance.nan_a, row.distance.inf_a
                counts_of[side] = row.distance.nan_b, row.distance.inf_b
        return {side: counts for side, counts in counts_of.items() if any(counts)}


@dataclass(frozen=True, repr=False)
class ThreeWay:
    """Rows in natural order of their names, what holds NaN or Inf before all others."""

    base: Side
    a: Side
    b: Side
    rows: tuple[ThreeWayRow, ...]

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {status}" for status, count in self.summary.items() if count)
        return f"<ThreeWay {self.base.path} → {self.a.path}, {self.b.path}: {counts}>"

    @property
    def summary(self) -> dict[str, int]:
        return {status: sum(row.status == status for row in self.rows) for status in STATUSES}


def three_way(
    base: Checkpoint,
    a: Checkpoint,
    b: Checkpoint,
    selection: Selection | None = None,
    *,
    progress: Progress | None = None,
) -> ThreeWay:
    """Compare A and B with the base that both came from; added and dropped tensors are changes too.

    Raises `SelectionError` when the selection matches nothing.

    >>> import numpy as np
    >>> base, a, b = (Checkpoint.from_arrays({"w": np.full(2, w), "v": np.full(2, v)})
    ...               for w, v in [(0.0, 0.0), (1.0, 0.0), (2.0, 3.0)])
    >>> [(row.name, row.status) for row in three_way(base, a, b).rows]
    [('v', 'b'), ('w', 'both')]
    """
    ours, theirs = (diff(base, side, selection, progress=progress) for side in (a, b))
    left, right = _by_name(ours), _by_name(theirs)
    names = sorted(dict.fromkeys([*left, *right]), key=natural_key)
    there = {*a, *a.unread, *b, *b.unread}
    both = [name for name in names if name in there and _changed(left.get(name)) and _changed(right.get(name))]
    between = _by_name(diff(a, b, Selection.exactly(both), progress=progress)) if both else {}
    rows = (_row(name, left.get(name), right.get(name), between.get(name)) for name in names)
    return ThreeWay(ours.a, ours.b, theirs.b, tuple(sorted(rows, key=lambda row: not row.non_finite)))


def _by_name(side: Diff) -> Mapping[str, TensorDiff]:
    return {row.name: row for row in side.rows if row.name is not None}


def _changed(row: TensorDiff | None) -> bool:
    return row is not None and row.status != "identical"


def _row(name: str, a: TensorDiff | None, b: TensorDiff | None, between: TensorDiff | None) -> ThreeWayRow:
    known = b or a
    assert known is not None
    if any(row is not None and row.status == "unread" for row in (a, b, between)):
        status = "unread"
    elif _changed(a) and _changed(b):
        # Dropped on both sides, neither has it: that is the same change.
        status = "same" if between is None or between.status == "identical" else "both"
    else:
        status = "a" if _changed(a) else "b" if _changed(b) else "unchanged"
    return ThreeWayRow(name, known.layer, known.kind, status, a, b)
