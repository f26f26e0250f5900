"""Running the experiment: trainings and sweeps of every unit, several units at once, resumable at any point.

`experiment.json` in the folder holds the settings, so that it is never continued under others. Each unit computes
on one thread, so that scores do not depend on how many units run at once, or where.
"""

import json
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from ckptswap.errors import CkptswapError, RunError, Stopped, UsageError
from ckptswap.executors.pool import WorkerPool
from ckptswap.executors.worker_spec import WorkerSpec
from ckptswap.formats import open_checkpoint
from ckptswap.formats.atomic import write_text
from ckptswap.lab.experiment import INITS, Arm, Experiment, Stage, Unit, stages
from ckptswap.lab.train import load_samples, train
from ckptswap.lab.units import Price, UnitWatcher, UnitWork, units_spec
from ckptswap.records import from_json
from ckptswap.sweep.layers import layers_before_norm
from ckptswap.sweep.plan import UNREAD
from ckptswap.sweep.preparing import executor_of
from ckptswap.sweep.run_folder.folder import refuse_odd_parts
from ckptswap.sweep.run_folder.lock import Lock
from ckptswap.sweep.run_folder.plain import read_plain
from ckptswap.sweep.run_folder.sealed import plain_json
from ckptswap.sweep.spec import RunOptions
from ckptswap.sweep.stopping import Stop
from ckptswap.task import TaskSpec, load_task

SETTINGS = "experiment.json"
UNTOLD = "its worker has ended without a word; the same command continues it"

Progress = Callable[[float, float, str], None]
"""Called with what is done of how much, in seconds of one worker as estimated, and what was done last."""


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


def cost(experiment: Experiment) -> Estimate:
    """Time a few steps and one pass of every arm. Raises what trainings and tasks raise."""
    load_samples(experiment.trainings(experiment.units()[0])[0].spec)
    with tempfile.TemporaryDirectory() as folder:
        arms = {arm.name: _priced(experiment, arm, Path(folder)) for arm in experiment.arms}
    units, seconds, sweeps = experiment.units(), {}, 0
    for unit in units:
        price, planned = arms[unit.arm.name]
        seconds[unit.folder] = 3 * price.training(experiment) + len(INITS) * sum(map(price.stage, planned))
        sweeps += len(INITS) * len(planned)
    return Estimate(3 * len(units), sweeps, {name: price for name, (price, _) in arms.items()}, seconds)


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


@dataclass(frozen=True)
class Reproduction:
    """What became of the units: folder → why it could not be finished; and what is to be said of the workers."""

    failed: Mapping[str, str]
    notes: tuple[str, ...] = ()


def reproduce(
    experiment: Experiment,
    folder: Path,
    *,
    workers: RunOptions | None = None,
    known: Estimate | None = None,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> Reproduction:
    """Do all that the folder lacks: here, or by the executor that `workers` names, so many units at once.

    `known` is the cost, where it was measured. A unit that fails is left out, and the others go on. Raises
    RunError for a folder that holds another experiment or is being worked on, UsageError for an executor that can
    only sweep, Stopped when `stop` asked for it; then the same call continues.
    """
    pool = _pool(workers or RunOptions())
    estimate, stop = known or cost(experiment), stop or Stop()
    refuse_odd_parts(folder)
    far: dict[str, float] = {}

    def tell(unit: str, seconds: float | None = None, what: str = "done") -> None:
        far[unit] = estimate.seconds[unit] if seconds is None else seconds
        if progress:
            progress(sum(far.values()), sum(estimate.seconds.values()), f"{unit}: {what}")

    with Lock(folder):
        _claim(folder, experiment)
        if pool is None:
            return _here(experiment, folder, estimate.prices, tell, stop)
        spec = units_spec(experiment, folder, [estimate.prices[unit.arm.name] for unit in experiment.units()])
        return _by_workers(experiment, folder, pool, spec, tell, stop)


def _pool(workers: RunOptions) -> WorkerPool | None:
    """The workers; none where this process does one unit after another."""
    pool = executor_of(workers, TaskSpec(threads=1))
    if pool is not None and not isinstance(pool, WorkerPool):
        raise UsageError(f"the executor {workers.executor} can only sweep", remedy="use process, slurm or ray")
    return pool


def _claim(folder: Path, experiment: Experiment) -> None:
    if not (folder / SETTINGS).exists():
        write_text(folder / SETTINGS, json.dumps(asdict(experiment), indent=2) + "\n")
        return
    then, now = (vars(settings) for settings in (load_experiment(folder), experiment))
    if changed := ", ".join(name for name in now if then[name] != now[name]):
        raise RunError(f"{folder} holds an experiment with other {changed}", remedy="choose another --run")


def load_experiment(folder: Path) -> Experiment:
    """Read the settings that a folder was made with. Raises RunError where it holds none."""
    try:
        return from_json(Experiment, plain_json(read_plain(folder / SETTINGS)))
    except (OSError, ValueError) as error:
        raise RunError(f"{folder} holds no experiment ({error})", remedy="choose another --run") from None


def _here(
    experiment: Experiment, folder: Path, prices: Mapping[str, Price], tell: Callable[..., None], stop: Stop
) -> Reproduction:
    failed = {}
    for unit in experiment.units():
        try:
            UnitWork(experiment, unit, folder, prices[unit.arm.name], partial(tell, unit.folder), stop).run()
        except Stopped:
            raise
        except CkptswapError as error:
            failed[unit.folder] = str(error)
        tell(unit.folder)
    return Reproduction(failed)


def _by_workers(
    experiment: Experiment, folder: Path, pool: WorkerPool, spec: WorkerSpec, tell: Callable[..., None], stop: Stop
) -> Reproduction:
    names = [unit.folder for unit in experiment.units()]
    watcher = UnitWatcher(spec, lambda at, done, what: tell(names[at], done, what), stop)
    pool.wait_for_earlier(folder, watcher)
    pool.do(spec, watcher)
    for name in names:
        tell(name)
    faults = {name: watcher.ended.get(at, UNTOLD) for at, name in enumerate(names)}
    return Reproduction({name: fault for name, fault in faults.items() if fault}, tuple(watcher.notes))
