"""A sweep from two checkpoints to a table: plan − what is done → engine → journal → rows.

`propose` makes the plan and runs nothing but the data once (for its fingerprint); `Proposal.run` does the work;
`sweep` does both. The table is always read back from the run folder, so that `load_result` gives the same one.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import CkptswapError, TaskError
from ckptswap.selection import Selection
from ckptswap.sweep.evidence import load_result
from ckptswap.sweep.journal import BASELINE, DONOR, Journal, Record, key_of, known_records, prepare
from ckptswap.sweep.plan import By, Plan, make_plan, variant_id
from ckptswap.sweep.result import SweepResult

if TYPE_CHECKING:
    from ckptswap.sweep.engine import FullEngine
    from ckptswap.task import Metric, Task, TaskSpec

CELLS: By = ("layer", "kind")
Progress = Callable[[int, int], None]
"""Called with how many full passes are done and how many there are, at the start and after each."""


@dataclass(frozen=True)
class Proposal:
    """A sweep that could be run: what would be scored, on what, and in which folder it is kept."""

    task: Task
    donor: Checkpoint
    recipient: Checkpoint
    plan: Plan
    conditions: dict[str, Any]
    folder: Path

    @property
    def cost(self) -> int:
        """Samples that go through the model when nothing is in the journal yet."""
        return self.plan.cost(self.task.samples)

    def run(
        self, *, tolerance: float | None = None, fresh: bool = False, progress: Progress | None = None
    ) -> SweepResult:
        """Score what the journal lacks, then read the table from the folder.

        Raises `RunError` when the folder was made under other conditions and `fresh` does not set its journal
        aside, `TaskError` when the baseline itself fails, which is found out before anything is written. An
        interrupt leaves a journal that continues.
        """
        told = progress or (lambda done, total: None)
        known = {} if fresh else known_records(self.folder, self.conditions)
        baseline = []
        if _lacks(known, BASELINE):
            told(*self._finished(known))
            baseline = [_sound(self._engine.baseline(), self.recipient)]
        prepare(self.folder, self._contents(tolerance), fresh=fresh)
        with Journal(self.folder) as journal:
            for record in baseline:
                journal.append(record)
            self._score(journal, told)
        return load_result(self.folder)

    @functools.cached_property
    def _engine(self) -> FullEngine:
        from ckptswap.sweep.engine import FullEngine

        return FullEngine(self.task, self.donor, self.recipient)

    def _score(self, journal: Journal, progress: Progress) -> None:
        variants = [names for names in self.plan.variants() if _lacks(journal.records, variant_id(names))]
        lacks_donor = _lacks(journal.records, DONOR)
        done, total = self._finished(journal.records)
        progress(done, total)
        for record in self._records(lacks_donor, variants):
            journal.append(record)
            done += 1
            progress(done, total)

    def _finished(self, records: Mapping[str, Record]) -> tuple[int, int]:
        """How many full passes are done, of how many."""
        wanted = [BASELINE, DONOR, *map(variant_id, self.plan.variants())]
        return sum(not _lacks(records, each) for each in wanted), len(wanted)

    def _records(self, lacks_donor: bool, variants: Sequence[tuple[str, ...]]) -> Iterator[Record]:
        if lacks_donor:
            yield self._engine.reference()
        if variants:
            yield from self._engine.run(variants)

    def _contents(self, tolerance: float | None) -> dict[str, Any]:
        return {
            "key": self.conditions,
            "donor": self.donor.path,
            "recipient": self.recipient.path,
            "tolerance": tolerance,
            "metrics": [
                {"name": each.name, "direction": each.direction, "trivial": _trivial(self.task, each)}
                for each in self.task.metrics
            ],
            "groups": self.task.groups.tolist(),
            "plan": self.plan.to_json(),
        }


def propose(
    donor: Checkpoint,
    recipient: Checkpoint,
    spec: TaskSpec,
    *,
    selection: Selection | None = None,
    by: Sequence[By] = (CELLS,),
    run_dir: str | Path | None = None,
) -> Proposal:
    """Plan a sweep: compare the checkpoints, build the task, name the run folder (default `runs/KEY`).

    Nothing is written. Raises `SelectionError` when nothing is selected, `TaskError` when the task cannot be
    built, `MismatchError` when the recipient does not fit the model.
    """
    from ckptswap.sweep.conditions import conditions
    from ckptswap.task import load_task

    plan = make_plan(donor, recipient, selection or Selection(), by)
    task = load_task(spec, recipient)
    found = conditions(task, donor, recipient)
    folder = Path(run_dir) if run_dir is not None else Path("runs") / key_of(found)[:12]
    return Proposal(task, donor, recipient, plan, found, folder)


def sweep(
    donor: Checkpoint,
    recipient: Checkpoint,
    spec: TaskSpec,
    *,
    selection: Selection | None = None,
    by: Sequence[By] = (CELLS,),
    run_dir: str | Path | None = None,
    tolerance: float | None = None,
    fresh: bool = False,
    progress: Progress | None = None,
) -> SweepResult:
    """Score every variant of the recipient that takes one part of the selection from the donor.

    Raises what `propose` and `Proposal.run` raise.
    """
    proposal = propose(donor, recipient, spec, selection=selection, by=by, run_dir=run_dir)
    return proposal.run(tolerance=tolerance, fresh=fresh, progress=progress)


def _lacks(records: Mapping[str, Record], variant: str) -> bool:
    """Whether there is work to do; a variant that failed is tried again."""
    record = records.get(variant)
    return record is None or record.failed is not None


def _sound(record: Record, recipient: Checkpoint) -> Record:
    if record.failed is not None:
        raise TaskError(
            f"the baseline fails, so there is nothing to compare with: {recipient.path}: {record.failed}",
            remedy="check that checkpoint, model and data belong together (`ckptswap evaluate`)",
        )
    return record


def _trivial(task: Task, metric: Metric) -> float | None:
    """None where a trivial prediction has no finite score; then a tolerance must be given."""
    try:
        score = float(task.trivial(metric))
    except CkptswapError:
        return None
    return score if math.isfinite(score) else None
