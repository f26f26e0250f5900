"""A sweep survives what befalls machines: kills, full disks, folders that vanish, damage, a second sweep.

`benchmarks/faults.py` does the same at length.
"""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import chaos
import numpy as np
import programs
import pytest

from ckptswap.scoring.scorer import Block
from ckptswap.sweep.run_folder.folder import RunFolder
from ckptswap.sweep.run_folder.journal import Journal, journal_files, key_of, read_blocks
from ckptswap.sweep.run_folder.plain import JOURNAL, LOCK


def said(folder: Path, run: str) -> str:
    return (folder / f"{run}.said").read_text()


def wait(holds: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def begun(folder: Path, run: str, *flags: str, blocks: int = 30, **how: object) -> subprocess.Popen[str]:
    """A sweep that is in the midst of its work."""
    process = chaos.start(folder, run, *flags, **how)
    wait(lambda: process.poll() is not None or chaos.places(folder / run).total() >= blocks)
    assert process.poll() is None, said(folder, run)
    return process


@pytest.mark.parametrize(
    ("victim", "flags"), [(chaos.itself, []), (chaos.itself, ["--jobs", "2"]), (chaos.worker_of, ["--jobs", "2"])]
)
def test_killed_sweeps_and_workers_give_the_same_table(work: Path, table: dict[str, Any], victim, flags) -> None:
    draw = random.Random(0)
    found = chaos.survive(work, "run", 2, victim, draw, table, *flags, most=60)
    assert (found.lost, found.equal) == (0, True)
    assert found.kills == 2
    # A worker finishes the block in hand when the sweep dies, and that of two may be begun anew meanwhile.
    assert found.twice <= (2 * found.kills if flags and victim is chaos.itself else 0)


@pytest.mark.parametrize("flags", [[], ["--jobs", "2"]])
@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_signal_lets_the_block_in_hand_be_finished(
    work: Path, table: dict[str, Any], flags, number, code, word
) -> None:
    process = begun(work, "run", *flags)
    process.send_signal(number)
    assert process.wait(60) == code
    assert f"{word}, " in said(work, "run")
    assert "the same command continues" in said(work, "run")
    assert not (work / "run" / LOCK).exists()
    assert not chaos.workers_of(process, work)
    before = chaos.places(work / "run")
    assert all(path.read_bytes().endswith(b"\n") for path in journal_files(work / "run"))
    assert chaos.finish(work, "run", *flags) == table
    assert set(chaos.places(work / "run").values()) == {1}
    assert before <= chaos.places(work / "run")


def test_a_second_sweep_is_told_who_works_on_the_folder(work: Path, table: dict[str, Any]) -> None:
    process = begun(work, "run")
    process.send_signal(signal.SIGSTOP)  # or it may have ended before the second has begun
    second = chaos.start(work, "run")
    assert second.wait() == 2
    assert f"worked on by process {process.pid} on " in said(work, "run")
    process.kill()
    process.wait()
    assert (work / "run" / LOCK).exists()
    assert chaos.finish(work, "run") == table


def test_a_folder_that_vanishes_ends_the_sweep_with_a_word(work: Path) -> None:
    process = begun(work, "run")
    shutil.rmtree(work / "run")
    assert process.wait(60) == 2
    assert "cannot write run/journal/main.jsonl" in said(work, "run")


def test_a_full_disk_ends_the_sweep_with_a_word_and_loses_nothing(work: Path, table: dict[str, Any]) -> None:
    """The size of files is limited, which gives the same kind of refusal."""
    limit = 30_000
    code = f"""
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, resource.RLIM_INFINITY))
sys.argv = ['ckptswap', *{chaos.command("run")[3:]!r}]
from ckptswap.cli.main import main
main()
"""
    done = programs.run([sys.executable, "-c", code], cwd=work, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "cannot write run/journal/main.jsonl" in done.stderr
    assert (work / "run" / JOURNAL / "main.jsonl").stat().st_size <= limit
    assert chaos.places(work / "run").total() > 100
    assert chaos.finish(work, "run") == table
    assert set(chaos.places(work / "run").values()) == {1}


@pytest.mark.parametrize(("name", "word"), [("donor.pt", "donor changed"), ("own.py", "code")])
def test_what_changed_between_two_starts_is_named(work: Path, name: str, word: str) -> None:
    process = begun(work, "run")
    process.send_signal(signal.SIGTERM)
    process.wait()
    kept = chaos.places(work / "run")
    if name == "own.py":
        (work / name).write_text((work / name).read_text() + "\n")
    else:
        shutil.copy(work / "recipient.pt", work / name)
    assert chaos.start(work, "run").wait() == 2
    assert "made under other conditions" in said(work, "run")
    assert word in said(work, "run")
    assert chaos.places(work / "run") == kept


def test_a_worker_refuses_what_changed_after_the_sweep_began(work: Path) -> None:
    """The workers build the task anew, and see what the sweep did not."""
    process = begun(work, "run", "--jobs", "2", blocks=1)
    source = work / "own.py"
    source.write_text(source.read_text().replace("0.01", "0.00"))
    code = process.wait(120)
    if code == 0:
        pytest.skip("both workers were faster than this test")
    assert code == 2
    assert "cannot work: " in said(work, "run")
    assert "other conditions: code" in said(work, "run")


def test_a_script_that_guards_nothing_is_run_once(work: Path, table: dict[str, Any]) -> None:
    """Workers of a sweep that it begins are not begun as its copies."""
    words = chaos.command("run", "--jobs", "2")[3:]
    lines = ["print('once', flush=True)", "import sys", "from ckptswap.cli.main import main"]
    (work / "script.py").write_text("\n".join([*lines, f"sys.argv[1:] = {words}", "main()"]))
    done = programs.run([sys.executable, "script.py"], cwd=work, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.removeprefix("once\n")) == table
    assert [log for log in (work / "run/orders").glob("*.log") if "once" in log.read_text()] == []


def test_a_line_torn_at_any_byte_is_dropped(tmp_path: Path) -> None:
    """The last one of a worker's file, with another writer's file beside it."""
    for writer in ("main", "other"):
        with Journal(tmp_path, "k", writer) as journal:
            for number in range(3):
                journal.append(Block(writer, number, {"iou": np.array([[0.5]])}))
    path = tmp_path / JOURNAL / "other.jsonl"
    whole = path.read_bytes()
    last = len(whole.splitlines(keepends=True)[-1])
    for cut in range(1, last + 1):
        path.write_bytes(whole[:-cut])
        found = read_blocks(tmp_path, key="k")
        assert sorted(found) == [*[("main", at) for at in range(3)], ("other", 0), ("other", 1)], cut


def test_a_flipped_bit_is_named_and_repaired(work: Path, table: dict[str, Any]) -> None:
    chaos.finish(work, "run", "--jobs", "2")
    path = max(journal_files(work / "run"), key=lambda each: each.stat().st_size)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[4] = lines[4].replace(b"A", b"B", 1)
    path.write_bytes(b"".join(lines))
    assert chaos.start(work, "run").wait() == 2
    assert f"line 5 of run/{JOURNAL}/{path.name} is damaged" in said(work, "run")
    assert chaos.finish(work, "run", "--repair") == table
    assert set(chaos.places(work / "run").values()) == {1}


def test_exports_are_there_while_the_sweep_runs_and_the_report_follows(work: Path) -> None:
    source = work / "own.py"
    source.write_text(source.read_text().replace("0.01", "0.05"))
    process = begun(work, "run")
    wait(lambda: (work / "run/result.json").exists() or process.poll() is not None)
    assert process.poll() is None
    assert any(row["samples"] for row in json.loads((work / "run/result.json").read_text())["rows"])
    report = [sys.executable, "-m", "ckptswap", "report", "run", "--watch", "--top", "2", "--ascii"]
    watching = subprocess.Popen(report, cwd=work, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    printed, told = watching.communicate(timeout=200)
    process.wait()
    assert watching.returncode == process.returncode == 0
    assert printed.count("\nbaseline ") >= 2
    assert "no sweep works on it" in told


def test_the_key_does_not_know_who_did_the_work(work: Path) -> None:
    chaos.finish(work, "one")
    chaos.finish(work, "two", "--jobs", "2")
    assert key_of(RunFolder(work / "one").read_plan().key) == key_of(RunFolder(work / "two").read_plan().key)
