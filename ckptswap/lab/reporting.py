"""A reproduction as a whole: what is said before, the work, and the report that it leaves in its folder."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ckptswap.errors import DependencyError
from ckptswap.formats.atomic import atomic_file, write_text
from ckptswap.lab import experiment as plans
from ckptswap.lab.experiment import Experiment
from ckptswap.lab.pairs import load_pairs
from ckptswap.lab.reproduce import SETTINGS, Estimate, Reproduction, cost
from ckptswap.lab.summary import pictures, summary, summary_json
from ckptswap.report.document import Document, document_md
from ckptswap.report.figures import draw
from ckptswap.report.text import dump_json, duration, plural
from ckptswap.sweep.run_folder.folder import refuse_odd_parts
from ckptswap.sweep.run_folder.overwrite import refuse_occupied

REPORT, VALUES = "report.md", "report.json"
PICTURES = ("kinds", "prefixes", "rmse")


@dataclass(frozen=True)
class Planned:
    """An experiment in a folder, and what it costs when nothing of it is done."""

    experiment: Experiment
    folder: Path
    cost: Estimate

    def told(self, jobs: int) -> str:
        """In a sentence, for so many jobs."""
        experiment, workers = self.experiment, min(jobs, len(self.experiment.units()))
        return (
            f"{plural(len(experiment.arms), 'network')} x {plural(experiment.seeds, 'seed')}: "
            f"{self.cost.trainings} trainings of {experiment.steps} steps, {self.cost.sweeps} sweeps; about "
            f"{duration(self.cost.total(workers))} by {plural(workers, 'job')} when nothing is done yet"
        )


@dataclass(frozen=True)
class Reproduced:
    """What came out: the report as a document and as JSON, and which units failed, with their reasons."""

    folder: Path
    document: Document
    values: Mapping[str, Any]
    failed: Mapping[str, str]
    notes: Sequence[str]


def plan(run: Path, *, is_full: bool, data: str | None) -> Planned:
    """The paper's experiment, `is_full` or quick, on `data`, timed. Raises RunError for a folder in the way."""
    refuse_odd_parts(run)  # before minutes of measuring
    experiment = (plans.full if is_full else plans.quick)(data)
    if not (run / SETTINGS).exists():
        refuse_occupied(run, run=("lock",), results=(REPORT, VALUES, *(f"{name}.svg" for name in PICTURES)))
    return Planned(experiment, run, cost(experiment))


def leave_report(planned: Planned, outcome: Reproduction, say: Callable[[str], None]) -> Reproduced:
    """Write the report into the folder, in every form."""
    experiment, folder = planned.experiment, planned.folder
    pairs = load_pairs(experiment, folder)
    document = summary(experiment, pairs, 2 * len(experiment.units()) - len(pairs))
    values = summary_json(experiment, pairs, dict(outcome.failed))
    for name, text in ((REPORT, document_md(document)), (VALUES, dump_json(values))):
        write_text(folder / name, text if text.endswith("\n") else f"{text}\n")
    try:
        for name, panels in pictures(pairs).items():
            with atomic_file(folder / f"{name}.svg") as file:
                file.write(draw(panels, "svg").rstrip(b"\n") + b"\n")
    except DependencyError as error:
        say(f"ckptswap: note: no pictures: {error}")
    return Reproduced(folder, document, values, outcome.failed, outcome.notes)
