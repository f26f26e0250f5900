"""The experiment's units on a cluster: the same numbers as here, and what fails is named."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from once import once

from ckptswap.lab.experiment import SCORED_BATCH, Arm, Experiment
from ckptswap.lab.pairs import load_pairs
from ckptswap.lab.reproduce import Estimate, reproduce
from ckptswap.lab.units import Price
from ckptswap.sweep.spec import RunOptions

pytestmark = pytest.mark.cluster
UNET = Arm("unet", "lab:unet", {"width": 2, "depth": 1})
PRICE = Estimate(6, 0, {"unet": Price(0.1, 0.1, 10, 6, 5)}, {"unet/seed-0": 1.0, "unet/seed-1": 1.0})


def draw(folder: Path, count: int) -> None:
    """Bright squares on noise, as arrays."""
    draw = np.random.default_rng(count)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for at in range(count):
        mask = np.zeros((8, 8), np.uint8)
        row, column = draw.integers(0, 4, 2)
        mask[row : row + 4, column : column + 4] = 1
        np.save(folder / "masks" / f"{at:02d}.npy", mask)
        np.save(
            folder / "images" / f"{at:02d}.npy", (90 * mask + draw.integers(0, 60, mask.shape)).astype(np.uint8)
        )


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, and an experiment of two units that was done in this process."""

    def make(folder: Path) -> None:
        draw(folder / "squares/train", 2 * SCORED_BATCH)
        draw(folder / "squares/test", SCORED_BATCH)
        assert not reproduce(experiment(folder), folder / "run", known=PRICE).failed

    return once(tmp_path_factory, "reproduced", make)


def experiment(folder: Path) -> Experiment:
    return Experiment((UNET,), seeds=2, steps=3, batch_size=6, data=str(folder / "squares"))


@pytest.fixture(params=["slurm", "ray"])
def workers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> RunOptions:
    if request.param == "slurm":
        request.getfixturevalue("slurm")
        return RunOptions(executor="slurm", jobs=2, slurm={"time": 5})
    nodes = request.getfixturevalue("ray_cluster")
    for name, value in nodes.env.items():
        monkeypatch.setenv(name, value)
    return RunOptions(executor="ray", jobs=2, ray_address=nodes.address)


def test_a_cluster_finds_what_one_process_finds(here: Path, workers: RunOptions, tmp_path: Path) -> None:
    told: list[str] = []
    outcome = reproduce(
        experiment(here),
        tmp_path / "run",
        workers=workers,
        known=PRICE,
        progress=lambda done, total, what: told.append(what),
    )
    assert outcome.failed == {}
    assert {"unet/seed-0: done", "unet/seed-1: done"} <= set(told)
    assert load_pairs(experiment(here), tmp_path / "run") == load_pairs(experiment(here), here / "run")


def test_a_unit_that_fails_on_a_cluster_is_named(here: Path, workers: RunOptions, tmp_path: Path) -> None:
    shutil.copytree(here / "run", tmp_path / "run")
    shutil.rmtree(tmp_path / "run/unet/seed-1/shared/kinds")
    (tmp_path / "run/unet/seed-1/shared/kinds").write_text("in the way")
    outcome = reproduce(experiment(here), tmp_path / "run", workers=workers, known=PRICE)
    assert set(outcome.failed) == {"unet/seed-1"}
    assert "kinds" in outcome.failed["unet/seed-1"]
