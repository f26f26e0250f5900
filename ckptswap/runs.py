"""Sweeps and trainings as functions: the half of `ckptswap.api` that works in folders."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ckptswap import lazy
from ckptswap.errors import SelectionError, UsageError
from ckptswap.formats.atomic import put
from ckptswap.given import (
    SELECTION,
    Given,
    Path_,
    Patterns,
    args_of,
    listed,
    names_of,
    opened,
    selection_of,
    several,
    worded,
)  # fmt: skip
from ckptswap.lab.trainspec import TrainSpec
from ckptswap.messages import listener, note, warn
from ckptswap.sweep.run_folder.overwrite import refuse_precious

if TYPE_CHECKING:
    from ckptswap.lab.demo import Demo
    from ckptswap.lab.reporting import Reproduced
    from ckptswap.lab.train import TrainResult
    from ckptswap.sweep.agreement import Agreement
    from ckptswap.sweep.result import SweepResult
    from ckptswap.sweep.run_folder.trust import NamedAgain
    from ckptswap.sweep.select import Choice

REPRODUCE_JOBS = 2  # networks of `reproduce` that are at work at once, unless told


def sweep(donor: Given | Sequence[Given], recipient: Given, *, claims: bool = False, **how: Any) -> SweepResult:
    """Swap each part of the selection in, one at a time, score the network, and rank what breaks it.

    A donor may be one of the words of `ckptswap.sweep.donors` (`zeros`, `init:SEED`, …). `how` are the flags of
    the command as keywords (`ckptswap.sweeping.keywords`): what is swapped (`by`, `mode`, `alpha`, …; `only`,
    `exclude`, `layers`, `kind`; `map`, `map_file`, `strip_prefix`), how far (`top`, `budget`, `screen`,
    `tolerance`, …) and where (`executor`, `jobs`, …) it is run, the folder that remembers scores (`run`, default
    `runs/KEY`), from which the same call continues, and the task, as in `evaluate`, whose model, data and metric
    may stand in memory; other processes cannot reach them there. With `claims` the paper's
    claims are judged on it. Leaves in the folder what the command leaves. Raises `UsageError` for a keyword that
    does not exist or a value that makes no sense, and what `ckptswap.sweep.runner.Sweep.run` raises.
    """
    return lazy.sweeping.swept(lazy.sweeping.asked(donor, recipient, **how), claims=claims)


def sweep_both(
    donor: Given,
    recipient: Given,
    *,
    back_metric: Patterns,
    back_target: str | None = None,
    claims: bool = False,
    **how: Any,
) -> dict[str, SweepResult]:
    """The sweep (`forth`), and the one from the recipient to the donor on the donor's task (`back`).

    Of what the other way predicts (`back_target`) the default is the other of masks and input. Raises as `sweep`
    does, and where there are several donors or a tolerance.
    """
    ways = lazy.sweeping.both_ways(lazy.sweeping.asked(donor, recipient, **how), back_metric, back_target)
    return {way: lazy.sweeping.swept(asked, claims=claims) for way, asked in ways.items()}


def report(
    run: Path_,
    *,
    metric: str | None = None,
    claims: bool = False,
    page: Path_ | None = None,
    **how: Any,
) -> SweepResult:
    """A run's table again, from its folder alone; with `claims` the paper's claims are judged on it.

    `how` holds `tolerance`, `error` and `se` (as in `sweep`), which override what the run remembers; and which
    rows are wanted: those that take any tensor of a selection (`only`, `exclude`, `layers`, `kind`) and have one
    of the verdicts (`verdict`), by `sort` (`ckptswap.sweep.filtering.Order`). What is decided of a row stays
    decided over the whole table. `page` is where to write the HTML report as well.

    Raises `RunError` for a folder that is no run, or is damaged, `MetricError` for a metric that it does not hold,
    `UsageError` for a tolerance that is no number or below 0, or a verdict that does not exist, `SelectionError`
    where no row is selected, `FileError` for a page that would replace a checkpoint or what the run remembers.
    """
    wanted, judging = _rows_wanted(how)
    if page is not None:
        refuse_precious(page)
    analysis = lazy.analysis.load_analysis(Path(run), metric, **judging)
    result = wanted(lazy.findings.judge(analysis) if claims else analysis.result)
    if page is not None:
        put(lazy.html.sweep_html(result, lazy.html.about(os.fspath(run))).encode(), page)
    return result


def _rows_wanted(how: dict[str, Any]) -> tuple[Callable[[SweepResult], SweepResult], dict[str, Any]]:
    """What leaves of a table the rows that these keywords choose, and the other keywords."""
    chosen = {word: how[word] for word in SELECTION if word in how}
    verdicts = [word for text in listed(how.get("verdict")) for word in text.split(",")]
    order: Any = how.get("sort") or "drop"
    selection = selection_of(**chosen)
    others = {word: value for word, value in how.items() if word not in (*SELECTION, "verdict", "sort")}
    return partial(lazy.filtering.shown, selection=selection, verdicts=verdicts, order=order), others


def compare(runs: Sequence[Path_], *, metric: str | None = None, **how: Any) -> Agreement:
    """Runs side by side: what each cell costs on the mean, which cells differ, and how alike the rankings are.

    `how` as in `report`; a cell is there when any run has a row of it that is wanted, and then in all that have
    it; `sort` may also be `spread`. A folder that is named twice counts once. Raises as `report` does, and
    `UsageError` for runs that cannot be compared.
    """
    order = how.pop("sort", None) or "drop"
    wanted, judging = _rows_wanted(how)
    results = {run: lazy.analysis.load_result(run, metric, **judging) for run in distinct(runs)}
    parts, missed = [], []
    for result in results.values():
        try:
            parts.append(wanted(result))
        except SelectionError as error:  # runs of other networks may have other layers
            missed.append(error)
    if missed and not parts:
        raise missed[0]
    chosen = {cell for part in parts for cell in lazy.agreement.cells_of(part)}
    return lazy.agreement.agreement(results, chosen, order)


def distinct(runs: Sequence[Path_]) -> list[str]:
    """Each folder once, by whatever name it is called; tells of those that are left out.

    >>> distinct(["run", "other", "run"])
    ['run', 'other']
    """
    folders: dict[str, str] = {}
    for run in [os.fspath(run) for run in runs]:
        if folders.setdefault(os.path.realpath(run), run) != run:
            note([f"{run} is {folders[os.path.realpath(run)]}, which counts once"])
    return list(folders.values())


def plot(
    runs: Path_ | Sequence[Path_],
    out: Path_,
    *,
    picture: Literal["heatmap", "bars", "depth", "scatter"] = "heatmap",
    width: str | float | None = None,
    title: str | None = None,
    metric: str | None = None,
    force: bool = False,
    **how: Any,
) -> Path:
    """Draw what a sweep found, as png, svg or pdf by the ending of `out`: of a run with several donors each, of
    several runs the means with Student's 95 % intervals. Needs the extra 'plot'.

    `width` is in inches, or `column` (3.5) or `page` (7) of a paper; without it a picture is as wide as it needs,
    a page at the most. A `title` of one's own may be empty. `how` as in `report`: what is selected, and by what it
    is judged.

    Raises `UsageError` for another ending, a width that is none, and where there is nothing for that picture;
    `FileError` for a file that is no such picture, unless `force`; and what `report` and `compare` raise.
    """
    form, inches = lazy.figures.form_of(os.fspath(out)), lazy.figures.width_of(width)
    refuse_precious(out, force=force)
    given = distinct([runs] if isinstance(runs, str | os.PathLike) else runs)
    if len(given) > 1:
        compared = compare(given, metric=metric, **how)
        _tell_of_means(compared)
        drawn = lazy.pictures.means_of(compared, picture)
    else:
        result = report(*given, metric=metric, **how)
        note([] if result.complete else [f"{given[0]} is not finished: what is scored is drawn"])
        drawn = lazy.pictures.picture_of(result, picture)
    if lazy.charts.is_empty(drawn):
        remedy = "sweep with --by layer,kind, or choose another --picture"
        raise UsageError(f"{' and '.join(given)} {_have(given)} nothing for a {picture}", remedy=remedy)
    put(lazy.figures.draw([drawn], form, width=inches, title=title), out)
    if (high := lazy.figures.size_of([drawn], inches)[1]) > lazy.figures.HIGHEST:
        note([f"{os.fspath(out)} is {high:.0f} inches high, more than a page: --layers and --kind choose"])
    return Path(out)


def _tell_of_means(compared: Agreement) -> None:
    """What a picture of means does not show of its runs. Raises `UsageError` where these share nothing."""
    if all(len(cell.drops) < 2 for cell in compared.cells):
        runs = " and ".join(compared.runs)
        raise UsageError(f"{runs} share no cell that was scored", remedy="draw each by itself")
    for run, result in zip(compared.runs, compared.results, strict=True):
        note([f"{run} is not finished: its means are of what is scored"] if not result.complete else [])
        warn(f"{run} {text}" for text in result.notes if text.endswith(lazy.agreement.COPY))


def _have(given: Sequence[str]) -> str:
    return "have" if len(given) > 1 else "has"


def select(
    run: Path_,
    *,
    tolerance: float | None = None,
    holdout: bool = False,
    donor: Given | Sequence[Given] = (),
    recipient: Given | None = None,
    **task: Any,
) -> Choice:
    """Find the largest set of a sweep's cells that the donor can replace together.

    With `holdout` one half of the groups chooses, and what the set costs is told on the other.
    Of a folder that this user's own command made, everything is taken up again. A stranger's may name any code and
    any file: what it says is named again by `donor`, `recipient`, and `model`, `model_args`, `data`, `data_args`,
    `metric` and `group`. What stood in memory is given again in the same way. Raises what
    `ckptswap.sweep.select.select` raises.
    """
    with ExitStack() as stack:
        named = _named_again(donor, recipient, task, stack)
        return _selected(run, tolerance, holdout, named)


def _named_again(
    donor: Given | Sequence[Given], recipient: Given | None, task: Mapping[str, Any], stack: ExitStack
) -> NamedAgain | None:
    """What is given again, open where it is no path; a recipient that is a module is the model, too."""
    is_nothing = donor is None or (isinstance(donor, list | tuple) and not donor)
    donors = [] if is_nothing else several(donor, "donor")
    sides = [*donors, *([] if recipient is None else [recipient])]
    names = names_of(*sides)
    there = {
        name: opened(side, stack)
        for name, side in zip(names, sides, strict=True)
        if not isinstance(side, str | os.PathLike)
    }
    own = None if recipient is None else there.get(names[-1])
    words = worded({"model": own.module, **task} if own and own.module is not None else task)
    receiver = None if recipient is None else names[-1]
    return lazy.trust.NamedAgain(tuple(names[: len(donors)]), receiver, words, there) or None


def _selected(run: Path_, tolerance: float | None, holdout: bool, named: NamedAgain | None) -> Choice:
    with listener().progress("selecting", unit=" cells") as progress:
        return lazy.select.select(run, tolerance=tolerance, holdout=holdout, progress=progress, named=named)


def train(
    task: Literal["segment", "reconstruct"],
    out: Path_,
    *,
    init_from: Path_ | None = None,
    save_init: Path_ | None = None,
    force: bool = False,
    **how: Any,
) -> TrainResult:
    """Train a network to segment, or to reconstruct its input, and write its checkpoint to `out`.

    `init_from` is a checkpoint to start from, `save_init` where to keep the network as it was before the first
    step; `how` are the fields of `ckptswap.lab.trainspec.TrainSpec`. Raises as `ckptswap.lab.train.train` does.
    """
    for name in {"model_args", "data_args"} & how.keys():
        how[name] = args_of(how[name])
    if "freeze" in how:
        how["freeze"] = tuple(kind for text in listed(how["freeze"]) for kind in text.split(","))
    spec = TrainSpec(task, **how)
    first, start = (None if path is None else Path(path) for path in (init_from, save_init))
    with listener().progress(f"train {task}", unit=" steps") as tell:

        def progress(step: int, loss: float) -> None:
            tell(step, spec.steps, f"loss {loss:.4f}")

        return lazy.train.train(spec, Path(out), init_from=first, save_init=start, progress=progress, force=force)


def demo(folder: Path_ = "ckptswap-demo", *, command: str | None = None) -> Demo:
    """Train a U-Net to segment and one to reconstruct brain MRI, swap every part, rank what breaks, judge claims.

    Everything is left in the folder; the same call continues. Raises what `ckptswap.lab.demo.demo` raises.
    """
    begun: dict[str, Any] = {}
    with ExitStack() as stack:

        def tell(stage: str, done: int, total: int, remark: str) -> None:
            if stage not in begun:
                stack.close()  # the stage before has ended
                listener().say(f"{len(begun) + 1}/3 {stage}")
                begun[stage] = stack.enter_context(listener().progress(stage))
            begun[stage](done, total, remark)

        made = lazy.demo.demo(Path(folder), tell, command=command)
    lazy.sweeping.leave(made.result, lazy.folder.RunFolder(made.folder / lazy.demo.RUN))
    return made


def reproduce(
    run: Path_,
    *,
    full: bool = False,
    data: str | None = None,
    executor: str | None = None,
    jobs: int = REPRODUCE_JOBS,
    slurm: Patterns | Mapping[str, Any] = None,
    ray_address: str | None = None,
) -> Reproduced:
    """Train networks for segmentation and auto-encoding, swap every part of every pair, judge the paper's claims.

    `jobs` networks are at work at once, one thread each; `executor`, `slurm` and `ray_address` are as in `sweep`.
    Leaves the report in the folder; the same call continues. Raises as `ckptswap.lab.reproduce.reproduce` does.
    """
    where = {"executor": executor, "jobs": jobs, "slurm": slurm, "ray_address": ray_address}
    workers = lazy.sweeping.options_of({name: value for name, value in where.items() if value is not None})
    planned = lazy.reporting.plan(Path(run), is_full=full, data=data)
    listener().say(planned.told(jobs))
    with listener().stopping() as stop, listener().progress("reproduce", unit=" s") as tell:
        outcome = lazy.reproduce.reproduce(
            planned.experiment,
            planned.folder,
            workers=workers,
            known=planned.cost,
            progress=lambda done, total, what: tell(round(done), round(total), what),
            stop=stop,
        )
    return lazy.reporting.leave_report(planned, outcome, listener().say)
