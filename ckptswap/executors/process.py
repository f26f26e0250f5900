"""Workers that are processes on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import ckptswap
from ckptswap.errors import EXIT_USAGE
from ckptswap.executors.pool import Ending
from ckptswap.sweep.worker_spec import Order
from ckptswap.task.spec import TaskSpec

LAST = 2000
"""Letters of a log that are read for its last line."""


def jobs_of(spec: TaskSpec) -> int:
    """As many as this machine has GPUs, where the task runs on `cuda`; else as there are cores for.

    >>> jobs_of(TaskSpec(threads=10_000))
    1
    """
    return len(_gpus(spec.device)) or max(1, (os.cpu_count() or 1) // spec.threads)


class Processes:
    """Where workers are processes of this machine, one a GPU where the task runs on `cuda`."""

    def submit(self, order: Order) -> ProcessHandle:
        return ProcessHandle(order)

    def reattach(self, folder: Path) -> tuple[ProcessHandle, Collection[int]] | None:
        """Nobody: they end with the process that began them."""
        return None


class ProcessHandle:
    """The processes of one order. They end by themselves when this process does, however it ends."""

    poll = 0.1

    def __init__(self, order: Order) -> None:
        self._order = order
        self._running: dict[int, subprocess.Popen[bytes]] = {}

    def begin(self, shards: Sequence[int]) -> None:
        for shard in shards:
            command = [sys.executable, "-P", "-m", "ckptswap.executors.worker"]
            with log_of(self._order, shard).open("ab") as log:
                self._running[shard] = subprocess.Popen(
                    [*command, str(self._order.path), str(shard), self._order.seal, "--tethered"],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    env=environment(self._order.device, shard),
                    start_new_session=True,  # Ctrl-C in a terminal is for us, who pass it on
                )

    def ended(self) -> Mapping[int, Ending]:
        found = {shard: code for shard, each in self._running.items() if (code := each.poll()) is not None}
        for shard in found:
            self._release(shard)
        return {shard: self._ending(shard, code) for shard, code in found.items()}

    def stop(self) -> None:
        for each in self._running.values():
            each.terminate()

    def kill(self) -> None:
        for shard in list(self._running):
            self._running[shard].kill()
            self._running[shard].wait()
            self._release(shard)

    def _release(self, shard: int) -> None:
        process = self._running.pop(shard)
        assert process.stdin
        process.stdin.close()

    def _ending(self, shard: int, code: int) -> Ending:
        if not code:
            return Ending()
        said = log_end(log_of(self._order, shard))
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return Ending(said or how, hopeless=True) if code == EXIT_USAGE else Ending(f"{how}; {said}".rstrip("; "))


def environment(device: str, shard: int) -> dict[str, str]:
    """What a worker's process is given: a GPU of its own, and the place of this package."""
    paths = [os.environ.get("PYTHONPATH"), str(Path(ckptswap.__file__).parents[1])]
    found = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    if gpus := _gpus(device):
        found["CUDA_VISIBLE_DEVICES"] = gpus[shard % len(gpus)]
    return found


def _gpus(device: str) -> list[str]:
    """The names of the GPUs that workers share out; none where the task names one, or runs on the CPU."""
    if device != "cuda":
        return []
    if visible := os.environ.get("CUDA_VISIBLE_DEVICES"):
        return visible.split(",")
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def log_of(order: Order, shard: int) -> Path:
    """Where what a worker prints is kept."""
    return order.path.with_name(f"{order.token}-{shard}.log")


def log_end(path: Path) -> str:
    """The last line of a log that says something; nothing where there is no log."""
    try:
        return last_line(path.read_bytes()[-LAST:].decode("utf-8", "replace"))
    except OSError:
        return ""


def last_line(text: str) -> str:
    """The last line that says something, if any.

    >>> last_line("why\\nbecause\\n\\n")
    'because'
    """
    return next((line.strip() for line in reversed(text.split("\n")) if line.strip()), "")
