"""Workers that are tasks of a Ray cluster (the extra `ray`): one that is there, or one on this machine.

Ray is driven by a process of its own (`main`), since it prints to stdout and leaves threads behind. Tasks whose
worker or node dies are run again by Ray itself.
"""

import importlib.util
import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from ckptswap.errors import EXIT_TERMINATED, CkptswapError
from ckptswap.executors.pool import RETRIES, Ending, WorkerPool, given_jobs
from ckptswap.executors.process import environment, last_line, log_end
from ckptswap.executors.worker import at_end_of_input, work
from ckptswap.executors.worker_spec import WorkerSpec, read_worker_spec
from ckptswap.scoring.allocator import keep_freed_memory
from ckptswap.sweep.stopping import Stop
from ckptswap.task.spec import TaskSpec

if importlib.util.find_spec("ray") is None:
    raise ModuleNotFoundError("there is no ray", name="ray")


def build(task: TaskSpec, jobs: int | None, options: Mapping[str, Any]) -> WorkerPool:
    """An executor of Ray's tasks. Raises `UsageError` where nobody says how many."""
    return WorkerPool(partial(RayHandle, options.get("ray_address")), given_jobs("ray", jobs))


class RayHandle:
    """The tasks of one spec, one driver for every `begin`; `address` None: a cluster of this machine's own."""

    poll = 0.2

    def __init__(self, address: str | None, spec: WorkerSpec) -> None:
        self._spec, self._address = spec, address
        self._drivers: dict[subprocess.Popen[bytes], set[int]] = {}
        self._heard: dict[subprocess.Popen[bytes], bytes] = {}
        self._log = spec.path.with_name(f"{spec.token}-ray.log")

    def begin(self, shards: Sequence[int]) -> None:
        told = [str(self._spec.path), self._spec.seal, ",".join(map(str, shards)), self._address]
        command = [sys.executable, "-P", "-m", "ckptswap.executors.ray", *filter(None, told)]
        with self._log.open("ab") as log:
            driver = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                                      env=environment("cpu", 0), start_new_session=True)  # fmt: skip
        assert driver.stdout
        os.set_blocking(driver.stdout.fileno(), False)
        self._drivers[driver] = set(shards)

    def ended(self) -> Mapping[int, Ending]:
        endings: dict[int, Ending] = {}
        for driver, left in list(self._drivers.items()):
            code = driver.poll()  # before what it has said is read
            for shard, ending in self._told(driver):
                endings[shard] = ending
                left.discard(shard)
            if code is not None:
                fault = f"Ray's driver ended with exit code {code}; {log_end(self._log)}".rstrip("; ")
                endings |= {shard: Ending(fault) for shard in left}
                with driver:
                    del self._drivers[driver]
        return endings

    def stop(self) -> None:
        self._spec.stop_file.touch()

    def kill(self) -> None:
        for driver in self._drivers:
            with driver:  # which waits, and closes its streams
                driver.kill()
        self._drivers.clear()
        self._spec.stop_file.unlink(missing_ok=True)

    def _told(self, driver: subprocess.Popen[bytes]) -> Iterator[tuple[int, Ending]]:
        """Which tasks have ended since the last look: a line of JSON each, which what Ray itself prints is not."""
        assert driver.stdout
        heard = self._heard.pop(driver, b"")
        with suppress(BlockingIOError):
            while new := os.read(driver.stdout.fileno(), 1 << 16):
                heard += new
        *lines, self._heard[driver] = heard.split(b"\n")
        for line in lines:
            with suppress(ValueError, KeyError, TypeError):
                ended = json.loads(line)
                yield ended["shard"], Ending(ended["fault"], ended["hopeless"])


def run_shard(path: str, seal: str, shard: int) -> str | None:
    """What a task does. Returns why it cannot work, None when its shard is done."""
    keep_freed_memory()
    try:
        work(read_worker_spec(path, seal), shard, Stop())
    except CkptswapError as error:
        return str(error)
    return None


def main(path: str, seal: str, shards: str, address: str | None = None) -> None:
    """The driver: a task for each shard, and a line on stdout for each that has ended."""
    import ray

    from ckptswap.executors import ray as here  # and not as __main__

    at_end_of_input(lambda: os._exit(EXIT_TERMINATED))  # whereupon Ray ends the tasks
    spec = read_worker_spec(path, seal)
    numbers = [int(shard) for shard in shards.split(",")]
    try:
        _knock(address)
        given = {"env_vars": {"PYTHONPATH": os.environ["PYTHONPATH"]}}
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, runtime_env=given)
    except (OSError, RuntimeError, ValueError) as error:
        where = f" at {address}" if address else ""
        return _say(numbers, f"Ray cannot be reached{where} ({error})", hopeless=True)
    cpus, gpus = spec.threads, int(spec.device != "cpu")
    have = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= gpus for node in have):
        # Ray would wait for ever for a node that is large enough.
        fault = f"no node of Ray's has {cpus} CPUs and {gpus} GPUs: change --threads"
        return _say(numbers, fault, hopeless=True)
    task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=RETRIES)(here.run_shard)
    tasks = {task.remote(path, seal, shard): shard for shard in numbers}
    while tasks:
        (done, *_), _ = ray.wait(list(tasks))
        shard = tasks.pop(done)
        try:
            fault = ray.get(done)
            _say([shard], fault, hopeless=fault is not None)
        except Exception as error:  # a death too many, or what user code raised past our own net
            _say([shard], last_line(str(error)) or type(error).__name__, hopeless=False)
    return None


def _knock(address: str | None) -> None:
    """Raises `OSError` where nobody listens at HOST:PORT: Ray itself would try for ever."""
    host, _, port = (address or "").rpartition(":")
    if port.isdigit() and "/" not in host:
        socket.create_connection((host, int(port)), timeout=10).close()


def _say(shards: Iterable[int], fault: str | None, *, hopeless: bool) -> None:
    for shard in shards:
        print(json.dumps({"shard": shard, "fault": fault, "hopeless": hopeless}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
