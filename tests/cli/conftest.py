"""A small pair of networks with a shared initialisation, made by `ckptswap train` on eighteen tiny scans."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from cli_program import SWAP, TASK, Done, draw_scans, good, train_pair
from once import once


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `scans/` and the pair trained on them. Tests work in a copy: `work`."""

    def make(folder: Path) -> None:
        draw_scans(folder / "scans")
        with contextlib.chdir(folder):
            train_pair("lab:unet", "width=2,depth=1", "scans", 40)

    return once(tmp_path_factory, "pair", make)


@pytest.fixture(scope="session")
def swept(pair: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Done]:
    """The pair's folder after one sweep of every cell into `run`, and what the sweep printed as JSON."""

    def make(place: Path) -> None:
        shutil.copytree(pair, place / "swept")
        with contextlib.chdir(place / "swept"):
            done = good("sweep", *SWAP, *TASK, "--metric", "iou,mse", "--run", "run", "--format", "json")
        (place / "done.json").write_text(json.dumps(asdict(done)), "utf-8")

    place = once(tmp_path_factory, "swept", make)
    return place / "swept", Done(**json.loads((place / "done.json").read_text("utf-8")))


@pytest.fixture
def work(pair: Path, tmp_path: Path) -> Iterator[Path]:
    """A fresh copy of the pair, as the current folder."""
    with _copied(pair, tmp_path / "work") as folder:
        yield folder


@pytest.fixture
def work_swept(swept: tuple[Path, Done], tmp_path: Path) -> Iterator[Path]:
    """A fresh copy of the swept folder, as the current folder."""
    with _copied(swept[0], tmp_path / "work") as folder:
        yield folder


@contextlib.contextmanager
def _copied(source: Path, folder: Path) -> Iterator[Path]:
    shutil.copytree(source, folder)
    with contextlib.chdir(folder):
        yield folder
