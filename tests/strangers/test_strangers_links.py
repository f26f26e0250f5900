"""Run folders whose files are links, pipes or folders: refused, nothing outside is written, read or waited for."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cli_program import good, listing, run
from stranger_runs import AGAIN, SWEEP, journal

from ckptswap.errors import RunError
from ckptswap.lab.experiment import STAGES, quick
from ckptswap.lab.pairs import _swept
from ckptswap.lab.reproduce import load_experiment
from ckptswap.lab.units import Price, UnitWork
from ckptswap.sweep.run_folder.lock import Lock, is_held
from ckptswap.sweep.run_folder.sealed import sealed
from ckptswap.sweep.stopping import Stop

PARTS = ["plan.json", "journal", "journal/main.jsonl", "samples.json", "lock", "orders", "slurm", "result.json",
         "result.html"]  # fmt: skip
FOLDERS = ("journal", "orders", "slurm")
READ = {"plan.json", "journal", "journal/main.jsonl"}
"""Without what stands here there is no table."""


@pytest.fixture(autouse=True)
def _never_waits() -> Iterator[None]:
    """A pipe that nobody writes to would keep us for ever."""

    def give_up(*_: object) -> None:
        raise TimeoutError("it waits")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def outside(part: str, path: Path, home: Path) -> None:
    """A link to what somebody keeps elsewhere, with the content that would be looked for."""
    there = home / "precious"
    there.mkdir()
    target = there / Path(part).name
    if path.exists():
        path.rename(target)
    elif part in FOLDERS:
        target.mkdir()
        (target / "theirs").write_text("precious")
    else:
        target.write_text("precious")
    path.symlink_to(target)


def relative(part: str, path: Path, home: Path) -> None:
    """The same by a path with `..` in it."""
    outside(part, path, home)
    target = os.readlink(path)
    path.unlink()
    path.symlink_to(os.path.relpath(target, path.parent))


def dangling(part: str, path: Path, home: Path) -> None:
    """A link to what is not there yet, and would be made."""
    remove(path)
    path.symlink_to(home / "not-there")


def pipe(part: str, path: Path, home: Path) -> None:
    remove(path)
    os.mkfifo(path)


def other(part: str, path: Path, home: Path) -> None:
    """A folder for a file, and a file for a folder."""
    remove(path)
    if part in FOLDERS:
        path.write_text("")
    else:
        path.mkdir()


def device(part: str, path: Path, home: Path) -> None:
    remove(path)
    path.symlink_to("/dev/zero")


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)


WAYS = [outside, relative, dangling, pipe, other, device]


@pytest.mark.parametrize("way", WAYS, ids=lambda each: each.__name__)
@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_is_none_is_refused(
    work: Path, tmp_path: Path, part: str, way: Callable[[str, Path, Path], None]
) -> None:
    way(part, work / "run" / part, tmp_path)
    before = listing(tmp_path)
    done = run(*SWEEP)
    assert (done.code, done.out) == (2, ""), done.err
    words = "is a symbolic link" if os.path.islink(work / "run" / part) else "is not a plain "
    assert f"run/{part} {words}" in done.err
    assert listing(tmp_path) == before, "nothing was written, here or there"
    shown = run("report", "run", "--format", "json")
    assert shown.code == (2 if part in READ else 0), shown.err
    page = run("report", "run", "--format", "html", "-o", str(tmp_path / "page.html"))
    assert page.code == (2 if part in {*READ, "samples.json", "lock"} else 0), page.err
    if part in READ:
        for command in (["report", "run", "--watch"], ["report", "run", "run/../run"], ["select", "run", *AGAIN]):
            assert run(*command).code == 2
    elif part == "lock":
        assert run("report", "run", "--watch").code == 2


def test_a_journal_under_two_names_is_not_written_to(work: Path) -> None:
    """A hard link: what is appended here would be there too."""
    os.link(journal(work / "run"), work / "theirs.jsonl")
    before = (work / "theirs.jsonl").read_bytes()
    done = run(*SWEEP)
    assert done.code == 2
    assert "has a second name elsewhere" in done.err
    assert (work / "theirs.jsonl").read_bytes() == before
    good("report", "run")


def test_a_link_to_the_whole_folder_is_the_users_own_affair(work: Path) -> None:
    Path("run").rename("elsewhere")
    Path("run").symlink_to("elsewhere")
    before = good("report", "run", "--format", "json").out
    assert good(*SWEEP, "--tolerance", "0.01").out == before


def test_other_files_beside_a_run_may_be_links(work: Path) -> None:
    (work / "run/notes.md").symlink_to("/etc/hostname")
    (work / "run/my-checkpoints").symlink_to("..")
    good(*SWEEP)


def test_the_ways_of_both_are_no_links(work: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    Path("both").mkdir()
    Path("both/back").symlink_to(tmp_path / "precious")
    done = run(*SWEEP[:-4], "--run", "both", "--both", "--back-metric", "mse", "--back-target", "masks")
    assert done.code == 2
    assert "both/back is a symbolic link" in done.err
    assert os.listdir(tmp_path / "precious") == []


@pytest.mark.parametrize("content", ["{}", "[]", sealed({"pid": "1/../../../tmp", "host": 3}), sealed({}), "\x00"])
def test_an_odd_lock_is_somebodys_for_a_while(work: Path, content: str) -> None:
    (work / "run/lock").write_text(content)
    assert is_held(work / "run")
    with pytest.raises(RunError, match="is worked on by "):
        Lock(work / "run").__enter__()
    os.utime(work / "run/lock", (0, 0))
    assert not is_held(work / "run")


def test_a_folder_that_can_only_be_read_is_reported(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether its lock is alive is then judged by our clock."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    (work / "run/lock").write_text(sealed({"host": "elsewhere 1", "pid": 7}))
    monkeypatch.setattr(Path, "touch", refuse)
    assert is_held(work / "run")
    os.utime(work / "run/lock", (0, 0))
    assert not is_held(work / "run")
    good("report", "run", "--watch")


# Folders of `reproduce` -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", [dangling, pipe, other, device], ids=lambda each: each.__name__)
def test_an_experiments_settings_are_a_plain_file(tmp_path: Path, way: Callable[[str, Path, Path], None]) -> None:
    (tmp_path / "run").mkdir()
    way("experiment.json", tmp_path / "run/experiment.json", tmp_path)
    done = run("reproduce", "--run", str(tmp_path / "run"))
    assert done.code == 2
    assert "experiment.json is " in done.err
    with pytest.raises(RunError, match=r"experiment\.json is "):
        load_experiment(tmp_path / "run")


@pytest.mark.parametrize("text", ["3", "[3]", '["../../run"]', '["/etc"]', "[" * 100_000, "{", '[""]'])
def test_the_names_of_its_sweeps_lead_nowhere_else(tmp_path: Path, text: str) -> None:
    (tmp_path / STAGES).write_text(text)
    with pytest.raises(RunError, match=r"sweeps\.json is damaged"):
        _swept(tmp_path)


@pytest.mark.parametrize(
    "text", ["[]", "3", '{"arms": 3}', '{"arms": [3]}', '{"arms": [], "x": 1}', "[" * 100_000]
)
def test_odd_settings_are_a_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "experiment.json").write_text(text)
    with pytest.raises(RunError, match="holds no experiment"):
        load_experiment(tmp_path)


@pytest.mark.parametrize("place", ["unet", "unet/seed-0", "unet/seed-0/shared"])
def test_a_units_folder_is_no_link(tmp_path: Path, place: str) -> None:
    experiment = quick(None)
    unit = experiment.units()[0]
    assert unit.folder == "unet/seed-0"
    (tmp_path / "precious").mkdir()
    (tmp_path / "run" / place).parent.mkdir(parents=True)
    (tmp_path / "run" / place).symlink_to(tmp_path / "precious")
    work = UnitWork(experiment, unit, tmp_path / "run", Price(1, 1, 1, 1, 1), lambda *_: None, Stop())
    with pytest.raises(RunError, match=f"{place} is a symbolic link"):
        work.run()
    assert os.listdir(tmp_path / "precious") == []
