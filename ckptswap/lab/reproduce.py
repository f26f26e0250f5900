"""Running the experiment: trainings and sweeps of every unit, several units at once, resumable at any point.

What is finished is known by the checkpoints' metadata and the sweeps' journals; `experiment.json` in the folder
holds the settings, so that a folder is never continued under others. Each unit computes on one thread, so that
scores do not depend on how many units run at once.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from queue import Empty
from typing import Any

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import CkptswapError, RunError, Stopped
from ckptswap.formats import open_checkpoint
from ckptswap.formats.atomic import write_text
from ckptswap.lab.experiment import INITS, SEGMENT, STAGES, Arm, Experiment, Stage, Training, Unit, stages
from ckptswap.lab.train import is_finished, load_samples, train
from ckptswap.scoring.allocator import keep_freed_memory
from ckptswap.sweep.layers import layers_before_norm
from ckptswap.sweep.progress import Listeners
from ckptswap.sweep.run_folder.folder import RunFolder, refuse_odd_parts
from ckptswap.sweep.run_folder.lock import Lock
from ckptswap.sweep.run_folder.plain import read_plain, refuse_odd
from ckptswap.sweep.run_folder.sealed import plain_json
from ckptswap.sweep.runner import sweep
from ckptswap.sweep.scored_run import is_complete
from ckptswap.sweep.spec import RunOptions, SweepSpec
from ckptswap.sweep.stopping import Stop
from ckptswap.task import load_task

SETTINGS = "experiment.json"
REPLAYED = 0.7
"""What a swap of one cell costs, in forward passes."""
PULSE = 0.3
"""Seconds between two looks at what the workers tell."""

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
class Cost:
    """What the experiment takes: how many trainings and sweeps, and the seconds of each unit on one thread."""

    trainings: int
    sweeps: int
    prices: Mapping[str, Price]
    seconds: Mapping[str, float]

    def total(self, jobs: int) -> float:
        """Seconds, when so many units run at once."""
        return sum(self.seconds.values()) / jobs


@dataclass(frozen=True)
class Outcome:
    """What became of the units: folder → why it could not be finished."""

    failed: Mapping[str, str]


# What it costs ---------------------------------------------------------------------------------------------------


def cost(experiment: Experiment) -> Cost:
    """Time a few steps and one pass of every arm. Raises what trainings and tasks raise."""
    load_samples(experiment.trainings(experiment.units()[0])[0].spec)
    prices, plans = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for arm in experiment.arms:
            prices[arm.name], plans[arm.name] = _priced(experiment, arm, Path(folder))
    seconds = {
        unit.folder: 3 * prices[unit.arm.name].training(experiment)
        + len(INITS) * sum(map(prices[unit.arm.name].stage, plans[unit.arm.name]))
        for unit in experiment.units()
    }
    sweeps = sum(len(INITS) * len(plans[unit.arm.name]) for unit in experiment.units())
    return Cost(3 * len(experiment.units()), sweeps, prices, seconds)


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
        entries = [entry for entry in checkpoint.values() if entry.kind != "bn.num_batches_tracked"]
    step = (moments[-1] - moments[0]) / (len(moments) - 1)
    cells, kinds, layers = (
        len({part(entry) for entry in entries})
        for part in (lambda each: (each.layer, each.kind), lambda each: each.kind, lambda each: each.layer)
    )
    return Price(step, forward, cells, kinds, layers), planned


# The work --------------------------------------------------------------------------------------------------------


def reproduce(
    experiment: Experiment,
    folder: Path,
    *,
    jobs: int = 1,
    known: Cost | None = None,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> Outcome:
    """Do all that the folder lacks. `known` is the cost, where it has been measured already.

    A unit that fails is left out, and the others go on. Raises RunError for a folder that holds another
    experiment or is being worked on, Stopped when `stop` asked for it; then the same call continues.
    """
    price = known or cost(experiment)
    refuse_odd_parts(folder)
    with Lock(folder):
        _claim(folder, experiment)
        workers = min(jobs, len(experiment.units()))
        meter = _Meter(price.seconds, progress)
        if workers > 1:
            return Outcome(_in_processes(experiment, folder, price, workers, meter, stop or Stop()))
        return Outcome(_here(experiment, folder, price, meter, stop or Stop()))


def _claim(folder: Path, experiment: Experiment) -> None:
    """Keep the settings, or refuse a folder that has others."""
    if not (folder / SETTINGS).exists():
        write_text(folder / SETTINGS, json.dumps(asdict(experiment), indent=2) + "\n")
        return
    then = load_experiment(folder)
    changed = [
        each.name for each in fields(experiment) if getattr(then, each.name) != getattr(experiment, each.name)
    ]
    if changed:
        raise RunError(
            f"{folder} holds an experiment with other {', '.join(changed)}", remedy="choose another --run"
        )


def load_experiment(folder: Path) -> Experiment:
    """The settings that a folder was made with. Raises RunError where it holds none."""
    try:
        said = plain_json(read_plain(folder / SETTINGS))
        arms = tuple(Arm(**{**each, "freeze": tuple(each["freeze"])}) for each in said.pop("arms"))
        return Experiment(arms, **said)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{folder} holds no experiment ({error})", remedy="choose another --run") from None


class _Meter:
    """Adds up what units tell of themselves."""

    def __init__(self, seconds: Mapping[str, float], progress: Progress | None) -> None:
        self._total, self._progress = sum(seconds.values()), progress
        self._done: dict[str, float] = {}

    def __call__(self, unit: str, done: float, what: str) -> None:
        self._done[unit] = done
        if self._progress:
            self._progress(sum(self._done.values()), self._total, f"{unit}: {what}")


Tell = Callable[[str, float, str], None]


def _here(experiment: Experiment, folder: Path, price: Cost, tell: Tell, stop: Stop) -> dict[str, str]:
    failed = {}
    for unit in experiment.units():
        try:
            _Work(experiment, unit, folder, price.prices[unit.arm.name], tell, stop).run()
        except Stopped:
            raise
        except CkptswapError as error:
            failed[unit.folder] = str(error)
        tell(unit.folder, price.seconds[unit.folder], "done")
    return failed


class _Work:
    """One unit, from wherever it is."""

    def __init__(
        self, experiment: Experiment, unit: Unit, folder: Path, price: Price, tell: Tell, stop: Stop
    ) -> None:
        self.experiment, self.unit, self.price, self.stop = experiment, unit, price, stop
        self.folder, self._tell, self._done = folder / unit.folder, tell, 0.0

    def run(self) -> None:
        for each in (self.folder.parent, self.folder, *(self.folder / init for init in INITS)):
            refuse_odd(each, folder=True)
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
        out, seconds = self.folder / training.file, self.price.training(self.experiment)
        init = {"save_init": training.save_init, "init_from": training.init_from}
        beside: dict[str, Any] = {key: self.folder / name for key, name in init.items() if name}
        for path in (out, *beside.values()):
            refuse_odd(path)
        if not is_finished(out, training.spec, **beside):
            train(
                training.spec,
                out,
                **beside,
                force=True,
                progress=lambda step, loss: self._is_at(
                    seconds * step / training.spec.steps, f"{training.name}, step {step}"
                ),
            )
        self._has(seconds)

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
                spec = SweepSpec(
                    (donor.path, *stage.donors),
                    recipient.path,
                    task=task,
                    selection=stage.selection,
                    by=tuple(stage.by),
                    mode=stage.mode,
                    calibration=self.experiment.calibration() if stage.is_recalibrated else None,
                )
                options = RunOptions(run=str(run), screen="gradient" if stage.is_screened else None, samples=False)
                listeners = Listeners(
                    progress=lambda done, total: self._is_at(seconds * done / total, f"{init} {stage.name}"),
                    stop=self.stop,
                )
                sweep(spec, options, listeners, {donor.path: donor, recipient.path: recipient})
        self._has(seconds)

    def _is_at(self, seconds: float, what: str) -> None:
        self._tell(self.unit.folder, self._done + seconds, what)
        self.stop.check("a part of the experiment is done")

    def _has(self, seconds: float) -> None:
        self._done += seconds


def _is_swept(run: Path, donor: Checkpoint, recipient: Checkpoint) -> bool:
    """Whether a sweep of these two files is there, with every score."""
    folder = RunFolder(run)
    if not is_complete(folder):
        return False
    plan = folder.read_plan()
    return [plan.donor_hashes[0], plan.key["recipient"]] == [donor.sha256(), recipient.sha256()]


# Several units at once -------------------------------------------------------------------------------------------


class _Asked(Stop):
    """A stop that the parent asks for, by an event."""

    def check(self, done: str) -> None:
        if _worker["asked"].is_set():
            self.request()
        super().check(done)


_worker: dict[str, Any] = {}
"""What a worker process was given when it began."""


def _begin(told: Any, asked: Any) -> None:
    import signal

    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to all; the parent asks us in order
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    told.cancel_join_thread()  # it tells of progress only, which nobody may be left to read
    torch.set_num_threads(1)
    keep_freed_memory()
    _worker.update(told=told, asked=asked)


def _end_with_the_parent() -> None:
    """A killed parent cannot ask; what is in the journals by then is kept, as after any kill."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _remote(experiment: Experiment, unit: Unit, folder: Path, price: Price) -> None:
    _Work(experiment, unit, folder, price, lambda *news: _worker["told"].put(news), _Asked()).run()


def _in_processes(
    experiment: Experiment, folder: Path, price: Cost, workers: int, meter: _Meter, stop: Stop
) -> dict[str, str]:
    spawn = multiprocessing.get_context("spawn")
    told, asked = spawn.Queue(), spawn.Event()
    failed: dict[str, str] = {}
    with _one_thread(), ProcessPoolExecutor(workers, spawn, _begin, (told, asked)) as pool:
        running = {
            pool.submit(_remote, experiment, unit, folder, price.prices[unit.arm.name]): unit.folder
            for unit in experiment.units()
        }
        try:
            for unit, future in _finished(running, told, meter, stop):
                error = future.exception()
                if isinstance(error, BrokenProcessPool):
                    raise RunError(
                        "a worker was killed", remedy="the same command continues, with fewer --jobs"
                    ) from None
                if error and not isinstance(error, CkptswapError):
                    raise error
                if error:
                    failed[unit] = str(error)
                meter(unit, price.seconds[unit], "done")
        except BaseException:
            asked.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return failed


def _finished(
    running: Mapping[Future[None], str], told: Any, meter: _Meter, stop: Stop
) -> Iterator[tuple[str, Future[None]]]:
    """Units as they end; what the others tell goes to the meter meanwhile."""
    left = dict(running)
    while left:
        with suppress(Empty):
            meter(*told.get(timeout=PULSE))
        stop.check(f"{len(running) - len(left)} of {len(running)} units are done")
        for future in [each for each in left if each.done()]:
            yield left.pop(future), future


@contextmanager
def _one_thread() -> Iterator[None]:
    """Workers begin with one thread each, whatever library counts cores."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before
