"""One contract for all executors, and what befalls the workers of a cluster."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import chaos
import programs
import pytest
import ray_nodes
import torch
from once import once
from waiting import wait_until

if sys.platform != "linux":
    pytestmark = pytest.mark.skip("processes are looked up in /proc")

FLAGS = {
    "inline": [],
    "process": ["--jobs", "2"],
    "slurm": ["--executor", "slurm", "--jobs", "2", "--slurm", "time=5"],
    "ray": ["--executor", "ray", "--jobs", "2"],
}


@pytest.fixture
def cluster(request: pytest.FixtureRequest) -> tuple[list[str], Mapping[str, str]]:
    """An executor's flags, and the environment that it needs; the cluster is up."""
    name = request.param
    if name == "slurm":
        request.getfixturevalue("slurm")
        return FLAGS[name], os.environ
    if name == "ray":
        nodes = request.getfixturevalue("ray_cluster")
        return [*FLAGS[name], "--ray-address", nodes.address], nodes.env
    return FLAGS[name], os.environ


@pytest.fixture(scope="session")
def halfway(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A sweep that was stopped midway, one of whose variants must fail; and its table when it is whole."""

    def make(place: Path) -> None:
        folder = chaos.make(place / "work")
        donor = torch.load(folder / "donor.pt")
        donor["head.weight"].fill_(torch.inf)
        torch.save(donor, folder / "donor.pt")
        assert chaos.start(folder, "whole").wait() == 3
        process = chaos.start(folder, "run")
        wait_until(lambda: chaos.places(folder / "run").total() > 60, "the sweep works")
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 143

    folder = once(tmp_path_factory, "halfway", make) / "work"
    return folder, json.loads((folder / "whole.out").read_text())


@pytest.mark.parametrize(
    "cluster",
    ["inline", "process", *(pytest.param(name, marks=pytest.mark.cluster) for name in ("slurm", "ray"))],
    indirect=True,
)
def test_any_executor_continues_any_run_to_the_same_table(
    cluster: tuple[list[str], Mapping[str, str]], halfway: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """Bit for bit, with the variant that fails as a row with its reason; what is there is not done again."""
    flags, env = cluster
    folder, table = halfway
    shutil.copytree(folder, tmp_path / "work")
    process = chaos.start(tmp_path / "work", "run", *flags, env=env)
    assert process.wait() == 3, (tmp_path / "work/run.said").read_text()
    assert json.loads((tmp_path / "work/run.out").read_text()) == table
    assert [row["status"] for row in table["rows"]].count("failed") == 1
    assert set(chaos.places(tmp_path / "work/run").values()) == {1}
    assert len(list((tmp_path / "work/run/journal").iterdir())) == (3 if flags else 1)


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    """A sweep that takes its time, and whose Slurm jobs stand still while there is a file `hold`."""
    folder = chaos.make(tmp_path / "work")
    source = folder / "own.py"
    hold = f"'SLURM_JOB_ID' in os.environ and os.path.exists({str(folder / 'hold')!r})"
    waits = f"time.sleep(0.05)\n    while {hold}:\n        time.sleep(0.05)"
    source.write_text("import os\n" + source.read_text().replace("time.sleep(0.01)", waits))
    return folder


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a sweep that nothing befell."""
    return (
        once(tmp_path_factory, "whole", lambda place: chaos.finish(chaos.make(place / "work"), "whole")) / "work"
    )


@pytest.fixture(scope="session")
def table(whole: Path) -> dict[str, Any]:
    """What it printed."""
    return json.loads((whole / "whole.out").read_text())


@pytest.mark.parametrize(
    "cluster",
    ["process", *(pytest.param(name, marks=pytest.mark.cluster) for name in ("slurm", "ray"))],
    indirect=True,
)
def test_any_executor_scores_zero_controls(
    cluster: tuple[list[str], Mapping[str, str]], table: dict[str, Any], tmp_path: Path, whole: Path
) -> None:
    """At the end of the same run, to the table that is found without it."""
    flags, env = cluster
    asked, drops = ["--zero-control", "--tolerance", "1e6"], []
    for place, where in (("here", []), ("there", flags)):
        shutil.copytree(whole, tmp_path / place)
        process = chaos.start(tmp_path / place, "whole", *asked, *where, env=env)
        assert process.wait() == 0, (tmp_path / place / "whole.said").read_text()
        rows = json.loads((tmp_path / place / "whole.out").read_text())["rows"]
        drops.append([(row["zero_drop"], row["verdict"]) for row in rows])
        assert [row["drop"] for row in rows] == [row["drop"] for row in table["rows"]]
        assert set(chaos.places(tmp_path / place / "whole").values()) == {1}
    assert drops[0] == drops[1]
    assert "unused" in dict(map(reversed, drops[0]))


def written(folder: Path) -> int:
    """Blocks that workers have written."""
    return sum(path.read_bytes().count(b"\n") - 1 for path in (folder / "run/journal").glob("*-*.jsonl"))


def slurm_output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def active() -> list[str]:
    """The numbers of the jobs that run."""
    return slurm_output("squeue", "--me", "--array", "--noheader", "--states=R", "--format=%i").split()


@pytest.mark.cluster
@pytest.mark.usefixtures("slurm")
def test_a_cancelled_and_a_requeued_job_are_made_good(slow: Path, table: dict[str, Any]) -> None:
    process = chaos.start(slow, "run", *FLAGS["slurm"])
    wait_until(lambda: written(slow) > 10 and len(active()) == 2, "both jobs work")
    cancelled, requeued = active()
    slurm_output("scancel", cancelled)
    slurm_output("scontrol", "requeue", requeued)
    assert process.wait() == 0, (slow / "run.said").read_text()
    assert json.loads((slow / "run.out").read_text()) == table
    assert set(chaos.places(slow / "run").values()) == {1}
    assert f"job {cancelled} is CANCELLED" in (slow / "run.said").read_text()


@pytest.mark.cluster
@pytest.mark.usefixtures("slurm")
@pytest.mark.parametrize("partition", ["low", "grace"])
def test_preempted_jobs_come_back_and_continue(slow: Path, table: dict[str, Any], partition: str) -> None:
    """At once, or after a warning; each job has finished its block and is run again, once or more."""
    process = chaos.start(slow, "run", *FLAGS["slurm"], "--slurm", f"partition={partition}")
    wait_until(lambda: written(slow) > 10 and len(active()) == 2, "both jobs work")
    jobs = active()
    slurm_output("sbatch", "--partition=high", "--exclusive", "--output=/dev/null", "--wrap=sleep 1")
    assert process.wait() == 0, (slow / "run.said").read_text()
    assert json.loads((slow / "run.out").read_text()) == table
    assert set(chaos.places(slow / "run").values()) == {1}
    assert all("Restarts=0" not in slurm_output("scontrol", "show", "job", job) for job in jobs)


def holder(lock: Path) -> str:
    """What a lock says; nothing for the moment between a dead holder's end and the next one's beginning."""
    try:
        return lock.read_text()
    except FileNotFoundError:
        return ""


@pytest.mark.cluster
@pytest.mark.usefixtures("slurm")
def test_jobs_outlive_the_sweep_and_the_same_command_collects(slow: Path, table: dict[str, Any]) -> None:
    process = chaos.start(slow, "run", *FLAGS["slurm"])
    wait_until(lambda: written(slow) > 10, "the jobs work")
    (slow / "hold").touch()
    process.kill()
    process.wait()
    before = active()
    again = chaos.start(slow, "run", *FLAGS["slurm"])
    wait_until(lambda: f'"pid": {again.pid}' in holder(slow / "run/lock"), "the second sweep is at it")
    (slow / "hold").unlink()
    wait_until(lambda: written(slow) > 40, "the jobs go on")
    (slow / "hold").touch()
    again.send_signal(signal.SIGINT)
    assert again.wait() == 130
    (slow / "hold").unlink()
    assert "Slurm's jobs go on" in (slow / "run.said").read_text()
    assert chaos.finish(slow, "run", *FLAGS["slurm"]) == table
    assert set(chaos.places(slow / "run").values()) == {1}
    assert before
    assert len(list((slow / "run/orders").glob("*.json"))) == 1
    assert "2 workers of an earlier sweep were still at it" in (slow / "run.said").read_text()


@pytest.mark.cluster
def test_a_dead_ray_worker_and_a_dead_node_are_made_good(
    ray_cluster: ray_nodes.Cluster, slow: Path, table: dict[str, Any]
) -> None:
    flags = [*FLAGS["ray"], "--ray-address", ray_cluster.address]
    process = chaos.start(slow, "run", *flags, env=ray_cluster.env)
    wait_until(lambda: written(slow) > 10 or process.poll() is not None, "the tasks work")
    assert process.poll() is None, (slow / "run.said").read_text()
    os.kill(next(iter(chaos.running("ray::run_shard"))), signal.SIGKILL)
    before = written(slow)
    wait_until(lambda: written(slow) > before + 20, "the work goes on")
    ray_cluster.kill_second()
    assert process.wait() == 0, (slow / "run.said").read_text()
    assert json.loads((slow / "run.out").read_text()) == table
    assert chaos.places(slow / "run").total() == len(chaos.places(slow / "run"))


@pytest.mark.cluster
def test_ray_says_when_no_node_is_large_enough(ray_cluster: ray_nodes.Cluster, slow: Path) -> None:
    flags = [*FLAGS["ray"], "--ray-address", ray_cluster.address, "--threads", "2"]
    assert chaos.start(slow, "run", *flags, env=ray_cluster.env).wait() == 2
    assert "no node of Ray's has 2 CPUs" in (slow / "run.said").read_text()


@pytest.mark.cluster
def test_ray_says_when_nobody_is_there(slow: Path) -> None:
    assert chaos.start(slow, "run", *FLAGS["ray"], "--ray-address", "127.0.0.1:9").wait() == 2
    assert "Ray cannot be reached at 127.0.0.1:9" in (slow / "run.said").read_text()


@pytest.mark.cluster
@pytest.mark.usefixtures("slurm")
def test_slurm_says_what_it_refuses(slow: Path) -> None:
    for parameters, words in {
        "partition=nowhere": "Slurm takes no jobs (",
        "colour=red": "--slurm has no parameter 'colour'",
    }.items():
        flags = ["--executor", "slurm", "--jobs", "2", "--slurm", parameters]
        assert chaos.start(slow, "run", *flags).wait() == 2
        assert words in (slow / "run.said").read_text()


CLUSTERS = [pytest.param(name, marks=pytest.mark.cluster) for name in ("slurm", "ray")]


@pytest.mark.parametrize("cluster", CLUSTERS, indirect=True)
def test_the_examples_run(cluster: tuple[list[str], Mapping[str, str]], tmp_path: Path) -> None:
    flags, env = cluster
    folder, name = chaos.make(tmp_path / "work"), flags[1]
    script = Path(__file__).parents[2] / "examples" / name / "sweep.sh"
    env = {**env, "PATH": programs.path(), "THREADS": "1", "JOBS": "2"}
    env |= {"SLURM": "time=5"} if name == "slurm" else {"RAY": flags[-1]}
    task = ["--model", "own.py:Net", "--data", "own.py:data", "--metric", "own.py:error"]
    command = [script, "donor.pt", "recipient.pt", *task]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\nbaseline ") == 2
