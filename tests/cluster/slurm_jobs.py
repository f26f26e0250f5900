"""What the Slurm tests run inside jobs. Jobs find this file by PYTHONPATH, as they find an installed package."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from waiting import note


def squared(number: int) -> int:
    """The shortest of jobs."""
    return number**2


def patient(diary: Path, go: Path) -> str:
    """Knows nothing of signals, and ends when told to."""
    note(diary, "started")
    while not go.exists():
        time.sleep(0.05)
    return "done"


def interruptible(diary: Path) -> list[str]:
    """Works until it is stopped by SIGTERM, saves, and asks to be run again where it must; a second run finishes.

    The handler replaces submitit's, which is installed before the function is called.
    """
    import submitit  # not where pytest collects this file: importing it sets up its logging

    from ckptswap.executors.slurm import must_requeue_itself

    stops: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: stops.append(number))
    restarts = int(os.environ.get("SLURM_RESTART_COUNT", 0))
    note(diary, f"started {restarts}")
    if restarts:
        return diary.read_text("utf-8").splitlines()
    while not stops:
        time.sleep(0.05)
    # Slurm signals every process of a job, often twice: the second SIGTERM would kill the scontrol started below.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    note(diary, "saved")
    # Not SLURM_JOB_ID: one task of an array has the array's own number there, and would requeue all its siblings.
    job_id = submitit.JobEnvironment().job_id
    if must_requeue_itself(job_id):
        subprocess.run(["scontrol", "requeue", job_id], check=True)
    # SystemExit is no Exception, so that submitit leaves no result that would call the job done.
    sys.exit(128 + signal.SIGTERM)
