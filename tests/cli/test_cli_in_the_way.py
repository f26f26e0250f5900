"""What is in the way is not replaced: by -o, by a sweep's or a demo's folder; and streams are written to."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cli_program import SWAP, TASK, good, listing, program, run

A, B = "init.safetensors", "segment.safetensors"
COMMANDS: dict[str, list[object]] = {
    "show": ["show", A],
    "show --stats": ["show", A, "--stats"],
    "diff": ["diff", A, B],
    "diff --by": ["diff", A, B, "--by", "layer,kind"],
    "diff of three": ["diff", A, B, "reconstruct.safetensors"],
    "evaluate": ["evaluate", B, *TASK, "--metric", "iou", "--limit", "4"],
    "plan": ["sweep", *SWAP, *TASK, "--metric", "iou", "--limit", "4", "--by", "kind", "--dry-run"],
    "report": ["report", "run"],
    "select": ["select", "run", "--tolerance", "0.05"],
}


@pytest.fixture(scope="module")
def here(swept: tuple[Path, object], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One copy of the swept folder for all that only reads it."""
    folder = tmp_path_factory.mktemp("way") / "work"
    shutil.copytree(swept[0], folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


# -o -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["json", "csv", "md"])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_result_is_replaced_by_its_like(name: str, format: str, here: Path) -> None:
    out = f"{name.split()[0]}.{format}"
    for _ in range(2):
        good(*COMMANDS[name], "--format", format, "-o", out)


@pytest.mark.parametrize("name", ["heat.png", "heat.svg", "heat.pdf"])
def test_a_picture_is_replaced_by_its_like(name: str, here: Path) -> None:
    for _ in range(2):
        good("plot", "run", "-o", name)


def test_a_page_is_replaced_by_its_like(here: Path) -> None:
    for _ in range(2):
        good("report", "run", "--format", "html", "-o", "page.html")


OTHERS = {
    "train.py": b"import torch\n",
    "model.h5": b"\x89HDF\r\n\x1a\n" + bytes(100),
    "model.gguf": b"GGUF" + bytes(100),
    "damaged.pt": b"PK\x03\x04" + bytes(100),
    "damaged.safetensors": bytes(100),
    "notes.md": b"# Notes\n\n| name | layer | kind |\n| :--- | :--- | :--- |\n",
    "mine.csv": b"name,score\na,1\n",
    "mine.json": b'{"schema": "mine/1"}',
    "plan.json": b'{"plans": ["ckptswap"]}',
    "photo.png": b"\x89PNG\r\n\x1a\n" + bytes(50),
    "table.txt": b"name  kind\n",
}


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("command", ["show", "diff", "evaluate", "report", "plot", "verify", "doctor", "select"])
def test_what_is_not_a_result_is_replaced_by_force_only(command: str, name: str, here: Path) -> None:
    """And before any work: nothing else is said."""
    Path(name).write_bytes(OTHERS[name])
    words = {**COMMANDS, "verify": ["verify", A], "doctor": ["doctor"], "plot": ["plot", "run"]}[command]
    done = run(*words, "-o", name)
    assert done.code == 2
    assert f"{name} exists already, and is not known to be a result of ckptswap's" in done.err
    assert Path(name).read_bytes() == OTHERS[name]
    if command in ("show", "doctor"):
        good(*words, "-o", name, "--force")
        assert Path(name).read_bytes() != OTHERS[name]


def test_an_empty_file_is_in_nobody_s_way(here: Path) -> None:
    Path("empty.txt").write_bytes(b"")
    good("show", A, "-o", "empty.txt")


def test_a_checkpoint_is_not_replaced_by_force_either(here: Path) -> None:
    before = Path(A).read_bytes()
    assert "is a checkpoint" in run("show", B, "-o", A, "--force").err
    assert Path(A).read_bytes() == before


# Streams --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_stdout_by_name_is_stdout(name: str, here: Path) -> None:
    assert good("show", A, "--format", "csv", "-o", name).out == good("show", A, "--format", "csv").out
    assert not os.path.exists("-")


def test_a_device_a_pipe_and_a_descriptor_are_written_to(here: Path) -> None:
    wanted = good("show", A, "--format", "csv").out
    before = os.stat("/dev/null")
    assert good("show", A, "-o", "/dev/null").out == ""
    assert os.stat("/dev/null").st_ino == before.st_ino
    read, write = os.pipe()
    good("show", A, "--format", "csv", "-o", f"/dev/fd/{write}")
    os.close(write)
    with open(read) as pipe:
        assert pipe.read() == wanted
    os.mkfifo("pipe")
    reader = os.open("pipe", os.O_RDONLY | os.O_NONBLOCK)
    good("show", A, "--format", "csv", "-o", "pipe")
    with open(reader) as pipe:
        assert pipe.read() == wanted
    assert not os.path.isfile("pipe")


def test_what_stands_in_a_redirected_file_stays(here: Path, tmp_path: Path) -> None:
    """`>> log` and `-o /dev/stdout`: the log goes on, neither replaced nor written over."""
    log = tmp_path / "log"
    log.write_text("before\n")
    with log.open("a") as out:
        for name in ("/dev/stdout", "/dev/fd/1"):
            subprocess.run(program("show", A, "--format", "csv", "-o", name), stdout=out, check=True)
    wanted = good("show", A, "--format", "csv").out
    assert log.read_text() == "before\n" + 2 * wanted
    assert os.path.islink("/dev/stdout")


def test_a_place_without_a_device_is_a_sentence(here: Path) -> None:
    assert run("show", A, "-o", "/dev/fd/77").code == 2


# Folders --------------------------------------------------------------------------------------------------------

SWEEP = ["sweep", *SWAP, *TASK, "--metric", "iou", "--limit", "4", "--by", "kind", "--engine", "full"]


@pytest.mark.parametrize("dry", [[], ["--dry-run"], ["--fresh"]], ids=str)
@pytest.mark.parametrize(
    "name",
    ["plan.json", "samples.json", "state.json", "lock", "result.json", "result.csv", "result.md", "result.html"],
)
def test_a_sweep_in_a_person_s_folder_replaces_nothing(name: str, dry: list[str], work: Path) -> None:
    Path(name).write_text("mine")
    before = listing(work)
    done = run(*SWEEP, "--run", ".", *dry)
    assert (done.code, done.out) == (2, "")
    assert f"{name} is in the way, and is not a run's: use another folder, or move it away" in done.err
    assert listing(work) == before


def test_a_sweep_in_a_person_s_folder_without_such_files_runs_twice(work: Path) -> None:
    good(*SWEEP, "--run", ".")
    good(*SWEEP, "--run", ".")
    assert Path(B).exists()
    assert Path("result.csv").exists()


def test_both_ways_are_looked_at(work: Path) -> None:
    Path("both/back").mkdir(parents=True)
    Path("both/back/plan.json").write_text("mine")
    done = run(*SWEEP, "--both", "--back-metric", "mse", "--run", "both", "--dry-run")
    assert "both/back/plan.json is in the way" in done.err


@pytest.mark.parametrize(
    "name", ["commands.sh", "init.safetensors", "segment.safetensors", "reconstruct.safetensors"]
)
def test_a_demo_in_a_person_s_folder_replaces_nothing(name: str, tmp_path: Path) -> None:
    pytest.importorskip("nilearn")
    (tmp_path / name).write_text("mine")
    done = run("demo", tmp_path)
    assert (done.code, done.out) == (2, "")
    assert name in done.err
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {name: "mine"}


@pytest.mark.parametrize("name", ["report.md", "report.json", "kinds.svg"])
def test_a_reproduction_in_a_person_s_folder_replaces_nothing(name: str, tmp_path: Path) -> None:
    pytest.importorskip("nilearn")
    (tmp_path / name).write_text("mine")
    done = run("reproduce", "--run", tmp_path)
    assert (done.code, done.out) == (2, "")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {name: "mine"}


# Signals --------------------------------------------------------------------------------------------------------

SLOW = """
import os, sys, time
from ckptswap.cli.main import main

fsync = os.fsync
def slow(handle):
    print("writing", file=sys.stderr, flush=True)
    sys.stdin.readline()
    fsync(handle)
os.fsync = slow
main()
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGHUP, 129), (signal.SIGTERM, 143)])
def test_a_signal_leaves_no_part_of_a_file(number: signal.Signals, code: int, work: Path) -> None:
    before = listing(work)
    with _writing() as process:
        process.send_signal(number)
        assert process.wait(60) == code
    assert listing(work) == before


def test_under_nohup_the_end_of_the_terminal_is_not_heard(work: Path) -> None:
    with _writing(ignored=signal.SIGHUP) as process:
        process.send_signal(signal.SIGHUP)
        process.communicate("go on\n" * 9, timeout=60)
        assert process.returncode == 0
    assert Path("out.safetensors").exists()


@contextmanager
def _writing(ignored: signal.Signals | None = None) -> Iterator[subprocess.Popen[str]]:
    """A transplant that waits before its file is whole."""
    words = ["transplant", *SWAP, "-o", "out.safetensors"]
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=(lambda: signal.signal(ignored, signal.SIG_IGN)) if ignored else None,
    )
    try:
        assert process.stderr is not None
        assert process.stderr.readline() == "writing\n"
        yield process
    finally:
        process.kill()
        process.communicate()
