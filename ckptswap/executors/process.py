"""Workers that are processes on this machine."""

import os
import signal
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ckptswap.cores import usable_cores
from ckptswap.errors import EXIT_USAGE
from ckptswap.executors.forkserver import Forked, ForkServer
from ckptswap.executors.pool import Ending, WorkerPool
from ckptswap.executors.worker_spec import WorkerSpec
from ckptswap.registry import source_of
from ckptswap.task.spec import TaskSpec


def build(task: TaskSpec, jobs: int | None, options: Mapping[str, Any]) -> WorkerPool:
    """An executor of processes; unless told how many, of one for each GPU where the task runs on `cuda`, else of
    as many as there are cores for that this process may use.

    >>> build(TaskSpec(threads=10_000), None, {}).jobs
    1
    """
    source = source_of("models", task.model) if task.model else None
    libraries = [name.replace("-", "_") for name in source[0].libraries] if source else []
    jobs = jobs or len(_gpus(task.device)) or max(1, usable_cores() // task.threads)
    return WorkerPool(partial(ProcessHandle, ["torch", *libraries]), jobs)


class ProcessHandle:
    """The processes of one spec, forked from a server that has imported `modules`, and the one that does the work.

    They end by themselves when this process does, however it ends: it holds the other ends of their inputs.
    """

    poll = 0.1

    def __init__(self, modules: Sequence[str], spec: WorkerSpec) -> None:
        self._spec = spec
        self._modules = [*modules, spec.work.partition(":")[0]]
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
        spec = self._spec
        words = ["-P", "-m", "ckptswap.executors.worker", str(spec.path), str(shard), spec.seal, "--tethered"]
        theirs, tether = os.pipe()
        try:
            with self._log(shard).open("ab") as log:
                streams = [theirs, log.fileno(), log.fileno()]
                env = environment(spec.device, shard)
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
            os.close(self._running.pop(shard)[1])
        return {shard: self._ending(shard, code) for shard, code in gone.items()}

    def stop(self) -> None:
        for worker, _ in self._running.values():
            worker.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        while self._running:
            worker, tether = self._running.popitem()[1]
            worker.send_signal(signal.SIGKILL)
            worker.wait()
            os.close(tether)
        self._server.close()

    def _log(self, shard: int) -> Path:
        return self._spec.path.with_name(f"{self._spec.token}-{shard}.log")

    def _ending(self, shard: int, code: int) -> Ending:
        if not code:
            return Ending()
        last_words = log_end(self._log(shard))
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        if code == EXIT_USAGE:
            return Ending(last_words or how, hopeless=True)
        return Ending(f"{how}; {last_words}".rstrip("; "))


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


def log_end(path: Path) -> str:
    """The last line of a log that says something; nothing where there is no log."""
    try:
        return last_line(path.read_bytes()[-2000:].decode("utf-8", "replace"))
    except OSError:
        return ""


def last_line(text: str) -> str:
    """The last line that says something, if any.

    >>> last_line("why\\nbecause\\n\\n")
    'because'
    """
    return next((line.strip() for line in reversed(text.split("\n")) if line.strip()), "")
