"""Several workers on one piece of work: who does what, what has come in, and who must be begun again."""

import secrets
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ckptswap.errors import RunError, Stopped, UsageError
from ckptswap.executors.worker_spec import WorkerSpec, divide
from ckptswap.records import to_json
from ckptswap.scoring.variant import Variant
from ckptswap.sweep.progress import BlockProgress
from ckptswap.sweep.rebuild import WORK
from ckptswap.sweep.run_folder.journal import Journal
from ckptswap.sweep.runner import Sweep

RETRIES = 3  # how often a worker is begun again without anything having come in meanwhile


@dataclass(frozen=True)
class Ending:
    """How a worker ended: `fault` is None when its shard is done; `hopeless` where a new one would end alike."""

    fault: str | None = None
    hopeless: bool = False


class JobHandle(Protocol):
    """The workers of one spec, by the number of their shard; `poll` seconds pass between two looks."""

    poll: float

    def begin(self, shards: Sequence[int]) -> None:
        """Begin a worker for each of these shards, the first or another one."""

    def ended(self) -> Mapping[int, Ending]:
        """Who has ended since the last look."""

    def stop(self) -> str | None:
        """Ask all to end after the block in hand; where they go on without us instead, what is to be known."""

    def kill(self) -> None:
        """End at once whoever is still there, and let go of all else. Called at the end in any case."""


Submit = Callable[[WorkerSpec], JobHandle]
Reattach = Callable[[Path], tuple[JobHandle, Collection[int]] | None]
"""Gives workers of an earlier command on a folder that are still at it, and their numbers."""


class Watcher(Protocol):
    """Who waits for workers, and reads what they write; `notes` are what the user should be told at the end."""

    notes: list[str]

    def look(self) -> bool:
        """Take in what is new; whether there was anything."""

    def check(self) -> None:
        """Raises whatever is to end the work."""


class WorkerPool:
    """An executor: divides the work, begins workers, and reads what they write until nothing is missing.

    `submit` gives whoever will work on a spec, of whom nobody is begun yet; `reattach`, where workers may outlive
    who began them, those of an earlier command on a folder.
    """

    header: Callable[[Path], str] | None = None
    """What each job in a folder begins with, for whoever looks before it is submitted."""

    def __init__(self, submit: Submit, jobs: int, reattach: Reattach = lambda folder: None) -> None:
        self._submit, self._reattach, self.jobs = submit, reattach, jobs

    def do(self, spec: WorkerSpec, watcher: Watcher) -> None:
        """Have a worker do each shard of a spec, as many at once as there are jobs; who dies is replaced.

        Raises what the watcher raises, and `RunError` where workers cannot work, or die again and again.
        """
        spec.write()
        _watch(self._submit(spec), range(len(spec.shards)), watcher, self.jobs)

    def wait_for_earlier(self, folder: Path, watcher: Watcher) -> None:
        """Wait for workers of an earlier command on this folder, where some are still at it."""
        if reattached := self._reattach(folder):
            handle, workers = reattached
            watcher.notes.append(f"{len(workers)} workers of an earlier sweep were still at it")
            _watch(handle, workers, watcher)

    def run(self, sweep: Sweep, journal: Journal, progress: BlockProgress) -> None:
        """Score what the journal lacks."""
        reader = JournalReader(sweep, journal, progress)
        self.wait_for_earlier(sweep.folder.path, reader)
        reader.look()
        reader.failed.clear()  # what has failed until now is tried again, once
        while missing := reader.missing():
            before = reader.count
            weights = sweep.scorer.weights(missing)
            costs = [weight * reader.lacking(variant.id) for weight, variant in zip(weights, missing, strict=True)]
            shards = [[missing[at] for at in group] for group in divide(costs, self.jobs)]
            spec = worker_spec_of(sweep, shards)
            self.do(spec, reader)
            if reader.count == before and reader.missing() == missing:
                raise RunError(f"workers end without having done anything (their logs are in {spec.path.parent})")


class JournalReader:
    """What workers have written so far, taken into the journal's memory."""

    def __init__(self, sweep: Sweep, journal: Journal, progress: BlockProgress) -> None:
        self._sweep, self._blocks, self._progress = sweep, journal.blocks, progress
        self._batches = range(sweep.batches)
        self._tail = journal.tail()
        self.failed: set[str] = set()
        self.count = 0
        self.check, self.notes = progress.check, sweep.scorer.notes

    def look(self) -> bool:
        before = self.count
        for block in self._tail.look():
            if block is None:
                if not self._blocks.distrusted:
                    self._blocks.distrust()
                    self.failed.clear()
                self._sweep.scorer.distrust("a worker found replays with other bits than full passes")
                continue
            is_new = self._blocks.lacks(block.variant, block.batch)
            self._blocks.put(block)
            if block.failed is not None:
                self.failed.add(block.variant)
            if is_new:
                self.count += 1
                self._progress(block)
        return self.count > before

    def lacking(self, variant: str) -> int:
        """On how many batches a variant is not scored yet."""
        return sum(self._blocks.lacks(variant, number) for number in self._batches)

    def missing(self) -> list[Variant]:
        """Variants that are not scored on every batch that is asked for, and have not failed."""
        variants = (variant for variant in self._sweep.variants if variant.id not in self.failed)
        return [self._blocks.as_demanded(variant) for variant in variants if self.lacking(variant.id)]


def worker_spec_of(sweep: Sweep, shards: Sequence[Sequence[Variant]]) -> WorkerSpec:
    """What workers need to know to score these variants as this process would, shard by shard."""
    token, folder, task = secrets.token_hex(6), str(sweep.folder.path.absolute()), sweep.task.spec
    parts = tuple({"variants": list(map(list, shard)), "batches": sweep.batches} for shard in shards)
    return WorkerSpec(token, folder, WORK, to_json(sweep.source()), parts, task.threads, task.device)


def _watch(handle: JobHandle, workers: Iterable[int], watcher: Watcher, jobs: int | None = None) -> None:
    """Until all have ended. With `jobs` they are begun, so many at once, and whoever dies is replaced.

    Raises `RunError` where that does not help, and whatever is to end the work, once the blocks in hand are done.
    """
    waiting, left = (list(workers), set()) if jobs else ([], set(workers))
    deaths: Counter[int] = Counter()
    try:
        while left or waiting:
            if next_ones := waiting[: max((jobs or 0) - len(left), 0)]:
                handle.begin(next_ones)
                left.update(next_ones)
                del waiting[: len(next_ones)]
            if watcher.look():
                deaths.clear()
            watcher.check()
            endings = handle.ended()
            left -= endings.keys()
            for worker, ending in endings.items():
                if ending.fault is not None and jobs:
                    _refuse_hopeless(worker, ending, deaths)
                    watcher.notes.append(f"worker {worker} died and was begun again: {ending.fault}")
                    left.add(worker)
                    handle.begin([worker])
            if not endings:
                time.sleep(handle.poll)
        watcher.look()
    except Exception as error:
        goes_on = handle.stop()
        while left and goes_on is None:
            left -= handle.ended().keys()
            time.sleep(handle.poll)
        if goes_on is not None and isinstance(error, Stopped):
            error.remedy = goes_on
        raise
    finally:
        handle.kill()


def _refuse_hopeless(worker: int, ending: Ending, deaths: Counter[int]) -> None:
    deaths[worker] += 1
    if ending.hopeless:
        raise RunError(f"worker {worker} cannot work: {ending.fault}")
    if deaths[worker] > RETRIES:
        fault = f"worker {worker} died {deaths[worker]} times without having finished a block: {ending.fault}"
        raise RunError(fault, remedy="the same command tries again; --executor inline shows what happens")


def given_jobs(name: str, jobs: int | None) -> int:
    """The number of workers, where a person must say it."""
    if jobs is None:
        raise UsageError(f"nobody says among how many jobs of {name} to divide the work", remedy="give --jobs N")
    return jobs
