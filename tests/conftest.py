"""Tests begin alike wherever they are started: same examples, signals and width, and no defaults of a user's."""

from __future__ import annotations

import gc
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import programs
import pytest
from hypothesis import settings
from once import once

from ckptswap.executors import forkserver
from ckptswap.scoring.allocator import keep_freed_memory

# Test workers and their processes outnumber the cores: a thread of torch's that waits must not keep one busy, nor
# numpy's, which cannot be told. Workers of pytest's, and what they start, begin with both.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# `pytest … &` in a script begins with SIGINT ignored, and so would every program that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # `nohup` has it ignored
for name in list(os.environ):
    if name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR") or name.startswith("CKPTSWAP_"):
        del os.environ[name]

# The secret by which a run folder is known as one's own: not the developer's; workers of pytest's share one.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _state = tempfile.TemporaryDirectory(prefix="ckptswap-state-")
    os.environ["XDG_STATE_HOME"] = _state.name
    programs.serve()
programs.fork_servers_too()

keep_freed_memory()  # as a worker's process does: tests too allocate and free the same large arrays over and over

# Property tests draw the same examples every time, and no example is judged by how long it took.
settings.register_profile("ckptswap", derandomize=True, deadline=None, database=None)
settings.load_profile("ckptswap")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """Three more than cores: tests wait for programs, a browser, a cluster, and what another worker makes."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    return 3 + (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(config: pytest.Config, specs: Sequence[Any]) -> None:
    """Fork the workers too: each would import torch for itself, and what all tests import."""
    python = programs.serve_tests(programs.TESTED if config.args == config.getini("testpaths") else ())
    for spec in specs:
        spec.python = python


def pytest_configure(config: pytest.Config) -> None:
    """Let each worker collect from another file on: what pytest compiles of a file, the next worker finds made."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    if config.args == config.getini("testpaths") and worker != "0":
        files = [*sorted(Path(__file__).parent.rglob("test_*.py")), config.rootpath / "ckptswap"]
        start = int(worker) * len(files) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
        config.args[:] = map(str, files[start:] + files[:start])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with those that wait for a cluster: others run beside them, and nobody waits for them at the end."""
    items.sort(key=lambda item: (item.get_closest_marker("cluster") is None, item.nodeid.partition("::")[0]))


def pytest_collection_finish() -> None:
    """Keep what lives to the end, a million objects, from being looked through at every garbage collection."""
    gc.freeze()


def pytest_unconfigure() -> None:
    """Let no program's server outlive the tests."""
    programs.end()


@pytest.fixture
def fresh_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The servers of workers begin as users' do."""
    monkeypatch.setattr(forkserver, "subprocess", subprocess)


@pytest.fixture(scope="session")
def demo_made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `ckptswap demo` leaves, by its own commands.sh but with few steps and samples. Write nothing to it."""
    pytest.importorskip("nilearn")
    from ckptswap.lab.demo import commands

    quick = re.sub(r"--steps \d+", "--steps 4", commands())
    quick = re.sub(r"(ckptswap sweep .*)", r"\1 --limit 16 --exclude '*.conv?.*,*.bn2.*'", quick)

    def make(folder: Path) -> None:
        subprocess.run(["bash", "-c", quick], cwd=folder, env={**os.environ, "PATH": programs.path()}, check=True)

    return once(tmp_path_factory, "demo", make)


@pytest.fixture
def demo_folder(demo_made: Path, tmp_path: Path) -> Path:
    """A copy of it for one test."""
    return Path(shutil.copytree(demo_made, tmp_path / "demo"))
