"""From the experiment's folder to numbers: what each pair of networks has to say, as pure data.

A drop is told as a *share* of what the network knows, |baseline − trivial prediction|, so that networks and
metrics can be compared. A value that does not exist is None: a row that failed or does not fit, or that changes
nothing because both networks are equal there, or because the model never reads it.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ckptswap.checkpoint import Checkpoint
from ckptswap.diff import Diff, TensorDiff, diff
from ckptswap.errors import RunError
from ckptswap.formats import open_checkpoint
from ckptswap.formats.objects import is_plain_name
from ckptswap.lab.experiment import INIT, INITS, STAGES, WAYS, Experiment, Unit
from ckptswap.moments import Distance
from ckptswap.selection import Selection
from ckptswap.statistics.totals import RESAMPLES
from ckptswap.sweep.analysis import analysed
from ckptswap.sweep.plan import variant_id
from ckptswap.sweep.result import Row, SweepResult
from ckptswap.sweep.run_folder.folder import RunFolder
from ckptswap.sweep.run_folder.plain import read_plain
from ckptswap.sweep.scored_run import DEFAULT_TOLERANCE, ScoredRun, is_complete

Share = float | None


@dataclass(frozen=True)
class CellShare:
    """One layer × kind of a pair: where it stands in execution order (from 0), its share, and what guesses it."""

    layer: str
    kind: str
    place: int
    share: float
    rmse: float | None
    rel_l2: float | None
    cosine_distance: float | None
    first_order: float | None


@dataclass(frozen=True)
class Apart:
    """RMSE of a kind: between the pair, from the recipient's own start, and between recipients of two seeds."""

    pair: float | None
    start: float | None
    seeds: float | None


@dataclass(frozen=True)
class Pair:
    """One pair of networks. `kinds`, `recalibrated`, `noise`, `shuffle` and `back` map whole kinds to shares,
    `groups` sets of several kinds or layers (`affine`, …), `regrouped` the same after new statistics. `prefix` has
    a share for each number of layers taken from the first on. `moved` is how far the biases before batch norm are
    from where they started, relative to that."""

    arm: str
    init: str
    seed: int
    baseline: float
    donor_score: float | None
    back_baseline: float
    kinds: Mapping[str, Share]
    recalibrated: Mapping[str, Share]
    noise: Mapping[str, Share]
    shuffle: Mapping[str, Share]
    back: Mapping[str, Share]
    groups: Mapping[str, Share]
    regrouped: Mapping[str, Share]
    cells: tuple[CellShare, ...]
    prefix: tuple[Share, ...]
    apart: Mapping[str, Apart]
    moved: float | None


def by_network(pairs: Sequence[Pair]) -> Iterator[tuple[str, str, list[Pair]]]:
    """Network, initialisation, and the pairs of all their seeds."""
    for arm, init in dict.fromkeys((pair.arm, pair.init) for pair in pairs):
        yield arm, init, [pair for pair in pairs if (pair.arm, pair.init) == (arm, init)]


ALL = "all weights and biases"
STATISTICS = ("bn.running_mean", "bn.running_var")


def load_pairs(experiment: Experiment, folder: Path) -> list[Pair]:
    """Read every pair that is finished; of the others there is nothing. Raises RunError where none is."""
    tried = [_pair(experiment, folder, unit, init) for unit in experiment.units() for init in INITS]
    if pairs := [pair for pair in tried if pair is not None]:
        return pairs
    raise RunError(f"{folder} has no finished pair", remedy="run the same `ckptswap reproduce` to continue")


def _pair(experiment: Experiment, folder: Path, unit: Unit, init: str) -> Pair | None:
    runs, home = folder / unit.folder / init, folder / unit.folder
    names = _swept(runs)
    if not names:
        return None
    cells, kinds, prefix, back = (_result(runs / name) for name in WAYS)
    groups = {name: _result(runs / name) for name in names if name not in WAYS}
    again = {name: _again(result.rows[0], result) for name, result in groups.items() if name != "bias-and-mean"}
    order = [cell.layer or "" for cell in RunFolder(runs / "prefix").read_plan().plan.cells]
    shares = {row.layer: _share(row, prefix) for row in prefix.rows}
    measured = {name for row in cells.rows if _share(row, cells) is not None for name in row.tensors}
    other = folder / unit.arm.name / f"seed-{(unit.seed + 1) % experiment.seeds}"
    with ExitStack() as stack:
        recipient, donor, start = (
            stack.enter_context(open_checkpoint(home / name))
            for name in ("segment.safetensors", f"{init}.safetensors", INIT)
        )
        twin = None
        if other != home and (other / "segment.safetensors").exists():
            twin = stack.enter_context(open_checkpoint(other / "segment.safetensors"))
        return Pair(
            unit.arm.name,
            init,
            unit.seed,
            baseline=kinds.baseline,
            donor_score=kinds.donors[0].score,
            back_baseline=back.baseline,
            kinds=_whole(kinds, 0),
            recalibrated={row.kind: _again(row, kinds) for row in kinds.rows if row.kind and row.donor == 0},
            shuffle=_whole(kinds, 1),
            noise=_whole(kinds, 2, "identical"),
            back=_whole(back, 0),
            groups={name: _share(result.rows[0], result) for name, result in groups.items()},
            regrouped=again,
            cells=tuple(_cells(runs / "cells", cells, order, diff(recipient, donor))),
            prefix=tuple(shares.get(layer) for layer in order),
            apart=_apart(recipient, (donor, start, twin), measured),
            moved=_moved(groups.get("bias-before-norm"), start, recipient),
        )


def _result(run: Path) -> SweepResult:
    """A sweep's table, of whose p-values, which nobody reads here, the draws would take most of the time."""
    return analysed(replace(ScoredRun.read(RunFolder(run)), draws=RESAMPLES)).result


def _swept(runs: Path) -> list[str]:
    """The names of a pair's sweeps, when all of them are there and whole."""
    if not (runs / STAGES).exists():
        return []
    try:
        names = json.loads(read_plain(runs / STAGES))
        if not all(is_plain_name(name) for name in names):
            raise ValueError("it names a folder elsewhere")
    except (ValueError, TypeError, RecursionError) as error:
        raise RunError(f"{runs / STAGES} is damaged ({error})", remedy="remove it, and continue") from None
    return names if all(is_complete(RunFolder(runs / name)) for name in names) else []


def _share(row: Row, result: SweepResult) -> Share:
    if row.status != "measured" or row.drop is None or not result.tolerance:
        return None
    return row.drop * DEFAULT_TOLERANCE / result.tolerance


def _again(row: Row, result: SweepResult) -> Share:
    if row.recalibrated is None or row.recalibrated.drop is None or _share(row, result) is None:
        return None
    return row.recalibrated.drop * DEFAULT_TOLERANCE / result.tolerance


def _whole(result: SweepResult, donor: int, *skipped: str) -> dict[str, Share]:
    rows = [row for row in result.rows if row.donor == donor and row.status not in ("no-effect", *skipped)]
    return {row.kind: _share(row, result) for row in rows if row.kind}


def _cells(run: Path, result: SweepResult, order: list[str], apart: Diff) -> Iterator[CellShare]:
    screen = RunFolder(run).read_plan().screen
    guesses = screen.values if screen else {}
    distances = _pooled(apart.rows, lambda row: ((row.layer, row.kind),))
    for row in result.rows:
        share = _share(row, result)
        if share is None or row.layer is None or row.kind is None:
            continue
        distance = distances.get((row.layer, row.kind)) or Distance()
        angle = None if distance.cosine is None else 1 - distance.cosine
        predictors = (distance.rmse, distance.rel_l2, angle, guesses.get(variant_id(row.tensors)))
        yield CellShare(row.layer, row.kind, order.index(row.layer), share, *predictors)


def _apart(recipient: Checkpoint, others: Sequence[Checkpoint | None], names: set[str]) -> dict[str, Apart]:
    """By kind, and over all weights and biases, of the tensors that were swapped and read."""
    by_kind: list[dict[str, Distance]] = []
    for other in others:
        rows = diff(recipient, other).rows if other else ()
        swapped = [row for row in rows if row.name in names and row.kind is not None]
        by_kind.append(_pooled(swapped, lambda row: (row.kind,) if row.kind in STATISTICS else (row.kind, ALL)))
    return {
        kind: Apart(*(kinds[kind].rmse if kind in kinds else None for kinds in by_kind))
        for kind in sorted(by_kind[0])
    }


def _pooled(rows: Iterable[TensorDiff], keys: Callable[[TensorDiff], Iterable[Any]]) -> dict[Any, Distance]:
    pooled: dict[Any, Distance] = {}
    for row in rows:
        if row.distance is not None:
            for key in keys(row):
                pooled.setdefault(key, Distance()).add(row.distance)
    return pooled


def _moved(biases: SweepResult | None, start: Checkpoint, recipient: Checkpoint) -> float | None:
    if biases is None:
        return None
    rows = diff(start, recipient, Selection.exactly(biases.rows[0].tensors)).rows
    return _pooled(rows, lambda row: (ALL,)).get(ALL, Distance()).rel_l2
