"""The one-node Slurm of `.ci/slurm`, shared by all processes that test against it."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

SCRIPT = Path(__file__).parents[2] / ".ci/slurm"
FOLDER = Path(tempfile.gettempdir()) / "ckptswap-slurm"
CONFIGURATION = FOLDER / "slurm.conf"


def hindrance() -> str | None:
    """Why there can be no Slurm here, or None."""
    if sys.platform != "linux":
        return "Slurm's daemons run on Linux only"
    if os.geteuid() != 0 and not _takes_jobs():
        return "Slurm's daemons need root to start; `sudo .ci/slurm` starts them for these tests"
    return None


@contextmanager
def running() -> Iterator[None]:
    """Slurm takes jobs meanwhile: whichever process comes first starts it, and the last to leave stops it.

    Everyone inside holds a shared lock; who can make it exclusive is alone. A node that was there before the tests
    is left running.
    """
    if os.geteuid() != 0:
        yield
        return
    FOLDER.mkdir(exist_ok=True)
    started_by_tests = FOLDER / "started-by-tests"
    with (FOLDER / "users.lock").open("w") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        if not _takes_jobs():
            started_by_tests.touch()
            _script("start")
        try:
            yield
        finally:
            if _alone(users) and started_by_tests.exists():
                _script("stop")
                started_by_tests.unlink()


@contextmanager
def turn() -> Iterator[None]:
    """Nobody else's test runs meanwhile: one test's preemption would stop the jobs of another."""
    with Path(tempfile.gettempdir(), f"ckptswap-slurm-turn-{os.getuid()}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _takes_jobs() -> bool:
    return subprocess.run([SCRIPT, "status", FOLDER], check=False).returncode == 0


def _script(action: str) -> None:
    done = subprocess.run([SCRIPT, action, FOLDER], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip())


def _alone(users: TextIO) -> bool:
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
