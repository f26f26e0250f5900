"""A sweep as a person asks for it, by keywords or by flags. Its sides are opened and brought together, it is run,
and its table is left in the folder in every form."""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, fields, replace
from operator import attrgetter
from pathlib import Path
from typing import Any, NoReturn

from ckptswap.errors import UsageError, brief, listing, near
from ckptswap.formats.atomic import write_text
from ckptswap.given import (
    SELECTION,
    Given,
    args_of,
    is_on_disk,
    listed,
    names_of,
    opened,
    path_of,
    plain,
    selection_of,
    several,
    task_of,
    tell_unmatched,
    worded,
)
from ckptswap.lab.findings import judge, refuse_looks
from ckptswap.messages import listener, note, warn
from ckptswap.report.html import about, sweep_html
from ckptswap.report.plan import plan_json
from ckptswap.report.screen import render_sweep
from ckptswap.report.text import Style, safe
from ckptswap.signatures import keyword_of
from ckptswap.sweep.alternatives import alternatives, effort_of
from ckptswap.sweep.analysis import Analysis
from ckptswap.sweep.plan import Cell
from ckptswap.sweep.preparing import executor_of, prepared
from ckptswap.sweep.progress import Listeners
from ckptswap.sweep.result import SweepResult
from ckptswap.sweep.run_folder.folder import RunFolder
from ckptswap.sweep.run_folder.plain import refuse_odd
from ckptswap.sweep.runner import Executor, Sweep
from ckptswap.sweep.screen import passes
from ckptswap.sweep.spec import RunOptions, SweepSpec, calibration_of, samples_of, ways_of
from ckptswap.sweep.stopping import Stop
from ckptswap.task.in_memory import InMemory
from ckptswap.task.order import first_of
from ckptswap.task.spec import TaskSpec

CALIBRATION = ("recalibrate_bn", "calibration_data", "calibration_args")


def keywords() -> tuple[str, ...]:
    """Every keyword of `ckptswap.sweep`, but for those of `TaskSpec`.

    >>> {"by", "alpha", "top", "kind", "recalibrate_bn"} <= set(keywords())
    True
    """
    own = ("donors", "recipient", "task", "selection", "calibration")
    spec = (keyword_of(part) for part in fields(SweepSpec) if part.name not in own)
    return (*spec, *SELECTION, *CALIBRATION, *map(keyword_of, fields(RunOptions)))


@dataclass(frozen=True)
class Asked:
    """A sweep that is asked for: from what, into what, and how. What is in memory has no path."""

    donors: tuple[Given, ...]
    recipient: Given
    spec: SweepSpec
    options: RunOptions
    executor: Executor | None


def asked(donor: Given | Sequence[Given], recipient: Given, **how: Any) -> Asked:
    """A sweep as keywords say it: those of `keywords`, and of `TaskSpec`; an `executor` may be one of your own.

    Raises `UsageError` for a keyword that does not exist or a value that makes no sense.

    >>> asked("a.pt", "b.pt", by="kind", alpha="0:1:0.5", threads=1).spec.alphas
    (0.0, 0.5, 1.0)
    """
    donors = tuple(several(donor, "donor"))
    how = plain(worded({name: value for name, value in how.items() if value is not None}))
    chosen = {name: how.pop(name, ()) for name in SELECTION}
    batches, data, args = (how.pop(name, None) for name in CALIBRATION)
    own_executor = None if isinstance(how.get("executor", ""), str) else how.pop("executor")
    if own_executor is not None and not hasattr(own_executor, "run"):
        raise UsageError(f"executor is {brief(own_executor)}", remedy="give a name, or an Executor")
    options = options_of(how)
    own = _fields(SweepSpec, how)
    _refuse_unknown(how)
    task = task_of(how, chosen["exclude"], how.pop("partial", False))
    *givers, receiver = names_of(*donors, recipient)
    own |= {"selection": selection_of(**chosen), "calibration": calibration_of(batches, data, args_of(args))}
    spec = SweepSpec(tuple(givers), receiver, task, **own)
    executor = executor_of(options, task)
    if executor and (held := _in_memory(spec, (*donors, recipient))):
        _refuse_elsewhere(held)
    return Asked(donors, recipient, spec, options, own_executor or executor)


def _in_memory(spec: SweepSpec, sides: Sequence[Given]) -> list[str]:
    """What of a sweep stands in the memory of this process alone."""
    task, calibration = spec.task, spec.calibration
    words = (task.model, task.data, *task.metrics, calibration and calibration.data)
    paths = zip(sides, (*spec.donors, spec.recipient), strict=True)
    return [path for side, path in paths if not is_on_disk(side)] + [w for w in words if isinstance(w, InMemory)]


def _refuse_elsewhere(held: Sequence[str]) -> NoReturn:
    raise UsageError(
        f"other processes cannot reach what stands in memory here ({listing(held)})",
        remedy="leave jobs and executor out; or save checkpoints (cs.save), and write model, data and metric in a "
        "file, to be named as 'file.py:name'",
    )


def options_of(how: dict[str, Any]) -> RunOptions:
    """The options that keywords say, which are taken out. Raises `UsageError` for values that make no sense."""
    return RunOptions(**_fields(RunOptions, how))


def _fields(form: type, how: dict[str, Any]) -> dict[str, Any]:
    """The keywords that are a form's, taken out, as its fields."""
    values = {}
    for part in fields(form):
        name = keyword_of(part)
        if name in how and name in keywords():
            value, parse, read = how.pop(name), part.metadata.get("parse"), _READ.get(part.name)
            value = parse(value) if parse and isinstance(value, str) else value
            values[part.name] = read(value) if read else value
    return values


def _refuse_unknown(how: Mapping[str, Any]) -> None:
    """Raises `UsageError` for a keyword that is a misspelt one of a sweep; a task knows its own."""
    of_task = {
        "task",
        "config",
        "partial",
        *(word for part in fields(TaskSpec) for word in (part.name, keyword_of(part))),
    }
    for name in how:
        hint = near(name, keywords())
        if hint and name.replace("-", "_") not in of_task:
            raise UsageError(f"there is no keyword {name!r}", remedy=hint)


_READ: dict[str, Any] = {
    "by": lambda value: ways_of(listed(value)),
    "map": listed,
    "map_file": path_of,
    "run": path_of,
    "slurm": args_of,
    "alphas": lambda value: plain(tuple(value) if isinstance(value, Iterable) else (value,)),
}
"""Fields whose keywords may be less than their values."""


def both_ways(forth: Asked, back_metric: Any, back_target: str | None = None) -> dict[str, Asked]:
    """The sweep, and the one from the recipient to the donor on the donor's task, in folders of their own.

    Raises `UsageError` for several donors, without a metric for the other way, and for a tolerance, which would be
    of two metrics.
    """
    if len(forth.donors) != 1:
        raise UsageError("--both is for one donor", remedy="sweep the others by themselves")
    if forth.options.tolerance is not None:
        remedy = "leave it out, and use `report RUN/back --tolerance` afterwards"
        raise UsageError("--tolerance is a difference of one metric, and --both has two", remedy=remedy)
    if not back_metric:
        raise UsageError("--both needs a metric for the other way", remedy="give --back-metric, such as psnr")
    spec = forth.spec
    target = back_target or ("input" if spec.task.target == "masks" else "masks")
    task = spec.task.merge({"metric": back_metric, "target": target})
    turned = replace(spec, donors=(spec.recipient,), recipient=spec.donors[0], task=task)
    back = replace(forth, donors=(forth.recipient,), recipient=forth.donors[0], spec=turned)
    ways = {"forth": forth, "back": back}
    if forth.options.run is None:  # runs by their keys have folders of their own
        return ways
    folders = {way: Path(forth.options.run) / way for way in ways}
    for folder in folders.values():
        refuse_odd(folder, folder=True)
    return {
        way: replace(asked, options=replace(asked.options, run=str(folders[way]))) for way, asked in ways.items()
    }


@contextmanager
def _prepared(asked: Asked) -> Iterator[Sweep]:
    """The sweep, ready to run, while its sides are open; tells of names, and of what matches nothing."""
    spec = asked.spec
    with ExitStack() as stack:
        sides = zip((*spec.donors, spec.recipient), (*asked.donors, asked.recipient), strict=True)
        there = {name: opened(side, stack) for name, side in sides if not isinstance(side, str | os.PathLike)}
        sweep = stack.enter_context(prepared(spec, asked.options.run, there))
        note(sweep.notes)
        fit, selection = sweep.task.fit, spec.selection
        tell_unmatched(replace(selection, exclude=()), fit.checkpoint, fit.own)
        tell_unmatched(replace(selection, only=(), layers=(), kind=()), *sweep.donors, fit.checkpoint, fit.own)
        yield sweep


def planned(asked: Asked) -> dict[str, Any]:
    """What would run, and what it costs, as JSON has it. Raises what `swept` refuses before any work."""
    with _prepared(asked) as sweep:
        sweep.check(asked.options, asked.executor)
        preparation = time.monotonic() - sweep.started
        cost, donors = sweep.scorer.cost(sweep.variants), len(sweep.donors)
        screen = _screen(sweep, cost.share)
        if screen and screen["samples"] is None:  # a guess comes beside the scores, samples are some of them
            cost = replace(cost, seconds=cost.seconds * (1 + screen["share"]))
        effort = effort_of(sweep, cost, preparation, asked.options)
        cost = replace(cost, seconds=effort.whole)
        folder = str(sweep.folder)
        document = plan_json(sweep.plan, folder, sweep.task.samples, cost, donors, screen, sweep.outlook)
        controls = {control.id for cell in sweep.plan.cells if (control := sweep.plan.control(cell))}
        cheaper = [asdict(way) for way in alternatives(effort)]
        header = getattr(asked.executor, "header", None)
        return (
            document
            | {"preparation": effort.preparation}
            | ({"drawn": asdict(drawn)} if (drawn := sweep.scorer.layout.drawn) else {})
            | ({"alternatives": cheaper} if cheaper else {})
            | ({"controls": len(controls)} if asked.options.zero_control else {})
            | ({"job": header(sweep.folder.path)} if header else {})
        )


def _screen(sweep: Sweep, computed: float) -> dict[str, Any] | None:
    """What the screen takes of a sweep of whose full passes this share is computed."""
    by, sizes, variants = sweep.spec.screen, sweep.scorer.layout.sizes, len(sweep.variants)
    if by is None:
        return None
    wanted = samples_of(by)
    samples = sum(sizes[: first_of(sizes, wanted)]) if wanted else None
    own = passes(by, sizes) / (computed * (1 + variants) * sum(sizes)) if samples is None else samples / sum(sizes)
    return {"by": by, "samples": samples, "share": own}


def swept(asked: Asked, *, claims: bool = False) -> SweepResult:
    """Score, and leave the table in the folder in every form. With `claims` it raises as `refuse_looks`, too."""
    if claims:
        refuse_looks(is_decided=asked.spec.decide)
    with _prepared(asked) as sweep:
        listener().say(f"run: {sweep.folder}")
        result = _scored(sweep, asked, judge if claims else attrgetter("result"))
        leave(result, sweep.folder)
    return result


def _scored(sweep: Sweep, asked: Asked, judged: Callable[[Analysis], SweepResult]) -> SweepResult:
    """Score, telling the worst cells so far, with the exports kept up to date."""
    worst: list[str] = []

    def show(cells: Sequence[tuple[Cell, float]]) -> None:
        places = (" ".join(filter(None, (cell.place, cell.kind))) or cell.names[0] for cell, _ in cells)
        worst[:] = [f"{safe(place)} {drop:+.3f}" for place, (_, drop) in zip(places, cells, strict=True)]
        worst[:1] = [f"worst so far: {line}" for line in worst[:1]]

    try:
        with listener().stopping() as stop, listener().progress("sweep", unit=" blocks") as tell:
            listeners = Listeners(
                progress=lambda done, total: tell(done, total, below=worst),
                live=show,
                news=lambda analysis: _export(judged(analysis), sweep.folder),
                stop=stop or Stop(),
            )
            return judged(sweep.run(asked.options, listeners, asked.executor))
    finally:
        warn(sweep.scorer.notes)


def leave(result: SweepResult, folder: RunFolder) -> None:
    """Leave the table in the folder in every form, and the page for whoever would rather look than read."""
    _export(result, folder)
    page = folder.result_path("html")
    write_text(page, sweep_html(result, about(str(folder))))
    listener().say(f"ckptswap: {page} shows it in a browser")


def _export(result: SweepResult, folder: RunFolder) -> None:
    for format in ("json", "csv", "md"):
        write_text(folder.result_path(format), render_sweep(result, format, Style()))
