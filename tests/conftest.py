"""Property tests draw the same examples every time, and no example is judged by how long it took."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from once import once

# Test workers and their processes outnumber the cores: a thread of torch's that waits must not keep one busy.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# The secret by which a run folder is known as one's own: not the developer's; workers of pytest's share one.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _state = tempfile.TemporaryDirectory(prefix="ckptswap-state-")
    os.environ["XDG_STATE_HOME"] = _state.name

settings.register_profile("ckptswap", derandomize=True, deadline=None, database=None)
settings.load_profile("ckptswap")


@pytest.fixture(scope="session")
def demo_made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `ckptswap demo` leaves, by its own commands.sh but with few steps and samples. Write nothing to it."""
    pytest.importorskip("nilearn")
    from ckptswap.lab.demo import commands

    quick = re.sub(r"--steps \d+", "--steps 4", commands())
    quick = re.sub(r"(ckptswap sweep .*)", r"\1 --limit 16 --exclude '*.conv?.*,*.bn2.*'", quick)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])

    def make(folder: Path) -> None:
        subprocess.run(["bash", "-c", quick], cwd=folder, env={**os.environ, "PATH": path}, check=True)

    return once(tmp_path_factory, "demo", make)


@pytest.fixture
def demo_folder(demo_made: Path, tmp_path: Path) -> Path:
    """A copy of it for one test."""
    return Path(shutil.copytree(demo_made, tmp_path / "demo"))
