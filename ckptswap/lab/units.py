"""One unit of the experiment, here or in a worker: its trainings, its sweeps, and how far it is."""

import json
import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import CkptswapError, Stopped
from ckptswap.executors.worker_spec import WorkerSpec
from ckptswap.formats import open_checkpoint
from ckptswap.formats.atomic import write_text
from ckptswap.lab.experiment import INITS, SEGMENT, STAGES, Experiment, Stage, Unit, stages
from ckptswap.lab.train import Training
from ckptswap.records import from_json
from ckptswap.sweep.layers import layers_before_norm
from ckptswap.sweep.preparing import sweep
from ckptswap.sweep.progress import Listeners
from ckptswap.sweep.run_folder.folder import RunFolder
from ckptswap.sweep.run_folder.plain import SPECS, read_plain, refuse_odd
from ckptswap.sweep.run_folder.sealed import plain_json
from ckptswap.sweep.scored_run import is_complete
from ckptswap.sweep.spec import RunOptions, SweepSpec
from ckptswap.sweep.stopping import Stop
from ckptswap.task import load_task

REPLAYED = 0.7  # what a swap of one cell costs, in forward passes
PULSE = 0.5  # seconds between two times that a unit says how far it is

Tell = Callable[[float, str], None]
"""Called by a unit with how far it is, in seconds as estimated, and what it is at."""


@dataclass(frozen=True)
class Price:
    """What an arm costs, in seconds of one thread as measured: one step, one pass over what is scored."""

    step: float
    forward: float
    cells: int
    kinds: int
    layers: int

    def training(self, experiment: Experiment) -> float:
        """One training."""
        return self.step * experiment.steps

    def stage(self, stage: Stage) -> float:
        """One sweep of a pair."""
        parts = {"cells": REPLAYED * self.cells, "kinds": self.kinds, "prefix": self.layers, "back": self.kinds}
        variants = parts.get(stage.name, 1) * (1 + len(stage.donors))
        return (variants * (2 if stage.is_recalibrated else 1) + 3) * self.forward


class UnitWork:
    """One unit, from wherever it is."""

    def __init__(
        self, experiment: Experiment, unit: Unit, folder: Path, price: Price, tell: Tell, stop: Stop
    ) -> None:
        self.experiment, self.unit, self.price, self.stop = experiment, unit, price, stop
        self.folder, self._tell, self._done = folder / unit.folder, tell, 0.0

    def run(self) -> None:
        """Train and sweep what the folder lacks."""
        for folder in (self.folder.parent, self.folder, *(self.folder / init for init in INITS)):
            refuse_odd(folder, folder=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        for training in self.experiment.trainings(self.unit):
            self._train(training)
        for init in INITS:
            for stage in self._stages(init):
                self._sweep(init, stage)

    def _stages(self, init: str) -> list[Stage]:
        """The sweeps of a pair, whose names are kept: without them nobody could tell whether all are there."""
        with open_checkpoint(self.folder / SEGMENT) as recipient:
            planned = stages(recipient, layers_before_norm(load_task(self.experiment.task(), recipient)))
        (self.folder / init).mkdir(exist_ok=True)
        write_text(self.folder / init / STAGES, json.dumps([stage.name for stage in planned]) + "\n")
        return planned

    def _train(self, training: Training) -> None:
        seconds, steps = self.price.training(self.experiment), training.spec.steps

        def tell(step: int, loss: float) -> None:
            self._is_at(seconds * step / steps, f"{training.name}, step {step}")

        if not training.is_finished(self.folder):
            training.run(self.folder, tell)
        self._done += seconds

    def _sweep(self, init: str, stage: Stage) -> None:
        seconds, run = self.price.stage(stage), self.folder / init / stage.name
        ends = (f"{init}.safetensors", SEGMENT)
        with ExitStack() as stack:
            donor, recipient = (
                stack.enter_context(open_checkpoint(self.folder / name))
                for name in ends[:: -1 if stage.is_back else 1]
            )
            if not _is_swept(RunFolder(run), donor, recipient):
                task = self.experiment.task(back=stage.is_back)
                calibration = self.experiment.calibration() if stage.is_recalibrated else None
                how: dict[str, Any] = {"by": stage.by, "mode": stage.mode, "calibration": calibration}
                how |= {"screen": "gradient" if stage.is_screened else None}
                donors = (donor.path, *stage.donors)
                spec = SweepSpec(donors, recipient.path, task, stage.selection, **how)
                options = RunOptions(run=str(run), samples=False, zero_control=False)

                def tell(done: int, total: int) -> None:
                    self._is_at(seconds * done / total, f"{init} {stage.name}")

                sides = {donor.path: donor, recipient.path: recipient}
                sweep(spec, options, Listeners(progress=tell, stop=self.stop), sides)
        self._done += seconds

    def _is_at(self, seconds: float, what: str) -> None:
        self._tell(self._done + seconds, what)
        self.stop.check("a part of the experiment is done")


def _is_swept(folder: RunFolder, donor: Checkpoint, recipient: Checkpoint) -> bool:
    plan = folder.read_plan() if is_complete(folder) else None
    return plan is not None and (*plan.donor_hashes[:1], plan.key.get("recipient")) == (
        donor.sha256(),
        recipient.sha256(),
    )


def units_spec(experiment: Experiment, folder: Path, prices: Sequence[Price]) -> WorkerSpec:
    """Make what workers are told: each does one unit, and says in a file of its own how far it is."""
    common = {"experiment": asdict(experiment), "cwd": os.getcwd()}
    token, run = secrets.token_hex(6), str(folder.absolute())
    shards = tuple(
        {"unit": at, "price": asdict(price), "news": f"{token}-{at}.news"} for at, price in enumerate(prices)
    )
    return WorkerSpec(token, run, f"{__name__}:work_on_unit", common, shards)


def work_on_unit(folder: str, common: Mapping[str, Any], shard: Any, writer: str, stop: Stop) -> None:
    """Do one unit of what `units_spec` made; a failure is told. Raises `Stopped` where that was asked for."""
    torch.set_num_threads(1)
    os.chdir(common["cwd"])  # where the data may be named from
    experiment, price = from_json(Experiment, common["experiment"]), from_json(Price, shard["price"])
    news, fault, due = Path(folder) / SPECS / shard["news"], None, 0.0

    def tell(done: float, what: str) -> None:
        nonlocal due
        if time.monotonic() >= due:
            due = time.monotonic() + PULSE
            write_text(news, json.dumps({"done": done, "what": what}))

    try:
        UnitWork(experiment, experiment.units()[shard["unit"]], Path(folder), price, tell, stop).run()
    except Stopped:
        raise
    except CkptswapError as error:
        fault = str(error)
    write_text(news, json.dumps({"fault": fault}))


class UnitWatcher:
    """How far units are, as they say themselves; `ended` has those that are done, and why they failed or None."""

    def __init__(self, spec: WorkerSpec, progress: Callable[[int, float, str], None], stop: Stop) -> None:
        self._files = [spec.path.with_name(shard["news"]) for shard in spec.shards]
        self._progress, self._stop = progress, stop
        self._read: dict[int, bytes] = {}
        self._furthest: dict[int, float] = {}
        self.ended: dict[int, str | None] = {}
        self.notes: list[str] = []

    def look(self) -> bool:
        """Take in what units say; whether any has come further than ever (not to where a worker died before)."""
        return sum(self._look_at(unit) for unit in range(len(self._files))) > 0

    def _look_at(self, unit: int) -> bool:
        try:
            raw = read_plain(self._files[unit])
            if raw == self._read.get(unit):
                return False
            news = plain_json(raw)
        except (OSError, ValueError):  # it says nothing yet
            return False
        self._read[unit] = raw
        if "fault" in news:
            self.ended[unit] = news["fault"]
            return True
        self._progress(unit, news["done"], news["what"])
        before = self._furthest.get(unit, -1.0)
        self._furthest[unit] = max(news["done"], before)
        return news["done"] > before

    def check(self) -> None:
        """Raises `Stopped` once that is asked for."""
        self._stop.check(f"{len(self.ended)} of {len(self._files)} units are done")
