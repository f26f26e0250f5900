"""A sweep from two checkpoints to a table: plan − what is done → engine → journal → rows.

`prepare` makes the plan and runs nothing but the data once (for its fingerprint); `Sweep.run` does the work;
`sweep` does both. The table is always read back from the run folder, so that `load_result` gives the same one.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import time
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import CkptswapError, ModelError, RunError, TaskError, UsageError
from ckptswap.executors.inline import Inline
from ckptswap.formats.overwrite import refuse_occupied
from ckptswap.scoring.calibration import Calibration
from ckptswap.scoring.scorer import Block, Cost, Every, Scorer
from ckptswap.scoring.variant import BASELINE, RECIPIENT, Variant
from ckptswap.selection import Selection
from ckptswap.sweep.analysis import checked_tolerance, limit_of, load_result
from ckptswap.sweep.heats import Heat, Race, heats, wanted
from ckptswap.sweep.live import Leaderboard
from ckptswap.sweep.loop import score_missing
from ckptswap.sweep.plan import UNREAD, By, Mode, Plan, make_plan
from ckptswap.sweep.progress import Live, Meter, OutOfTime, Progress
from ckptswap.sweep.provenance import made_by
from ckptswap.sweep.race import RaceRules
from ckptswap.sweep.result import SweepResult
from ckptswap.sweep.run_folder.blocks import Blocks
from ckptswap.sweep.run_folder.contents import refuse_odd_blocks
from ckptswap.sweep.run_folder.journal import (
    Journal,
    begin_folder,
    check_conditions,
    donor_id,
    journal_files,
    key_of,
    write_plan,
)
from ckptswap.sweep.run_folder.lock import Lock
from ckptswap.sweep.run_folder.plain import refuse_odd_parts
from ckptswap.sweep.run_folder.repair import repair as repair_journal
from ckptswap.sweep.run_folder.repair import repair_plan
from ckptswap.sweep.scores import Scores
from ckptswap.sweep.stopping import Stop
from ckptswap.sweep.worker_spec import make_worker_spec

if TYPE_CHECKING:
    from ckptswap.executors import Executor
    from ckptswap.scoring.full import FullScorer
    from ckptswap.scoring.replay import How
    from ckptswap.task import Task, TaskSpec

Donor = Checkpoint | str
CELLS: By = ("layer", "kind")


@dataclass(frozen=True)
class Sweep:
    """A sweep that could be run: what would be scored, on what, and in which folder it is kept.

    `donor_misfits` say of each donor why it has no score itself, where it does not fit the model; `layers` are in
    the order in which they run; `notes` say what was taken off names, and what of the recipient was left out.
    """

    scorer: Scorer
    recipient: Checkpoint
    donors: tuple[Checkpoint, ...]
    plan: Plan
    conditions: dict[str, Any]
    folder: Path
    donor_misfits: tuple[str | None, ...]
    calibration: Calibration | None = None
    layers: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def task(self) -> Task:
        """What a scorer that runs a model runs it on."""
        return self.runs_model.task

    @property
    def runs_model(self) -> FullScorer:
        """The scorer, where it runs a model. Raises `UsageError` where it runs none."""
        if not self.scorer.needs_model:
            raise UsageError("the sweep's scorer has no model and no data of ours", remedy="sweep with a task")
        return cast("FullScorer", self.scorer)

    @property
    def variants(self) -> list[Variant]:
        """What is run beside the baseline: the donors, where they fit, then every variant of the plan."""
        whole = [
            Variant(donor_id(at), tuple(name for name in self._names if name in donor), at)
            for at, (donor, misfit) in enumerate(zip(self.donors, self.donor_misfits, strict=True))
            if not misfit
        ]
        return whole + self.plan.variants()

    @property
    def _names(self) -> Iterable[str]:
        return self.runs_model.swaps.state if self.scorer.needs_model else self.recipient

    def cost(self) -> Cost:
        """What the whole sweep takes when nothing is in the journal yet, from one timed batch."""
        return self.scorer.cost(self.variants)

    def check(
        self,
        *,
        fresh: bool = False,
        repair: bool = False,
        top: int | None = None,
        confidence: float = 0.95,
        epsilon: float | None = None,
        executor: Executor | None = None,
    ) -> None:
        """What `run` refuses before any work, for a plan that is shown and not run. Raises as `run` does."""
        if top is not None:
            self._refuse_race(RaceRules(top, confidence, epsilon or 0.0), executor or Inline())
        if self.folder.exists() and not self.folder.is_dir():
            raise RunError(f"cannot make {self.folder}: it is no folder", remedy="choose another --run")
        refuse_odd_parts(self.folder)
        refuse_occupied(self.folder)
        if not (fresh or repair):  # what is repaired is held against its conditions afterwards
            check_conditions(self.folder, self.conditions)

    def run(
        self,
        *,
        tolerance: float | None = None,
        fresh: bool = False,
        repair: bool = False,
        top: int | None = None,
        confidence: float = 0.95,
        epsilon: float | None = None,
        budget: float | None = None,
        screen: Literal["rmse", "gradient"] | None = None,
        executor: Executor | None = None,
        stop: Stop | None = None,
        progress: Progress | None = None,
        live: Live | None = None,
        news: Callable[[], None] | None = None,
        command: str | None = None,
    ) -> SweepResult:
        """Score what the journal lacks, then read the table from the folder.

        `fresh` sets an old journal aside, `repair` leaves damaged lines out of it, writes a damaged plan anew, and
        notes what it did.
        `top` races for so many worst drops of each split by the first metric (`sweep.race`), with this
        `confidence` and ties within `epsilon` aside (default: the tolerance). `budget` ends the work after so many
        seconds. `screen` guesses the ranking beforehand (`sweep.screen`), and the table tells how well. `executor`
        says where blocks are computed (`sweep.executors`; default: here). `stop` is looked at after each block.
        `live` is told the worst drops so far, once a second, `news` now and then that the folder holds more than
        before. `command` is what the user typed, which the folder remembers.

        Raises `UsageError` for a race or a tolerance that makes no sense, `RunError` when another sweep works on
        the folder, or when it was made under other conditions and `fresh` does not set its journal aside,
        `TaskError` when the baseline itself fails, which leaves no new folder behind, `Stopped` when `stop` asked
        for it. However it is interrupted, the journal continues.
        """
        executor, tolerance = executor or Inline(), checked_tolerance(tolerance)
        self.check(fresh=fresh, repair=repair, top=top, confidence=confidence, epsilon=epsilon, executor=executor)
        made = next((each for each in [*reversed(self.folder.parents), self.folder] if not each.exists()), None)
        is_begun = bool(journal_files(self.folder)) and not fresh
        # A recipient without a score is found out before anything is written.
        first = [] if is_begun else list(islice(self._baseline({0}), 1))
        try:
            with Lock(self.folder) as lock:
                meter = Meter(self, progress, live, news, stop or Stop(), lock)
                if repair:
                    self.scorer.notes += repair_journal(self.folder)
                    self.scorer.notes += repair_plan(self.folder, self._contents(tolerance))
                contents = self._contents(tolerance) | {"made": made_by(self.folder, command, anew=not is_begun)}
                contents["screen"] = {"by": screen, "values": self._screened(screen)} if screen else None
                if not is_begun:
                    begin_folder(self.folder, contents, fresh=fresh)
                with Journal(self.folder, key_of(self.conditions)) as journal:
                    self._refuse_odd(journal.blocks)
                    if is_begun:  # a damaged journal is refused before anything is changed
                        begin_folder(self.folder, contents)
                    self._score_baseline(first, journal, meter)
                    made = None
                    baseline = [journal.blocks[BASELINE, number] for number in range(len(self._walk))]
                    contents["warnings"] = self.scorer.warnings(baseline)
                    race = self._race(contents, top, confidence, epsilon, journal.blocks) if top else None
                    contents["race"] = race.to_json() if race else None
                    write_plan(self.folder, contents)
                    meter.board = self._leaderboard(journal.blocks, contents["metrics"][0]) if live else None
                    with contextlib.suppress(OutOfTime):
                        meter.deadline = None if budget is None else time.monotonic() + budget
                        self._run_race(race, journal, meter) if race else executor.run(self, journal, meter)
        except TaskError:
            if made:
                shutil.rmtree(made)
            raise
        return load_result(self.folder)

    def _refuse_odd(self, blocks: Blocks) -> None:
        """Raises `RunError` for scores that cannot be this run's, whoever wrote them."""
        try:
            refuse_odd_blocks(
                blocks.values(), self.scorer.layout.sizes, [metric.name for metric in self.scorer.metrics]
            )
        except ValueError as error:
            raise RunError(
                f"{self.folder} is damaged ({error})", remedy="--fresh sets its journal aside"
            ) from None

    def _score_baseline(self, first: Sequence[Block], journal: Journal, meter: Meter) -> None:
        """Journal the recipient's blocks that are not known; `first` are those that have just been computed."""
        meter.begin(journal.blocks)
        numbers = range(len(first), len(self._walk))
        missing = {number for number in numbers if journal.blocks.lacks(BASELINE, number)}
        for block in chain(first, self._baseline(missing)):
            journal.append(block)
            meter(None)

    def _run_race(self, race: Race, journal: Journal, meter: Meter) -> None:
        starts = [0, *np.cumsum(self.scorer.layout.sizes).tolist()]
        failed: set[str] = set()
        while True:
            found = list(self._heats(race, journal.blocks))
            if all(heat.standing.finished for heat in found):
                return
            samples = wanted(found)

            def alive(
                number: int, variants: Sequence[Variant], samples: Mapping[str, int] = samples
            ) -> list[Variant]:
                return [
                    each for each in variants if samples.get(each.id, self.scorer.layout.samples) > starts[number]
                ]

            score_missing(self.scorer, self.variants, journal, meter, alive, failed)

    def _leaderboard(self, blocks: Blocks, metric: Mapping[str, Any]) -> Leaderboard | None:
        if metric["name"].endswith(":pooled"):
            return None  # no mean over samples, so that there is nothing to count up
        ranked = {BASELINE, *(cell.variant for cell in self.plan.cells)}
        known = [block for block in blocks.values() if block.variant in ranked]
        return Leaderboard(metric["name"], metric["direction"], known)

    def _heats(self, race: Race, blocks: Blocks) -> Iterator[Heat]:
        return heats(race, self.plan, Scores(blocks.values(), self._walk), self.scorer.layout.units.tolist())

    def _race(
        self,
        contents: Mapping[str, Any],
        top: int,
        confidence: float,
        epsilon: float | None,
        blocks: Blocks,
    ) -> Race:
        metric = contents["metrics"][0]
        if epsilon is None:
            scores = Scores(blocks.values(), self._walk)
            epsilon = limit_of(metric, scores, contents["tolerance"])[0]
        return Race(metric["name"], metric["direction"], top, confidence, epsilon, tuple(metric["bounds"]))

    def _refuse_race(self, rules: RaceRules, executor: Executor) -> None:
        """Raises `UsageError`, before any work, for a metric whose mean over some samples says nothing (the rules
        themselves are checked as they are made), for more than one worker, and for scores beside the ranking."""
        if self.plan.alphas or self.plan.recalibration:
            raise UsageError(
                f"a race for the top {rules.top} scores no paths and estimates no statistics",
                remedy="leave --alpha and --recalibrate-bn out, or --top",
            )
        if not isinstance(executor, Inline):
            raise UsageError(
                f"a top {rules.top} is raced for by one process", remedy="leave --jobs and --executor out"
            )
        name = self.scorer.metrics[0].name
        if name.endswith(":pooled"):
            raise UsageError(
                f"{name} is no mean over samples, and a top {rules.top} cannot be raced for",
                remedy="leave --top out, or score by the mean over images",
            )

    def _screened(self, by: Literal["rmse", "gradient"]) -> dict[str, float]:
        from ckptswap.sweep.screen import screen

        return screen(by, self.plan, self.runs_model, self.variants)

    def _baseline(self, missing: Collection[int]) -> Generator[Block]:
        """The recipient's blocks on these batches, by full passes. Raises `TaskError` where it has no score."""
        fault: BaseException | str | None = None
        try:
            with closing(self.scorer.blocks(Every([RECIPIENT], missing))) as blocks:
                for block in blocks:
                    fault = block.failed
                    if fault is not None:
                        break
                    yield block
        except CkptswapError as error:
            fault = error
        except Exception as error:  # the user's model, data or metric may raise anything
            fault = f"{type(error).__name__}: {error}"
        if fault is not None:
            raise TaskError(
                f"the baseline fails, so there is nothing to compare with: {self.recipient.path}: {fault}",
                remedy="check that checkpoint, model and data belong together (`ckptswap evaluate`)",
            )

    @property
    def _walk(self) -> list[list[int]]:
        return [places.tolist() for places in self.scorer.layout.places]

    def _contents(self, tolerance: float | None) -> dict[str, Any]:
        return {
            "key": self.conditions,
            "order": asdict(make_worker_spec(self)) if self.scorer.needs_model else None,
            "donors": [donor.path for donor in self.donors],
            "recipient": self.recipient.path,
            "tolerance": tolerance,
            "metrics": [
                {
                    "name": each.name,
                    "direction": each.direction,
                    "trivial": self.scorer.trivial(each.name),
                    "bounds": [bound if math.isfinite(bound) else None for bound in each.bounds],
                }
                for each in self.scorer.metrics
            ],
            "groups": self.scorer.layout.groups.tolist(),
            "units": self.scorer.layout.units.tolist(),
            "walk": self._walk,
            "plan": self.plan.to_json(),
            "layers": list(self.layers),
            "donor_misfits": list(self.donor_misfits),
            "warnings": self.scorer.warnings([]),
            "race": None,
            "screen": None,
        }


def prepare(
    donor: Donor | Sequence[Donor],
    recipient: Checkpoint,
    spec: TaskSpec,
    *,
    selection: Selection | None = None,
    by: Sequence[By] = (CELLS,),
    mode: Mode = "only",
    alphas: Sequence[float] = (),
    calibration: Calibration | None = None,
    run_dir: str | Path | None = None,
    engine: How = "auto",
    memory: int | None = None,
) -> Sweep:
    """Plan a sweep: compare the checkpoints, build the task, capture the model, name the run folder (default
    `runs/KEY`).

    Several donors make one table; a donor may be one of the words by which it is made from the recipient
    (`sweep.donors`). Both sides go by the model's names, and the notes say so. `mode` says what each part of the
    selection takes from the donor (`sweep.plan`), `alphas` which points of the path to it are scored beside it,
    `calibration` on what batch norm's statistics are estimated anew beside it. `engine` says how variants are
    scored (see `sweep.engine`), `memory` bounds in bytes what replays may take. Nothing is written. Raises
    `SelectionError` when nothing is selected, `UsageError` for modes and calibrations that make no sense,
    `TaskError` when the task cannot be built or the model run, `MismatchError` when the recipient does not fit the
    model, `ModelError` where it can estimate no statistics.
    """
    from ckptswap.scoring.recalibration import fingerprint, load_calibration
    from ckptswap.scoring.replay import MEMORY, scorer_of
    from ckptswap.sweep.conditions import conditions
    from ckptswap.sweep.layers import layer_order
    from ckptswap.sweep.sides import as_in_model, misfit_of, named_alike, said_of_names
    from ckptswap.task.task import load_model, load_task

    loaded = load_model(spec, recipient)
    given, said = named_alike([donor] if isinstance(donor, str | Checkpoint) else donor, loaded)
    donors, recipient = as_in_model(loaded.model, given, loaded.fit.taken)
    wanted = selection or Selection()
    how: dict[str, Any] = {"mode": mode, "alphas": alphas}
    plan = None if mode in ("prefix", "suffix") else make_plan(donors, recipient, wanted, by, **how)
    task = load_task(spec, recipient, loaded=loaded)
    misfits = tuple(misfit_of(task, each) for each in donors)
    batches = load_calibration(calibration, task) if calibration else []
    chosen = scorer_of(task, donors, recipient, engine, MEMORY if memory is None else memory, batches)
    chosen.refuse_chance()
    order = layer_order(task, recipient)
    chosen.notes += said_of_names(recipient)
    if plan is None:  # in which order the layers run, the model must tell
        plan = make_plan(donors, recipient, wanted, by, order=order, **how)
    plan = replace(plan, recalibration=fingerprint(batches) if batches else None)
    if plan.recalibrated_baseline:
        _refuse_estimate(chosen, plan.recalibrated_baseline)
    if engine != "full":
        plan = plan.without_effect(_unread(chosen, recipient))
    found = conditions(chosen, donors, recipient)
    folder = Path(run_dir) if run_dir is not None else Path("runs") / key_of(found)[:12]
    return Sweep(
        chosen, recipient, donors, plan, found, folder, misfits, calibration, tuple(order),
        (*loaded.fit.notes, *said),
    )  # fmt: skip


def _refuse_estimate(scorer: FullScorer, baseline: Variant) -> None:
    """A recipient whose own statistics cannot be estimated is found out before any work."""
    from ckptswap.task.callables import first_line

    try:
        with scorer.task.pinned():
            scorer.written(baseline)
    except Exception as error:  # the user's model may raise anything
        raise ModelError(
            f"the model cannot estimate batch norm's statistics ({first_line(error)})",
            remedy="use a larger --batch-size, or leave --recalibrate-bn out",
        ) from None


def _unread(scorer: Scorer, recipient: Checkpoint) -> frozenset[str]:
    """What no forward pass reads, as far as the scorer knows, and batch norm's counters in any case."""
    counters = frozenset(name for name, entry in recipient.items() if entry.kind == UNREAD)
    return counters | scorer.unread()


def sweep(
    donor: Donor | Sequence[Donor],
    recipient: Checkpoint,
    spec: TaskSpec,
    *,
    selection: Selection | None = None,
    by: Sequence[By] = (CELLS,),
    mode: Mode = "only",
    alphas: Sequence[float] = (),
    calibration: Calibration | None = None,
    run_dir: str | Path | None = None,
    engine: How = "auto",
    memory: int | None = None,
    **how: Any,
) -> SweepResult:
    """Score every variant of the recipient that takes one part of the selection from a donor.

    `how` is what `Sweep.run` takes. Raises what `prepare` and `Sweep.run` raise.
    """
    proposal = prepare(
        donor,
        recipient,
        spec,
        selection=selection,
        by=by,
        mode=mode,
        alphas=alphas,
        calibration=calibration,
        run_dir=run_dir,
        engine=engine,
        memory=memory,
    )
    return proposal.run(**how)
