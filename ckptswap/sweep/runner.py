"""A sweep from two checkpoints to a table: plan − what is done → executor → journal → rows."""

import os
import sys
import time
from collections.abc import Collection, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import chain, islice
from typing import Any, Protocol

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import CkptswapError, RunError, Stopped, TaskError, UsageError
from ckptswap.scoring.full import FullScorer
from ckptswap.scoring.scorer import Block, Every, Scorer
from ckptswap.scoring.variant import BASELINE, RECIPIENT, Variant
from ckptswap.sweep.analysis import Analysis, analysed
from ckptswap.sweep.closeness import too_close_to_call
from ckptswap.sweep.decide import Outlook, outlook, refuse_judging
from ckptswap.sweep.loop import (
    Portion,
    portions,
    refuse_decision,
    refuse_race,
    run_race,
    score_in_turn,
    score_missing,
)
from ckptswap.sweep.plan import Plan
from ckptswap.sweep.progress import BlockProgress, Leaderboard, Listeners, OutOfTime
from ckptswap.sweep.race import Race
from ckptswap.sweep.run_folder.blocks import Blocks, donor_id
from ckptswap.sweep.run_folder.folder import RunFolder
from ckptswap.sweep.run_folder.journal import Journal, key_of
from ckptswap.sweep.run_folder.overwrite import refuse_occupied
from ckptswap.sweep.run_folder.plan_file import Guess, Made, RunMetric, RunPlan, refuse_odd_blocks
from ckptswap.sweep.scored_run import ScoredRun, refuse_valueless
from ckptswap.sweep.screen import screen
from ckptswap.sweep.spec import RunOptions, SourceFile, SweepSource, SweepSpec, samples_of
from ckptswap.sweep.worst_samples import worst_samples
from ckptswap.sweep.zero_control import are_few, controls
from ckptswap.task import Task
from ckptswap.version import __version__


@dataclass(frozen=True)
class Sweep:
    """A sweep that could be run: what would be scored, on what, and in which folder it is kept.

    `donor_misfits` say why a donor that does not fit the model has no score itself; `layers` are in the order in
    which they run; `notes` say what was taken off names, and what of the recipient was left out. `portion`: the
    part of the work that is to be done, where that is not all. `started`: when it was begun to be planned, by
    the monotonic clock; from then on a budget counts.
    """

    spec: SweepSpec
    scorer: Scorer
    recipient: Checkpoint
    donors: tuple[Checkpoint, ...]
    plan: Plan
    conditions: dict[str, Any]
    folder: RunFolder
    donor_misfits: tuple[str | None, ...]
    layers: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    portion: Portion | None = None
    started: float = field(default_factory=time.monotonic)

    @property
    def task(self) -> Task:
        """What the model is run on. Raises as `runs_model` does."""
        return self.runs_model.task

    @property
    def runs_model(self) -> FullScorer:
        """The scorer, where it runs a model. Raises `UsageError` where it runs none."""
        if not isinstance(self.scorer, FullScorer):
            raise UsageError("the sweep's scorer has no model and no data of ours", remedy="sweep with a task")
        return self.scorer

    @property
    def key(self) -> str:
        """The hash of the conditions of its scores."""
        return key_of(self.conditions)

    @property
    def variants(self) -> list[Variant]:
        """What is run beside the baseline: the donors, where they fit, then every variant of the plan; or those of
        the portion."""
        if self.portion is not None:
            return list(self.portion.variants)
        names = self.runs_model.swaps.state if self.scorer.needs_model else self.recipient
        whole = [
            Variant(donor_id(at), tuple(name for name in names if name in donor), at)
            for at, (donor, misfit) in enumerate(zip(self.donors, self.donor_misfits, strict=True))
            if not misfit
        ]
        return whole + self.plan.variants()

    @property
    def batches(self) -> int:
        """On how many batches of the walk variants are scored."""
        return len(self.scorer.layout.sizes) if self.portion is None else self.portion.batches

    def source(self) -> SweepSource:
        """What it takes to build the engine again, elsewhere or later."""
        spec, files = self.spec, tuple(map(SourceFile.of, self.donors))
        if self.scorer.needs_model:  # another can't be built again
            how = spec.engine if self.scorer.exactness == "close" else self.runs_model.how
            spec = replace(spec, engine=how, memory=self.runs_model.memory)
        own, places = SourceFile.of(self.recipient), tuple(map(os.path.abspath, sys.path))
        return SweepSource(spec, self.key, files, own, os.getcwd(), places, self.plan.recalibration)

    @property
    def outlook(self) -> Outlook | None:
        """What deciding on the way will take of the variants' scores; None where it does not decide."""
        layout, rows = self.scorer.layout, len(self.plan.variants())
        return outlook(layout.units, rows, bets=self.spec.confidence_sequence) if self.spec.decide else None

    def check(self, options: RunOptions, executor: "Executor | None" = None) -> None:
        """Refuse what `run` refuses before any work, for a plan that is only shown. Raises as `run` does."""
        if options.top is not None:
            refuse_race(options.top, self.plan, self.scorer.metrics[0], is_alone=executor is None)
        self._refuse_odd_closeness(options)
        if self.spec.decide:
            if options.top is not None:
                what = "--top asks for the worst rows only, and --decide for the verdicts of all"
                raise UsageError(what, remedy="leave one of them out")
            refuse_judging(options.error, options.se)
            metric, is_sequence = self.scorer.metrics[0], self.spec.confidence_sequence
            refuse_decision(self.scorer.layout, metric, is_sequence=is_sequence)
        self.folder.refuse_odd_parts()
        refuse_occupied(self.folder.path)
        if not (options.fresh or options.repair):  # what is repaired is held against its conditions afterwards
            self.folder.check_conditions(self.conditions)

    def _refuse_odd_closeness(self, options: RunOptions) -> None:
        is_close = self.scorer.exactness == "close"
        if options.close_within is not None and not is_close:
            raise UsageError("--close-within is for scores that are only close", remedy="add --engine close")
        if is_close and options.top is not None:
            raise UsageError(
                "a race for the top compares exact scores", remedy="leave --engine close out, or --top"
            )
        if is_close and options.tolerance == 0 and options.close_within is None:
            remedy = "give --close-within, or leave --engine close out"
            raise UsageError(
                "a tenth of the tolerance 0 is nothing that a close score can be within", remedy=remedy
            )

    def run(
        self,
        options: RunOptions = RunOptions(),
        listeners: Listeners = Listeners(),
        executor: "Executor | None" = None,
    ) -> Analysis:
        """Score what the journal lacks, and give the table; blocks are computed by `executor` (None: here).

        Raises `UsageError` for a race or a tolerance without sense, `RunError` for a folder that another sweep
        works on or that other conditions made, `TaskError` when the baseline fails, which leaves no new folder,
        `Stopped` when a listener asked for it; then the journal continues.
        """
        self.check(options, executor)
        made = self.folder.first_missing()
        # A recipient without a score is found out before anything is written.
        is_begun = self.folder.is_begun and not options.fresh
        first = [] if is_begun else list(islice(self._baseline({0}), 1))
        try:
            with self.folder.lock() as lock:
                run = self._run_plan(options)
                is_begun = self.folder.is_begun and not options.fresh  # a repair may have set all aside
                if not is_begun:
                    self.folder.begin(run, fresh=options.fresh)
                with self.folder.open_journal(self.key) as journal:
                    try:
                        refuse_odd_blocks(journal.blocks.values(), self.scorer.layout.sizes, self.scorer.metrics)
                    except ValueError as error:
                        remedy = "--fresh sets its journal aside"
                        raise RunError(f"{self.folder} is damaged ({error})", remedy=remedy) from None
                    if is_begun:  # a damaged journal is refused before anything is changed
                        self.folder.begin(run)
                    ids = [BASELINE, *(variant.id for variant in self.variants)]
                    progress = BlockProgress(listeners, lock, ids, len(self._walk), self.plan.cells)
                    self._score_baseline(first, journal, progress)
                    refuse_valueless(run, journal.blocks)
                    made = None
                    run = self._with_race(run, options, journal.blocks)
                    self.folder.write_plan(run)
                    progress.deadline = None if options.budget is None else self.started + options.budget
                    table = self._score(run, journal, progress, executor, options)
                    scored = ScoredRun.of(run, journal.blocks)
        except (TaskError, UsageError):
            if made:
                self.folder.remove(made)
            raise
        if options.samples and self.scorer.needs_model:
            self.folder.keep_samples(tuple(worst_samples(self.runs_model, scored)), run)
        return table

    def _score_baseline(self, first: Sequence[Block], journal: Journal, progress: BlockProgress) -> None:
        """Journal the recipient's blocks that are not known; `first` are those that have just been computed."""
        progress.begin(journal.blocks)
        numbers = range(len(first), len(self._walk))
        missing = {number for number in numbers if journal.blocks.lacks(BASELINE, number)}
        for block in chain(first, self._baseline(missing)):
            journal.append(block)
            progress(None)

    def _score(
        self,
        run: RunPlan,
        journal: Journal,
        progress: BlockProgress,
        executor: "Executor | None",
        options: RunOptions,
    ) -> Analysis:
        """Score what the journal lacks beside the baseline, then zero controls, until the budget is used up; gives
        the table."""
        progress.board = Leaderboard.of(run.metrics[0], self.plan, journal.blocks)
        progress.table = lambda: analysed(ScoredRun.of(run, journal.blocks))
        try:
            self._compute(run, journal, progress, executor)
            self._make_exact(run, journal, progress, executor)
            table = progress.table()
            last = self._controls(table, options)
            if not last:
                return table
            progress.widen((control.id for control in last), journal.blocks)
            failed = {block.variant for block in journal.blocks.values() if block.failed is not None}
            # With what has a score already: should replays be found wrong now, it is computed again.
            sound = (variant for variant in self.variants if variant.id not in failed)
            whole = replace(self, portion=Portion((*sound, *last), self.batches))
            whole._compute(run, journal, progress, executor)
            whole._make_exact(run, journal, progress, executor)
        except OutOfTime as end:
            why = f"the budget of {options.budget:g} s is used up, {end}"
            self.folder.write_plan(replace(run, ended=why))
            self.scorer.notes.append(f"{why}: the same command continues, with as much time again")
        except Stopped as end:
            self.folder.write_plan(replace(run, ended=end.message))
            raise
        return progress.table()

    def _make_exact(
        self, run: RunPlan, journal: Journal, progress: BlockProgress, executor: "Executor | None"
    ) -> None:
        """Score exactly what close scores do not decide, until all verdicts stand."""
        while names := too_close_to_call(run, journal.blocks):
            chosen = tuple(variant for variant in self.variants if variant.id in names)
            last = max(batch for variant, batch in journal.blocks if variant in names)
            journal.blocks.demand_exact(names)
            progress.expect(names, journal.blocks)
            self._score_portion(Portion(chosen, last + 1), journal, progress, executor, set())
            self._compute(run, journal, progress, executor)

    def _compute(
        self, run: RunPlan, journal: Journal, progress: BlockProgress, executor: "Executor | None"
    ) -> None:
        if run.race:
            run_race(run, self.scorer, self.variants, journal, progress)
        elif run.spec.decide:
            self._decide(run, journal, progress, executor)
        elif executor:
            executor.run(self, journal, progress)
        else:
            score_in_turn(run, self.scorer, self.variants, journal, progress)

    def _decide(
        self, run: RunPlan, journal: Journal, progress: BlockProgress, executor: "Executor | None"
    ) -> None:
        """Score from look to look, until all verdicts are known."""
        failed: set[str] = set()
        for portion in portions(run, self.variants, journal.blocks):
            progress.expect((variant.id for variant in portion.variants), journal.blocks)
            self._score_portion(portion, journal, progress, executor, failed)

    def _score_portion(
        self,
        portion: Portion,
        journal: Journal,
        progress: BlockProgress,
        executor: "Executor | None",
        failed: set[str],
    ) -> None:
        if executor:
            executor.run(replace(self, portion=portion), journal, progress)
        else:
            score_missing(self.scorer, portion.variants, journal, progress, portion.alive, failed)

    def _controls(self, table: Analysis, options: RunOptions) -> list[Variant]:
        """The zero controls that are asked for, or cost little beside the sweep. They take all samples, which is
        much where verdicts are known early."""
        asked = options.zero_control
        if asked is False or options.top is not None or (self.spec.decide and not asked):
            return []
        last = controls(self.plan, table.result.rows)
        is_wanted = last and (asked or are_few(last, self.variants))
        return last if is_wanted else []

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
            what = f"the baseline fails, so there is nothing to compare with: {self.recipient.path}: {fault}"
            remedy = "check that checkpoint, model and data belong together (`ckptswap evaluate`)"
            raise TaskError(what, remedy=remedy)

    @property
    def _walk(self) -> list[list[int]]:
        return [places.tolist() for places in self.scorer.layout.places]

    def _run_plan(self, options: RunOptions) -> RunPlan:
        """What is written before any score; what is damaged is repaired first, where that is asked for."""
        plan = RunPlan(
            key=self.conditions,
            source=self.source(),
            tolerance=options.tolerance,
            error=options.error,
            se=options.se,
            metrics=tuple(RunMetric.of(self.scorer, metric) for metric in self.scorer.metrics),
            groups=tuple(self.scorer.layout.groups.tolist()),
            units=tuple(self.scorer.layout.units.tolist()),
            drawn=self.scorer.layout.drawn,
            walk=tuple(map(tuple, self._walk)),
            plan=self.plan,
            layers=self.layers,
            donor_misfits=self.donor_misfits,
            warnings=tuple(self.scorer.warnings([])),
            close_within=options.close_within,
        )
        if options.repair:
            self.scorer.notes += self.folder.repair(plan)
        is_begun = self.folder.is_begun and not options.fresh
        before = self.folder.read_plan() if is_begun else None
        begun = before and before.made.begun
        made = Made(options.command, __version__, begun or datetime.now(UTC).isoformat(timespec="seconds"))
        known = before.screen if before and before.plan == self.plan else None
        return replace(plan, made=made, screen=self._guess(options, known))

    def _guess(self, options: RunOptions, known: Guess | None) -> Guess | None:
        """What the screen that is asked for says before anything is scored, or what a run that goes on was told
        then. Under a budget it is the order of the work, which races and decisions have one of their own for."""
        by, values = self.spec.screen, dict[str, float]()
        is_order = options.budget is not None and options.top is None and not self.spec.decide
        if by is None:
            return None
        if by == "rmse":
            values = {cell.variant: cell.rmse for cell in self.plan.cells if cell.rmse is not None}
        elif known and known.by == by:
            values = dict(known.values)
        elif not samples_of(by):
            values = screen(by, self.runs_model, self.variants)
        return Guess(by, values, is_order)

    def _with_race(self, run: RunPlan, options: RunOptions, blocks: Blocks) -> RunPlan:
        """The plan with what the baseline's scores decide: warnings, and how near drops count as tied."""
        baseline = [blocks[BASELINE, number] for number in range(len(self._walk))]
        run = replace(run, warnings=tuple(self.scorer.warnings(baseline)))
        if options.top is None:
            return run
        epsilon = ScoredRun.of(run, blocks).tolerance()[0] if options.epsilon is None else options.epsilon
        metric, rules = run.metrics[0], options.race_rules(epsilon)
        race = Race(metric.name, metric.direction, rules.top, rules.confidence, rules.epsilon, metric.bounds)
        return replace(run, race=race)


class Executor(Protocol):
    """Where a sweep's blocks are computed."""

    def run(self, sweep: Sweep, journal: Journal, progress: BlockProgress) -> None:
        """Score what the journal lacks of `sweep.variants` on the first `sweep.batches` batches. What fails
        is left with its reason. Called for each portion of a sweep that decides on its way.

        Raises what `progress` raises, with all finished blocks in the journal's files, and `RunError` where
        workers cannot work, or die again and again without having finished a block.
        """
