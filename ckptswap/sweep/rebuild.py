"""A sweep's engine built anew, elsewhere or later, from what its order says."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import RunError
from ckptswap.sweep.run_folder.journal import check_conditions, key_of
from ckptswap.sweep.worker_spec import Named, WorkerSpec

if TYPE_CHECKING:
    from torch import Tensor

    from ckptswap.scoring.full import FullScorer
    from ckptswap.task import Task


@contextlib.contextmanager
def rebuilt(order: WorkerSpec) -> Iterator[FullScorer]:
    """The engine of an order, in the folder and with the module path of whoever wrote it, as long as it is in use.

    It runs code that the order names: whoever calls this has written the order, or seen by its mark that this user
    did (`trust.worker_spec_to_rebuild`). Raises `RunError` where task or checkpoints are no longer those of the
    run.
    """
    from ckptswap.scoring.replay import scorer_of
    from ckptswap.sweep.conditions import conditions
    from ckptswap.sweep.sides import as_in_model
    from ckptswap.task import load_task

    sys.path += [each for each in order.places if each not in sys.path]
    folder = Path(order.folder)
    with contextlib.ExitStack() as stack:
        _enter(order.cwd, stack)
        task = load_task(order.spec, stack.enter_context(_opened(order.recipient)))
        given = [stack.enter_context(_given(each, task.fit.taken, order)) for each in order.donors]
        donors, recipient = as_in_model(task.model, given, task.fit.taken)
        scorer = scorer_of(task, donors, recipient, order.engine, order.memory, _calibration(order, task))
        found = conditions(scorer, donors, recipient)
        if key_of(found) != order.key:
            check_conditions(folder, found)
            raise RunError(f"{folder} belongs to another sweep by now", remedy="run the sweep again")
        yield scorer


def _enter(folder: str, stack: contextlib.ExitStack) -> None:
    try:
        stack.enter_context(contextlib.chdir(folder))
    except OSError as error:
        raise RunError(
            f"the sweep was started in {folder}, which cannot be entered ({error.strerror})",
            remedy="put it back; select also works where checkpoints and task are named again",
        ) from None


@contextlib.contextmanager
def _opened(source: Named) -> Iterator[Checkpoint]:
    from ckptswap.formats import open_checkpoint
    from ckptswap.renaming import renamed

    with open_checkpoint(source.path) as checkpoint:
        yield renamed(checkpoint, source.renames)


@contextlib.contextmanager
def _given(source: Named, recipient: Checkpoint, order: WorkerSpec) -> Iterator[Checkpoint]:
    from ckptswap.renaming import renamed
    from ckptswap.sweep.donors import open_donor

    with open_donor(source.path, recipient, order.spec) as donor:
        yield renamed(donor, source.renames)


def _calibration(order: WorkerSpec, task: Task) -> list[Tensor]:
    from ckptswap.scoring.recalibration import fingerprint, load_calibration

    if order.calibration is None:
        return []
    batches = load_calibration(order.calibration, task)
    if fingerprint(batches) != order.calibrated_on:
        raise RunError("the calibration data has other values by now", remedy="run the sweep again")
    return batches
