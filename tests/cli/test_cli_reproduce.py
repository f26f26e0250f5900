"""`reproduce`, as a shell sees it: on a folder of drawn images, with one small network in place of seven."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from unittest.mock import patch

import pytest
from cli_program import Done, draw_scans, good, run, validate
from once import once

from ckptswap.lab import experiment
from ckptswap.lab.experiment import SCORED_BATCH, Arm, Experiment

RUN = ["reproduce", "--data", "scans", "--run", "run", "--jobs", "1"]


def small(data: str | None = None) -> Experiment:
    """One small network."""
    arms = (Arm("unet", "lab:unet", {"width": 2, "depth": 1}),)
    return Experiment(arms, seeds=2, steps=4, batch_size=6, data=data)


@pytest.fixture(scope="session")
def reproduced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Done]:
    """A folder with the images and a whole run, and what it printed."""

    def make(place: Path) -> None:
        for part, count in (("train", 30), ("test", SCORED_BATCH)):
            draw_scans(place / "work/scans" / part, count=count, seed=count)
        wide = patch.dict(os.environ, {"COLUMNS": "80"})
        with contextlib.chdir(place / "work"), patch.object(experiment, "quick", small), wide:
            (place / "done.json").write_text(json.dumps(asdict(good(*RUN))), "utf-8")

    place = once(tmp_path_factory, "reproduced-by-command", make)
    return place / "work", Done(**json.loads((place / "done.json").read_text("utf-8")))


@pytest.fixture
def folder(reproduced: tuple[Path, Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the images, as the current folder."""
    shutil.copytree(reproduced[0] / "scans", tmp_path / "scans")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(experiment, "quick", small)
    return tmp_path


def test_from_cost_to_report_and_again(folder: Path, reproduced: tuple[Path, Done]) -> None:
    planned = good(*RUN, "--dry-run")
    assert "1 network x 2 seeds: 6 trainings of 4 steps, 32 sweeps; about" in planned.out
    assert not (folder / "run").exists()
    made, first = reproduced
    shutil.copytree(made / "run", folder / "run")
    assert "6 trainings" in first.err, "the cost is said before the work"
    assert max(map(len, first.out.splitlines())) <= 80
    for words in (
        "Verdicts, shared",
        "Baselines",
        "unet: share of each whole kind",
        "Prefixes",
        "A claim takes 5",
    ):
        assert words in first.out
    again = good(*RUN, "--format", "json")
    validate("reproduce", again.json)
    assert json.loads((folder / "run/report.json").read_text()) == again.json
    assert len(again.json["pairs"]) == 4
    assert again.json["experiment"]["data"] == "scans"
    text = good(*RUN, "--format", "md", "-o", "report.md")
    assert text.out == ""
    assert Path("report.md").read_text() == (folder / "run/report.md").read_text()
    other = run("reproduce", "--full", "--data", "scans", "--run", "run", "--dry-run")
    assert "7 networks x 5 seeds" in other.out, "--full is another experiment"


def test_a_unit_that_fails_is_named(
    folder: Path, reproduced: tuple[Path, Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(reproduced[0] / "run", folder / "run")
    shutil.rmtree(folder / "run/unet/seed-1")
    from ckptswap.errors import TaskError
    from ckptswap.lab import train as room

    train = room.train

    def failing(spec: object, out: Path, **how: object) -> object:
        if "seed-1" in str(out):
            raise TaskError("the loss is nan at step 3", remedy="lower --lr")
        return train(spec, out, **how)

    monkeypatch.setattr(room, "train", failing)
    done = run(*RUN, "--format", "json")
    assert done.code == 3
    assert "unet/seed-1 failed: the loss is nan" in done.err
    validate("reproduce", json.loads(done.out))
    assert set(json.loads(done.out)["failed"]) == {"unet/seed-1"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["reproduce"], "--run"),
        ([*RUN, "--format", "csv"], "reproduce has no csv"),
        ([*RUN, "--jobs", "0"], "--jobs"),
        (["reproduce", "--run", "run", "--data", "nowhere"], "nowhere/train"),
        (["reproduce", "--run", "scans/train/images/s00_0.png", "--data", "scans", "--jobs", "1"], "s00_0.png"),
        ([*RUN, "--quick", "--steps", "3"], "--steps"),
    ],
    ids=str,
)
def test_used_wrong_it_says_so_and_leaves_nothing(folder: Path, words: list[str], said: str) -> None:
    before = sorted(folder.rglob("*"))
    done = run(*words)
    assert done.code == 2
    assert done.out == ""
    assert said in done.err
    assert "fault of ours" not in done.err
    assert sorted(folder.rglob("*")) == before
