"""Which variants a sweep scores: pure data, made from two checkpoints without running a model."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain
from typing import Any, Literal

from ckptswap.checkpoint import Checkpoint, graft, refuse_damaged
from ckptswap.diff import distances
from ckptswap.errors import UsageError, listing, non_finite_words
from ckptswap.moments import Distance
from ckptswap.naming import is_counter, natural_key, split_name
from ckptswap.neutral import is_neutral
from ckptswap.records import Count
from ckptswap.scoring.variant import NEUTRAL, Variant
from ckptswap.selection import Part, Selection
from ckptswap.sweep.lattice import name_of, refuse_way, sets_of
from ckptswap.sweep.result import Mode, goes_by_order, place_of, window_sizes
from ckptswap.ties import equal as names_of
from ckptswap.twins import contradictions, with_twins

By = tuple[str, ...]
Compared = str | tuple[bool, Distance]
"""Why two tensors do not fit; or whether they are equal, and how far the donor's is from the recipient's."""
UNREAD = "bn.num_batches_tracked"
"""The kind that no model reads in eval mode: batch norm counts batches for training only."""
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""What an estimate of batch norm's statistics writes over, by its role in the layer."""
Status = Literal["measured", "identical", "no-effect", "mismatch"]


@dataclass(frozen=True)
class Cell:
    """One row to be: its tensors' names in natural order, and how far apart donor and recipient are there.

    `by` is the split it belongs to, `layer` and `kind` are those of a tensor's first name in the model's order;
    `layer` is None for a whole block, and `block` the first of a run of blocks that ends with `last_block`.
    `rmse` and `rel_l2` (relative to the recipient) are None over nothing, of quantised weights, and where some of
    what is taken is NaN or infinite: `non_finite` then counts these. `reason` says so, or why a `mismatch` cannot
    be swapped.
    `is_neutral`: the recipient holds nothing there that a zero control would take away. `parts`: of a set in a
    lattice.
    """

    by: By
    layer: str | None
    kind: str | None
    names: tuple[str, ...]
    numel: Count
    status: Status
    rmse: float | None = None
    rel_l2: float | None = None
    reason: str | None = None
    donor: Count = 0
    non_finite: str | None = None
    block: str | None = None
    last_block: str | None = None
    is_neutral: bool = False
    parts: tuple[str, ...] = ()

    @property
    def place(self) -> str | None:
        """The layer, the block or the run of blocks of which it takes a part; None where it goes by none."""
        return place_of(self.layer, self.block, self.last_block)

    @property
    def variant(self) -> str:
        """What the journal calls the variant that takes these tensors from the donor."""
        return variant_id(self.names, self.donor)


@dataclass(frozen=True)
class Plan:
    """All cells of a sweep, donor by donor and split by split, in natural order (of prefixes: as they grow).

    `alphas` are the points of the path from recipient to donor that are scored beside each cell, `recalibration`
    names the data by which batch norm's statistics are estimated anew beside it (None: they are not).

    >>> import numpy as np
    >>> arrays = {"c.weight": np.zeros((2, 1, 3, 3)), "c.bias": np.zeros(2)}
    >>> recipient = Checkpoint.from_arrays(arrays)
    >>> donor = Checkpoint.from_arrays(arrays | {"c.bias": np.ones(2)})
    >>> plan = make_plan(donor, recipient, Selection(), by=[("layer", "kind"), ("kind",)])
    >>> [(cell.layer, cell.kind, cell.status) for cell in plan.cells[:2]], len(plan.variants())
    ([('c', 'conv.bias', 'measured'), ('c', 'conv.weight', 'identical')], 1)
    """

    by: tuple[By, ...]
    selection: tuple[str, ...]
    cells: tuple[Cell, ...]
    mode: Mode = "only"
    alphas: tuple[float, ...] = ()
    recalibration: str | None = None

    def variants(self) -> list[Variant]:
        """Each variant that must be run: one for all cells that take the same tensors."""
        wanted = [self.recalibrated_baseline]
        for cell in self.cells:
            if cell.status == "measured":
                own = Variant(cell.variant, cell.names, cell.donor)
                wanted += [own, *self.path(cell), self.recalibrated(cell)]
        return list({variant.id: variant for variant in wanted if variant}.values())

    def path(self, cell: Cell) -> list[Variant]:
        """The points between recipient and donor; both ends are known by other names."""
        names, donor = cell.names, cell.donor
        inner = [alpha for alpha in self.alphas if alpha not in (0.0, 1.0)]
        return [Variant(variant_id(names, donor, alpha), names, donor, alpha) for alpha in inner]

    def control(self, cell: Cell) -> Variant | None:
        """The zero control of a cell; None where there is none, or it would be the recipient itself."""
        if cell.status != "measured" or cell.is_neutral:
            return None
        return Variant(variant_id(cell.names, NEUTRAL), cell.names, NEUTRAL)

    @property
    def recalibrated_baseline(self) -> Variant | None:
        """The recipient with batch norm's statistics estimated anew, where that is asked for."""
        return self._recalibrated((), 0)

    def recalibrated(self, cell: Cell) -> Variant | None:
        """The same for a cell's variant; None where that would write over all that it takes."""
        is_overwritten = all(split_name(name)[1] in STATISTICS for name in cell.names)
        if cell.status != "measured" or is_overwritten:
            return None
        return self._recalibrated(cell.names, cell.donor)

    def _recalibrated(self, names: tuple[str, ...], donor: int) -> Variant | None:
        if self.recalibration is None:
            return None
        return Variant(variant_id(names, donor, 1.0, self.recalibration), names, donor, recalibrated=True)

    def without_effect(self, unread: Container[str]) -> "Plan":
        """The plan in which cells whose tensors the model never reads need not be run."""

        def known(cell: Cell) -> Cell:
            is_idle = cell.status == "measured" and all(name in unread for name in cell.names)
            return replace(cell, status="no-effect") if is_idle else cell

        cells = tuple(map(known, self.cells))
        idle = {(cell.by, *cell.parts) for cell in cells if cell.status == "no-effect"}
        # In a lattice, a set with such a part is the set without it.
        kept = (cell for cell in cells if len(cell.parts) < 2 or idle.isdisjoint((cell.by, p) for p in cell.parts))
        return replace(self, cells=tuple(kept))


def variant_id(names: Iterable[str], donor: int = 0, alpha: float = 1.0, recalibration: str | None = None) -> str:
    """A hash of the sorted tensor names, whatever cell they came from, and of what else makes the variant.

    >>> variant_id(["b", "a"]) == variant_id(["a", "b"]) != variant_id(["a,b"])
    True
    """
    rest = [donor, alpha, recalibration]
    what = sorted(names) if rest == [0, 1.0, None] else [sorted(names), *rest]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]


def make_plan(
    donor: Checkpoint | Sequence[Checkpoint],
    recipient: Checkpoint,
    selection: Selection,
    by: Sequence[By] = (("layer", "kind"),),
    *,
    mode: Mode = "only",
    order: Sequence[str] = (),
    alphas: Sequence[float] = (),
) -> Plan:
    """Split the selection in each of the given ways and compare each tensor of each donor once.

    `order`: layers as they run, for prefixes and suffixes. Raises `SelectionError` when nothing is selected,
    `UsageError` for a split that the mode makes no sense of, `FormatError` when a checksum is wrong.
    """
    given = [donor] if isinstance(donor, Checkpoint) else donor
    donors = [with_twins(giving, recipient.ties) for giving in given]
    everything = [entry.name for entry in selection.pick(recipient)]
    if alphas and (parts := recipient.ties.among(everything).quantised):
        raise UsageError(
            f"--alpha cannot go part of the way between quantised weights ({names_of(parts, ' + ')})",
            remedy="leave them out with --exclude, or --alpha",
        )
    by_layer = {layer: at for at, layer in enumerate(order)}

    def turn(part: Part) -> int:
        """When a part runs: its layer, or the first of its block."""
        layers = {recipient[name].layer for name in part.names} if part.layer is None else {part.layer}
        return min(by_layer[layer] for layer in layers)

    splits = {way: _takes(mode, way, selection, recipient, turn) for way in map(tuple, by)}
    refuse_damaged(*donors, recipient)
    cells: list[Cell] = []
    for number, giving in enumerate(donors):
        # Old files have nothing that counts batches, which no model reads in eval mode.
        lacking = {name for name in recipient if is_counter(name) and name not in giving}
        compared = _compare(giving, recipient, [name for name in everything if name not in lacking])
        for way, taken in splits.items():
            here = ((_without(part, lacking), last) for part, last in taken)
            made = [_cell(way, part, last, number, recipient, compared) for part, last in here]
            made = made if goes_by_order(mode) else sorted(made, key=cell_key)
            cells += _with_sets(made, recipient, compared) if mode == "lattice" else made
    marked = tuple(_marked(cells, recipient))
    return Plan(tuple(splits), tuple(selection.flags()), marked, mode, tuple(dict.fromkeys(alphas)))


def _without(part: Part, lacking: Container[str]) -> Part:
    return replace(part, names=tuple(name for name in part.names if name not in lacking) or part.names)


def _with_sets(alone: Sequence[Cell], recipient: Checkpoint, compared: Mapping[str, Compared]) -> list[Cell]:
    """The parts of one donor, then every set of those that differ."""
    parts = [Part(cell.layer, cell.kind, cell.names, cell.block) for cell in alone]
    differing = [part for part, cell in zip(parts, alone, strict=True) if cell.status == "measured"]
    by, donor = alone[0].by, alone[0].donor
    together = [
        replace(_cell(by, part, None, donor, recipient, compared), parts=names)
        for part, names in sets_of(differing)
    ]
    named = [replace(cell, parts=(name_of(part),)) for cell, part in zip(alone, parts, strict=True)]
    return named + together


Turn = Callable[[Part], int]
Taken = Sequence[tuple[Part, str | None]]
"""What each cell's variant takes, under the cell's own name; and the last block of a run of blocks."""


def _takes(mode: Mode, way: By, selection: Selection, recipient: Checkpoint, turn: Turn) -> Taken:
    """What each part's variant takes from the donor, of everything that is selected."""
    parts = selection.split(recipient, way)
    if mode == "lattice":
        refuse_way(way)
    if mode in ("only", "lattice"):
        return [(part, None) for part in parts]
    if "tensor" in way:
        raise UsageError(f"--mode {mode} goes by layers or kinds", remedy="use --by layer, kind or layer,kind")
    if mode == "all-but":
        everything = [entry.name for entry in selection.pick(recipient)]
        others = [tuple(name for name in everything if name not in part.names) for part in parts]
        return [(replace(part, names=names), None) for part, names in zip(parts, others, strict=True)]
    if window_sizes(mode):
        if "block" not in way:
            raise UsageError(f"--mode {mode} takes runs of blocks", remedy="use --by block, or block,kind")
        blocks = (part for part in Selection().split(recipient, way) if part.block is not None)
        return _windows(mode, parts, sorted(blocks, key=turn))
    if not {"layer", "block"} & {*way}:
        raise UsageError(f"--mode {mode} adds layer to layer", remedy="use --by layer, or layer,kind")
    taken: dict[str | None, tuple[str, ...]] = {}
    grown: list[tuple[Part, str | None]] = []
    for part in sorted(parts, key=turn, reverse=mode == "suffix"):
        taken[part.kind] = taken.get(part.kind, ()) + part.names
        grown.append((replace(part, names=taken[part.kind]), None))
    return grown


def _windows(mode: Mode, parts: Sequence[Part], blocks: Sequence[Part]) -> Taken:
    """Every run of so many consecutive blocks, kind by kind where the split goes by kinds. Of all `blocks`, in the
    order in which they run, one that is not among the parts ends a run; what is in no block is in no run.
    """
    chosen = {(part.block, part.kind): part for part in parts}
    rows: dict[str | None, list[list[Part]]] = defaultdict(lambda: [[]])
    for block in blocks:
        if part := chosen.get((block.block, block.kind)):
            rows[block.kind][-1].append(part)
        else:
            rows[block.kind].append([])
    unbroken = list(chain.from_iterable(rows.values()))
    sizes, most = window_sizes(mode), max(map(len, unbroken), default=0)
    if sizes[0] > most:
        fault = f"--mode {mode} is of more blocks than are selected in a row ({most})"
        raise UsageError(fault, remedy="take a shorter run")
    runs = [row[at : at + size] for row in unbroken for size in sizes for at in range(len(row) - size + 1)]
    return [
        (replace(run[0], names=tuple(name for part in run for name in part.names)), run[-1].block) for run in runs
    ]


def _compare(donor: Checkpoint, recipient: Checkpoint, names: Iterable[str]) -> dict[str, Compared]:
    wanted = list(dict.fromkeys(names))
    reasons = {name: reason for name in wanted if (reason := _misfit(donor, recipient, name))}
    for group, two in contradictions(donor, recipient.ties.among(wanted)).items():
        reasons |= dict.fromkeys(group, f"{' and '.join(two)} are one tensor, but the donor's differ")
    fit = [name for name in wanted if name not in reasons]
    apart = distances([(recipient[name], graft(recipient[name], donor[name])) for name in fit], norms=True)
    return {**reasons, **dict(zip(fit, apart, strict=True))}


def _marked(cells: Iterable[Cell], recipient: Checkpoint) -> Iterator[Cell]:
    """The cells, told whether there is anything in them that a zero control would take away."""
    known = cache(lambda name: is_neutral(recipient[name]))
    for cell in cells:
        is_measured = cell.status == "measured"
        yield replace(cell, is_neutral=True) if is_measured and all(map(known, cell.names)) else cell


def cell_key(cell: Cell) -> tuple[Any, ...]:
    """Natural order of cells: layer, then kind, then first tensor."""
    return natural_key(cell.place or ""), natural_key(cell.kind or ""), natural_key(next(iter(cell.names), ""))


def _misfit(donor: Checkpoint, recipient: Checkpoint, name: str) -> str | None:
    """Why the donor's tensor cannot take the recipient's place, naming both sides; None when it can."""
    ours, theirs = recipient[name], donor.get(name)
    if theirs is not None and ours.compatible(theirs):
        return None
    form = "missing" if theirs is None else f"{theirs.dtype} {list(theirs.shape)}"
    return f"{name}: {form} in the donor, {ours.dtype} {list(ours.shape)} in the recipient"


def _cell(
    by: By, part: Part, last: str | None, donor: int, recipient: Checkpoint, compared: Mapping[str, Compared]
) -> Cell:
    once = recipient.ties.once(part.names)
    numel = sum(recipient[name].numel for name in once)
    where: dict[str, Any] = {"donor": donor, "block": part.block, "last_block": last}
    here = Cell(by, part.layer, part.kind, part.names, numel, "measured", **where)
    known = [compared[name] for name in once if name in compared]
    if not known:
        return replace(here, status="no-effect")
    reasons = [distance for distance in known if isinstance(distance, str)]
    if reasons:
        return replace(here, status="mismatch", reason=listing(reasons, most=1))
    total, is_same = Distance(), True
    for equal, distance in (pair for pair in known if not isinstance(pair, str)):
        total.add(distance)
        is_same &= equal
    if not is_same and not recipient.ties.parts.isdisjoint(once):
        return replace(here, reason="no distance: a quantised weight")
    counts = {"recipient": (total.nan_a, total.inf_a), "donor": (total.nan_b, total.inf_b)}
    if not is_same and (counted := non_finite_words(counts)):
        return replace(here, non_finite=counted, reason=f"no distance: {counted}")
    return replace(here, status="identical" if is_same else "measured", rmse=total.rmse, rel_l2=total.rel_l2)
