"""Running the experiment: trainings and sweeps of every unit, several units at once, resumable at any point.

What is finished is known by the checkpoints' metadata and the sweeps' journals; `experiment.json` in the folder
holds the settings, so that a folder is never continued under others. Each unit computes on one thread, so that
scores do not depend on how many units run at once, or where.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import CkptswapError, RunError, Stopped
from ckptswap.executors.pool import WorkerPool
from ckptswap.executors.units import Tell, UnitReader, Units
from ckptswap.formats import open_checkpoint
from ckptswap.formats.atomic import write_text
from ckptswap.lab.experiment import INITS, SEGMENT, STAGES, Arm, Experiment, Stage, Unit, stages
from ckptswap.lab.train import Training, load_samples, train
from ckptswap.records import from_json
from ckptswap.sweep.analysis import is_complete
from ckptswap.sweep.donors import open_donor
from ckptswap.sweep.layers import layers_before_norm
from ckptswap.sweep.plan import UNREAD
from ckptswap.sweep.run_folder.journal import PLAN, read_plan
from ckptswap.sweep.run_folder.lock import Lock
from ckptswap.sweep.run_folder.plain import read_plain, refuse_odd, refuse_odd_parts
from ckptswap.sweep.run_folder.sealed import plain_json
from ckptswap.sweep.runner import sweep
from ckptswap.sweep.stopping import Stop
from ckptswap.task import load_task

SETTINGS = "experiment.json"
REPLAYED = 0.7
"""What a swap of one cell costs, in forward passes."""

Progress = Callable[[float, float, str], None]
"""Called with what is done of how much, in seconds of one worker as estimated, and what was done last."""


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


@dataclass(frozen=True)
class Estimate:
    """What the experiment takes: how many trainings and sweeps, and the seconds of each unit on one thread."""

    trainings: int
    sweeps: int
    prices: Mapping[str, Price]
    seconds: Mapping[str, float]

    def total(self, jobs: int) -> float:
        """Seconds, when so many units run at once."""
        return sum(self.seconds.values()) / jobs


# What it costs ---------------------------------------------------------------------------------------------------


def cost(experiment: Experiment) -> Estimate:
    """Time a few steps and one pass of every arm. Raises what trainings and tasks raise."""
    load_samples(experiment.trainings(experiment.units()[0])[0].spec)
    with tempfile.TemporaryDirectory() as folder:
        arms = {arm.name: _priced(experiment, arm, Path(folder)) for arm in experiment.arms}
    prices = {name: price for name, (price, _) in arms.items()}
    of_pair = {name: sum(map(price.stage, planned)) for name, (price, planned) in arms.items()}
    units = experiment.units()
    seconds = {
        unit.folder: 3 * prices[unit.arm.name].training(experiment) + len(INITS) * of_pair[unit.arm.name]
        for unit in units
    }
    sweeps = sum(len(INITS) * len(arms[unit.arm.name][1]) for unit in units)
    return Estimate(3 * len(units), sweeps, prices, seconds)


def _priced(experiment: Experiment, arm: Arm, folder: Path) -> tuple[Price, list[Stage]]:
    moments: list[float] = []
    out = folder / f"{arm.name}.safetensors"
    spec = replace(experiment.trainings(Unit(arm, 0))[0].spec, steps=4)
    train(spec, out, progress=lambda step, loss: moments.append(time.perf_counter()))
    with open_checkpoint(out) as checkpoint:
        task = load_task(experiment.task(), checkpoint)
        inputs = task.first_inputs()
        planned = stages(checkpoint, layers_before_norm(task))
        with task.pinned():
            begun = time.perf_counter()
            task.forward(inputs)
            forward = (time.perf_counter() - begun) * task.samples / len(inputs)
        places = {(entry.layer, entry.kind) for entry in checkpoint.values() if entry.kind != UNREAD}
    step = (moments[-1] - moments[0]) / (len(moments) - 1)
    layers, kinds = ({place[at] for place in places} for at in (0, 1))
    return Price(step, forward, len(places), len(kinds), len(layers)), planned


# The work --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reproduction:
    """What became of the units: folder → why it could not be finished; and what is to be said of the workers."""

    failed: Mapping[str, str]
    notes: tuple[str, ...] = ()


def reproduce(
    experiment: Experiment,
    folder: Path,
    *,
    pool: WorkerPool | None = None,
    known: Estimate | None = None,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> Reproduction:
    """Do all that the folder lacks, here or by the workers of a pool. `known` is the cost, where it was measured.

    A unit that fails is left out, and the others go on. Raises RunError for a folder that holds another
    experiment or is being worked on, Stopped when `stop` asked for it; then the same call continues.
    """
    price = known or cost(experiment)
    refuse_odd_parts(folder)
    with Lock(folder):
        _claim(folder, experiment)
        told = _Total(price.seconds, progress)
        if pool and len(experiment.units()) > 1:
            return _by_workers(experiment, folder, pool, price, told, stop or Stop())
        return Reproduction(_here(experiment, folder, price, told, stop or Stop()))


def _claim(folder: Path, experiment: Experiment) -> None:
    """Keep the settings, or refuse a folder that has others."""
    if not (folder / SETTINGS).exists():
        write_text(folder / SETTINGS, json.dumps(asdict(experiment), indent=2) + "\n")
        return
    then = load_experiment(folder)
    names = [part.name for part in fields(experiment)]
    if changed := [name for name in names if getattr(then, name) != getattr(experiment, name)]:
        raise RunError(
            f"{folder} holds an experiment with other {', '.join(changed)}", remedy="choose another --run"
        )


def load_experiment(folder: Path) -> Experiment:
    """Read the settings that a folder was made with. Raises RunError where it holds none."""
    try:
        return from_json(Experiment, plain_json(read_plain(folder / SETTINGS)))
    except (OSError, ValueError) as error:
        raise RunError(f"{folder} holds no experiment ({error})", remedy="choose another --run") from None


class _Total:
    """Adds up what units tell of themselves."""

    def __init__(self, seconds: Mapping[str, float], progress: Progress | None) -> None:
        self._seconds, self._progress = seconds, progress
        self._done: dict[str, float] = {}

    def tell(self, unit: str, done: float, what: str) -> None:
        self._done[unit] = done
        if self._progress:
            self._progress(sum(self._done.values()), sum(self._seconds.values()), f"{unit}: {what}")

    def end(self, unit: str) -> None:
        self.tell(unit, self._seconds[unit], "done")


def _here(experiment: Experiment, folder: Path, price: Estimate, told: _Total, stop: Stop) -> dict[str, str]:
    failed = {}
    for unit in experiment.units():
        try:
            tell = partial(told.tell, unit.folder)
            UnitWork(experiment, unit, folder, price.prices[unit.arm.name], tell, stop).run()
        except Stopped:
            raise
        except CkptswapError as error:
            failed[unit.folder] = str(error)
        told.end(unit.folder)
    return failed


def _by_workers(
    experiment: Experiment, folder: Path, pool: WorkerPool, price: Estimate, told: _Total, stop: Stop
) -> Reproduction:
    units = [unit.folder for unit in experiment.units()]
    arguments = [
        {
            "experiment": asdict(experiment),
            "unit": at,
            "folder": str(folder.absolute()),
            "price": asdict(price.prices[unit.arm.name]),
        }
        for at, unit in enumerate(experiment.units())
    ]
    order = Units("ckptswap.lab.reproduce:work", tuple(arguments), str(folder.absolute()))
    reader = UnitReader(order, lambda at, done, what: told.tell(units[at], done, what), stop)
    pool.do(order, len(units), reader)
    for unit in units:
        told.end(unit)
    failed = {units[at]: fault for at, fault in reader.ended.items() if fault}
    return Reproduction(failed, tuple(reader.notes))


def work(arguments: Mapping[str, Any], tell: Tell, stop: Stop) -> None:
    """Do one unit, in a worker."""
    torch.set_num_threads(1)
    experiment = from_json(Experiment, arguments["experiment"])
    unit, price = experiment.units()[arguments["unit"]], from_json(Price, arguments["price"])
    UnitWork(experiment, unit, Path(arguments["folder"]), price, tell, stop).run()


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
        if not training.is_finished(self.folder):
            training.run(
                self.folder,
                lambda step, loss: self._is_at(seconds * step / steps, f"{training.name}, step {step}"),
            )
        self._done += seconds

    def _sweep(self, init: str, stage: Stage) -> None:
        seconds, run = self.price.stage(stage), self.folder / init / stage.name
        ends = (f"{init}.safetensors", SEGMENT)
        with ExitStack() as stack:
            donor, recipient = (
                stack.enter_context(open_checkpoint(self.folder / name))
                for name in ends[:: -1 if stage.is_back else 1]
            )
            if not _is_swept(run, donor, recipient):
                task = self.experiment.task(back=stage.is_back)
                made = [stack.enter_context(open_donor(word, recipient, task)) for word in stage.donors]
                sweep(
                    [donor, *made],
                    recipient,
                    task,
                    selection=stage.selection,
                    by=stage.by,
                    mode=stage.mode,
                    calibration=self.experiment.calibration() if stage.is_recalibrated else None,
                    run_dir=run,
                    screen="gradient" if stage.is_screened else None,
                    stop=self.stop,
                    progress=lambda done, total: self._is_at(seconds * done / total, f"{init} {stage.name}"),
                )
        self._done += seconds

    def _is_at(self, seconds: float, what: str) -> None:
        self._tell(self._done + seconds, what)
        self.stop.check("a part of the experiment is done")


def _is_swept(run: Path, donor: Checkpoint, recipient: Checkpoint) -> bool:
    """Whether a sweep of these two files is there, with every score."""
    if not (run / PLAN).exists() or not is_complete(run):
        return False
    key = read_plan(run)["key"]
    donors = key["donor"] if isinstance(key["donor"], list) else [key["donor"]]
    return [donors[0], key["recipient"]] == [donor.sha256(), recipient.sha256()]
