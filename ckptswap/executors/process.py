"""Workers that are processes on this machine."""

from __future__ import annotations

import os
import signal
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from ckptswap.errors import EXIT_USAGE
from ckptswap.executors.forkserver import Forked, ForkServer
from ckptswap.executors.pool import Ending, WorkerPool
from ckptswap.executors.worker_spec import WorkerSpec
from ckptswap.registry import source_of
from ckptswap.task.spec import TaskSpec

LAST = 2000
"""Letters of a log that are read for its last line."""


def build(task: TaskSpec, jobs: int | None, options: Mapping[str, Any]) -> WorkerPool:
    """An executor of processes; unless told how many, of as many as this machine has room for."""
    return WorkerPool(Processes(_libraries(task)), jobs or jobs_of(task))


def jobs_of(spec: TaskSpec) -> int:
    """As many as this machine has GPUs, where the task runs on `cuda`; else as there are cores for.

    >>> jobs_of(TaskSpec(threads=10_000))
    1
    """
    return len(_gpus(spec.device)) or max(1, (os.cpu_count() or 1) // spec.threads)


class Processes:
    """Where workers are processes of this machine, one a GPU where the task runs on `cuda`.

    They share the memory of `modules`, and of the one that does the work.
    """

    def __init__(self, modules: Sequence[str]) -> None:
        self._modules = modules

    def submit(self, order: WorkerSpec) -> ProcessHandle:
        return ProcessHandle(order, self._modules)

    def reattach(self, folder: Path) -> tuple[ProcessHandle, Collection[int]] | None:
        """Nobody: they end with the process that began them."""
        return None


class ProcessHandle:
    """The processes of one order, forked from a server that has imported what they use.

    They end by themselves when this process does, however it ends: it holds the other ends of their inputs.
    """

    poll = 0.1

    def __init__(self, order: WorkerSpec, modules: Sequence[str]) -> None:
        self._order = order
        self._modules = [*modules, order.work.partition(":")[0]]
        self._server = ForkServer(self._modules, environment("cpu", 0))
        self._running: dict[int, tuple[Forked, int]] = {}

    def begin(self, shards: Sequence[int]) -> None:
        for shard in shards:
            try:
                self._running[shard] = self._begun(shard)
            except (OSError, EOFError):  # someone has ended the server
                self._server.close()
                self._server = ForkServer(self._modules, environment("cpu", 0))
                self._running[shard] = self._begun(shard)

    def _begun(self, shard: int) -> tuple[Forked, int]:
        order = self._order
        words = ["-P", "-m", "ckptswap.executors.worker", str(order.path), str(shard), order.seal, "--tethered"]
        theirs, tether = os.pipe()
        try:
            with log_of(order, shard).open("ab") as log:
                streams = [theirs, log.fileno(), log.fileno()]
                env = environment(order.device, shard)
                return Forked(self._server.connect(), words, streams, env=env, cwd=os.getcwd()), tether
        except BaseException:
            os.close(tether)
            raise
        finally:
            os.close(theirs)

    def ended(self) -> Mapping[int, Ending]:
        codes = {shard: worker.wait(0) for shard, (worker, _) in self._running.items()}
        gone = {shard: code for shard, code in codes.items() if code is not None}
        for shard in gone:
            self._release(shard)
        return {shard: self._ending(shard, code) for shard, code in gone.items()}

    def stop(self) -> None:
        for worker, _ in self._running.values():
            worker.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        for shard, (worker, _) in list(self._running.items()):
            worker.send_signal(signal.SIGKILL)
            worker.wait()
            self._release(shard)
        self._server.close()

    def _release(self, shard: int) -> None:
        os.close(self._running.pop(shard)[1])

    def _ending(self, shard: int, code: int) -> Ending:
        if not code:
            return Ending()
        last_words = log_end(log_of(self._order, shard))
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return (
            Ending(last_words or how, hopeless=True)
            if code == EXIT_USAGE
            else Ending(f"{how}; {last_words}".rstrip("; "))
        )


def _libraries(task: TaskSpec) -> list[str]:
    """The modules that give a task's model, which take long to import."""
    source = source_of("models", task.model) if task.model else None
    return ["torch", *(name.replace("-", "_") for name in source[0].libraries)] if source else ["torch"]


def environment(device: str, shard: int) -> dict[str, str]:
    """What a worker's process is given: a GPU of its own, and the place of this package."""
    paths = [os.environ.get("PYTHONPATH"), str(Path(__file__).parents[2])]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    if gpus := _gpus(device):
        variables["CUDA_VISIBLE_DEVICES"] = gpus[shard % len(gpus)]
    return variables


def _gpus(device: str) -> list[str]:
    """The names of the GPUs that workers share out; none where the task names one, or runs on the CPU."""
    if device != "cuda":
        return []
    if visible := os.environ.get("CUDA_VISIBLE_DEVICES"):
        return visible.split(",")
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def log_of(order: WorkerSpec, shard: int) -> Path:
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
