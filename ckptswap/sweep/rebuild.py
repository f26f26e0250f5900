"""A sweep's engine built anew, elsewhere or later, from its source; and what a worker of a sweep does with it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import RunError
from ckptswap.formats import open_checkpoint
from ckptswap.records import Count, from_json, parsed
from ckptswap.renaming import renamed
from ckptswap.scoring.full import FullScorer
from ckptswap.scoring.recalibration import fingerprint, load_calibration
from ckptswap.scoring.replay import scorer_of
from ckptswap.scoring.scorer import Block
from ckptswap.scoring.variant import Variant
from ckptswap.sweep.conditions import conditions
from ckptswap.sweep.donors import open_donor
from ckptswap.sweep.loop import score_missing
from ckptswap.sweep.run_folder.folder import RunFolder
from ckptswap.sweep.run_folder.journal import key_of
from ckptswap.sweep.sides import as_in_model
from ckptswap.sweep.source import SourceFile, SweepSource
from ckptswap.sweep.stopping import Stop
from ckptswap.task import Task, load_task

_VARIANT = tuple[str, tuple[str, ...], Count, float, bool]
WORK = f"{__name__}:score_shard"
"""By this name a worker finds what it is to do."""


@contextlib.contextmanager
def rebuilt(source: SweepSource, run: RunFolder) -> Iterator[FullScorer]:
    """The scorer of a source, in the folder and with the module path of whoever wrote it, as long as it is in use.

    It runs code that the source names: whoever calls this has written it, or seen by its mark that this user did
    (`trust.source_to_rebuild`). Raises `RunError` where task or checkpoints are no longer those of the run.
    """
    run = RunFolder(run.path.absolute())
    sys.path += [place for place in source.places if place not in sys.path]
    with contextlib.ExitStack() as stack:
        _enter(source.cwd, stack)
        spec = source.spec
        task = load_task(spec.task, stack.enter_context(_recipient(source.recipient)))
        given = [stack.enter_context(_donor(file, task.fit.taken, source)) for file in source.donors]
        donors, recipient = as_in_model(task.model, given, task.fit.taken)
        scorer = scorer_of(task, donors, recipient, spec.engine, spec.memory, _calibration(source, task))
        now = conditions(scorer, donors, recipient)
        if key_of(now) != source.key:
            run.check_conditions(now)
            raise RunError(f"{run} belongs to another sweep by now", remedy="run the sweep again")
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
def _recipient(file: SourceFile) -> Iterator[Checkpoint]:
    with open_checkpoint(file.path) as checkpoint:
        yield renamed(checkpoint, file.renames)


@contextlib.contextmanager
def _donor(file: SourceFile, recipient: Checkpoint, source: SweepSource) -> Iterator[Checkpoint]:
    with open_donor(file.path, recipient, source.spec.task) as donor:
        yield renamed(donor, file.renames)


def _calibration(source: SweepSource, task: Task) -> list[Tensor]:
    if source.spec.calibration is None:
        return []
    batches = load_calibration(source.spec.calibration, task)
    if fingerprint(batches) != source.calibrated_on:
        raise RunError("the calibration data has other values by now", remedy="run the sweep again")
    return batches


def variants_of(shard: Any) -> list[Variant]:
    """The variants of a shard as JSON has them. Raises `ValueError` for anything else."""
    return [Variant(*parsed(_VARIANT, fields)) for fields in shard]


def score_shard(folder: str, common: Mapping[str, Any], shard: Any, writer: str, stop: Stop) -> None:
    """Score what the journal lacks of some variants, into a journal file of this writer's own.

    `common` is a `SweepSource`, `shard` are the variants, both as JSON has them. Raises `Stopped` where that was
    asked for, and `RunError` where the conditions are others here.
    """
    source, variants = from_json(SweepSource, common), variants_of(shard)
    run, done = RunFolder(folder), 0

    def told(block: Block) -> None:
        nonlocal done
        done += 1
        stop.check(f"{done} blocks are done")

    with rebuilt(source, run) as scorer, run.open_journal(source.key, writer) as journal:
        stop.check("nothing is done yet")
        score_missing(scorer, variants, journal, told)
