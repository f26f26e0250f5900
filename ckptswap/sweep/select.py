"""The largest set of a sweep's cells that can be taken from the donors together, within a tolerance.

Drops of single cells do not add up, so that every set is scored as a whole: cells are tried in runs, those first
that may do least by themselves; a run that costs too much is tried again in halves. That is greedy: there may be a
larger set. And the samples that it is scored on chose it: let `holdout` keep half of them for the score, or score
it on other data, before relying on it.
"""

import glob
import hashlib
import math
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import RunError
from ckptswap.presets import is_of_preset
from ckptswap.scoring.full import FullScorer
from ckptswap.selection import Selection
from ckptswap.shell import joined
from ckptswap.statistics import Interval, intervals, totals
from ckptswap.sweep.analysis import analysed
from ckptswap.sweep.donors import is_made
from ckptswap.sweep.plan import Cell, Plan
from ckptswap.sweep.progress import Progress
from ckptswap.sweep.rebuild import rebuilt
from ckptswap.sweep.result import Row, SweepResult
from ckptswap.sweep.run_folder.folder import RunFolder
from ckptswap.sweep.run_folder.trust import NamedAgain, source_to_rebuild
from ckptswap.sweep.scored_run import ScoredRun
from ckptswap.sweep.spec import Judging, SweepSpec
from ckptswap.wrappers import correspondence

SEED = 0  # of the halves


@dataclass(frozen=True)
class Holdout:
    """On how many groups a set was chosen, the others being held out, and what it costs on those; by which seed
    they were drawn."""

    seed: int
    chosen_on: int
    reported_on: int
    drop: Interval


@dataclass(frozen=True, repr=False)
class Choice:
    """The cells that are taken, and what all of them together cost: with a `holdout`, on the groups held out.

    `same` counts the cells that are equal in both or never read, which are free and not taken; `unscored` those
    that the sweep has not reached, that failed or do not fit. `sources` are the recipient's path and the donors',
    `own` what the recipient's file calls each tensor, `maps` the flags by which the donors' are found by these.
    """

    metric: str
    direction: str
    tolerance: float
    baseline: float
    score: float
    drop: Interval
    taken: tuple[Row, ...]
    left: tuple[Row, ...]
    same: int
    unscored: int
    evaluations: int
    sources: tuple[str, tuple[str, ...]]
    own: Mapping[str, str]
    maps: tuple[tuple[str, ...], ...]
    holdout: Holdout | None = None

    def __repr__(self) -> str:
        cells, cost = len(self.taken) + len(self.left), f"{self.metric} {self.baseline:.6g} → {self.score:.6g}"
        return f"<Choice {len(self.taken)} of {cells} cells: {cost}, tolerance {self.tolerance:.6g}>"

    @property
    def numel(self) -> int:
        """How many values are taken."""
        return sum(row.numel for row in self.taken)


def select(
    run_dir: str | os.PathLike[str],
    *,
    tolerance: float | None = None,
    holdout: bool = False,
    progress: Progress | None = None,
    named: NamedAgain | None = None,
) -> Choice:
    """Find a largest set of a run's cells whose combined drop stays below the tolerance (default: the run's),
    and tell `progress` how many are decided and how many there are.

    It stays below when the upper end of the 95 % interval of its drop does. A cell that moved too few groups to be
    told reusable is not tried; with fewer than 8 groups none is. Of several donors each cell takes the one that
    does least; one that is no file (`zeros`, …) gives nothing, for no command could take from it. With `holdout`
    one half of the groups chooses, and the cost is told on the other.

    The task is built of what the folder names, where this user's own command made it; else of what is `named` here
    alone. Raises `RunError` for a folder that is no sweep of single parts, whose checkpoints or data are others by
    now, that is a stranger's, or whose groups are too few for two halves.
    """
    folder = RunFolder(run_dir)
    scored = ScoredRun.read(folder, judging=Judging(tolerance=tolerance))
    choosing, telling = _halves(folder, scored.groups) if holdout else [np.ones(len(scored.groups), bool)] * 2
    result = analysed(scored.only(choosing) if holdout else scored).result
    files = _files(folder, result)
    source, cells = source_to_rebuild(folder, named), _finest(scored.plan)
    way = {(cell.place, cell.kind, cell.names) for cell in cells}
    rows = [row for row in result.rows if (row.place, row.kind, row.tensors) in way and row.donor in files]
    candidates, same = _candidates(rows)
    if not candidates:
        raise RunError(f"{folder} has no measured cell to choose from", remedy="see `ckptswap report`")
    groups = len(np.unique(scored.groups[choosing]))
    tried = [row for row in candidates if groups >= intervals.LEAST_GROUPS and not row.is_unproven]
    with rebuilt(source, folder, named.opened if named else {}) as engine:
        search = _Search(engine, result, choosing, len(tried), progress)
        search.take(tried)
        chosen = search.taken
        baseline, score, drop = search.measured(chosen, telling)
        own, maps = _names(engine, chosen, source.spec)
    told = Holdout(SEED, groups, len(np.unique(scored.groups[telling])), search.drop) if holdout else None
    left = tuple(row for row in candidates if row not in chosen)
    unscored = sum(cell.donor == min(files) for cell in cells) - len(candidates) - same
    paths = source.recipient.path, tuple(donor.path for donor in source.donors)
    return Choice(
        result.metric, result.direction, result.tolerance, baseline, score, drop, tuple(chosen), left, same,
        unscored, search.evaluations, paths, own, maps, told,
    )  # fmt: skip


def _files(folder: RunFolder, result: SweepResult) -> set[int]:
    """The donors that are files. Raises `RunError` where there is none, or the cells are no single parts."""
    if result.mode != "only":
        raise RunError(f"{folder} swaps with --mode {result.mode}", remedy="sweep single parts, without --mode")
    files = {at for at, donor in enumerate(result.donors) if not is_made(donor.path)}
    if not files:
        raise RunError(f"{folder} has no donor that is a file to transplant from", remedy="sweep from a file too")
    return files


def _names(
    engine: FullScorer, chosen: Sequence[Row], spec: SweepSpec
) -> tuple[dict[str, str], tuple[tuple[str, ...], ...]]:
    """What the recipient's file calls each tensor, and the flags by which the donors' are found: those that
    were given, where a preset laid one out, since names alone do not."""
    own = _own_names(engine.task.fit.checkpoint)
    given = ("--map-preset", spec.map_preset or "", *(word for rule in spec.map for word in ("--map", rule)))
    maps = (
        given
        if is_of_preset(spec.map_preset, donor)
        else map_flags(_own_names(donor), own, [name for row in chosen if row.donor == at for name in row.tensors])
        for at, donor in enumerate(engine.swaps.donors)
    )
    return own, tuple(maps)


def _halves(folder: RunFolder, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which samples (N,) choose and which are held out, whole groups of them, drawn by `SEED`."""
    every = np.unique(groups).tolist()
    if len(every) < 2 * intervals.LEAST_GROUPS:
        fault = f"{folder} has {len(every)} groups of samples, and each half takes {intervals.LEAST_GROUPS}"
        raise RunError(fault, remedy="leave --holdout out, or sweep on more data")
    drawn = sorted(every, key=lambda group: hashlib.sha256(f"{SEED} {group}".encode()).digest())
    choosing = np.isin(groups, drawn[: len(every) // 2])
    return choosing, ~choosing


def _candidates(rows: Iterable[Row]) -> tuple[list[Row], int]:
    """The measured cells of these rows, each with its best donor, most harmless first; and how many are free."""
    cells: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in rows:
        if row.drop is not None:
            cells[row.tensors].append(row)
    free = [rows for rows in cells.values() if any(row.status != "measured" for row in rows)]
    best = [min(rows, key=_effect) for rows in cells.values() if rows not in free]
    return sorted(best, key=_effect), len(free)


def _effect(row: Row) -> tuple[bool, float]:
    """How much a cell may change the score, either way: what surely does little comes first, and last what moved
    too few groups to tell."""
    assert row.drop is not None
    most = max(abs(change) for change in (row.drop, row.ci_low, row.ci_high) if change is not None)
    return row.is_unproven, most


def _finest(plan: Plan) -> list[Cell]:
    """The cells of the way of splitting that has most: parts of others would overlap."""
    ways: dict[object, list[Cell]] = defaultdict(list)
    for cell in plan.cells:
        ways[cell.by].append(cell)
    return max(ways.values(), key=len)


class _Search:
    """Adds runs of cells to what is taken, as long as all together stay within the tolerance."""

    def __init__(
        self,
        engine: FullScorer,
        result: SweepResult,
        choosing: np.ndarray,
        cells: int,
        progress: Progress | None,
    ) -> None:
        self._engine, self._result, self._choosing = engine, result, choosing
        self._cells, self._progress = cells, progress
        metric = next(metric for metric in engine.task.metrics if metric.name == result.metric)
        self._reduce, self._bounds = metric.reduction, metric.bounds
        self.taken: list[Row] = []
        self.drop = Interval(0.0, None, None)
        """What all that is taken costs, on the samples that choose."""
        self.evaluations = self._decided = 0
        self._baseline = self._statistics([])

    def take(self, rows: Sequence[Row]) -> None:
        """Take these cells, or as many of them as can be had."""
        if not rows:
            return
        *_, drop = self.measured([*self.taken, *rows], self._choosing)
        is_within = drop.high is not None and drop.high < self._result.tolerance
        if not is_within and len(rows) > 1:
            half = len(rows) // 2
            self.take(rows[:half])
            self.take(rows[half:])
            return
        if is_within:
            self.taken += rows
            self.drop = drop
        self._decided += len(rows)
        if self._progress:
            self._progress(self._decided, self._cells)

    def measured(self, rows: Sequence[Row], there: np.ndarray) -> tuple[float, float, Interval]:
        """The recipient's score on some samples (N,), its score with all these cells swapped, and the drop; an
        infinite drop where it fails."""
        ours, baseline = self._statistics(rows), self._baseline
        if ours is None or baseline is None:
            return math.nan, math.nan, Interval(math.inf, None, None)
        ours, baseline, groups = ours[there], baseline[there], self._engine.task.groups[there]
        before, after = (totals.whole(statistics, self._reduce) for statistics in (baseline, ours))
        if not rows:  # the recipient itself, which no bound need speak of
            return before, after, Interval(0.0, None, None)
        best, worse = (baseline, ours) if self._result.direction == "max" else (ours, baseline)
        return before, after, intervals.difference(best, worse, groups, self._reduce, bounds=self._bounds)

    def _statistics(self, rows: Sequence[Row]) -> np.ndarray | None:
        """By one plain forward pass over all samples; None where the outputs are no numbers."""
        self.evaluations += 1
        swaps = self._engine.swaps
        taken = {name: value for row in rows for name, value in swaps.taken(row.tensors, row.donor).items()}
        measured = self._engine.task.measure(variant=lambda: swaps.holding(taken))
        return None if measured.fault else measured.statistics[self._result.metric]


def commands(choice: Choice, out: str) -> list[str]:
    """The `transplant` commands that make the chosen checkpoint, quoted for a shell; one for each donor."""
    recipient, donors = choice.sources
    by_donor: dict[int, list[str]] = defaultdict(list)
    for row in choice.taken:
        by_donor[row.donor] += row.tensors
    lines, last = [], recipient
    for place, (donor, names) in enumerate(sorted(by_donor.items()), start=1):
        stem, suffix = os.path.splitext(out)
        target = out if place == len(by_donor) else f"{stem}.part{place}{suffix}"
        words = ["ckptswap", "transplant", "--from", donors[donor], "--to", last, *choice.maps[donor]]
        taken = Selection.exactly(choice.own[name] for name in names)
        lines.append(joined([*words, *taken.flags(), "-o", target]))
        last = target
    return lines


def _own_names(checkpoint: Checkpoint) -> dict[str, str]:
    """What each tensor is called in its file: other than in the model, under whose names a sweep works."""
    old = {new: old for old, new in checkpoint.renames.items()}
    return {name: old.get(name, name) for name in checkpoint}


def map_flags(donor: Mapping[str, str], recipient: Mapping[str, str], names: Iterable[str]) -> tuple[str, ...]:
    """The flags under which `transplant` finds these tensors of two files by itself; both map the model's names.

    >>> map_flags({"w": "net.w"}, {"w": "module.w"}, ["w"]), map_flags({"w": "net.w", "v": "v"}, {"w": "w"}, ["w"])
    ((), ('--map', 'net.w=w'))
    """
    names_of = correspondence(donor.values(), frozenset(recipient.values())).names
    pairs = [(donor[name], recipient[name]) for name in names]
    if all(names_of.get(ours, ours) == theirs for ours, theirs in pairs):
        return ()
    return tuple(
        word for ours, theirs in pairs if ours != theirs for word in ("--map", f"{glob.escape(ours)}={theirs}")
    )
