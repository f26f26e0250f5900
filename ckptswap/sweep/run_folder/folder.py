"""The folder of a run, by whom alone its files are named: plan, journal, lock, samples, exports."""

import json
import os
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import Any

from ckptswap.errors import RunError, UsageError
from ckptswap.formats.atomic import write_text
from ckptswap.plainfiles import refuse_elsewhere
from ckptswap.records import to_json
from ckptswap.sweep.run_folder.blocks import Blocks
from ckptswap.sweep.run_folder.journal import Journal, journal_files, key_of, read_blocks, repair, set_aside
from ckptswap.sweep.run_folder.lock import Lock, is_held
from ckptswap.sweep.run_folder.plain import JOURNAL, PLAN, SAMPLES, faults, read_plain, refuse_odd, unused
from ckptswap.sweep.run_folder.plan_file import RunPlan, refuse_odd_run
from ckptswap.sweep.run_folder.samples import PICTURE, Hit, Samples, parsed_samples, samples_json
from ckptswap.sweep.run_folder.sealed import is_own, plain_json, sealed, unsealed

_FILES = re.compile(r"(plan|samples|experiment|sweeps)\.json|lock|(result|report)\.\w+")
_FOLDERS = re.compile(r"(journal|orders|slurm)(\.\d+)?")  # what a run writes to, by its name


class RunFolder:
    """A run's folder, which need not be there yet."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.plan_path, self.samples_path = self.path / PLAN, self.path / SAMPLES

    def __str__(self) -> str:
        return str(self.path)

    __fspath__ = __str__

    def result_path(self, format: str) -> Path:
        """Where the table is exported in a format: json, csv, md or html."""
        return self.path / f"result.{format}"

    @property
    def is_begun(self) -> bool:
        """Whether anything was scored here."""
        return bool(journal_files(self.path))

    def refuse_odd_parts(self) -> None:
        """Raises `RunError` where it is not a folder, or what a run writes to in it is a link or a pipe."""
        if self.path.exists() and not self.path.is_dir():
            raise RunError(f"cannot make {self}: it is not a folder", remedy="choose another --run")
        refuse_odd_parts(self.path)

    def first_missing(self) -> Path | None:
        """The first folder on its path that is not there; None where all are."""
        return next((place for place in [*reversed(self.path.parents), self.path] if not place.exists()), None)

    def remove(self, first: Path) -> None:
        """Remove it, and the folders above up to `first` into which nobody else has put anything."""
        shutil.rmtree(self.path)
        for above in takewhile(lambda above: above != first.parent, self.path.parents):
            with suppress(OSError):
                above.rmdir()

    def read_plan(self) -> RunPlan:
        """What `plan.json` says, whoever wrote it; raises `RunError` when it is missing, damaged or no run's."""
        return self.read_plan_and_owner()[0]

    def read_plan_and_owner(self) -> tuple[RunPlan, bool]:
        """What `read_plan` gives, and whether this user's own command wrote it, here or before it was copied."""
        path = self.plan_path
        if not os.path.lexists(path):
            remedy = "give the folder that `sweep --run` made"
            raise RunError(f"{self} holds no sweep (no {path.name})", remedy=remedy)
        with faults(f"cannot read {path}"):
            raw = read_plain(path)  # once: another plan could be there the next time
        try:
            return RunPlan.from_json(unsealed(raw)), is_own(raw)
        except (ValueError, UsageError) as error:  # a spec refuses what makes no sense as it does a person's
            fault = f"is damaged, or no sweep's plan ({error})"
            remedy = "the same sweep with --repair writes it anew"
            if _is_of_an_earlier_version(raw):
                fault, remedy = "was written by an earlier version of ckptswap", "sweep again into another folder"
            raise RunError(f"{path} {fault}", remedy=remedy) from None

    def write_plan(self, plan: RunPlan) -> None:
        """Write `plan.json`, atomically, under its checksum and this user's mark."""
        write_text(self.plan_path, sealed(plan.to_json(), marked=True))

    def begin(self, plan: RunPlan, *, fresh: bool = False) -> None:
        """Make the folder ready for work under the plan's conditions, and write the plan. Raises as
        `check_conditions` does, unless `fresh` sets its journal aside and removes its samples."""
        with faults(f"cannot make {self}"):
            self.path.mkdir(parents=True, exist_ok=True)
        self.refuse_odd_parts()
        if fresh:
            set_aside(self.path / JOURNAL)
            with faults(f"cannot remove {self.samples_path}"):
                self.samples_path.unlink(missing_ok=True)
        else:
            self.check_conditions(plan.key)
        self.write_plan(plan)

    def check_conditions(self, conditions: Mapping[str, Any]) -> None:
        """Raises `RunError` when there are scores made under other conditions, naming what changed."""
        if not self.is_begun:
            return  # nothing was scored, so nothing can be mixed up
        if not self.plan_path.exists():
            remedy = "--fresh sets the journal aside"
            raise RunError(f"{self} has a journal but no {self.plan_path.name}", remedy=remedy)
        then, now = self.read_plan().key, json.loads(json.dumps(conditions))
        changed = [part for part in {**then, **now} if then.get(part) != now.get(part)]
        if changed:
            what = "; ".join(_change(part, then.get(part), now.get(part)) for part in changed)
            remedy = "use another --run, or --fresh to set the old journal aside"
            raise RunError(f"{self} was made under other conditions: {what}", remedy=remedy)

    def repair(self, plan: RunPlan) -> list[str]:
        """Leave damaged lines out of the journal, and write a plan that cannot be read anew, keeping the old file;
        says what it did. Raises `RunError` where the journal was made under other conditions."""
        repaired, path = repair(self.path), self.plan_path
        with suppress(RunError):
            self.read_plan()
            return repaired
        if not path.is_file() or not self.is_begun:
            return repaired
        self.read_blocks(plan.key)
        with faults(f"cannot repair {path}"):
            path.rename(unused(path.with_name(f"{path.name}.damaged")))
        self.write_plan(plan)
        return [*repaired, f"{path}: was damaged, and is written anew"]

    def lock(self) -> Lock:
        """The folder's lock, which a sweep holds while it works."""
        return Lock(self.path)

    def is_worked_on(self) -> bool:
        """Whether a living process works on it."""
        return is_held(self.path)

    def open_journal(self, key: str, writer: str = "main") -> Journal:
        """A file of the journal, for one writer."""
        return Journal(self.path, key, writer)

    def read_blocks(self, conditions: Mapping[str, Any]) -> Blocks:
        """Everything in the journal, which must have been made under these conditions."""
        return read_blocks(self.path, key=key_of(conditions))

    def read(self) -> tuple[RunPlan, Blocks]:
        """Plan and blocks, held against each other. Raises `RunError` for a damaged folder, or one of no run."""
        return self.read_with_owner()[:2]

    def read_with_owner(self) -> tuple[RunPlan, Blocks, bool]:
        """What `read` gives, and whether this user's own command wrote the plan."""
        plan, is_ours = self.read_plan_and_owner()
        blocks = self.read_blocks(plan.key)
        try:
            refuse_odd_run(plan, blocks.values())
        except (ValueError, OverflowError) as error:
            raise RunError(f"{self} holds a damaged plan ({error})", remedy="run the sweep again") from None
        return plan, blocks, is_ours

    def journal_size(self) -> int:
        """Bytes of the journal, which only grow."""
        with faults(f"cannot read {self}"):
            return sum(path.stat().st_size for path in journal_files(self.path))

    def written_at(self) -> float | None:
        """When the journal was last written, in seconds since the epoch; None where there is none."""
        return max((os.path.getmtime(path) for path in journal_files(self.path)), default=None)

    def keep_samples(self, hits: tuple[Hit, ...], plan: RunPlan) -> None:
        """Keep what was drawn from a run that has its scores. Raises `RunError` where it cannot be written."""
        kept = samples_json(Samples(plan.metrics[0].name, hits), _samples_key(plan))
        with faults(f"cannot write to {self}"):
            write_text(self.samples_path, sealed(kept))

    def load_samples(self) -> Samples | None:
        """What was kept of this very run, or None. Raises `RunError` for a damaged file."""
        path = self.samples_path
        if not os.path.lexists(path):
            return None
        try:
            kept = parsed_samples(unsealed(read_plain(path)))
        except (OSError, ValueError) as error:
            remedy = "remove it, and run the same sweep again"
            raise RunError(f"{path} is damaged ({error})", remedy=remedy) from None
        if kept is None:
            return None
        samples, key = kept
        if not all(uri.startswith(PICTURE) for hit in samples.hits for uri in hit.pictures.values()):
            raise RunError(f"{path} holds something else than pictures", remedy="remove it")
        plan = self.read_plan()
        if key != _samples_key(plan):
            return None
        if any(hit.donor >= len(plan.spec.donors) for hit in samples.hits):
            raise RunError(f"{path} is damaged (it names a donor that the run does not have)", remedy="remove it")
        return samples


def refuse_odd_parts(folder: Path) -> None:
    """Raises `RunError` where what a run would write to in its folder is a link, a pipe or the like."""
    refuse_elsewhere(folder)
    if not folder.is_dir():
        return
    for name in sorted(os.listdir(folder)):
        if _FILES.fullmatch(name):
            refuse_odd(folder / name)
        elif _FOLDERS.fullmatch(name):
            refuse_odd(folder / name, folder=True)
            for path in (folder / name).glob("*.jsonl"):
                refuse_odd(path)


def _samples_key(plan: RunPlan) -> str:
    """What the samples were chosen under: the conditions of the scores, and which cells there are."""
    return key_of({"key": plan.key, "plan": to_json(plan.plan)})


def _is_of_an_earlier_version(raw: bytes) -> bool:
    """Those of the first two versions had no checksum."""
    for read in (plain_json, unsealed):
        with suppress(ValueError):
            return read(raw).get("schema") in ("ckptswap.run/1", "ckptswap.run/2", "ckptswap.run/3")
    return False


def _change(part: str, then: object, now: object) -> str:
    """The part's name, and its fields or values where they are short enough to help."""
    if isinstance(then, dict) and isinstance(now, dict):
        fields = [name for name in {**then, **now} if then.get(name) != now.get(name)]
        return f"{part} ({', '.join(_change(name, then.get(name), now.get(name)) for name in fields)})"
    if max(len(str(then)), len(str(now))) <= 40:
        return f"{part} was {then}, is {now}"
    return f"{part} changed"
