"""From what is told to a sweep that can be run, and through it to the table."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from ckptswap import registry
from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import ModelError, UsageError
from ckptswap.neutral import neutral
from ckptswap.scoring.engines import scorer_of
from ckptswap.scoring.full import FullScorer
from ckptswap.scoring.recalibration import fingerprint, load_calibration
from ckptswap.scoring.scorer import Scorer
from ckptswap.scoring.variant import Variant
from ckptswap.sweep.analysis import Analysis
from ckptswap.sweep.layers import layer_order
from ckptswap.sweep.plan import UNREAD, make_plan
from ckptswap.sweep.progress import Listeners
from ckptswap.sweep.result import goes_by_order
from ckptswap.sweep.run_folder.folder import RunFolder
from ckptswap.sweep.run_folder.journal import key_of
from ckptswap.sweep.runner import Executor, Sweep
from ckptswap.sweep.sides import Sides, as_in_model, conditions, misfit_of, named_alike, open_sides
from ckptswap.sweep.spec import RunOptions, SweepSpec, samples_of
from ckptswap.task import TaskSpec, load_task
from ckptswap.task.callables import first_line
from ckptswap.task.data.loading import named
from ckptswap.task.data.request import folder_of
from ckptswap.task.fit import entries_of, tensors_of
from ckptswap.task.hooks import as_in
from ckptswap.task.loaded import load_model

MakeScorer = Callable[[Sequence[Checkpoint], Checkpoint], Scorer]
"""From donors and recipient, under common names, to what scores variants of the recipient. The last of the donors,
by number `NEUTRAL`, is for zero controls."""


def executor_of(options: RunOptions, task: TaskSpec) -> Executor | None:
    """The executor that the options name (default: none, or `process` for more than one job), for a task.

    Raises `UsageError` for what does not go together, `DependencyError` where an extra is missing.

    >>> executor_of(RunOptions(), TaskSpec()) is executor_of(RunOptions(executor="inline"), TaskSpec()) is None
    True
    """
    name = options.executor or ("process" if (options.jobs or 1) > 1 else "inline")
    if options.jobs is not None and options.jobs < 1:
        raise UsageError(f"{options.jobs} jobs make no sweep", remedy="give 1 or more")
    if options.slurm and name != "slurm":
        raise UsageError("Slurm's parameters are given without Slurm", remedy="add --executor slurm")
    if options.ray_address and name != "ray":
        raise UsageError("a Ray address is given without Ray", remedy="add --executor ray")
    if name == "inline":
        if (options.jobs or 1) > 1:
            raise UsageError(f"inline is one job, not {options.jobs}", remedy="use --executor process")
        return None
    told = {"slurm": options.slurm, "ray_address": options.ray_address}
    own = {key: value for key, value in told.items() if value}
    return registry.find("executors", name)(task, options.jobs, own)


def prepare(spec: SweepSpec, sides: Sides, run: str | Path | None = None) -> Sweep:
    """Plan a sweep into a folder (default `runs/KEY`): compare checkpoints, build the task, capture the model.

    Nothing is written. Raises `SelectionError` when nothing is selected, `UsageError` for modes and calibrations
    without sense, `TaskError` when the task cannot be built or run, `MismatchError` when the recipient does not
    fit, `ModelError` where none can be calibrated.
    """
    started = time.monotonic()
    named(spec.task, folder_of(sides.recipient))
    loaded = load_model(spec.task, sides.recipient)
    model, own = entries_of(tensors_of(loaded.model.state_dict())), loaded.fit.taken
    as_loaded_here = partial(as_in, loaded.model)
    given, renamings = named_alike(sides.donors, own, model, model.path, loaded.spec, as_loaded_here)
    donors, recipient = as_in_model(loaded.model, given, own)
    planned = partial(make_plan, donors, recipient, spec.selection, spec.by, mode=spec.mode, alphas=spec.alphas)
    plan = None if goes_by_order(spec.mode) else planned()
    task = load_task(spec.task, recipient, loaded=loaded)
    misfits = tuple(misfit_of(task, donor) for donor in donors)
    batches = load_calibration(spec.calibration, task) if spec.calibration else []
    scorer = scorer_of(task, donors, recipient, spec.engine, spec.memory, batches)
    scorer.refuse_chance()
    order = tuple(layer_order(task, recipient))
    if recipient.ties:
        scorer.notes.append(f"{recipient.path}: {recipient.ties}: each is swapped as one, under all names")
    plan = plan or planned(order=order)  # in which order layers run, the model must tell
    plan = replace(plan, recalibration=fingerprint(batches) if batches else None)
    if plan.recalibrated_baseline:
        _refuse_estimate(scorer, plan.recalibrated_baseline)
    scorer.prefer_full(len(plan.variants()))
    if spec.engine != "full":
        counters = {name for name, entry in recipient.items() if entry.kind == UNREAD}
        plan = plan.without_effect(scorer.unread() | counters)
    told = replace(spec, donors=tuple(donor.path for donor in donors), recipient=recipient.path, task=task.spec)
    now = conditions(scorer, donors, recipient)
    folder = RunFolder(Path("runs") / key_of(now)[:12] if run is None else run)
    notes = (*sides.notes, *loaded.fit.notes, *task.data.notes, *renamings, *sides.hints)
    said = tuple(dict.fromkeys(notes))
    return Sweep(told, scorer, recipient, donors, plan, now, folder, misfits, order, said, started=started)


def prepare_external(
    make_scorer: MakeScorer, spec: SweepSpec, sides: Sides, run: str | Path | None = None
) -> Sweep:
    """Plan a sweep by a scorer of the caller's own, which runs no model of ours: names are the recipient's.

    Raises `SelectionError` when nothing is selected, and `UsageError` for what only a model can tell: the order in
    which layers run, and batch norm's statistics on other data.
    """
    if goes_by_order(spec.mode) or spec.calibration:
        raise UsageError(
            "a scorer without a model knows no order of layers, and estimates no statistics",
            remedy="leave --mode prefix or suffix (or window) and --recalibrate-bn out",
        )
    if spec.decide:
        remedy = "leave --decide out"
        raise UsageError("a scorer without a model walks its samples in an order of its own", remedy=remedy)
    if samples_of(spec.screen):
        fault = f"--screen {spec.screen} begins with some samples, and a scorer without a model takes all at once"
        raise UsageError(fault, remedy="use --screen rmse, or none")
    recipient = sides.recipient
    donors, renamings = named_alike(sides.donors, recipient, recipient, "the recipient", spec.task)
    scorer = make_scorer((*donors, neutral(recipient)), recipient)
    plan = make_plan(donors, recipient, spec.selection, spec.by, mode=spec.mode, alphas=spec.alphas)
    plan, now = plan.without_effect(scorer.unread()), conditions(scorer, donors, recipient)
    folder = RunFolder(Path("runs") / key_of(now)[:12] if run is None else run)
    notes, misfits = (*sides.notes, *renamings, *sides.hints), (None,) * len(donors)
    return Sweep(spec, scorer, recipient, donors, plan, now, folder, misfits, notes=notes)


def _refuse_estimate(scorer: FullScorer, baseline: Variant) -> None:
    """A recipient whose own statistics cannot be estimated is found out before any work."""
    try:
        with scorer.task.pinned():
            scorer.written(baseline)
    except Exception as error:  # the user's model may raise anything
        raise ModelError(
            f"the model cannot estimate batch norm's statistics ({first_line(error)})",
            remedy="use a larger --batch-size, or leave --recalibrate-bn out",
        ) from None


@contextmanager
def prepared(
    spec: SweepSpec, run: str | Path | None = None, opened: Mapping[str, Checkpoint] | None = None
) -> Iterator[Sweep]:
    """Open a sweep's checkpoints, but for what is `opened` already under the spec's names, and `prepare` it."""
    with ExitStack() as stack:
        yield prepare(spec, open_sides(spec, stack, opened or {}), run)


def sweep(
    spec: SweepSpec,
    options: RunOptions = RunOptions(),
    listeners: Listeners = Listeners(),
    opened: Mapping[str, Checkpoint] | None = None,
) -> Analysis:
    """Prepare a sweep and run it. Raises what `open_sides`, `prepare`, `executor_of` and `Sweep.run` raise."""
    executor = executor_of(options, spec.task)
    with prepared(spec, options.run, opened) as planned:
        return planned.run(options, listeners, executor)
