"""Whose word a run folder is: what it names is run and read only where this user's own command made it.

A stranger's folder gives numbers. Its checkpoints, and the code and files of its task, must be named again; what
remains of it is how these are to be used: batch size, limit, and what else is neither file nor code.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ckptswap.errors import RunError, UsageError
from ckptswap.shell import joined
from ckptswap.sweep.donors import is_made
from ckptswap.sweep.run_folder.journal import read_plan_and_owner
from ckptswap.sweep.worker_spec import Named as Source
from ckptswap.sweep.worker_spec import WorkerSpec, parsed_worker_spec
from ckptswap.task.spec import TaskSpec

LONGEST = 200
"""Letters of a name in a sentence."""
_REGISTERED = ("smp:", "lab:")
_METRICS = ("iou", "dice", "accuracy", "mse", "psnr")
_NAMING = ("model", "model_args", "data", "data_args", "metrics", "group")
"""The keys of a task that may name code or files."""
_BOUNDED = ("model", "model_args")
"""What is not taken from the folder even where it is ours, but from the recipient: a model that a checkpoint names
itself may be no larger than the checkpoint."""


@dataclass(frozen=True)
class Named:
    """What the command line names: checkpoints, and of a task's keys those that may name code or files.

    >>> bool(Named()), bool(Named(task={"data": "scans"}))
    (False, True)
    """

    donors: tuple[str, ...] = ()
    recipient: str | None = None
    task: Mapping[str, Any] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.donors or self.recipient or any(self.task.values()))


def worker_spec_to_rebuild(folder: Path, named: Named | None = None) -> WorkerSpec:
    """The order by which a folder's task may be built here.

    Raises `RunError`, before anything is run or opened, for a folder that this user's command did not make, unless
    all that it names is `named` again; `UsageError` for names that make no sense.
    """
    contents, own = read_plan_and_owner(folder)
    order = replace(_order(folder, contents), folder=str(folder.absolute()), calibration=None)
    if named:
        return _renamed(order, named, folder)
    if not own:
        flags = joined([word for flag in _flags(order) for word in flag])
        raise RunError(
            f"{folder} does not show that a command of yours made it, and would run or read what it names",
            remedy=f"if you trust that, name it again: {flags}",
        )
    return order


def _order(folder: Path, contents: Mapping[str, Any]) -> WorkerSpec:
    try:
        return parsed_worker_spec(contents["order"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(f"{folder} does not say how it was made ({error})", remedy="run the sweep again") from None


def _renamed(order: WorkerSpec, named: Named, folder: Path) -> WorkerSpec:
    """The order with everything that names code or files from the command line, in the current folder."""
    said = vars(order.spec)
    spec = TaskSpec(exclude=order.spec.exclude)  # patterns on tensors' names: neither code nor files
    spec = spec.merge({key: value for key, value in said.items() if key not in (*_NAMING, "exclude")})
    own = [key for key in _NAMING if key not in _BOUNDED and _is_harmless(key, order.spec)]
    spec = spec.merge({key: said[key] for key in own}).merge(named.task)
    recipient, donors = named.recipient or "", named.donors
    wanted = replace(
        order,
        recipient=replace(order.recipient, path=os.path.abspath(recipient)),
        donors=tuple(map(_source, order.donors, donors)) if len(donors) == len(order.donors) else (),
        spec=spec,
        cwd=os.getcwd(),
        places=(),
    )
    missing = [flag for flag in _flags(order) if not _is_named(flag[0], named, wanted)]
    if missing:
        flags = joined([word for flag in missing for word in flag])
        raise UsageError(f"not all that {folder} names is named again", remedy=f"if you trust it, add {flags}")
    return wanted


def _source(own: Source, path: str) -> Source:
    return replace(own, path=path if is_made(path) else os.path.abspath(path))


def _is_named(flag: str, named: Named, wanted: WorkerSpec) -> bool:
    if flag == "--from":
        return bool(wanted.donors)
    if flag == "--recipient":
        return named.recipient is not None
    key = flag.removeprefix("--").replace("-", "_")
    return bool(named.task.get(key))


def _said(value: Any) -> str:
    """A flag's value, short enough for a sentence."""
    if isinstance(value, Mapping):
        text = ",".join(
            f"{key}={each if isinstance(each, str) else json.dumps(each)}" for key, each in value.items()
        )
    else:
        text = value if isinstance(value, str) else ",".join(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _flags(order: WorkerSpec) -> Iterator[tuple[str, str]]:
    """What a folder names, as flags and their values."""
    for donor in order.donors:
        yield "--from", _said(donor.path)
    yield "--recipient", _said(order.recipient.path)
    for key in _NAMING:
        value = getattr(order.spec, key)
        if value and not _is_harmless(key, order.spec):
            yield f"--{'metric' if key == 'metrics' else key.replace('_', '-')}", _said(value)


def _is_harmless(key: str, spec: TaskSpec) -> bool:
    """Whether a key names what is ours, which runs no code of the folder's and reads no file that it chose."""
    owner = getattr(spec, key.removesuffix("_args"))
    if key == "metrics":
        return all(each.removesuffix(":pooled") in _METRICS for each in owner)
    return owner is None if key == "group" else str(owner or "lab:").startswith(_REGISTERED)
