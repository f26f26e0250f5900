"""A small sweep as a program of its own, killed again and again. `benchmarks/faults.py` does it for longer."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import programs
import torch

from ckptswap.scoring.scorer import Block
from ckptswap.sweep.run_folder.journal import decode, journal_files

SOURCE = """
import time
from pathlib import Path

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.inner = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU())
        self.head = nn.Conv2d(3, 1, 1)

    def forward(self, x):
        y = torch.relu(self.norm(self.stem(x)))
        return self.head(y + self.inner(y))


def data(samples=24):
    draw = torch.Generator().manual_seed(0)
    images = torch.rand(samples, 1, 8, 8, generator=draw)
    return [(image, (image[0] > 0.5).long(), at // 2) for at, image in enumerate(images)]


def error(output, target):
    time.sleep(0.01)  # so that there is a moment to be killed in
    return (output[:, 0] - target).square().mean(dim=(1, 2))


error.direction = "min"
"""


def make(folder: Path) -> Path:
    """A model, data and a metric in `own.py`, and two checkpoints; returns the folder."""
    folder.mkdir(exist_ok=True)
    (folder / "own.py").write_text(SOURCE)
    namespace: dict[str, Any] = {}
    exec(SOURCE, namespace)
    for seed, name in enumerate(("recipient", "donor")):
        torch.manual_seed(seed)
        state = namespace["Net"]().state_dict()
        for value in state.values():
            if value.is_floating_point():
                value += 0.1 * torch.rand(value.shape)
        torch.save(state, folder / f"{name}.pt")
    return folder


def command(run: str, *flags: str) -> list[str]:
    """The sweep, for one's folder as the current one."""
    return [
        *(sys.executable, "-m", "ckptswap", "sweep", "--from", "donor.pt", "--to", "recipient.pt"),
        *("--model", "own.py:Net", "--data", "own.py:data", "--metric", "own.py:error", "--threads", "1"),
        *("--batch-size", "1", "--engine", "full", "--run", run, "--format", "json", *flags),
    ]


def start(folder: Path, run: str, *flags: str, **how: Any) -> subprocess.Popen[str]:
    """Begin the sweep; what it prints goes to `RUN.out`, what it says to `RUN.said`."""
    with (folder / f"{run}.out").open("w") as out, (folder / f"{run}.said").open("a") as said:
        return programs.Popen(command(run, *flags), cwd=folder, stdout=out, stderr=said, text=True, **how)


def finish(folder: Path, run: str, *flags: str, **how: Any) -> dict[str, Any]:
    """The sweep to its end, and its table."""
    assert start(folder, run, *flags, **how).wait() == 0, (folder / f"{run}.said").read_text()
    return json.loads((folder / f"{run}.out").read_text())


def blocks(run: Path) -> list[Block]:
    """All blocks in a run's journal files, as often as they are there; torn last lines left out."""
    lines = (line for path in journal_files(run) for line in path.read_bytes().splitlines(keepends=True)[1:])
    return [decode(line) for line in lines if line.endswith(b"\n") and b"cannot be trusted" not in line]


def places(run: Path) -> Counter[tuple[str, int]]:
    """How often each block was written; what failed is rightly tried again, and left out."""
    return Counter((block.variant, block.batch) for block in blocks(run) if block.failed is None)


@dataclass(frozen=True)
class Survival:
    """What came of it: kills, blocks that were there before a kill and not after it, blocks written twice, whether
    the table is that of an uninterrupted sweep."""

    kills: int
    lost: int
    twice: int
    equal: bool


def survive(
    folder: Path,
    run: str,
    kills: int,
    victim: Callable[[subprocess.Popen[str], Path], int | None],
    draw: random.Random,
    expected: dict[str, Any],
    *flags: str,
    most: int = 40,
    early: float = 0.0,
    **how: Any,
) -> Survival:
    """Kill what `victim` names `kills` times, each time when a random number of further blocks has come in (or,
    with the probability `early`, within seconds of the start); continue whenever the sweep itself is gone.
    """
    process = start(folder, run, *flags, **how)
    done = lost = 0
    while done < kills:
        before = places(folder / run)
        seconds = draw.uniform(0, 8) if draw.random() < early else None
        _wait(folder / run, process, before.total() + draw.randint(1, most), seconds)
        if process.poll() is not None:
            break  # it was faster
        target = victim(process, folder)
        if target is None:
            continue
        before = places(folder / run)
        os.kill(target, signal.SIGKILL)
        done += 1
        if target == process.pid:
            process.wait()
            process = start(folder, run, *flags, **how)
        lost += len(before - places(folder / run))
    process.wait()
    found = finish(folder, run, *flags, **how)
    return Survival(done, lost, sum(count - 1 for count in places(folder / run).values()), found == expected)


def _wait(run: Path, process: subprocess.Popen[str], count: int, seconds: float | None) -> None:
    end = time.monotonic() + (seconds if seconds is not None else 300)
    while process.poll() is None and time.monotonic() < end:
        if seconds is None and sum(path.read_bytes().count(b"\n") - 1 for path in journal_files(run)) >= count:
            return
        time.sleep(0.01)


def itself(process: subprocess.Popen[str], _: Path) -> int:
    """The sweep."""
    return process.pid


def worker_of(process: subprocess.Popen[str], folder: Path) -> int | None:
    """One of its worker processes; None while there is none."""
    return next(iter(workers_of(process, folder)), None)


def workers_of(process: subprocess.Popen[str], folder: Path) -> list[int]:
    """Its worker processes: children of a server that is in the sweep's folder too."""
    parents = {
        pid: above for pid, above in running("ckptswap.executors.forkserver").items() if _is_in(pid, folder)
    }
    return [pid for pid, above in parents.items() if above in parents and above != process.pid]


def _is_in(pid: int, folder: Path) -> bool:
    with suppress(OSError):  # it has ended
        return Path(f"/proc/{pid}/cwd").samefile(folder)
    return False


def running(word: str) -> dict[int, int]:
    """The processes with this in their command line, by Linux's /proc, and the parent of each."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            above = int((entry / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()[1])
            if word in line:
                found[int(entry.name)] = above
    return found
