"""Two Ray nodes on one machine, each a session of processes with a loopback address of its own.

`ray start --block` is used, and never `ray stop`, which would end every Ray on the machine.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from waiting import wait_until

FIRST, SECOND = "127.0.0.2", "127.0.0.3"

# A node counts as dead after a second and a half, where Ray's own settings give it 15.
IMPATIENT = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}

NODE = [
    *(
        "--num-cpus",
        "1",
        "--object-store-memory",
        "80000000",
        "--disable-usage-stats",
        "--include-log-monitor",
        "false",
    ),
    # Ports that the system picks: Ray's own range would collide with that of another cluster.
    *("--min-worker-port", "0", "--max-worker-port", "0", "--block"),
]


@dataclass(frozen=True)
class Head:
    """The first node. `env` holds what a driver needs before it imports ray: Ray listens on every interface."""

    address: str
    env: dict[str, str]
    folder: Path


@dataclass(frozen=True)
class Cluster:
    """Both nodes, as a driver sees them."""

    address: str
    env: dict[str, str]
    node: subprocess.Popen[bytes]

    @property
    def is_whole(self) -> bool:
        """Whether the second node's `ray start`, which ends with it, is there."""
        return self.node.poll() is None

    def kill_second(self) -> None:
        """SIGKILL to every process of the second node, as if its machine had lost power."""
        _kill(self.node)


@contextmanager
def head() -> Iterator[Head]:
    """The head node, until the end of the block."""
    address = f"{FIRST}:{_free_port()}"
    env = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    # Ray puts sockets below, whose paths may have 107 characters: TMPDIR could be too long.
    folder = Path(tempfile.mkdtemp(prefix="ckptswap-ray-", dir="/tmp"))
    flags = ["--head", "--port", address.split(":")[1], "--node-ip-address", FIRST, "--temp-dir", str(folder)]
    try:
        with _node([*flags, "--include-dashboard", "false"], env, folder / "first.log"):
            yield Head(address, env, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def second(head: Head) -> Iterator[Cluster]:
    """Another node beside `head`, until the end of the block."""
    flags = ["--address", head.address, "--node-ip-address", SECOND]
    with _node(flags, head.env, head.folder / "second.log") as node:
        yield Cluster(head.address, head.env, node)


@contextmanager
def _node(flags: list[str], env: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", *flags, *NODE]
    with log.open("wb") as output:
        node = subprocess.Popen(
            command, env=env | IMPATIENT, cwd="/", stdout=output, stderr=output, start_new_session=True
        )
    try:
        wait_until(lambda: _has_started(node, log), f"a Ray node has started ({log})")
        yield node
    finally:
        _kill(node)


def _has_started(node: subprocess.Popen[bytes], log: Path) -> bool:
    text = log.read_text("utf-8")
    if node.poll() is not None:
        raise RuntimeError(f"ray start ended with {node.returncode}:\n{text}")
    return "Ray runtime started" in text


def _kill(node: subprocess.Popen[bytes]) -> None:
    """Workers have process groups of their own, but stay in the session of `ray start`."""
    while alive := _session(node.pid):
        for process in alive:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        node.poll()
    node.wait()


def _session(leader: int) -> list[int]:
    """The living processes of a session, by Linux's /proc."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # The name, in brackets, may hold spaces and brackets; state, parent, group and session follow it.
            state, _parent, _group, session = stat.read_text("utf-8").rpartition(")")[2].split()[:4]
            if int(session) == leader and state not in "ZX":
                found.append(int(stat.parent.name))
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((FIRST, 0))
        return probe.getsockname()[1]
