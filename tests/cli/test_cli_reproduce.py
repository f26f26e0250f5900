"""`reproduce`, as a shell sees it: on a folder of drawn images, with one small network in place of seven."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_program import draw_scans, good, run, validate

from ckptswap.lab import experiment
from ckptswap.lab.experiment import SCORED_BATCH, Arm, Experiment

RUN = ["reproduce", "--data", "scans", "--run", "run", "--jobs", "1"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for part, count in (("train", 30), ("test", SCORED_BATCH)):
        draw_scans(tmp_path / "scans" / part, count=count, seed=count)

    def small(data: str | None = None) -> Experiment:
        arms = (Arm("unet", "lab:unet", {"width": 2, "depth": 1}),)
        return Experiment(arms, seeds=2, steps=4, batch_size=6, data=data)

    monkeypatch.setattr(experiment, "quick", small)
    return tmp_path


def test_from_cost_to_report_and_again(folder: Path) -> None:
    planned = good(*RUN, "--dry-run")
    assert "1 network x 2 seeds: 6 trainings of 4 steps, 32 sweeps; about" in planned.out
    assert not (folder / "run").exists()
    first = good(*RUN)
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


def test_a_unit_that_fails_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
