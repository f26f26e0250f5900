"""Whose word a run folder is: what it names is run and read only where this user's own command made it.

Of a stranger's the checkpoints, and the code and files of the task, must be named again; what remains is how these
are to be used: batch size, limit, and what else is neither file nor code.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ckptswap import registry
from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import RunError, UsageError
from ckptswap.formats.opening import absolute
from ckptswap.shell import joined
from ckptswap.sweep.donors import is_made
from ckptswap.sweep.run_folder.folder import RunFolder
from ckptswap.sweep.spec import SweepSource
from ckptswap.task.spec import TaskSpec

LONGEST = 200  # letters of a name in a sentence
_NAMING = ("model", "model_args", "data", "data_args", "metrics", "group")
"""The keys of a task that may name code or files."""
_BOUNDED = ("model", "model_args")
"""What is not taken from the folder even where it is ours, but from the recipient: a model that a checkpoint names
itself may be no larger than the checkpoint."""


@dataclass(frozen=True)
class NamedAgain:
    """What the command line names: checkpoints, and of a task's keys those that may name code or files. `opened`
    are those of the checkpoints that stand in memory, by their names.

    >>> bool(NamedAgain()), bool(NamedAgain(task={"data": "scans"}))
    (False, True)
    """

    donors: tuple[str, ...] = ()
    recipient: str | None = None
    task: Mapping[str, Any] = field(default_factory=dict)
    opened: Mapping[str, Checkpoint] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.donors or self.recipient or any(self.task.values()))


def source_to_rebuild(folder: RunFolder, named: NamedAgain | None = None) -> SweepSource:
    """The source by which a folder's task may be built here.

    Raises `RunError`, before anything is run or opened, for a folder that this user's command did not make, unless
    all that it names is `named` again; `UsageError` for names that make no sense.
    """
    plan, own = folder.read_plan_and_owner()
    source = replace(plan.source, spec=replace(plan.spec, calibration=None))
    if named:
        return _renamed(source, named, folder)
    if not own:
        flags = joined([word for flag in _flags(source) for word in flag])
        raise RunError(
            f"{folder} does not show that a command of yours made it, and would run or read what it names",
            remedy=f"if you trust that, name it again: {flags}",
        )
    return source


def _renamed(source: SweepSource, named: NamedAgain, folder: RunFolder) -> SweepSource:
    """The source with everything that names code or files from the command line, in the current folder."""
    told = source.spec.task
    values = vars(told)
    kept = ("exclude", "screen_samples", "walk")  # patterns on names, a number, an order: neither code nor files
    task = TaskSpec(**{key: values[key] for key in kept})
    task = task.merge({key: value for key, value in values.items() if key not in (*_NAMING, *kept)})
    own = [key for key in _NAMING if key not in _BOUNDED and _is_harmless(key, told)]
    task = task.merge({key: values[key] for key in own}).merge(named.task)

    def found(path: str) -> str:
        return path if is_made(path) or path in named.opened else absolute(path)

    paths = list(map(found, named.donors))
    donors = tuple(replace(own, path=path) for own, path in zip(source.donors, paths, strict=False))
    are_all = len(paths) == len(source.donors)
    wanted = replace(
        source,
        spec=replace(source.spec, task=task),
        recipient=replace(source.recipient, path=found(named.recipient or "")),
        donors=donors if are_all else (),
        cwd=os.getcwd(),
        places=(),
    )
    sides = {"--from": wanted.donors, "--recipient": named.recipient is not None}
    given = {f"--{key.replace('_', '-')}": value for key, value in named.task.items()} | sides
    missing = [flag for flag in _flags(source) if not given.get(flag[0])]
    if missing:
        flags = joined([word for flag in missing for word in flag])
        raise UsageError(f"not all that {folder} names is named again", remedy=f"if you trust it, add {flags}")
    return wanted


def _as_flag(value: Any) -> str:
    """A flag's value, short enough for a sentence."""
    if isinstance(value, Mapping):
        texts = {key: part if isinstance(part, str) else json.dumps(part) for key, part in value.items()}
        value = [f"{key}={part}" for key, part in texts.items()]
    text = value if isinstance(value, str) else ",".join(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _flags(source: SweepSource) -> Iterator[tuple[str, str]]:
    for donor in source.donors:
        yield "--from", _as_flag(donor.path)
    yield "--recipient", _as_flag(source.recipient.path)
    task = source.spec.task
    for key in _NAMING:
        value = getattr(task, key)
        if value and not _is_harmless(key, task):
            yield f"--{'metric' if key == 'metrics' else key.replace('_', '-')}", _as_flag(value)


def _is_harmless(key: str, task: TaskSpec) -> bool:
    """Whether a key names what is ours, which runs no code of the folder's and reads no file that it chose."""
    owner = getattr(task, key.removesuffix("_args"))
    if key == "group" or not owner:
        return not owner
    if key == "metrics":
        return all(registry.is_safe("metrics", name) for name in owner)
    return registry.is_safe("models" if key in _BOUNDED else "data", owner)
