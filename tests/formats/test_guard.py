"""A result replaces older results, and nothing that cannot be made again."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from sweeping import run_plan

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import FileError
from ckptswap.formats import write_checkpoint
from ckptswap.sweep.run_folder.folder import RunFolder
from ckptswap.sweep.run_folder.overwrite import is_export, refuse_occupied, refuse_precious
from ckptswap.sweep.run_folder.plain import JOURNAL, LOCK, SPECS

PLAN, SAMPLES = RunFolder("").plan_path.name, RunFolder("").samples_path.name


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder as a sweep leaves it, with journals that were set aside."""
    folder = tmp_path / "run"
    for name in (JOURNAL, f"{JOURNAL}.1", SPECS):
        (folder / name).mkdir(parents=True)
    RunFolder(folder).write_plan(run_plan({}))
    return folder


@pytest.mark.parametrize("name", ["a.safetensors", "a.pt", "a.npz", "shards/", "a.safetensors.index.json"])
def test_a_checkpoint_is_refused_in_every_format(name: str, tmp_path: Path) -> None:
    checkpoint = Checkpoint.from_arrays({"w": np.ones(2)})
    write_checkpoint(checkpoint, f"{tmp_path}/{name}")
    for path in (tmp_path / name, *(each for each in tmp_path.rglob("*.*") if each.suffix != ".json")):
        with pytest.raises(FileError, match="is a checkpoint: write the result elsewhere"):
            refuse_precious(path)


@pytest.mark.parametrize(
    "name",
    [
        PLAN,
        SAMPLES,
        "state.json",
        LOCK,
        JOURNAL,
        f"{JOURNAL}/main.jsonl",
        f"{JOURNAL}.1/new.html",
        f"{SPECS}/a/b.json",
    ],
)
def test_what_a_sweep_remembers_is_refused(name: str, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileError, match="part of the run"):
        refuse_precious(run / name)
    monkeypatch.chdir(run / JOURNAL)
    with pytest.raises(FileError, match="part of the run"):
        refuse_precious(os.path.join("..", name))


def test_a_damaged_plan_is_a_plan(run: Path) -> None:
    (run / PLAN).write_bytes(b"")
    with pytest.raises(FileError, match="part of the run"):
        refuse_precious(run / PLAN)


@pytest.mark.parametrize("name", ["result.json", "result.html", "table.csv", "back/result.md", "journal.html"])
def test_what_can_be_made_again_may_be_replaced(name: str, run: Path) -> None:
    refuse_precious(run / name)


def test_elsewhere_these_names_are_free(tmp_path: Path) -> None:
    """`sweep --dry-run --format json -o plan.json` may be asked twice."""
    (tmp_path / PLAN).write_text('{"schema": "ckptswap.plan/1"}')
    refuse_precious(tmp_path / PLAN)
    refuse_precious(tmp_path / "lock" / "page.html")
    refuse_precious(tmp_path / "new.safetensors")


# Other people's files -------------------------------------------------------------------------------------------


def occupied(folder: Path) -> str:
    try:
        refuse_occupied(folder)
    except FileError as error:
        return str(error)
    return ""


def test_a_run_s_own_folder_is_not_occupied(run: Path) -> None:
    for name in (SAMPLES, "result.csv", LOCK):
        (run / name).write_text("whatever it holds")
    assert occupied(run) == ""
    (run / PLAN).write_bytes(b"\0damaged")  # its journal tells whose it is
    (run / JOURNAL / "main.jsonl").write_text("{}")
    assert occupied(run) == ""


@pytest.mark.parametrize(
    "make", [lambda path: path.write_text("{}"), os.mkfifo, lambda path: path.symlink_to("x")]
)
def test_a_person_s_plan_is_in_the_way(make: object, tmp_path: Path) -> None:
    """Also where a folder beside it is called journal; a pipe is not waited for."""
    (tmp_path / JOURNAL).mkdir()
    make(tmp_path / PLAN)  # type: ignore[operator]
    assert f"{PLAN} is in the way, and is not a run's" in occupied(tmp_path)


def test_what_a_killed_sweep_leaves_is_in_nobody_s_way(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text('{"host": "a", "pid": 1, "process": "1", "token": "abc"}')
    assert occupied(tmp_path) == ""
    (tmp_path / LOCK).write_text("a key")
    assert "lock is in the way" in occupied(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "# My notes\n\n| name | layer | kind | shape |\n| :--- | :--- | :--- | :--- |\n",
        "name,score\nlayer,kind\n",
        'notes\nname,layer,kind,shape\n',
        '{"runs": [{"schema": "ckptswap.sweep/1"}]}',
        '{"schema": "ckptswap.run/3"}',
        "<html><body>ckptswap</body></html>",
        '<svg xmlns="http://www.w3.org/2000/svg"><!-- ckptswap --></svg>',
    ],
)  # fmt: skip
def test_what_only_speaks_of_us_is_not_a_result(text: str, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text(text)
    assert not is_export(tmp_path / "mine")
    with pytest.raises(FileError, match="is not known to be a result of ckptswap's: write elsewhere"):
        refuse_precious(tmp_path / "mine")
    refuse_precious(tmp_path / "mine", force=True)
