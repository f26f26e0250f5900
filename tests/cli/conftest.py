"""A small pair of networks with a shared initialisation, made by `ckptswap train` on eighteen tiny scans."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from cli_program import SWAP, TASK, Done, good
from PIL import Image


def draw_scans(folder: Path, side: int = 16, count: int = 18) -> None:
    """`images/` and `masks/`: a bright square in noise; two neighbours a group (`s03_0.png`, `s03_1.png`)."""
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for at in range(count):
        mask = np.zeros((side, side), np.uint8)
        top, left = rng.integers(1, side // 2, 2)
        mask[top : top + side * 3 // 8, left : left + side * 3 // 8] = 255
        image = np.clip(mask * 0.5 + 40 + rng.normal(0, 20, mask.shape), 0, 255).astype(np.uint8)
        for kind, array in (("images", image), ("masks", mask)):
            Image.fromarray(array).save(folder / kind / f"s{at // 2:02d}_{at % 2}.png")


def train_pair(model: str, args: str, data: str, steps: int) -> None:
    """`init`, `segment` and `reconstruct.safetensors` in the current folder."""
    common = ["--model", model, "--model-args", args, "--data", data, "--steps", steps, "--threads", 1]
    common += ["--lr", 0.02]
    good("train", "segment", *common, "--save-init", "init.safetensors", "-o", "segment.safetensors")
    good("train", "reconstruct", *common, "--init-from", "init.safetensors", "-o", "reconstruct.safetensors")


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `scans/` and the pair trained on them. Tests work in a copy: `work`."""
    folder = tmp_path_factory.mktemp("pair")
    draw_scans(folder / "scans")
    with contextlib.chdir(folder):
        train_pair("lab:unet", "width=2,depth=1", "scans", 40)
    return folder


@pytest.fixture(scope="session")
def swept(pair: Path) -> tuple[Path, Done]:
    """The pair's folder after one sweep of every cell into `run`, and what the sweep printed as JSON."""
    folder = pair.with_name("swept")
    shutil.copytree(pair, folder)
    with contextlib.chdir(folder):
        done = good("sweep", *SWAP, *TASK, "--metric", "iou,mse", "--run", "run", "--format", "json")
    return folder, done


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
