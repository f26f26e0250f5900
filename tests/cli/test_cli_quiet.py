"""`-q` and `--progress json`: what is on stderr where a script, a cron job or a program reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cli_program import SWAP, TASK, good, run, validate

from ckptswap.cli import progress
from ckptswap.cli.main import Commands
from ckptswap.cli.progress import Lines

A, B = "init.safetensors", "segment.safetensors"
ODD = ["--kind", "conv.bias,conv.bais"]
LOUD = {
    "show": ["show", A, *ODD],
    "diff": ["diff", A, B, *ODD],
    "transplant": ["transplant", *SWAP, *ODD, "-o", "out.safetensors"],
    "evaluate": ["evaluate", "reconstruct.safetensors", "--data", "scans", "--limit", "8"],
    "sweep": ["sweep", *SWAP, *TASK, "--by", "kind", "--run", "new", "--format", "json", "--limit", "8"],
    "report": ["report", "run", "--format", "csv"],
    "train": ["train", "segment", "--init-from", A, "--data", "scans", "--steps", "1", "-o", "more.safetensors"],
}
"""Commands that have something to tell beside the result."""


@pytest.mark.parametrize("name", Commands())
def test_every_command_has_quiet(name: str) -> None:
    assert ["-q", "--quiet"] in [parameter.opts for parameter in Commands()[name].params]


@pytest.mark.parametrize("name", LOUD)
def test_quiet_keeps_stderr_empty_and_stdout_as_it_is(name: str, work_swept: Path) -> None:
    told = good(*LOUD[name])
    assert told.err
    fresh = ["--fresh"] if name == "sweep" else ["--force"] if name in ("transplant", "train") else []
    done = good(*LOUD[name], *fresh, "-q")
    assert done.err == ""
    assert done.out == told.out


def test_quiet_says_errors(work: Path) -> None:
    done = run("show", "nowhere.safetensors", "--quiet")
    assert (done.code, done.err) == (2, run("show", "nowhere.safetensors").err)
    assert done.err


def test_quiet_says_which_part_failed(work: Path) -> None:
    Path("mine.py").write_text(
        "def fussy(output, target):\n    assert abs(output.mean()) < 1e-9\n    return output.mean((1, 2, 3))\n"
        "fussy.direction = 'max'\n"
    )
    done = run("evaluate", A, "--data", "scans", "--metric", "mine.py:fussy", "-q")
    assert done.code in (2, 3)
    assert done.err.count("\n") == 1


def test_a_default_is_not_told_where_quiet_is_asked_for(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CKPTSWAP_FORMAT", "md")
    assert "by CKPTSWAP_FORMAT" in good("show", A).err
    assert good("show", A, "-q").err == ""
    monkeypatch.setenv("CKPTSWAP_QUIET", "1")
    assert good("show", A).err == ""


def test_no_file_keeps_back_what_it_sets(work: Path) -> None:
    """It may be a stranger's."""
    Path("ckptswap.toml").write_text("quiet = true\n")
    done = run("show", A)
    assert done.code == 2
    assert "quiet" in done.err


def test_progress_of_a_sweep_is_lines_that_follow_the_schema(work: Path) -> None:
    words = ["sweep", *SWAP, *TASK, "--by", "kind", "--limit", "8", "--progress", "json"]
    done = good(*words)
    lines = [json.loads(line) for line in done.err.splitlines() if line.startswith("{")]
    for line in lines:
        validate("progress", line)
    sweep = [line for line in lines if line["work"] == "sweep"]
    assert sweep[0]["done"] == 0
    assert sweep[-1]["done"] == sweep[-1]["total"] > 0
    assert sweep[-1]["left_s"] == 0
    assert any(line.startswith("run: ") for line in done.err.splitlines()), "people are told the rest"


def test_a_line_a_second_with_what_is_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [50.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    tell = Lines("sweep", "blocks")
    for done in range(5, 11):  # five were there before
        tell(done, 10, below=["a +0.1"])
        now[0] += 0.4
    lines: list[dict[str, Any]] = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["done"], line["elapsed_s"], line["left_s"]) for line in lines] == [
        (5, 0.0, None),
        (8, 1.2, 0.8),
        (10, 2.0, 0.0),
    ]
    assert lines[1]["lines"] == ["a +0.1"]


def test_quiet_and_progress_contradict_each_other(work: Path) -> None:
    done = run("show", A, "-q", "--progress", "json")
    assert done.code == 2
    assert "contradict" in done.err


def test_a_dash_is_stdout(work_swept: Path) -> None:
    assert good("report", "run", "-o", "-").out == good("report", "run").out
    assert not Path("-").exists()
