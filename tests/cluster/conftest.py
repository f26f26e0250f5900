"""A real Slurm and a real Ray: started when a test first asks for them, stopped when the last one has ended."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import ray_nodes
import slurm_node

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "faults"))  # the small sweep that is killed there is killed here too


@pytest.fixture(scope="session")
def shared_slurm() -> Iterator[None]:
    reason = slurm_node.hindrance()
    if reason:
        pytest.skip(reason)
    with slurm_node.running():
        yield


@pytest.fixture
def slurm(shared_slurm: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A one-node Slurm for this test alone: sbatch, squeue, scancel, scontrol and jobs find it by SLURM_CONF.

    It has the partitions `low` (default; preempted and requeued at once), `grace` (preempted with a warning) and
    `high` (preempts both), requeues a job after some six seconds, and keeps no accounts: there is no sacct.
    """
    with slurm_node.turn():
        monkeypatch.setenv("SLURM_CONF", str(slurm_node.CONFIGURATION))
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")])))
        # submitit's own set-up would log to the stdout that pytest captured when submitit was first imported.
        monkeypatch.setenv("SUBMITIT_LOG_LEVEL", "NOCONFIG")
        yield
        subprocess.run(["scancel", "--me"], check=True)  # what a failed test left would be in the next one's way


@pytest.fixture(scope="session")
def ray_head() -> Iterator[ray_nodes.Head]:
    if sys.platform != "linux":
        pytest.skip("two Ray nodes on one machine need an address each, and 127.0.0.2 is local on Linux only")
    with ray_nodes.head() as head:
        yield head


@pytest.fixture(scope="session")
def ray_clusters(ray_head: ray_nodes.Head) -> Iterator[Callable[[], ray_nodes.Cluster]]:
    """Gives the head with a second node, which is begun anew where the last one is dead."""
    with ExitStack() as stack:
        begun: list[ray_nodes.Cluster] = []

        def whole() -> ray_nodes.Cluster:
            if not begun or not begun[-1].is_whole:
                begun.append(stack.enter_context(ray_nodes.second(ray_head)))
            return begun[-1]

        yield whole


@pytest.fixture
def ray_cluster(ray_clusters: Callable[[], ray_nodes.Cluster]) -> ray_nodes.Cluster:
    """Two Ray nodes of one CPU each: `address`, the `env` that a driver needs, and `kill_second()`."""
    return ray_clusters()
