"""What `import ckptswap as cs` gives: the commands as functions, whose results show themselves in notebooks.

Paths may stand wherever checkpoints may. Nothing here loads torch before a model has to run.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ckptswap.checkpoint import Checkpoint
from ckptswap.diff import Diff
from ckptswap.report.display import shows_itself
from ckptswap.selection import Selection

if TYPE_CHECKING:
    from ckptswap.sweep.comparison import Comparison
    from ckptswap.sweep.result import SweepResult
    from ckptswap.task.spec import TaskSpec

Given = Checkpoint | str | os.PathLike[str]
Patterns = str | Iterable[str]


def open(path: str | os.PathLike[str]) -> Checkpoint:
    """Open a checkpoint of any format as a lazy ordered map name → `Entry`; values are read when asked for.

    Raises `FileError` where there is none, `FormatError` for one that is damaged or hostile.

    >>> from ckptswap.checkpoint import Checkpoint
    >>> import numpy as np, tempfile
    >>> path = f"{tempfile.mkdtemp()}/a.safetensors"
    >>> _ = save(Checkpoint.from_arrays({"conv.bias": np.ones(2)}), path)
    >>> with open(path) as checkpoint:
    ...     checkpoint.read("conv.bias").tolist()
    [1.0, 1.0]
    """
    from ckptswap.formats import open_checkpoint

    return open_checkpoint(path)


def save(checkpoint: Checkpoint, path: str | os.PathLike[str], *, force: bool = False) -> Path:
    """Write a checkpoint, such as a variant, in the format that the path's ending says. Returns the path.

    Raises `FileError` where the file exists and `force` is not given.
    """
    from ckptswap.formats import write_checkpoint

    write_checkpoint(checkpoint, path, force=force, metadata=checkpoint.metadata)
    return Path(path)


def diff(
    a: Given,
    b: Given,
    *,
    only: Patterns = (),
    exclude: Patterns = (),
    layers: Patterns = (),
    kind: Patterns = (),
    strip_prefix: str | None = None,
    stat: bool = False,
) -> Diff:
    """What differs, tensor by tensor. `stat` looks at the headers only.

    Raises `SelectionError` where nothing is selected, and what `open` raises.

    >>> import numpy as np
    >>> arrays = {"conv.weight": np.zeros((2, 1, 3, 3)), "conv.bias": np.zeros(2)}
    >>> a = Checkpoint.from_arrays(arrays)
    >>> b = Checkpoint.from_arrays(arrays | {"conv.bias": np.ones(2)})
    >>> [(row.name, row.changed) for row in diff(a, b).rows if row.status == "changed"]
    [('conv.bias', 2)]
    """
    from ckptswap.diff import diff as compare
    from ckptswap.renaming import matched

    selection = _selection(only, exclude, layers, kind)
    with ExitStack() as stack:
        left, right, _ = matched(_opened(a, stack), _opened(b, stack), (), strip_prefix)
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
    strip_prefix: str | None = None,
    alpha: float = 1.0,
    skip_missing: bool = False,
    force: bool = False,
) -> Checkpoint:
    """The recipient with the selected tensors taken from the donor: a variant, which is a checkpoint itself.

    Without `out` nothing is written or copied; with it the variant is written there, and opened from there. Raises
    `MismatchError` naming every tensor that does not fit, unless `skip_missing`; `SelectionError` where nothing is
    selected; `FileError` where `out` exists and `force` is not given.

    >>> import numpy as np
    >>> ones, zeros = ({"conv.bias": each(2), "conv.weight": each((2, 1, 3, 3))} for each in (np.ones, np.zeros))
    >>> variant = transplant(Checkpoint.from_arrays(ones), Checkpoint.from_arrays(zeros), kind="conv.bias")
    >>> variant.read("conv.bias").tolist(), float(variant.read("conv.weight").max())
    ([1.0, 1.0], 0.0)
    """
    from ckptswap.renaming import matched
    from ckptswap.transplant import plan_transplant
    from ckptswap.transplant import transplant as write

    selection = _selection(only, exclude, layers, kind)
    with ExitStack() as stack:
        giving, receiving, _ = matched(_opened(donor, stack), _opened(recipient, stack), (), strip_prefix)
        plan = plan_transplant(giving, receiving, selection, alpha=alpha, skip_missing=skip_missing)
        if out is not None:
            return open(write(plan, out, force=force))
        stack.pop_all()  # the variant reads from both for as long as it lives
        return plan.variant


def evaluate(checkpoints: Given | Sequence[Given], **task: Any) -> Comparison:
    """Score checkpoints on the same samples, with intervals, and their differences, paired.

    `task` are the keys of `TaskSpec`: model, model_args, data, data_args, target, metric or metrics, batch_size,
    limit, … Raises `TaskError`, `MismatchError` and their kin as the command does.
    """
    from ckptswap.sweep.comparison import compare
    from ckptswap.task.evaluate import evaluate as score

    several = [checkpoints] if isinstance(checkpoints, Checkpoint | str | os.PathLike) else checkpoints
    with ExitStack() as stack:
        return compare(score([_opened(each, stack) for each in several], _spec(task)))


def sweep(
    donor: Given | Sequence[Given],
    recipient: Given,
    *,
    run: str | os.PathLike[str] | None = None,
    by: Patterns = "layer,kind",
    only: Patterns = (),
    exclude: Patterns = (),
    layers: Patterns = (),
    kind: Patterns = (),
    tolerance: float | None = None,
    fresh: bool = False,
    how: dict[str, Any] | None = None,
    **task: Any,
) -> SweepResult:
    """Swap each part of the selection in, one at a time, score the network, and rank what breaks it.

    `by` are ways to split (`layer,kind`, `kind`, `layer`, `tensor`), `run` the folder that remembers scores
    (default `runs/KEY`), from which the same call continues. A donor may be one of the words of
    `ckptswap.sweep.donors` (`zeros`, `init:SEED`, …). `task` are the keys of `TaskSpec`, as in `evaluate`; `how`
    goes to `Proposal.run` (`top`, `budget`, `executor`, `progress`, …). Raises what `ckptswap.sweep.run.sweep`
    raises.
    """
    from ckptswap.sweep.run import propose
    from ckptswap.sweep.samples import keep_samples

    spec = _spec(task)
    several = [donor] if isinstance(donor, Checkpoint | str | os.PathLike) else donor
    with ExitStack() as stack:
        receiving = _opened(recipient, stack)
        giving = [_given(each, receiving, spec, stack) for each in several]
        proposal = propose(
            giving,
            receiving,
            spec,
            selection=_selection(only, exclude, layers, kind),
            by=tuple(tuple(way.split(",")) for way in ([by] if isinstance(by, str) else by)),
            run_dir=None if run is None else Path(run),
        )
        proposal.run(tolerance=tolerance, fresh=fresh, **(how or {}))
        keep_samples(proposal)
    return report(proposal.folder)


def report(
    run: str | os.PathLike[str],
    *,
    metric: str | None = None,
    tolerance: float | None = None,
    page: str | os.PathLike[str] | None = None,
) -> SweepResult:
    """A run's table again, from its folder alone, with the paper's claims judged on it.

    `page` is where to write the HTML report as well. Raises `RunError` for a folder that is no run, or is damaged,
    `MetricError` for a metric that it does not hold.
    """
    from ckptswap.formats.atomic import write_text
    from ckptswap.lab.findings import findings
    from ckptswap.report.html import about, sweep_html
    from ckptswap.sweep.evidence import load_evidence

    evidence = load_evidence(Path(run), metric, tolerance)
    result = evidence.result
    if result.mode == "only" and len(result.donors) < 2:  # the claims are about one donor's parts, one at a time
        result = replace(result, findings=findings(evidence))
    if page is not None:
        write_text(page, sweep_html(result, about(os.fspath(run))))
    return result


def _opened(given: Given, stack: ExitStack) -> Checkpoint:
    return given if isinstance(given, Checkpoint) else stack.enter_context(open(given))


def _given(given: Given, recipient: Checkpoint, spec: TaskSpec, stack: ExitStack) -> Checkpoint:
    """A donor, which may also be a word by which one is made."""
    from ckptswap.sweep.donors import open_donor

    if isinstance(given, Checkpoint):
        return given
    return stack.enter_context(open_donor(os.fspath(given), recipient, spec))


def _selection(only: Patterns, exclude: Patterns, layers: Patterns, kind: Patterns) -> Selection:
    only, exclude, layers, kind = (
        [each] if isinstance(each, str) else list(each) for each in (only, exclude, layers, kind)
    )
    return Selection.parse(only=only, exclude=exclude, layers=layers, kind=kind)


def _spec(task: dict[str, Any]) -> TaskSpec:
    from ckptswap.task.spec import TaskSpec

    return TaskSpec().merge(task)


shows_itself()
