"""What `import ckptswap as cs` gives: the commands as functions, whose results show themselves in notebooks.

Wherever a checkpoint may stand, so may its path, a `state_dict` (names → torch tensors or numpy arrays) and an
`nn.Module`. Nothing here loads torch before a model has to run. What a call would tell a person on the way (a
prefix that was taken off, a pattern that matches nothing, how far it is) goes to `ckptswap.messages.listening`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ckptswap import lazy
from ckptswap.checkpoint import Checkpoint, Entry
from ckptswap.errors import MismatchError, UsageError
from ckptswap.formats import SHARD_SIZE, write_checkpoint
from ckptswap.formats.atomic import put
from ckptswap.given import (
    Given,
    Names,
    Patterns,
    args_of,
    listed,
    opened,
    plain,
    selection_of,
    several,
    task_of,
    tell_unmatched,
)
from ckptswap.lab.trainspec import TrainSpec
from ckptswap.messages import listener, note, warn
from ckptswap.moments import Moments
from ckptswap.renaming import strip_all
from ckptswap.selection import Selection
from ckptswap.sweep.run_folder.overwrite import refuse_precious

if TYPE_CHECKING:
    from ckptswap.diff import Diff
    from ckptswap.lab.demo import Demo
    from ckptswap.lab.reporting import Reproduced
    from ckptswap.lab.train import TrainResult
    from ckptswap.report.charts import Picture
    from ckptswap.statistics import Comparison
    from ckptswap.sweep.agreement import Agreement
    from ckptswap.sweep.result import SweepResult
    from ckptswap.sweep.select import Choice
    from ckptswap.task.explain import Explanation
    from ckptswap.threeway import ThreeWay
    from ckptswap.transplant import Transplant
    from ckptswap.verify import Report

Path_ = str | os.PathLike[str]
REPRODUCE_JOBS = 2
"""Networks of `reproduce` that are at work at once, unless told."""


@dataclass(frozen=True)
class Contents:
    """What is in a checkpoint: the entries that were selected, and their numbers by name where they were read."""

    checkpoint: Checkpoint
    entries: tuple[Entry, ...]
    moments: Mapping[str, Moments] | None = None


def open(path: Given) -> Checkpoint:
    """Open a checkpoint of any format as a lazy ordered map name → `Entry`; values are read when asked for.

    A `state_dict` or an `nn.Module` becomes one without being copied. Raises `FileError` where there is none,
    `FormatError` for one that is damaged or hostile, `UsageError` for what can be none.

    >>> import numpy as np, tempfile
    >>> path = save({"conv.bias": np.ones(2)}, f"{tempfile.mkdtemp()}/a.safetensors")
    >>> with open(path) as checkpoint:
    ...     checkpoint.read("conv.bias").tolist()
    [1.0, 1.0]
    """
    return opened(path)


def save(checkpoint: Given, path: Path_, *, force: bool = False, drop_unread: bool = False) -> Path:
    """Write a checkpoint, such as a variant, in the format that the path's ending says. Returns the path.

    Raises `FileError` where the file exists and `force` is not given, `FormatError` where values are not read and
    would be lost, unless `drop_unread`, and what `open` raises.

    >>> import numpy as np, tempfile
    >>> save({"conv.bias": np.ones(2)}, f"{tempfile.mkdtemp()}/a.npz").name
    'a.npz'
    """
    with ExitStack() as stack:
        source = opened(checkpoint, stack)
        write_checkpoint(source, path, force=force, drop_unread=drop_unread)
    return Path(path)


def show(
    checkpoint: Given,
    *,
    only: Patterns = (),
    exclude: Patterns = (),
    layers: Patterns = (),
    kind: Patterns = (),
    stats: bool = False,
) -> Contents:
    """List a checkpoint's tensors; with `stats` also read their values: min, max, mean, std, NaN, Inf.

    Raises `SelectionError` where nothing is selected, and what `open` raises.

    >>> import ckptswap as cs, numpy as np
    >>> state = {"conv.weight": np.ones((1, 1, 3, 3)), "conv.bias": np.ones(1)}
    >>> [entry.kind for entry in cs.show(state).entries]
    ['conv.bias', 'conv.weight']
    """
    selection = selection_of(only, exclude, layers, kind)
    with ExitStack() as stack:
        [source] = _noted(stack, checkpoint)
        entries = tuple(selection.pick(source))
        tell_unmatched(selection, source)
        if not stats:
            return Contents(source, entries)
        with listener().progress("reading") as progress:
            return Contents(source, entries, lazy.show.statistics(source, entries, progress))


def diff(
    a: Given,
    b: Given,
    *,
    only: Patterns = (),
    exclude: Patterns = (),
    layers: Patterns = (),
    kind: Patterns = (),
    stat: bool = False,
    **names: Any,
) -> Diff:
    """What differs, tensor by tensor. `stat` looks at the headers only.

    `names` bring the two together: `map` (rules `OLD=NEW` for the names of `a`), `map_file`, and `strip_prefix`,
    which comes off both sides first. Raises `SelectionError` where nothing is selected, `UsageError` for a rule or
    prefix that fits no name, and what `open` raises.

    >>> import ckptswap as cs, numpy as np
    >>> before = {"conv.weight": np.zeros((2, 1, 3, 3)), "conv.bias": np.zeros(2)}
    >>> changes = cs.diff(before, before | {"conv.bias": np.ones(2)})
    >>> [(row.name, row.changed) for row in changes.rows if row.status == "changed"]
    [('conv.bias', 2)]
    """
    selection, how = selection_of(only, exclude, layers, kind), Names.of(**names)
    with ExitStack() as stack:
        left, right = _noted(stack, a, b)
        _tell_hints(how, right, left)
        left, right = how.matched(left, right)
        with listener().progress("comparing") as progress:
            result = lazy.diff.diff(left, right, selection, values=not stat, progress=progress)
        tell_unmatched(selection, left, right)
    return result


def diff3(
    base: Given,
    a: Given,
    b: Given,
    *,
    map: Patterns = (),
    map_file: Path_ | None = None,
    strip_prefix: str | None = None,
    **selected: Patterns,
) -> ThreeWay:
    """What two checkpoints made of a third that they came from. Arguments and errors are those of `diff`.

    >>> import numpy as np
    >>> base, a = {"w": np.zeros(2), "b": np.zeros(2)}, {"w": np.ones(2), "b": np.zeros(2)}
    >>> [(row.name, row.status) for row in diff3(base, a, base).rows]
    [('b', 'unchanged'), ('w', 'a')]
    """
    selection, how = selection_of(**selected), Names.of(map, map_file, strip_prefix)
    with ExitStack() as stack:
        root, left, right = _noted(stack, base, a, b)
        _tell_hints(how, root, left, right)
        root, left, right = how.all_matched(root, left, right)
        with listener().progress("comparing") as progress:
            result = lazy.threeway.three_way(root, left, right, selection, progress=progress)
        tell_unmatched(selection, root, left, right)
    return result


def planned_transplant(
    donor: Given,
    recipient: Given,
    stack: ExitStack,
    *,
    only: Patterns = (),
    exclude: Patterns = (),
    layers: Patterns = (),
    kind: Patterns = (),
    alpha: float = 1.0,
    skip_missing: bool = False,
    **names: Any,
) -> Transplant:
    """Plan a transplant; write nothing. `stack` closes both sides, the rest is as in `transplant`."""
    selection, how = selection_of(only, exclude, layers, kind), Names.of(**names)
    own = opened(donor, stack), opened(recipient, stack)
    giving, receiving = how.matched(*own)
    try:
        plan = lazy.transplant.plan_transplant(
            giving, receiving, selection, alpha=plain(alpha), skip_missing=skip_missing
        )
    except MismatchError as error:
        hint = how.hint(*own)
        remedy = f"{hint}; else {error.remedy}" if hint else error.remedy
        raise MismatchError(error.message, remedy=remedy) from None
    tell_unmatched(selection, receiving)
    warn(plan.warnings)
    return plan


def transplant(
    donor: Given,
    recipient: Given,
    out: Path_ | None = None,
    *,
    force: bool = False,
    link: bool = False,
    drop_unread: bool = False,
    **selected: Any,
) -> Checkpoint:
    """The recipient with the selected tensors taken from the donor: a variant, which is a checkpoint itself.

    Without `out` nothing is written or copied; with it the variant is written there, and opened from there. What
    is selected say `only`, `exclude`, `layers` and `kind`; how names are brought together `map` (rules `OLD=NEW`
    for the donor's names), `map_file` and `strip_prefix`; `alpha` how far it goes. Raises `MismatchError` naming
    every tensor that does not fit, unless `skip_missing`; `SelectionError` where nothing is selected;
    `FileError` where `out` exists and `force` is not given; `FormatError` where values of the recipient are not
    read and would be lost, unless `drop_unread`. `link` hard-links shards that do not change.

    >>> import ckptswap as cs, numpy as np
    >>> ones, zeros = ({"conv.bias": fill(2), "conv.weight": fill((2, 1, 3, 3))} for fill in (np.ones, np.zeros))
    >>> variant = cs.transplant(ones, zeros, kind="conv.bias")
    >>> variant.read("conv.bias").tolist(), float(variant.read("conv.weight").max())
    ([1.0, 1.0], 0.0)
    >>> variant.path
    'memory+conv.bias@memory.safetensors'
    """
    with ExitStack() as stack:
        plan = planned_transplant(donor, recipient, stack, **selected)
        if out is not None:
            warn(lazy.transplant.left_behind(plan, out))
            return open(carried_out(plan, out, force=force, link=link, drop_unread=drop_unread))
        stack.pop_all()  # the variant reads from both for as long as it lives
        name = plan.default_output.name  # as the command would name its file
        if plan.alpha != 1:
            stem = name.removesuffix(".safetensors")
            name = f"{stem}*{plan.alpha:g}{name[len(stem) :]}"
        plan.variant.path = str(Path(plan.recipient.path).parent / name)
        return plan.variant


def carried_out(plan: Transplant, out: Path_ | None = None, **how: Any) -> Path:
    """Write what is planned; returns the path. `how` are `force`, `link` and `drop_unread`, as in `transplant`."""
    with listener().progress("writing") as progress:
        return lazy.transplant.transplant(plan, out, progress=progress, **how)


def evaluate(
    checkpoints: Given | Sequence[Given],
    *,
    exclude: Patterns = (),
    partial: bool = False,
    map: Patterns = (),
    map_file: Path_ | None = None,
    strip_prefix: str | None = None,
    **task: Any,
) -> Comparison:
    """Score checkpoints on the same samples, with intervals, and their differences, paired.

    What `exclude` names need not fit the model, and with `partial` nothing need that does not: what a checkpoint
    lacks then stays as initialised, of which `warnings` tell. `map` (rules `OLD=NEW`), `map_file` and
    `strip_prefix` may concern the names of any. `task` are the keys of `TaskSpec`: model, model_args, data,
    data_args, target, metric or metrics, batch_size, limit, …; `config` is a file of them, `task` a `TaskSpec` to
    begin with. Raises `UsageError` where there is no checkpoint, `TaskError`, `MismatchError` and their kin as the
    command does.
    """
    given, spec = several(checkpoints, "checkpoint"), task_of(task, exclude, partial)
    names = Names.of(map, map_file, strip_prefix)
    with ExitStack() as stack, listener().progress("evaluating", unit=" samples") as progress:
        sources = names.renamed(*(opened(side, stack) for side in given))
        evaluation = lazy.evaluate.evaluate(sources, spec, progress)
        warn(str(unmatched) for unmatched in evaluation.unmatched(Selection(exclude=spec.exclude)))
    comparison = lazy.comparison.compare(evaluation)
    note(evaluation.notes)
    warn(comparison.warnings)
    return comparison


def explain(
    checkpoint: Given,
    *,
    exclude: Patterns = (),
    partial: bool = False,
    map: Patterns = (),
    map_file: Path_ | None = None,
    strip_prefix: str | None = None,
    **task: Any,
) -> Explanation:
    """Say what is inferred of a task: the model, how data are prepared, what the first sample looks like, and what
    a prediction that looks at nothing scores beside the checkpoint. Arguments and errors are those of `evaluate`.
    """
    spec = task_of(task, exclude, partial)
    with ExitStack() as stack, listener().progress("evaluating", unit=" samples") as progress:
        [source] = Names.of(map, map_file, strip_prefix).renamed(opened(checkpoint, stack))
        return lazy.explain.explain(source, spec, progress)


def sweep(donor: Given | Sequence[Given], recipient: Given, *, claims: bool = False, **how: Any) -> SweepResult:
    """Swap each part of the selection in, one at a time, score the network, and rank what breaks it.

    A donor may be one of the words of `ckptswap.sweep.donors` (`zeros`, `init:SEED`, …). `how` are the flags of
    the command as keywords (`ckptswap.sweeping.keywords`): what is swapped (`by`, `mode`, `alpha`, …; `only`,
    `exclude`, `layers`, `kind`; `map`, `map_file`, `strip_prefix`), how far (`top`, `budget`, `screen`,
    `tolerance`, …) and where (`executor`, `jobs`, …) it is run, the folder that remembers scores (`run`, default
    `runs/KEY`), from which the same call continues, and the task, as in `evaluate`. With `claims` the paper's
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
    tolerance: float | None = None,
    claims: bool = False,
    page: Path_ | None = None,
) -> SweepResult:
    """A run's table again, from its folder alone; with `claims` the paper's claims are judged on it.

    `page` is where to write the HTML report as well. Raises `RunError` for a folder that is no run, or is damaged,
    `MetricError` for a metric that it does not hold, `UsageError` for a tolerance that is no number or below 0,
    `FileError` for a page that would replace a checkpoint or what the run remembers.
    """
    if page is not None:
        refuse_precious(page)
    analysis = lazy.analysis.load_analysis(Path(run), metric, tolerance)
    result = lazy.findings.judge(analysis) if claims else analysis.result
    if page is not None:
        put(lazy.html.sweep_html(result, lazy.html.about(os.fspath(run))).encode(), page)
    return result


def compare(runs: Sequence[Path_], *, metric: str | None = None, tolerance: float | None = None) -> Agreement:
    """Runs side by side: which cells differ, and how alike their rankings are. Raises as `report` does, and
    `UsageError` for runs that cannot be compared."""
    load = lazy.analysis.load_result
    return lazy.agreement.agreement({os.fspath(run): load(run, metric, tolerance) for run in runs})


def plot(
    run: Path_,
    out: Path_,
    *,
    kind: Literal["heatmap", "bars", "depth", "scatter"] = "heatmap",
    metric: str | None = None,
    tolerance: float | None = None,
    force: bool = False,
) -> Path:
    """Draw what a sweep found, as png, svg or pdf by the ending of `out`. Needs the extra 'plot'.

    Raises `UsageError` for another ending, for a run of several donors, and where there is nothing of that `kind`;
    `FileError` for a file that is no such picture, unless `force`; and what `report` raises.
    """
    form = lazy.figures.form_of(os.fspath(out))
    refuse_precious(out, force=force)
    result = report(run, metric=metric, tolerance=tolerance)
    if len(result.donors) > 1:
        raise UsageError(f"{run} has several donors", remedy="draw the run of one: sweep with one --from")
    charts = lazy.charts
    draws: dict[str, Callable[[SweepResult], Picture]] = {
        "heatmap": charts.heat,
        "bars": charts.bars,
        "depth": charts.depth,
        "scatter": charts.scatter,
    }
    picture = draws[kind](result)
    if charts.is_empty(picture):
        raise UsageError(
            f"{run} has nothing for a {kind}", remedy="sweep with --by layer,kind, or choose another --kind"
        )
    put(lazy.figures.draw([picture], form), out)
    return Path(out)


def select(
    run: Path_,
    *,
    tolerance: float | None = None,
    donor: Patterns = (),
    recipient: str | None = None,
    **task: Any,
) -> Choice:
    """Find the largest set of a sweep's cells that the donor can replace together.

    Of a folder that this user's own command made, everything is taken up again. A stranger's may name any code and
    any file: what it says is named again by `donor`, `recipient`, and `model`, `model_args`, `data`, `data_args`,
    `metric` and `group`. Raises what `ckptswap.sweep.select.select` raises.
    """
    named = lazy.trust.NamedAgain(listed(donor), recipient, task) or None
    with listener().progress("selecting", unit=" cells") as progress:
        return lazy.select.select(run, tolerance=tolerance, progress=progress, named=named)


def convert(
    source: Given,
    target: Path_,
    *,
    strip_prefix: str | None = None,
    shard_size: int = SHARD_SIZE,
    drop_unread: bool = False,
    force: bool = False,
) -> Path:
    """Write a checkpoint's tensors in the format that the target's name says, bit for bit. Returns the path.

    A name that ends in / or .index.json asks for shards of at most `shard_size` bytes. Raises as `save` does.

    >>> import numpy as np, tempfile
    >>> convert({"w": np.ones(2)}, f"{tempfile.mkdtemp()}/a.pt").name
    'a.pt'
    """
    with ExitStack() as stack:
        [checkpoint] = _noted(stack, source)
        note(lazy.companions.left_behind(checkpoint, target))
        [named] = strip_all([checkpoint], strip_prefix)
        with listener().progress("converting") as progress:
            return write_checkpoint(
                named,
                target,
                force=force,
                shard_size=shard_size,
                drop_unread=drop_unread,
                progress=progress,
                others=lazy.companions.companions(checkpoint).taken,
            )


def verify(checkpoint: Path_) -> Report:
    """Read a checkpoint to its end and say what is wrong with it. Raises `FileError` where there is none.

    >>> import ckptswap as cs, numpy as np, tempfile
    >>> cs.verify(cs.save({"w": np.array([1, np.nan])}, f"{tempfile.mkdtemp()}/a.npz")).ok
    False
    """
    with listener().progress("verifying") as progress:
        return lazy.verify.verify(checkpoint, progress)


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


def _noted(stack: ExitStack, *given: Given) -> list[Checkpoint]:
    """Open what is given, and tell what a reader should know of each file."""
    checkpoints = [opened(side, stack) for side in given]
    for checkpoint in checkpoints:
        note(f"{checkpoint.path}: {text}" for text in checkpoint.notes)
        warn([str(checkpoint.unread_note)] if checkpoint.unread else [])
    return checkpoints


def _tell_hints(names: Names, reference: Checkpoint, *others: Checkpoint) -> None:
    """Where their names are apart, and which flags would help."""
    note(hint for other in others if (hint := names.hint(other, reference)))
