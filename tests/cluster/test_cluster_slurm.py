"""Slurm and submitit themselves, as the executor will meet them: arrays, the queue, and how a job is stopped.

How submitit 1.5 handles signals (core/job_environment.py): a job's process installs handlers, then calls the
function. SIGTERM and SIGCONT are logged and ignored. SIGUSR2, which Slurm sends `signal_delay_s` (90 s) before the
time limit because submitit asks for it, calls the function's `checkpoint` method where it has one, requeues the
job and raises SystemExit. In the midst of a function without one it raises UncompletedJobError, except where the
job has run for less than 80 % of its limit and more than 10 minutes are left: that counts as preempted, and is
requeued. Handlers that the function installs replace these. A requeued job runs the same pickled function with the
same arguments.
"""

from __future__ import annotations

import subprocess
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import slurm_jobs
from waiting import lines, wait_until

if TYPE_CHECKING:
    import submitit

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("slurm")]


def executor(folder: Path, **parameters: object) -> submitit.SlurmExecutor:
    """An executor whose jobs lie in FOLDER/ID; ID is an array's, not a task's."""
    import submitit  # here, where the fixture has set its log level

    executor = submitit.SlurmExecutor(folder / "%A")
    executor.update_parameters(time=5, cpus_per_task=1, **parameters)
    return executor


def queued(field: str, *ids: str) -> list[str]:
    """A field of `squeue` for these tasks, in their order. It forgets a job MinJobAge (300 s) after its end."""
    command = ["squeue", "--states=all", "--array", "--noheader", "--format", f"%i {field}"]
    rows = dict(line.split(maxsplit=1) for line in slurm_output(*command).splitlines())
    return [rows[each].strip() for each in ids]


def result(job: submitit.SlurmJob[Any]) -> Any:
    """What a job returned. `job.result()` alone never learns of a death: it asks sacct, and there is none."""
    wait_until(job.paths.result_pickle.exists, f"job {job.job_id} has left a result")
    return job.result()


def slurm_output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_an_array_returns_results_to_whoever_looks_for_them(tmp_path: Path) -> None:
    """Job ids and folder are all that another process needs; a comment finds the ids in the queue."""
    jobs = executor(tmp_path, comment="ckptswap KEY").map_array(slurm_jobs.squared, [2, 3])
    assert [result(job) for job in jobs] == [4, 9]
    ids = [job.job_id for job in jobs]
    assert queued("%k", *ids) == ["ckptswap KEY"] * 2
    again = [type(jobs[0])(tmp_path / "%A", each) for each in ids]
    assert [result(job) for job in again] == [4, 9]


def test_a_cancelled_job_stays_away_and_a_requeued_one_comes_back(tmp_path: Path) -> None:
    """Both get SIGTERM. Without accounting only the queue tells: `job.done()` asks sacct, and stays false."""
    diaries = [tmp_path / "cancelled", tmp_path / "requeued"]
    cancelled, requeued = executor(tmp_path).map_array(slurm_jobs.interruptible, diaries)
    wait_until(lambda: all(map(lines, diaries)), "both jobs run")
    cancelled.cancel()
    slurm_output("scontrol", "requeue", requeued.job_id)
    assert result(requeued) == ["started 0", "saved", "started 1"]
    assert queued("%T", cancelled.job_id) == ["CANCELLED"]
    assert lines(diaries[0]) == ["started 0", "saved"]
    assert not cancelled.paths.result_pickle.exists()


def test_preempted_jobs_save_and_come_back(tmp_path: Path) -> None:
    """A higher partition takes the node. Without a grace time Slurm requeues the job; with one it only warns, and
    a job that exits in time has FAILED unless it requeued itself (alone, not what else its array has done).
    """
    diaries = [tmp_path / "low", tmp_path / "grace"]
    tasks = [partial(slurm_jobs.squared, 5), partial(slurm_jobs.interruptible, diaries[1])]
    done, warned = executor(tmp_path, partition="grace").submit_array(tasks)
    assert result(done) == 25
    requeued = executor(tmp_path, partition="low").submit(slurm_jobs.interruptible, diaries[0])
    wait_until(lambda: all(map(lines, diaries)), "both jobs run")
    assert result(executor(tmp_path, partition="high", exclusive=True).submit(slurm_jobs.squared, 6)) == 36
    for job in (requeued, warned):
        first, saved, *again = result(job)
        assert (first, saved) == ("started 0", "saved")
        assert again  # more than once, where it came back before the other had begun
    assert "Restarts=0" in slurm_output("scontrol", "show", "job", done.job_id)


def test_submitit_alone_ignores_sigterm_and_breaks_off_at_sigusr2(tmp_path: Path) -> None:
    """Why the executor must install handlers of its own, for both."""
    go = tmp_path / "go"
    diaries = [tmp_path / "terminated", tmp_path / "timed out"]
    terminated, timed_out = executor(tmp_path).map_array(slurm_jobs.patient, diaries, [go, go])
    wait_until(lambda: all(map(lines, diaries)), "both jobs run")
    slurm_output("scancel", "--signal", "TERM", terminated.job_id)
    slurm_output("scancel", "--signal", "USR2", timed_out.job_id)
    wait_until(lambda: "Bypassing signal SIGTERM" in (terminated.stderr() or ""), "submitit has seen SIGTERM")
    wait_until(timed_out.paths.result_pickle.exists, "submitit has seen SIGUSR2")
    assert "not requeued because: timed-out and not checkpointable" in str(timed_out.exception())
    go.touch()
    assert result(terminated) == "done"
