"""A sweep from two checkpoints to a table: plan − what is done → engine → journal → rows.

`propose` makes the plan and runs nothing but the data once (for its fingerprint); `Proposal.run` does the work;
`sweep` does both. The table is always read back from the run folder, so that `load_result` gives the same one.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import CkptswapError, MismatchError, TaskError, UsageError
from ckptswap.selection import Selection
from ckptswap.sweep.evidence import limit_of, load_result
from ckptswap.sweep.heats import Heat, Race, heats, wanted
from ckptswap.sweep.journal import (
    BASELINE,
    DONOR,
    Block,
    Blocks,
    Journal,
    key_of,
    known_blocks,
    prepare,
    read_plan,
)
from ckptswap.sweep.live import Leaderboard
from ckptswap.sweep.plan import UNREAD, By, Cell, Plan, make_plan, variant_id
from ckptswap.sweep.race import RaceRules
from ckptswap.sweep.result import SweepResult
from ckptswap.sweep.scores import Scores

if TYPE_CHECKING:
    from ckptswap.sweep.engine import Cost, Engine, How
    from ckptswap.sweep.swap import Variant
    from ckptswap.task import Metric, Task, TaskSpec

CELLS: By = ("layer", "kind")
Progress = Callable[[int, int], None]
"""Called with how many blocks (one variant on one batch) are done and how many there are."""
Live = Callable[[Sequence[tuple[Cell, float]]], None]
"""Called with the cells whose mean drops are the worst so far, and these."""
NEWS = 1.0
"""Seconds between two such calls."""
SHOWN = 5


@dataclass(frozen=True)
class Proposal:
    """A sweep that could be run: what would be scored, on what, and in which folder it is kept.

    `donor_misfit` says why the donor itself has no score, where it does not fit the model.
    """

    task: Task
    engine: Engine
    recipient: Checkpoint
    donor: Checkpoint
    plan: Plan
    conditions: dict[str, Any]
    folder: Path
    donor_misfit: str | None

    @property
    def variants(self) -> list[Variant]:
        """What is run beside the baseline: the donor itself, where it fits, then every variant of the plan."""
        from ckptswap.sweep.swap import Variant

        planned = [Variant(variant_id(names), names) for names in self.plan.variants()]
        whole = [Variant(DONOR, tuple(name for name in self.engine.swaps.state if name in self.donor))]
        return planned if self.donor_misfit else whole + planned

    def cost(self) -> Cost:
        """What the whole sweep takes when nothing is in the journal yet, from one timed batch."""
        inputs = self.task.first_inputs()
        return self.engine.cost(inputs, self.variants, self.task.samples / len(inputs))

    def run(
        self,
        *,
        tolerance: float | None = None,
        fresh: bool = False,
        top: int | None = None,
        confidence: float = 0.95,
        epsilon: float | None = None,
        budget: float | None = None,
        screen: Literal["rmse", "gradient"] | None = None,
        progress: Progress | None = None,
        live: Live | None = None,
    ) -> SweepResult:
        """Score what the journal lacks, then read the table from the folder.

        `top` races for so many worst drops of each split by the first metric (`sweep.race`), with this
        `confidence` and ties within `epsilon` aside (default: the tolerance). `budget` ends the work after so many
        seconds. `live` is told the worst drops so far, once a second. `screen` guesses the ranking beforehand
        (`sweep.screen`), and the table tells how well.

        Raises `UsageError` for a race that makes no sense, `RunError` when the folder was made under other
        conditions and `fresh` does not set its journal aside, `TaskError` when the baseline itself fails, which is
        found out before anything is written. An interrupt leaves a journal that continues.
        """
        if top is not None:
            self._refuse_race(RaceRules(top, confidence, epsilon or 0.0))
        known = Blocks() if fresh else known_blocks(self.folder, self.conditions)
        meter = _Meter(self, known, progress, live)
        baseline, warnings = self._baseline(known, meter)
        contents = self._contents(tolerance, warnings)
        race = self._race(contents, top, confidence, epsilon, known, baseline) if top is not None else None
        contents["race"] = race.to_json() if race else None
        contents["screen"] = {"by": screen, "values": self._screened(screen)} if screen else None
        prepare(self.folder, contents, fresh=fresh)
        with Journal(self.folder, key_of(self.conditions)) as journal, contextlib.suppress(_OutOfTime):
            for block in baseline:
                journal.append(block)
            meter.deadline = None if budget is None else time.monotonic() + budget
            meter.board = self._leaderboard(journal.blocks, contents["metrics"][0]) if live else None
            self._score(journal, meter, race)
        return load_result(self.folder)

    def _score(self, journal: Journal, meter: _Meter, race: Race | None) -> None:
        from ckptswap.sweep.walk import walk

        starts = [0, *np.cumsum(self.task.data.sizes).tolist()]
        failed: set[str] = set()
        while True:
            found = list(self._heats(race, journal.blocks)) if race else []
            if race and all(heat.standing.finished for heat in found):
                return
            samples = wanted(found)

            def alive(
                number: int, variants: Sequence[Variant], samples: Mapping[str, int] = samples
            ) -> list[Variant]:
                every = self.task.samples
                return [each for each in variants if not race or samples.get(each.id, every) > starts[number]]

            walk(self.task, self.engine, self.variants, journal, meter, alive, failed)
            if not race:
                return

    def _leaderboard(self, blocks: Blocks, metric: Mapping[str, Any]) -> Leaderboard | None:
        if metric["name"].endswith(":pooled"):
            return None  # no mean over samples, so that there is nothing to count up
        return Leaderboard(metric["name"], metric["direction"], blocks.values())

    def _heats(self, race: Race, blocks: Blocks) -> Iterator[Heat]:
        return heats(race, self.plan, Scores(blocks.values(), self._walk), self.task.data.units.tolist())

    def _race(
        self,
        contents: Mapping[str, Any],
        top: int,
        confidence: float,
        epsilon: float | None,
        known: Blocks,
        baseline: Sequence[Block],
    ) -> Race:
        metric = contents["metrics"][0]
        if epsilon is None:
            scores = Scores([*known.values(), *baseline], self._walk)
            epsilon = limit_of(metric, scores, contents["tolerance"])[0]
        return Race(metric["name"], metric["direction"], top, confidence, epsilon, tuple(metric["bounds"]))

    def _refuse_race(self, rules: RaceRules) -> None:
        """Raises `UsageError`, before any work, for a metric whose mean over some samples says nothing (the rules
        themselves are checked as they are made)."""
        name = self.task.metrics[0].name
        if name.endswith(":pooled"):
            raise UsageError(
                f"{name} is no mean over samples, and a top {rules.top} cannot be raced for",
                remedy="leave --top out, or score by the mean over images",
            )

    def _screened(self, by: Literal["rmse", "gradient"]) -> dict[str, float]:
        from ckptswap.sweep.screen import screen

        return screen(by, self.plan, self.task, self.engine, self.variants)

    def _baseline(self, known: Blocks, meter: _Meter) -> tuple[list[Block], Sequence[str]]:
        """The recipient's blocks that are not known, by a full pass, and what the user should be told of it."""
        places = self.task.data.places
        if not any(known.lacks(BASELINE, number) for number in range(len(places))):
            return [], read_plan(self.folder)["warnings"]
        try:
            measured = self.task.measure(meter.samples)
            fault = measured.fault
        except CkptswapError as error:
            fault = str(error)
        except Exception as error:  # the user's model, data or metric may raise anything
            fault = f"{type(error).__name__}: {error}"
        if fault is not None:
            raise TaskError(
                f"the baseline fails, so there is nothing to compare with: {self.recipient.path}: {fault}",
                remedy="check that checkpoint, model and data belong together (`ckptswap evaluate`)",
            )
        blocks = [
            Block(BASELINE, number, {name: values[here] for name, values in measured.statistics.items()})
            for number, here in enumerate(places)
            if known.lacks(BASELINE, number)
        ]
        return blocks, measured.warnings

    @property
    def _walk(self) -> list[list[int]]:
        return [places.tolist() for places in self.task.data.places]

    def _contents(self, tolerance: float | None, warnings: Sequence[str]) -> dict[str, Any]:
        return {
            "key": self.conditions,
            "donor": self.donor.path,
            "recipient": self.recipient.path,
            "tolerance": tolerance,
            "metrics": [
                {
                    "name": each.name,
                    "direction": each.direction,
                    "trivial": _trivial(self.task, each),
                    "bounds": [bound if math.isfinite(bound) else None for bound in each.bounds],
                }
                for each in self.task.metrics
            ],
            "groups": self.task.groups.tolist(),
            "units": self.task.data.units.tolist(),
            "walk": self._walk,
            "plan": self.plan.to_json(),
            "donor_misfit": self.donor_misfit,
            "warnings": list(warnings),
        }


class _OutOfTime(Exception):
    """The budget is used up."""


class _Meter:
    """Counts finished blocks for a progress bar, and ends the work at the deadline."""

    deadline: float | None = None
    board: Leaderboard | None = None

    def __init__(self, proposal: Proposal, known: Blocks, progress: Progress | None, live: Live | None) -> None:
        self._live, self._shown = live, 0.0
        self._cells = {cell.variant: cell for cell in proposal.plan.cells}
        numbers = range(len(proposal.task.data.sizes))
        wanted = [BASELINE, *(variant.id for variant in proposal.variants)]
        self._done = sum(not known.lacks(variant, number) for variant in wanted for number in numbers)
        self._total = len(wanted) * len(numbers)
        self._progress = progress
        self._sizes = np.cumsum(proposal.task.data.sizes).tolist()
        self._count(0)

    def samples(self, done: int, total: int | None) -> None:
        """The baseline's progress, told in samples: a block is counted when its samples are done."""
        ends = self._sizes
        while ends and done >= ends[0]:
            ends.pop(0)
            self._count(1)

    def __call__(self, block: Block) -> None:
        self._count(1)
        now = time.monotonic()
        if self.board and self._live:
            self.board.add(block)
            if now - self._shown > NEWS:
                self._shown = now
                worst = self.board.worst(SHOWN)
                self._live([(self._cells[variant], drop) for variant, drop in worst if variant in self._cells])
        if self.deadline is not None and now > self.deadline:
            raise _OutOfTime

    def _count(self, count: int) -> None:
        self._done += count
        if self._progress:
            self._progress(min(self._done, self._total), self._total)


def propose(
    donor: Checkpoint,
    recipient: Checkpoint,
    spec: TaskSpec,
    *,
    selection: Selection | None = None,
    by: Sequence[By] = (CELLS,),
    run_dir: str | Path | None = None,
    engine: How = "auto",
    memory: int | None = None,
) -> Proposal:
    """Plan a sweep: compare the checkpoints, build the task, capture the model, name the run folder (default
    `runs/KEY`).

    `engine` says how variants are scored (see `sweep.engine`), `memory` bounds in bytes what replays may take.
    Nothing is written. Raises `SelectionError` when nothing is selected, `TaskError` when the task cannot be
    built or the model run, `MismatchError` when the recipient does not fit the model.
    """
    from ckptswap.sweep.conditions import conditions
    from ckptswap.sweep.engine import MEMORY, Engine
    from ckptswap.task import load_task

    plan = make_plan(donor, recipient, selection or Selection(), by)
    task = load_task(spec, recipient)
    misfit = _misfit(task, donor)
    chosen = Engine(task, donor, recipient, engine, MEMORY if memory is None else memory)
    with task.pinned():
        chosen.refuse_chance(task.first_inputs())
    if engine != "full":
        plan = plan.without_effect(_unread(task, chosen, recipient))
    found = conditions(task, donor, recipient)
    folder = Path(run_dir) if run_dir is not None else Path("runs") / key_of(found)[:12]
    return Proposal(task, chosen, recipient, donor, plan, found, folder, misfit)


def _unread(task: Task, engine: Engine, recipient: Checkpoint) -> frozenset[str]:
    """What no forward pass reads: as the model's graph says for every form of batch, and batch norm's counters in
    any case.
    """
    counters = frozenset(name for name, entry in recipient.items() if entry.kind == UNREAD)
    firsts = set(task.data.forms.values())
    with task.pinned(), closing(task.data.numbered(firsts)) as batches:
        return counters | frozenset.intersection(*(engine.unread(batch.inputs) for _, batch in batches))


def _misfit(task: Task, donor: Checkpoint) -> str | None:
    from ckptswap.task.weights import check_fit

    try:
        check_fit(task.model, donor)
    except MismatchError as error:
        return str(error)
    return None


def sweep(
    donor: Checkpoint,
    recipient: Checkpoint,
    spec: TaskSpec,
    *,
    selection: Selection | None = None,
    by: Sequence[By] = (CELLS,),
    run_dir: str | Path | None = None,
    engine: How = "auto",
    memory: int | None = None,
    **how: Any,
) -> SweepResult:
    """Score every variant of the recipient that takes one part of the selection from the donor.

    `how` is what `Proposal.run` takes. Raises what `propose` and `Proposal.run` raise.
    """
    proposal = propose(
        donor, recipient, spec, selection=selection, by=by, run_dir=run_dir, engine=engine, memory=memory
    )
    return proposal.run(**how)


def _trivial(task: Task, metric: Metric) -> float | None:
    """None where a trivial prediction has no finite score; then a tolerance must be given."""
    try:
        score = float(task.trivial(metric))
    except CkptswapError:
        return None
    return score if math.isfinite(score) else None
