"""A sweep's engine built anew, elsewhere or later, from its source; and what a worker of a sweep does with it."""

import contextlib
import sys
from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import RunError
from ckptswap.formats import open_checkpoint
from ckptswap.formats.opening import absolute
from ckptswap.records import Count, from_json, parsed
from ckptswap.renaming import renamed
from ckptswap.scoring.engines import scorer_of
from ckptswap.scoring.full import FullScorer
from ckptswap.scoring.recalibration import fingerprint, load_calibration
from ckptswap.scoring.scorer import Block
from ckptswap.scoring.variant import Variant
from ckptswap.sweep.donors import is_made, open_donor
from ckptswap.sweep.loop import Portion, score_in_turn, score_missing
from ckptswap.sweep.run_folder.folder import RunFolder
from ckptswap.sweep.run_folder.journal import key_of
from ckptswap.sweep.sides import as_in_model, conditions
from ckptswap.sweep.spec import SweepSource
from ckptswap.sweep.stopping import Stop
from ckptswap.task import load_task
from ckptswap.task.models.hf_names import as_loaded

_VARIANTS = tuple[tuple[str, tuple[str, ...], int, float, bool, bool], ...]
WORK = f"{__name__}:score_shard"  # by this name a worker finds what it is to do


@contextlib.contextmanager
def rebuilt(
    source: SweepSource, run: RunFolder, there: Mapping[str, Checkpoint] = MappingProxyType({})
) -> Iterator[FullScorer]:
    """The scorer of a source, in the folder and with the module path of whoever wrote it, as long as it is in use;
    of checkpoints that are `there` already, by the source's names, none is opened.

    It runs code that the source names: whoever calls this has written it, or seen by its mark that this user did
    (`trust.source_to_rebuild`). Raises `RunError` where task or checkpoints are no longer those of the run.
    """
    run, spec = RunFolder(run.path.absolute()), source.spec
    sys.path += [place for place in source.places if place not in sys.path]
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(contextlib.chdir(source.cwd))
        except OSError as error:
            raise RunError(
                f"the sweep was started in {source.cwd}, which cannot be entered ({error.strerror})",
                remedy="put it back; select also works where checkpoints and task are named again",
            ) from None
        for file in (source.recipient, *source.donors):
            _refuse_gone(file.path, there)
        path = source.recipient.path
        opened = there[path] if path in there else stack.enter_context(open_checkpoint(path))
        task = load_task(spec.task, renamed(opened, source.recipient.renames))
        own = task.fit.taken
        files = [
            there[file.path] if file.path in there else stack.enter_context(open_donor(file.path, own, spec.task))
            for file in source.donors
        ]
        given = [renamed(file, told.renames) for file, told in zip(files, source.donors, strict=True)]
        given = [as_loaded(task.model, donor)[0] for donor in given]  # what is fused has no new name
        donors, recipient = as_in_model(task.model, given, own)
        batches = load_calibration(spec.calibration, task) if spec.calibration else []
        if spec.calibration and fingerprint(batches) != source.calibrated_on:
            raise RunError("the calibration data has other values by now", remedy="run the sweep again")
        scorer = scorer_of(task, donors, recipient, spec.engine, spec.memory, batches)
        now = conditions(scorer, donors, recipient)
        if key_of(now) != source.key:
            run.check_conditions(now)
            raise RunError(f"{run} belongs to another sweep by now", remedy="run the sweep again")
        yield scorer


def _refuse_gone(path: str, there: Collection[str]) -> None:
    """Raises `RunError` for a checkpoint that was in another process: what is on disk has an absolute path."""
    if path in there or is_made(path) or path == absolute(path):
        return
    remedy = (
        "give it again: cs.select(run, donor=…, recipient=…), with model, data and metric where these were too"
    )
    raise RunError(f"{path} stood in the memory of another process", remedy=remedy)


def portion_of(shard: Any) -> Portion:
    """The part of the work that a shard is, as JSON has it. Raises `ValueError` for anything else."""
    told = parsed(Mapping[str, Any], shard)
    variants = parsed(_VARIANTS, told.get("variants"))
    return Portion(tuple(Variant(*fields) for fields in variants), parsed(Count, told.get("batches")))


def score_shard(folder: str, common: Mapping[str, Any], shard: Any, writer: str, stop: Stop) -> None:
    """Score what the journal lacks of some variants, into a journal file of this writer's own.

    `common` is a `SweepSource`, `shard` a `Portion`, both as JSON has them. Raises `Stopped` where that was
    asked for, and `RunError` where the conditions are others here.
    """
    source, part = from_json(SweepSource, common), portion_of(shard)
    run, done = RunFolder(folder), 0

    def told(block: Block) -> None:
        nonlocal done
        done += 1
        stop.check(f"{done} blocks are done")

    with rebuilt(source, run) as scorer, run.open_journal(source.key, writer) as journal:
        stop.check("nothing is done yet")
        if source.spec.screen is None or source.spec.decide:
            score_missing(scorer, part.variants, journal, told, part.alive)
        else:  # in whose order, the plan tells: it changes no score
            score_in_turn(run.read_plan(), scorer, part.variants, journal, told)
