"""Ray itself, as the executor will meet it: what survives when a worker or a whole node is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import ray_nodes
from waiting import lines, wait_until

pytestmark = pytest.mark.cluster


def test_a_task_survives_its_worker_and_its_node(ray_cluster: ray_nodes.Cluster, tmp_path: Path) -> None:
    """`max_retries` counts both; the last attempt runs on the node that is left."""
    diary = tmp_path / "diary"
    command = [
        sys.executable,
        Path(__file__).with_name("ray_driver.py"),
        ray_cluster.address,
        ray_nodes.SECOND,
        diary,
    ]
    with subprocess.Popen(command, env=ray_cluster.env, stdout=subprocess.PIPE, text=True) as driver:
        wait_until(lambda: len(lines(diary)) == 1, "the task runs")
        os.kill(int(lines(diary)[0].split()[1]), signal.SIGKILL)
        wait_until(lambda: len(lines(diary)) == 2, "the task runs again after its worker's death")
        ray_cluster.kill_second()
        printed = driver.communicate(timeout=120)[0]
    assert driver.returncode == 0
    assert f"ended on {ray_nodes.FIRST}" in printed
    assert [line.split()[0] for line in lines(diary)] == [ray_nodes.SECOND, ray_nodes.SECOND, ray_nodes.FIRST]
