"""Several workers on one run: who does what, what has come in, and who must be begun again."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ckptswap.errors import RunError, Stopped
from ckptswap.scoring.variant import Variant
from ckptswap.sweep.run_folder.tail import JournalTail
from ckptswap.sweep.worker_spec import WorkerSpec, divide, make_worker_spec

if TYPE_CHECKING:
    from ckptswap.executors import Meter
    from ckptswap.sweep.run_folder.journal import Journal
    from ckptswap.sweep.runner import Sweep

RETRIES = 3
"""How often a worker is begun again without any block having come in meanwhile."""


@dataclass(frozen=True)
class Ending:
    """How a worker ended: `fault` is None when its shard is done; `hopeless` where a new one would end alike."""

    fault: str | None = None
    hopeless: bool = False


class JobHandle(Protocol):
    """The workers of one order, by the number of their shard."""

    poll: float
    """Seconds to wait between two looks."""

    def begin(self, shards: Sequence[int]) -> None:
        """Begin a worker for each of these shards, the first or another one."""

    def ended(self) -> Mapping[int, Ending]:
        """Who has ended since the last look."""

    def stop(self) -> str | None:
        """Ask all to end after the block in hand; where they go on without us instead, what is to be known."""

    def kill(self) -> None:
        """End at once whoever is still there, and let go of all else. Called at the end in any case."""


class Place(Protocol):
    """Where workers are begun."""

    def submit(self, order: WorkerSpec) -> JobHandle:
        """Whoever will work on an order; nobody is begun yet."""

    def reattach(self, folder: Path) -> tuple[JobHandle, Collection[int]] | None:
        """Workers of an earlier sweep on this folder that are still at it, and their numbers."""


class WorkerPool:
    """An executor: divides the work, begins workers, and reads what they write until nothing is missing."""

    def __init__(self, place: Place, jobs: int) -> None:
        self._place, self._jobs = place, jobs

    def run(self, proposal: Sweep, journal: Journal, meter: Meter) -> None:
        intake = JournalReader(proposal, journal, meter)
        if reattached := self._place.reattach(proposal.folder):
            hands, workers = reattached
            intake.note(f"{len(workers)} workers of an earlier sweep were still at it")
            _watch(hands, workers, intake, again=False)
        intake.look()
        intake.retry()
        while missing := intake.missing():
            before = intake.count
            order = make_worker_spec(proposal, _divided(proposal, missing, intake, self._jobs))
            order.write()
            hands = self._place.submit(order)
            hands.begin(range(len(order.shards)))
            _watch(hands, range(len(order.shards)), intake, again=True)
            if intake.count == before and intake.missing() == missing:
                raise RunError(f"workers end without having done anything (their logs are in {order.path.parent})")


class JournalReader:
    """What workers have written so far, taken into the journal's memory."""

    def __init__(self, proposal: Sweep, journal: Journal, meter: Meter) -> None:
        self._proposal, self._blocks, self._meter = proposal, journal.blocks, meter
        self._failed: set[str] = set()
        self._batches = range(len(proposal.scorer.layout.sizes))
        self._follower = JournalTail(proposal.folder, journal.key, journal.path)
        self.count = 0

    def look(self) -> bool:
        """Take in what is new; whether there was anything."""
        before = self.count
        for block in self._follower.look():
            if block is None:
                self._distrust()
                continue
            is_new = self._blocks.lacks(block.variant, block.batch)
            self._blocks.put(block)
            if block.failed is not None:
                self._failed.add(block.variant)
            if is_new:
                self.count += 1
                self._meter(block)
        return self.count > before

    def check(self) -> None:
        """Raises whatever is to end the work."""
        self._meter.check()

    def retry(self) -> None:
        """What has failed until now is tried again, once."""
        self._failed.clear()

    def note(self, text: str) -> None:
        """Something that the user should be told at the end."""
        self._proposal.scorer.notes.append(text)

    def lacking(self, variant: str) -> int:
        """On how many batches a variant is not scored yet."""
        return sum(self._blocks.lacks(variant, number) for number in self._batches)

    def missing(self) -> list[Variant]:
        """Variants that are not scored on every batch, and have not failed."""
        return [each for each in self._proposal.variants if each.id not in self._failed and self.lacking(each.id)]

    def _distrust(self) -> None:
        if not self._blocks.distrusted:
            self._blocks.distrust()
            self._failed.clear()
        self._proposal.scorer.distrust("a worker found replays with other bits than full passes")


def _divided(
    proposal: Sweep, missing: Sequence[Variant], intake: JournalReader, jobs: int
) -> list[tuple[Variant, ...]]:
    cones = proposal.scorer.weights(missing)
    costs = [cone * intake.lacking(each.id) for cone, each in zip(cones, missing, strict=True)]
    return [tuple(missing[at] for at in group) for group in divide(costs, jobs)]


def _watch(hands: JobHandle, workers: Iterable[int], intake: JournalReader, *, again: bool) -> None:
    """Until all have ended; with `again`, whoever dies is replaced.

    Raises `RunError` where that does not help, and whatever is to end the work, once the blocks in hand are done.
    """
    left = set(workers)
    deaths: Counter[int] = Counter()
    try:
        while left:
            if intake.look():
                deaths.clear()
            intake.check()
            endings = hands.ended()
            left -= endings.keys()
            for worker, ending in endings.items():
                if ending.fault is not None and again:
                    _refuse_hopeless(worker, ending, deaths)
                    intake.note(f"worker {worker} died and was begun again: {ending.fault}")
                    left.add(worker)
                    hands.begin([worker])
            if not endings:
                time.sleep(hands.poll)
        intake.look()
    except Exception as error:
        said = hands.stop()
        while left and said is None:
            left -= hands.ended().keys()
            time.sleep(hands.poll)
        if said is not None and isinstance(error, Stopped):
            raise Stopped(error.message, remedy=said, exit_code=error.exit_code) from None
        raise
    finally:
        hands.kill()


def _refuse_hopeless(worker: int, ending: Ending, deaths: Counter[int]) -> None:
    deaths[worker] += 1
    if ending.hopeless:
        raise RunError(f"worker {worker} cannot work: {ending.fault}")
    if deaths[worker] > RETRIES:
        raise RunError(
            f"worker {worker} died {deaths[worker]} times without having finished a block: {ending.fault}",
            remedy="the same command tries again; --executor inline shows what happens",
        )
