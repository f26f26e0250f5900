"""The demo: train the pair, sweep the held-out slices, judge the four claims, leave it all in a folder.

A second call on the same folder continues: finished trainings are known by their metadata, the sweep by its
journal. `commands.sh` holds the commands that do the same by hand.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ckptswap.errors import RunError
from ckptswap.formats import open_checkpoint
from ckptswap.formats.atomic import write_text
from ckptswap.lab.findings import judge
from ckptswap.lab.train import Training, load_samples, recipe
from ckptswap.lab.trainspec import TrainSpec
from ckptswap.plainfiles import read_plain
from ckptswap.shell import joined
from ckptswap.sweep.preparing import sweep
from ckptswap.sweep.progress import Listeners
from ckptswap.sweep.result import SweepResult
from ckptswap.sweep.run_folder.overwrite import refuse_occupied
from ckptswap.sweep.run_folder.plain import refuse_odd
from ckptswap.sweep.spec import RunOptions, SweepSpec
from ckptswap.task import TaskSpec

SEGMENT = TrainSpec("segment", model_args={"width": 12, "depth": 3}, data_args={"part": "train"})
"""Reaches a Dice of about 0.965 on the held-out slices, in about 20 seconds on 2 cores."""
HELD_OUT = TaskSpec(data="lab:mni", data_args={"part": "test"}, metrics=("dice",), batch_size=8, threads=2)
BY = (("kind",), ("layer", "kind"))

INIT, SEGMENTED, RECONSTRUCTED = "init.safetensors", "segment.safetensors", "reconstruct.safetensors"
RUN, COMMANDS = "run", "commands.sh"

Progress = Callable[[str, int, int, str], None]
"""Called with the stage (`train segment`, `train reconstruct`, `sweep`), what is done of how much, a remark."""


@dataclass(frozen=True)
class Demo:
    """What the demo left: the folder, and the table with its findings."""

    folder: Path
    result: SweepResult


def demo(
    folder: Path,
    progress: Progress | None = None,
    *,
    segment: TrainSpec = SEGMENT,
    held_out: TaskSpec = HELD_OUT,
    command: str | None = None,
) -> Demo:
    """Train, sweep and judge in `folder`, made when it is not there: a bit over a minute on 2 cores.

    `segment` and `held_out` are the settings, `command` is what the run remembers as typed. Raises
    DependencyError without nilearn, RunError when the folder holds a checkpoint of that name that was made
    otherwise, or a link in its place.
    """
    load_samples(segment)  # so that what is missing is said before anything is written
    for name in (RUN, INIT, SEGMENTED, RECONSTRUCTED, COMMANDS):
        refuse_odd(folder / name, folder=name == RUN)
    _refuse_occupied(folder, segment)
    folder.mkdir(parents=True, exist_ok=True)
    tell = progress or (lambda stage, done, total, remark: None)
    write_text(folder / COMMANDS, commands(segment, held_out))
    for training in trainings(segment):
        _train(training, folder, tell)
    spec = SweepSpec((str(folder / RECONSTRUCTED),), str(folder / SEGMENTED), held_out, by=BY)
    listeners = Listeners(progress=lambda done, total: tell("sweep", done, total, ""))
    return Demo(folder, judge(sweep(spec, RunOptions(run=str(folder / RUN), command=command), listeners)))


def trainings(segment: TrainSpec) -> tuple[Training, Training]:
    """The recipient's training, and the donor's: from the same initialisation, for the other task."""
    encode = replace(segment, task="reconstruct")
    return Training("segment", segment, save_init=INIT), Training("reconstruct", encode, init_from=INIT)


def _refuse_occupied(folder: Path, segment: TrainSpec) -> None:
    """Raises RunError where a person's own file would be replaced: none of these bears a mark of the demo's."""
    script = folder / COMMANDS
    if script.exists() and not read_plain(script).startswith(b"#!/bin/sh\nset -e\nckptswap train "):
        raise RunError(f"{script} is in the way", remedy="choose another folder, or move it away")
    refuse_occupied(folder / RUN)
    first, second = trainings(segment)
    for path, training in ((folder / INIT, first), (folder / first.file, first), (folder / second.file, second)):
        if path.exists():
            with open_checkpoint(path) as checkpoint:
                if checkpoint.metadata.get("ckptswap.train") != recipe(training.spec):
                    raise _made_otherwise(path)


def _made_otherwise(path: Path) -> RunError:
    return RunError(f"{path} was made with other settings", remedy="choose another folder, or remove it")


def _train(training: Training, folder: Path, tell: Progress) -> None:
    stage, steps = f"train {training.spec.task}", training.spec.steps
    if training.is_finished(folder):
        tell(stage, steps, steps, "done already")
    elif (folder / training.file).exists():
        raise _made_otherwise(folder / training.file)
    else:
        training.run(folder, lambda step, loss: tell(stage, step, steps, f"loss {loss:.4f}"))


def commands(segment: TrainSpec = SEGMENT, held_out: TaskSpec = HELD_OUT) -> str:
    """A shell script that does by hand what the demo does; start it inside an empty folder.

    >>> print(commands().splitlines()[-1][:63])
    ckptswap sweep --from reconstruct.safetensors --to segment.safe
    """
    lines = [_train_command(training) for training in trainings(segment)]
    lines.append([
        *("ckptswap", "sweep", "--from", RECONSTRUCTED, "--to", SEGMENTED),
        *("--data", str(held_out.data), *_args("--data-args", held_out.data_args)),
        *("--metric", ",".join(held_out.metrics), *(word for way in BY for word in ("--by", ",".join(way)))),
        *("--batch-size", str(held_out.batch_size), "--threads", str(held_out.threads), "--run", RUN),
    ])  # fmt: skip
    return "\n".join(["#!/bin/sh", "set -e", *map(joined, lines)]) + "\n"


def _train_command(training: Training) -> list[str]:
    spec = training.spec
    init = ("--save-init", INIT) if training.save_init else ("--init-from", INIT)
    return [
        *("ckptswap", "train", spec.task, "--model", spec.model, *_args("--model-args", spec.model_args)),
        *("--data", spec.data, *_args("--data-args", spec.data_args)),
        *("--steps", str(spec.steps), "--batch-size", str(spec.batch_size), "--lr", str(spec.lr)),
        *("--seed", str(spec.seed), "--threads", str(spec.threads), *init, "-o", training.file),
    ]


def _args(flag: str, args: Mapping[str, Any]) -> list[str]:
    """`flag k=v,k=v`, with values as JSON unless they are plain words; nothing where there are none."""
    words = [f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in args.items()]
    return [flag, ",".join(words)] if words else []
