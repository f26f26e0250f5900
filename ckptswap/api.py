"""What `import ckptswap as cs` gives: the commands as functions, whose results show themselves in notebooks.

Wherever a checkpoint may stand, so may its path, a `state_dict` (names → torch tensors or numpy arrays) and an
`nn.Module`. Nothing here loads torch before a model has to run.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ckptswap.checkpoint import Checkpoint
from ckptswap.diff import Diff
from ckptswap.errors import UsageError
from ckptswap.report.display import shows_itself
from ckptswap.selection import Selection

if TYPE_CHECKING:
    from ckptswap.statistics.comparison import Comparison
    from ckptswap.sweep.plan import By
    from ckptswap.sweep.result import SweepResult
    from ckptswap.task.spec import TaskSpec
    from ckptswap.transplant import Transplant


class Module(Protocol):
    """What holds tensors under names, as `torch.nn.Module` does."""

    def state_dict(self) -> Mapping[str, Any]:
        """Its tensors by their names."""


Given = Checkpoint | str | os.PathLike[str] | Mapping[str, Any] | Module
Patterns = str | Iterable[str] | None
"""None and nothing are the same: not given."""
CELLS = "layer,kind"


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
    from ckptswap.formats import open_checkpoint

    return open_checkpoint(path) if isinstance(path, str | os.PathLike) else _in_memory(path)


def save(
    checkpoint: Given, path: str | os.PathLike[str], *, force: bool = False, drop_unread: bool = False
) -> Path:
    """Write a checkpoint, such as a variant, in the format that the path's ending says. Returns the path.

    Raises `FileError` where the file exists and `force` is not given, `FormatError` where values are not read and
    would be lost, unless `drop_unread`, and what `open` raises.

    >>> import numpy as np, tempfile
    >>> save({"conv.bias": np.ones(2)}, f"{tempfile.mkdtemp()}/a.npz").name
    'a.npz'
    """
    from ckptswap.formats import write_checkpoint

    with ExitStack() as stack:
        found = _opened(checkpoint, stack)
        write_checkpoint(found, path, force=force, metadata=found.metadata, drop_unread=drop_unread)
    return Path(path)


def diff(
    a: Given,
    b: Given,
    *,
    only: Patterns = (),
    exclude: Patterns = (),
    layers: Patterns = (),
    kind: Patterns = (),
    map: Patterns = (),
    strip_prefix: str | None = None,
    stat: bool = False,
) -> Diff:
    """What differs, tensor by tensor. `stat` looks at the headers only.

    `map` are rules `OLD=NEW` for the names of `a`, `strip_prefix` comes off both sides first. Raises
    `SelectionError` where nothing is selected, `UsageError` for a rule or prefix that fits no name, and what
    `open` raises.

    >>> import ckptswap as cs, numpy as np
    >>> before = {"conv.weight": np.zeros((2, 1, 3, 3)), "conv.bias": np.zeros(2)}
    >>> found = cs.diff(before, before | {"conv.bias": np.ones(2)})
    >>> [(row.name, row.changed) for row in found.rows if row.status == "changed"]
    [('conv.bias', 2)]
    """
    from ckptswap.diff import diff as compare
    from ckptswap.renaming import matched, parse_rules

    selection, rules = _selection(only, exclude, layers, kind), parse_rules(_listed(map))
    with ExitStack() as stack:
        left, right, _ = matched(_opened(a, stack), _opened(b, stack), rules, strip_prefix)
        return compare(left, right, selection, values=not stat)


def transplant(
    donor: Given,
    recipient: Given,
    out: str | os.PathLike[str] | None = None,
    *,
    only: Patterns = (),
    exclude: Patterns = (),
    layers: Patterns = (),
    kind: Patterns = (),
    map: Patterns = (),
    strip_prefix: str | None = None,
    alpha: float = 1.0,
    skip_missing: bool = False,
    force: bool = False,
    drop_unread: bool = False,
) -> Checkpoint:
    """The recipient with the selected tensors taken from the donor: a variant, which is a checkpoint itself.

    Without `out` nothing is written or copied; with it the variant is written there, and opened from there. `map`
    are rules `OLD=NEW` for the donor's names, `strip_prefix` comes off both sides first. Raises `MismatchError`
    naming every tensor that does not fit, unless `skip_missing`; `SelectionError` where nothing is selected;
    `FileError` where `out` exists and `force` is not given; `FormatError` where values of the recipient are not
    read and would be lost, unless `drop_unread`.

    >>> import ckptswap as cs, numpy as np
    >>> ones, zeros = ({"conv.bias": each(2), "conv.weight": each((2, 1, 3, 3))} for each in (np.ones, np.zeros))
    >>> variant = cs.transplant(ones, zeros, kind="conv.bias")
    >>> variant.read("conv.bias").tolist(), float(variant.read("conv.weight").max())
    ([1.0, 1.0], 0.0)
    >>> variant.path
    'memory+conv.bias@memory.safetensors'
    """
    from ckptswap.renaming import matched, parse_rules
    from ckptswap.transplant import plan_transplant
    from ckptswap.transplant import transplant as write

    selection, rules = _selection(only, exclude, layers, kind), parse_rules(_listed(map))
    with ExitStack() as stack:
        giving, receiving, _ = matched(_opened(donor, stack), _opened(recipient, stack), rules, strip_prefix)
        plan = plan_transplant(giving, receiving, selection, alpha=_plain(alpha), skip_missing=skip_missing)
        if out is not None:
            return open(write(plan, out, force=force, drop_unread=drop_unread))
        stack.pop_all()  # the variant reads from both for as long as it lives
        return _named(plan)


def evaluate(
    checkpoints: Given | Sequence[Given],
    *,
    exclude: Patterns = (),
    partial: bool = False,
    map: Patterns = (),
    strip_prefix: str | None = None,
    **task: Any,
) -> Comparison:
    """Score checkpoints on the same samples, with intervals, and their differences, paired.

    What `exclude` names need not fit the model, and with `partial` nothing need that does not: what a checkpoint
    lacks then stays as initialised, of which `warnings` tell. `map` (rules `OLD=NEW`) and `strip_prefix` may
    concern the names of any. `task` are the keys of `TaskSpec`: model, model_args, data, data_args, target, metric
    or metrics, batch_size, limit, … Raises `UsageError` where there is no checkpoint, `TaskError`, `MismatchError`
    and their kin as the command does.
    """
    from ckptswap.renaming import map_all, parse_rules, strip_all
    from ckptswap.task.comparison import compare
    from ckptswap.task.evaluate import evaluate as score

    several, spec = _several(checkpoints, "checkpoint"), _spec(task, exclude, partial)
    with ExitStack() as stack:
        found = [_opened(each, stack) for each in several]
        found = strip_all(found, strip_prefix) if strip_prefix else found
        return compare(score(map_all(found, parse_rules(_listed(map))), spec))


def sweep(
    donor: Given | Sequence[Given],
    recipient: Given,
    *,
    run: str | os.PathLike[str] | None = None,
    by: Patterns = CELLS,
    only: Patterns = (),
    exclude: Patterns = (),
    layers: Patterns = (),
    kind: Patterns = (),
    map: Patterns = (),
    strip_prefix: str | None = None,
    partial: bool = False,
    tolerance: float | None = None,
    fresh: bool = False,
    how: dict[str, Any] | None = None,
    **task: Any,
) -> SweepResult:
    """Swap each part of the selection in, one at a time, score the network, and rank what breaks it.

    `by` are ways to split (`layer,kind`, `kind`, `layer`, `tensor`), `run` the folder that remembers scores
    (default `runs/KEY`), from which the same call continues. A donor may be one of the words of
    `ckptswap.sweep.donors` (`zeros`, `init:SEED`, …). `exclude` and `partial` say what need not fit the model,
    `map` and `strip_prefix` rename, as in `evaluate`. `task` are the keys of `TaskSpec`, as in `evaluate`; `how`
    goes to `Sweep.run` (`top`, `budget`, `executor`, `progress`, …). Raises `UsageError` where there is no
    donor, and what `ckptswap.sweep.runner.sweep` raises.
    """
    from ckptswap.sweep.progress import Listeners
    from ckptswap.sweep.runner import executor_of, prepared
    from ckptswap.sweep.spec import RunOptions, SweepSpec

    several = _several(donor, "donor")
    told = _plain(how or {})
    listeners = {name: told.pop(name) for name in ("progress", "live", "news", "stop") if name in told}
    options = RunOptions(run=None if run is None else os.fspath(run), tolerance=tolerance, fresh=fresh, **told)
    with ExitStack() as stack:
        opened: dict[str, Checkpoint] = {}
        names = [_name_of(each, opened, stack) for each in [*several, recipient]]
        spec = SweepSpec(
            tuple(names[:-1]),
            names[-1],
            _spec(task, exclude, partial),
            _selection(only, exclude, layers, kind),
            by=_ways(by),
            map=tuple(_listed(map)),
            strip_prefix=strip_prefix,
        )
        with prepared(spec, options.run, opened) as planned:
            planned.run(options, Listeners(**listeners), executor_of(options, spec.task))
            folder = planned.folder
    return report(folder)


def _name_of(given: Given, opened: dict[str, Checkpoint], stack: ExitStack) -> str:
    """By what a spec names a side: its path; what is in memory is `opened` under a name of its own."""
    if isinstance(given, str | os.PathLike):
        return os.fspath(given)
    checkpoint = _opened(given, stack)
    name = checkpoint.path if checkpoint.path not in opened else f"{checkpoint.path} {len(opened)}"
    opened[name] = checkpoint
    return name


def report(
    run: str | os.PathLike[str],
    *,
    metric: str | None = None,
    tolerance: float | None = None,
    page: str | os.PathLike[str] | None = None,
) -> SweepResult:
    """A run's table again, from its folder alone, with the paper's claims judged on it.

    `page` is where to write the HTML report as well. Raises `RunError` for a folder that is no run, or is damaged,
    `MetricError` for a metric that it does not hold, `UsageError` for a tolerance that is no number or below 0,
    `FileError` for a page that would replace a checkpoint or what the run remembers.
    """
    from ckptswap.formats.atomic import write_text
    from ckptswap.formats.overwrite import refuse_precious
    from ckptswap.lab.findings import judge
    from ckptswap.report.html import about, sweep_html
    from ckptswap.sweep.analysis import load_analysis

    if page is not None:
        refuse_precious(page)
    result = judge(load_analysis(Path(run), metric, tolerance))
    if page is not None:
        write_text(page, sweep_html(result, about(os.fspath(run))))
    return result


def _opened(given: Given, stack: ExitStack) -> Checkpoint:
    return given if isinstance(given, Checkpoint) else stack.enter_context(open(given))


def _in_memory(given: Any) -> Checkpoint:
    """What holds tensors under names, as a checkpoint of these tensors."""
    from ckptswap.formats.unread import unread

    if isinstance(given, Checkpoint):
        return given
    if isinstance(given, Mapping):
        return Checkpoint.from_arrays(given)
    if not _holds_tensors(given):
        remedy = "give a path, what cs.open or cs.transplant returned, a state_dict, or an nn.Module"
        raise UsageError(f"{type(given).__name__} is no checkpoint", remedy=remedy)
    state = given.state_dict()
    arrays = {name: each for name, each in state.items() if _is_array(each)}
    found = Checkpoint.from_arrays(arrays, path=f"<{type(given).__name__}>")
    found.unread = unread(state, _is_array)
    return found


def _is_array(value: object) -> bool:
    return hasattr(value, "__array__")


def _holds_tensors(given: object) -> bool:
    return callable(getattr(given, "state_dict", None)) and not isinstance(given, type)


def _several(given: Given | Iterable[Given], what: str) -> list[Given]:
    """One or more. A module may be a sequence too, of its layers."""
    is_one = isinstance(given, str | os.PathLike | Mapping) or _holds_tensors(given)
    found: list[Any] = list(given) if isinstance(given, Iterable) and not is_one else [given]
    if not found:
        raise UsageError(f"there is no {what}", remedy="give one or more")
    return found


def _named(plan: Transplant) -> Checkpoint:
    """The variant by the name that the command would give its file, and by its alpha, beside the recipient."""
    name = plan.default_output.name
    if plan.alpha != 1:
        stem = name.removesuffix(".safetensors")
        name = f"{stem}*{plan.alpha:g}{name[len(stem) :]}"
    plan.variant.path = str(Path(plan.recipient.path).parent / name)
    return plan.variant


def _listed(given: Patterns) -> list[str]:
    if given is None or isinstance(given, str):
        return [] if given is None else [given]
    found = list(given) if isinstance(given, Iterable) else [given]
    if not all(isinstance(each, str) for each in found):
        raise UsageError(f"{given!r} selects nothing", remedy="give a text, or several in a list")
    return found


def _selection(only: Patterns, exclude: Patterns, layers: Patterns, kind: Patterns) -> Selection:
    only, exclude, layers, kind = map(_listed, (only, exclude, layers, kind))
    return Selection.parse(only=only, exclude=exclude, layers=layers, kind=kind)


def _ways(by: Patterns) -> tuple[By, ...]:
    return tuple(tuple(way.split(",")) for way in _listed(by) or [CELLS])


def _spec(task: dict[str, Any], exclude: Patterns = (), partial: bool = False) -> TaskSpec:
    from ckptswap.task.spec import TaskSpec

    spec = TaskSpec().merge(_plain({**task, "partial": partial}))
    return replace(spec, exclude=_selection((), exclude, (), ()).exclude)


def _plain(value: Any) -> Any:
    """Python's own numbers in place of numpy's, inside dicts and lists too: JSON and flags know no others."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(_plain, value))
    return value.item() if isinstance(value, np.generic) else value


shows_itself()
