"""What `import ckptswap as cs` gives: the commands as functions, whose results show themselves in notebooks.

Wherever a checkpoint may stand, so may its path, a `state_dict` (names → torch tensors or numpy arrays) and an
`nn.Module`. Nothing here loads torch before a model has to run. What a call would tell a person on the way (a
prefix that was taken off, a pattern that matches nothing, how far it is) goes to `ckptswap.messages.listening`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from inspect import Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ckptswap import lazy
from ckptswap.checkpoint import Checkpoint
from ckptswap.entries import Entry
from ckptswap.errors import MismatchError
from ckptswap.formats import SHARD_SIZE, write_checkpoint
from ckptswap.given import (
    SELECTION,
    Given,
    Names,
    PairNames,
    Path_,
    Patterns,
    opened,
    plain,
    selection_and_names,
    selection_of,
    several,
    task_of,
    tell_unmatched,
)
from ckptswap.messages import listener, note, warn
from ckptswap.moments import Moments
from ckptswap.renaming import strip_all
from ckptswap.runs import compare, demo, plot, report, reproduce, select, sweep, sweep_both, train  # noqa: F401
from ckptswap.selection import Selection
from ckptswap.signatures import explained, explicit
from ckptswap.task.spec import TaskSpec

if TYPE_CHECKING:
    from ckptswap.diff import Diff
    from ckptswap.statistics import Comparison
    from ckptswap.task.explain import Explanation
    from ckptswap.threeway import ThreeWay
    from ckptswap.transplant import Transplant
    from ckptswap.verify import Report


@dataclass(frozen=True, repr=False)
class Contents:
    """What is in a checkpoint: the entries that were selected, their numbers by name where these were read, and
    what else was selected and cannot be read."""

    checkpoint: Checkpoint
    entries: tuple[Entry, ...]
    moments: Mapping[str, Moments] | None = None
    unread: tuple[Entry, ...] = ()

    def __repr__(self) -> str:
        return f"<Contents {self.checkpoint.path}: {len(self.entries)} of {len(self.checkpoint)} tensors>"

    def _repr_html_(self) -> str:
        return lazy.display.as_html(lazy.display.of_checkpoint(self.checkpoint, self.entries, self.moments))

    def to_pandas(self) -> Any:
        """Give the rows as a pandas data frame. Raises `DependencyError` without the extra 'pandas'."""
        return lazy.frames.of_checkpoint(self.checkpoint, self.entries, self.moments)


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
    >>> [entry.kind for entry in cs.show({"conv.weight": np.ones((1, 1, 3, 3)), "conv.bias": np.ones(1)}).entries]
    ['conv.bias', 'conv.weight']
    """
    selection = selection_of(only, exclude, layers, kind)
    with ExitStack() as stack:
        [source] = _noted(stack, checkpoint)
        unread = tuple(selection.unread(source))
        is_read = any(entry in selection for entry in source.values())
        entries = tuple(selection.pick(source)) if is_read or not unread else ()
        tell_unmatched(selection, source)
        if not stats:
            return Contents(source, entries, unread=unread)
        with listener().progress("reading") as progress:
            return Contents(source, entries, lazy.show.statistics(source, entries, progress), unread)


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
    which comes off both sides first; `map_preset` ("hf-gguf", "keras-torch") gives the one that is of another
    library the other's names and layout; `match="shape-order"` pairs what has no namesake by order and shape, and
    tells the pairs. Raises `SelectionError` where nothing is selected, `UsageError` for a rule or
    prefix that fits no name, and what `open` raises.

    >>> import ckptswap as cs, numpy as np
    >>> before = {"conv.weight": np.zeros((2, 1, 3, 3)), "conv.bias": np.zeros(2)}
    >>> changes = cs.diff(before, before | {"conv.bias": np.ones(2)})
    >>> [(row.name, row.changed) for row in changes.rows if row.status == "changed"]
    [('conv.bias', 2)]
    """
    selection, how = selection_of(only, exclude, layers, kind), PairNames.of(**names)
    with ExitStack() as stack:
        left, right = _noted(stack, a, b)
        _tell_hints(how, right, left)
        left, right = how.matched(left, right)
        with listener().progress("comparing") as progress:
            result = lazy.diff.diff(left, right, selection, values=not stat, progress=progress)
        tell_unmatched(selection, left, right)
    return result


def diff3(base: Given, a: Given, b: Given, **how: Any) -> ThreeWay:
    """What two checkpoints made of a third that they came from. Arguments and errors are those of `diff`.

    >>> import numpy as np
    >>> base, a = {"w": np.zeros(2), "b": np.zeros(2)}, {"w": np.ones(2), "b": np.zeros(2)}
    >>> [(row.name, row.status) for row in diff3(base, a, base).rows]
    [('b', 'unchanged'), ('w', 'a')]
    """
    selection, names = selection_and_names(how)
    with ExitStack() as stack:
        root, left, right = _noted(stack, base, a, b)
        _tell_hints(names, root, left, right)
        root, left, right = names.all_matched(root, left, right)
        with listener().progress("comparing") as progress:
            result = lazy.threeway.three_way(root, left, right, selection, progress=progress)
        tell_unmatched(selection, root, left, right)
    return result


def planned_transplant(
    donor: Given,
    recipient: Given,
    stack: ExitStack,
    *,
    alpha: float = 1.0,
    skip_missing: bool = False,
    cast: bool = False,
    **how: Any,
) -> Transplant:
    """Plan a transplant; write nothing. `stack` closes both sides, the rest is as in `transplant`."""
    selection, names = selection_and_names(how)
    own = opened(donor, stack), opened(recipient, stack)
    giving, receiving = names.matched(*own)
    try:
        plan = lazy.transplant.plan_transplant(
            giving, receiving, selection, alpha=plain(alpha), skip_missing=skip_missing, cast=cast
        )
    except MismatchError as error:
        hint = names.hint(*own)
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
    selects, and what brings names together, are the keywords of `diff`; `alpha` says how far it goes, `cast`
    rounds the donor's floats to the recipient's dtype. Raises `MismatchError` naming every tensor that does not
    fit, unless `skip_missing`; `SelectionError` where nothing is
    selected; `FileError` where `out` exists and `force` is not given; `FormatError` where values of the recipient
    are not read and would be lost, unless `drop_unread`. `link` hard-links shards that do not change.

    >>> import ckptswap as cs, numpy as np
    >>> ones, zeros = ({"conv.bias": fill(2), "conv.weight": fill((2, 1, 3, 3))} for fill in (np.ones, np.zeros))
    >>> variant = cs.transplant(ones, zeros, kind="conv.bias")
    >>> variant.read("conv.bias").tolist(), float(variant.read("conv.weight").max())
    ([1.0, 1.0], 0.0)
    """
    with ExitStack() as stack:
        plan = planned_transplant(donor, recipient, stack, **selected)
        if out is not None:
            warn(lazy.transplant.left_behind(plan, out))
            carried_out(plan, out, force=force, link=link, drop_unread=drop_unread)
            return open(lazy.transplant.opened_by(plan, out))
        stack.pop_all()  # the variant reads from both for as long as it lives
        name = plan.default_output.name  # as the command would name its file
        if plan.alpha != 1:
            stem = name.removesuffix(".safetensors")
            name = f"{stem}*{plan.alpha:g}{name[len(stem) :]}"
        plan.variant.path = str(Path(plan.recipient.place).parent / name)
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
    map_preset: str | None = None,
    **task: Any,
) -> Comparison:
    """Score checkpoints on the same samples, with intervals, and their differences, paired.

    What `exclude` names need not fit the model, and with `partial` nothing need that does not: what a checkpoint
    lacks then stays as initialised, of which `warnings` tell. `map` (rules `OLD=NEW`), `map_file` and
    `strip_prefix` may concern the names of any, `map_preset` those of a GGUF file or of Keras's beside others.
    `task` are the keys of `TaskSpec`: model, model_args, data,
    data_args, target, metric or metrics, batch_size, limit, …; `config` is a file of them, `task` a `TaskSpec` to
    begin with. Model, data and metric may be the things themselves: an `nn.Module` (of which a copy is run) or a
    function that builds one; a Dataset, a list of samples, a DataLoader, or a function that gives these; a
    function of output and target. A checkpoint that is a module needs no model. Raises `UsageError` where there is
    no checkpoint, `TaskError`, `MismatchError` and their kin as the
    command does.
    """
    given, spec = several(checkpoints, "checkpoint"), task_of(task, exclude, partial)
    names = Names.of(map, map_file, strip_prefix, map_preset)
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
    map_preset: str | None = None,
    **task: Any,
) -> Explanation:
    """Say what is inferred of a task: the model, how data are prepared, what the first sample looks like, and what
    a prediction that looks at nothing scores beside the checkpoint. Arguments and errors are those of `evaluate`.
    """
    spec = task_of(task, exclude, partial)
    with ExitStack() as stack, listener().progress("evaluating", unit=" samples") as progress:
        [source] = Names.of(map, map_file, strip_prefix, map_preset).renamed(opened(checkpoint, stack))
        return lazy.explain.explain(source, spec, progress)


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


NAMES = ("map", "map_file", "strip_prefix", "map_preset")


def signature_of(asked: Callable[..., Any]) -> Signature:
    """The signature of a function here, with every keyword that it takes; what tells these costs no torch."""
    if asked is not sweep:
        return signature(asked)
    return explicit(sweep, _of_a_sweep(), (*SELECTION, *NAMES, "recalibrate_bn", "calibration_data"))


def doc_of(asked: Callable[..., Any]) -> str | None:
    """Its docstring, with a word on each of these."""
    return explained(sweep, _of_a_sweep()) if asked is sweep else asked.__doc__


def _of_a_sweep() -> tuple[type, ...]:
    return TaskSpec, lazy.spec.SweepSpec, lazy.spec.RunOptions


_SCORING: tuple[Any, ...] = (evaluate, explain)
for _scores in _SCORING:
    _scores.__signature__, _scores.__doc__ = explicit(_scores, (TaskSpec,)), explained(_scores, (TaskSpec,))


def _noted(stack: ExitStack, *given: Given) -> list[Checkpoint]:
    """Open what is given, and tell what a reader should know of each file."""
    checkpoints = [opened(side, stack) for side in given]
    for checkpoint in checkpoints:
        note(f"{checkpoint.path}: {text}" for text in checkpoint.notes)
        warn([str(checkpoint.unread_note)] if checkpoint.unread else [])
    return checkpoints


def _tell_hints(names: Names, reference: Checkpoint, *others: Checkpoint) -> None:
    note(hint for other in others if (hint := names.hint(other, reference)))
