"""Property tests draw the same examples every time, and no example is judged by how long it took.

`demo_folder` is made once for all workers of a test run.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("ckptswap", derandomize=True, deadline=None, database=None)
settings.load_profile("ckptswap")


@pytest.fixture(scope="session")
def demo_made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `ckptswap demo` leaves, by its own commands.sh but with few steps and samples. Write nothing to it."""
    pytest.importorskip("nilearn")
    from ckptswap.lab.demo import commands

    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "demo-made"
    quick = re.sub(r"--steps \d+", "--steps 4", commands())
    quick = re.sub(r"(ckptswap sweep .*)", r"\1 --limit 16 --exclude '*.conv?.*,*.bn2.*'", quick)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with open(f"{shared}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (shared / "run/result.json").exists():
            shared.mkdir()
            subprocess.run(["bash", "-c", quick], cwd=shared, env={**os.environ, "PATH": path}, check=True)
    return shared


@pytest.fixture
def demo_folder(demo_made: Path, tmp_path: Path) -> Path:
    """A copy of it for one test."""
    return Path(shutil.copytree(demo_made, tmp_path / "demo"))
