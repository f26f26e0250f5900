"""Which variants a sweep scores: pure data, made from two checkpoints without running a model.

A cell is one part of the selection: a layer × kind, a whole kind, a whole layer or one tensor. Cells whose tensors
are bit-equal in both checkpoints, or do not fit, are known without a run; cells that take the same tensors share
one variant.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, NamedTuple

from ckptswap.checkpoint import Checkpoint, Entry
from ckptswap.diff import distances
from ckptswap.errors import listing
from ckptswap.formats.checksums import refuse_damaged
from ckptswap.moments import Distance
from ckptswap.naming import natural_key
from ckptswap.selection import Part, Selection

By = tuple[str, ...]
Compared = str | tuple[bool, Distance]
"""Why two tensors do not fit; or whether they are equal, and how far the donor's is from the recipient's."""
UNREAD = "bn.num_batches_tracked"
"""The kind that no model reads in eval mode: batch norm counts batches for training only."""
Status = Literal["measured", "identical", "no-effect", "mismatch"]


class Variant(NamedTuple):
    """The recipient with these tensors taken from the donor, under the name that the journal gives it."""

    id: str
    names: tuple[str, ...]


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

    >>> import numpy as np
    >>> arrays = {"c.weight": np.zeros((2, 1, 3, 3)), "c.bias": np.zeros(2)}
    >>> recipient = Checkpoint.from_arrays(arrays)
    >>> donor = Checkpoint.from_arrays(arrays | {"c.bias": np.ones(2)})
    >>> plan = make_plan(donor, recipient, Selection(), by=[("layer", "kind"), ("kind",)])
    >>> [(cell.layer, cell.kind, cell.status) for cell in plan.cells[:2]]
    [('c', 'conv.bias', 'measured'), ('c', 'conv.weight', 'identical')]
    >>> len(plan.cells), plan.variants()
    (4, [('c.bias',)])
    """

    by: tuple[By, ...]
    selection: tuple[str, ...]
    cells: tuple[Cell, ...]

    def variants(self) -> list[tuple[str, ...]]:
        """The tensors of each variant that must be run: one for all cells that take the same tensors."""
        wanted = (cell for cell in self.cells if cell.status == "measured")
        return list({cell.variant: cell.names for cell in wanted}.values())

    def without_effect(self, unread: Container[str]) -> Plan:
        """The plan in which cells whose tensors the model never reads need not be run."""
        idle = {
            cell for cell in self.cells if cell.status == "measured" and all(name in unread for name in cell.names)
        }
        cells = (replace(cell, status="no-effect") if cell in idle else cell for cell in self.cells)
        return replace(self, cells=tuple(cells))

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
    """Split the selection in each of the given ways and compare each tensor once.

    Raises `SelectionError` when nothing is selected, `FormatError` when a checksum is wrong.
    """
    splits = {way: selection.split(recipient, way) for way in map(tuple, by)}
    refuse_damaged(donor, recipient)
    names = (name for parts in splits.values() for part in parts for name in part.names)
    compared = _compare(donor, recipient, names)
    cells: list[Cell] = []
    for way, parts in splits.items():
        found = (_cell(way, part, recipient, [compared[name] for name in part.names]) for part in parts)
        cells += sorted(found, key=cell_key)
    return Plan(tuple(dict.fromkeys(cell.by for cell in cells)), tuple(selection.flags()), tuple(cells))


def _compare(donor: Checkpoint, recipient: Checkpoint, names: Iterable[str]) -> dict[str, Compared]:
    """Each tensor once: why it cannot be swapped, or how far it is from the recipient's."""
    wanted = dict.fromkeys(names)
    reasons = {name: reason for name in wanted if (reason := misfit(donor, recipient, name))}
    fit = [name for name in wanted if name not in reasons]
    apart = distances([(recipient[name], donor[name]) for name in fit], norms=True)
    return {**reasons, **dict(zip(fit, apart, strict=True))}


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


def _cell(by: By, part: Part, recipient: Checkpoint, found: Sequence[Compared]) -> Cell:
    numel = sum(recipient[name].numel for name in part.names)
    here = Cell(by, part.layer, part.kind, part.names, numel, "measured")
    reasons = [each for each in found if isinstance(each, str)]
    if reasons:
        return replace(here, status="mismatch", reason=listing(reasons, most=1))
    total, same = Distance(), True
    for equal, distance in (each for each in found if not isinstance(each, str)):
        total.add(distance)
        same &= equal
    status: Status = "identical" if same else "measured"
    return replace(here, status=status, rmse=total.rmse, rel_l2=total.rel_l2)
