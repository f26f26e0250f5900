"""Which variants a sweep scores: pure data, made from two checkpoints without running a model.

A cell is one part of the selection: a layer × kind, a whole kind, a whole layer or one tensor. Cells whose tensors
are bit-equal in both checkpoints, or do not fit, are known without a run; cells that take the same tensors share
one variant.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from ckptswap import dtypes
from ckptswap.checkpoint import Checkpoint, Entry
from ckptswap.errors import listing
from ckptswap.naming import natural_key
from ckptswap.selection import Part, Selection

By = tuple[str, ...]


UNREAD = "bn.num_batches_tracked"
"""The kind that no model reads in eval mode: batch norm counts batches for training only."""
Status = Literal["measured", "identical", "no-effect", "mismatch"]


@dataclass(frozen=True)
class Cell:
    """One row to be: its tensors' names in natural order, and how far apart donor and recipient are there.

    `by` is the split it belongs to. `rmse` and `rel_l2` (relative to the recipient) leave non-finite elements
    out and are None over nothing. `reason` says why a `mismatch` cannot be swapped.
    """

    by: By
    layer: str | None
    kind: str | None
    names: tuple[str, ...]
    numel: int
    status: Status
    rmse: float | None = None
    rel_l2: float | None = None
    reason: str | None = None

    @property
    def variant(self) -> str:
        """What the journal calls the variant that takes these tensors from the donor."""
        return variant_id(self.names)


@dataclass(frozen=True)
class Plan:
    """All cells of a sweep, split by split, in natural order.

    >>> from ckptswap.checkpoint import Checkpoint
    >>> arrays = {"c.weight": np.zeros((2, 1, 3, 3)), "c.bias": np.zeros(2)}
    >>> recipient = Checkpoint.from_arrays(arrays)
    >>> donor = Checkpoint.from_arrays(arrays | {"c.bias": np.ones(2)})
    >>> plan = make_plan(donor, recipient, Selection(), by=[("layer", "kind"), ("kind",)])
    >>> [(cell.layer, cell.kind, cell.status) for cell in plan.cells[:2]]
    [('c', 'conv.bias', 'measured'), ('c', 'conv.weight', 'identical')]
    >>> len(plan.cells), plan.variants(), plan.cost(samples=10)
    (4, [('c.bias',)], 30)
    """

    by: tuple[By, ...]
    selection: tuple[str, ...]
    cells: tuple[Cell, ...]

    def variants(self) -> list[tuple[str, ...]]:
        """The tensors of each variant that must be run: one for all cells that take the same tensors."""
        wanted = (cell for cell in self.cells if cell.status == "measured")
        return list({cell.variant: cell.names for cell in wanted}.values())

    def cost(self, samples: int) -> int:
        """Samples that go through the model: every variant, the baseline, and the donor itself."""
        return (len(self.variants()) + 2) * samples

    def to_json(self) -> dict[str, Any]:
        """A JSON object; `from_json` reads it back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Plan:
        """The plan that `to_json` wrote, possibly after a round trip through text."""
        cells = ({**each, "by": tuple(each["by"]), "names": tuple(each["names"])} for each in data["cells"])
        by = tuple(tuple(way) for way in data["by"])
        return cls(by, tuple(data["selection"]), tuple(Cell(**each) for each in cells))


def variant_id(names: Iterable[str]) -> str:
    """A hash of the sorted tensor names, whatever cell they came from.

    >>> variant_id(["b", "a"]) == variant_id(["a", "b"]) != variant_id(["a,b"])
    True
    """
    return hashlib.sha256(json.dumps(sorted(names)).encode()).hexdigest()[:16]


def make_plan(
    donor: Checkpoint, recipient: Checkpoint, selection: Selection, by: Sequence[By] = (("layer", "kind"),)
) -> Plan:
    """Split the selection in each of the given ways and compare the tensors, reading each once.

    Raises `SelectionError` when nothing is selected.
    """
    distances: dict[str, Distance | str] = {}
    cells = []
    for way in dict.fromkeys(tuple(way) for way in by):
        parts = selection.split(recipient, way)
        for name in (name for part in parts for name in part.names if name not in distances):
            distances[name] = misfit(donor, recipient, name) or compare(donor[name], recipient[name])
        found = (_cell(way, part, recipient, [distances[name] for name in part.names]) for part in parts)
        cells += sorted(found, key=cell_key)
    return Plan(tuple(dict.fromkeys(cell.by for cell in cells)), tuple(selection.flags()), tuple(cells))


def cell_key(cell: Cell) -> tuple[Any, ...]:
    """Natural order of cells: layer, then kind, then first tensor."""
    return natural_key(cell.layer or ""), natural_key(cell.kind or ""), natural_key(cell.names[0])


def misfit(donor: Checkpoint, recipient: Checkpoint, name: str) -> str | None:
    """Why the donor's tensor cannot take the recipient's place, naming both sides; None when it can."""
    ours = recipient[name]
    if name not in donor:
        return f"{name}: missing in the donor, {_form(ours)} in the recipient"
    theirs = donor[name]
    if (theirs.shape, theirs.dtype) == (ours.shape, ours.dtype):
        return None
    return f"{name}: {_form(theirs)} in the donor, {_form(ours)} in the recipient"


def _form(entry: Entry) -> str:
    return f"{entry.dtype} {list(entry.shape)}"


@dataclass(frozen=True)
class Distance:
    """How far two tensors are apart: bit-equality, and sums over the elements that are finite in both."""

    equal: bool
    squares: float
    reference: float
    count: int


def compare(theirs: Entry, ours: Entry) -> Distance:
    """Stream two tensors of the same shape and dtype, and sum squares in double precision.

    Packed 4- and 6-bit floats are compared as bits only.
    """
    equal, squares, reference, count = True, 0.0, 0.0, 0
    for a, b in zip(theirs.chunks(), ours.chunks(), strict=True):
        equal &= np.array_equal(a, b)
        if not dtypes.is_packed(ours.dtype):
            more = _squares(_wide(a, ours.dtype), _wide(b, ours.dtype))
            squares, reference, count = squares + more[0], reference + more[1], count + more[2]
    return Distance(equal, squares, reference, count)


def _wide(raw: np.ndarray, dtype: str) -> np.ndarray:
    return raw.view(dtypes.to_numpy(dtype)).astype(np.complex128 if dtype[0] == "C" else np.float64)


def _squares(a: np.ndarray, b: np.ndarray) -> tuple[float, float, int]:
    """Σ|a − b|², Σ|b|² and how many elements are finite in both."""
    finite = np.isfinite(a) & np.isfinite(b)
    a, b = a[finite], b[finite]
    with np.errstate(over="ignore"):
        return float(np.square(np.abs(a - b)).sum()), float(np.square(np.abs(b)).sum()), len(a)


def _cell(by: By, part: Part, recipient: Checkpoint, found: Sequence[Distance | str]) -> Cell:
    numel = sum(recipient[name].numel for name in part.names)
    here = Cell(by, part.layer, part.kind, part.names, numel, "measured")
    distances = [each for each in found if isinstance(each, Distance)]
    if len(distances) < len(found):
        reasons = [each for each in found if isinstance(each, str)]
        return replace(here, status="mismatch", reason=listing(reasons, most=1))
    rmse, rel_l2 = _norms(distances)
    same = all(each.equal for each in distances)
    unread = all(recipient[name].kind == UNREAD for name in part.names)
    status: Status = "identical" if same else "no-effect" if unread else "measured"
    return replace(here, status=status, rmse=rmse, rel_l2=rel_l2)


def _norms(distances: Sequence[Distance]) -> tuple[float | None, float | None]:
    squares, reference = sum(each.squares for each in distances), sum(each.reference for each in distances)
    count = sum(each.count for each in distances)
    rmse = math.sqrt(squares / count) if count else None
    rel_l2 = math.sqrt(squares / reference) if reference else None
    return _finite(rmse), _finite(rel_l2)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
