"""The program is run as in tests/cli."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from once import once

sys.path.insert(0, str(Path(__file__).parents[1] / "cli"))


@pytest.fixture
def work(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Iterator[Path]:
    """A copy of a small run, as the current folder."""

    from stranger_runs import make  # tests/cli is on the path by then

    def build(folder: Path) -> None:
        with contextlib.chdir(folder):
            make(folder)

    folder = shutil.copytree(once(tmp_path_factory, "stranger", build), tmp_path / "work")
    with contextlib.chdir(folder):
        yield folder
