"""`sweep --engine`, `--memory`, `--dry-run`: how the work is done, what it costs, and that no number changes."""

from __future__ import annotations

import json
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
from cli_program import SWAP, TASK, good, listing, run, validate
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

SWEEP = ["sweep", *SWAP, *TASK, "--metric", "iou,mse"]
FEW = ["--only", "head.*,*running_mean"]
LOOKS = """
import torch
from ckptswap.lab.networks import UNet

class Looks(UNet):
    def __init__(self):
        super().__init__(in_channels=1, classes=1, width=2, depth=1)
    def forward(self, x):
        y = super().forward(x)
        return y if torch.isfinite(y).all() else y * 2

class Draws(Looks):
    def forward(self, x):
        return super().forward(x) + torch.rand(())
"""


def engines(folder: str) -> set[str]:
    """How the journal's blocks were computed, the baseline's aside."""
    lines = Path(folder, "journal", "main.jsonl").read_bytes().splitlines()[1:]
    contents = [json.loads(line[9:]) for line in lines]
    return {content[-1] for content in contents if content[0] != "baseline"}


# --engine -------------------------------------------------------------------------------------------------------


def test_every_engine_gives_the_same_table(work: Path) -> None:
    tables = {}
    for engine, way in (("auto", "replay"), ("replay", "replay"), ("full", "full")):
        done = good(*SWEEP, *FEW, "--engine", engine, "--run", engine, "--format", "json")
        assert engines(engine) == {way}
        assert "warning" not in done.err
        tables[engine] = done.out
    assert tables["auto"] == tables["replay"] == tables["full"]


def test_an_engine_is_no_condition(work: Path) -> None:
    first = good(*SWEEP, *FEW, "--run", "run", "--format", "json")
    before = Path("run/journal/main.jsonl").read_bytes()
    assert good(*SWEEP, *FEW, "--run", "run", "--engine", "full", "--format", "json").out == first.out
    assert Path("run/journal/main.jsonl").read_bytes() == before, "nothing was scored again"


def test_full_passes_measure_what_a_replay_knows(work: Path) -> None:
    """The lab's network reads all it has but batch norm's counters; those differ once they are made to."""
    differing = ["--only", "*num_batches_tracked"]
    spoil_counters("reconstruct.safetensors")
    rows = {
        engine: good(*SWEEP, *differing, "--engine", engine, "--run", engine, "--format", "json").json["rows"]
        for engine in ("auto", "full")
    }
    assert {row["status"] for row in rows["auto"]} == {"no-effect"}
    assert {row["status"] for row in rows["full"]} == {"measured"}
    assert {(row["drop"], row["verdict"]) for row in rows["auto"]} == {(0, "reusable")}
    assert {(row["drop"], row["verdict"]) for row in rows["full"]} == {(0, "undecided")}, "zero flips are no proof"


def spoil_counters(path: str) -> None:
    """Let batch norm's counters differ from the other checkpoint's."""
    with safe_open(path, "np") as opened:
        metadata = opened.metadata()
    arrays = load_file(path)
    more = {name: np.asarray(array + 1) for name, array in arrays.items() if name.endswith("tracked")}
    save_file(arrays | more, path, metadata)


def test_a_model_that_cannot_be_captured_is_told_once(work: Path) -> None:
    Path("own.py").write_text(LOOKS)
    words = [*SWEEP, *FEW, "--model", "own.py:Looks", "--run", "run", "--format", "json"]
    done = good(*words)
    assert done.err.count("cannot be captured") == 1
    [line] = [line for line in done.err.splitlines() if "cannot be captured" in line]
    assert line.startswith("ckptswap: warning: the model cannot be captured (")
    assert line.endswith("): every variant is run in full")
    assert engines("run") == {"full"}
    plain = good(*SWEEP, *FEW, "--run", "plain", "--format", "json").json["rows"]
    assert done.json["rows"] == plain


@pytest.mark.parametrize(
    ("model", "engine", "words"),
    [
        ("Looks", "replay", "cannot be captured"),
        ("Draws", "auto", "another output when it is run again"),
        ("Draws", "full", "another output when it is run again"),
    ],
)
def test_what_an_engine_refuses(work: Path, model: str, engine: str, words: str) -> None:
    Path("own.py").write_text(LOOKS)
    before = listing(work)
    done = run(*SWEEP, "--model", f"own.py:{model}", "--engine", engine, "--run", "run")
    assert (done.code, done.out) == (2, "")
    assert done.err.count("\n") == 1
    assert words in done.err
    assert listing(work) == before


def test_an_engine_that_does_not_exist(work: Path) -> None:
    done = run(*SWEEP, "--engine", "quick", "--run", "run")
    assert (done.code, done.out) == (2, "")
    assert "auto" in done.err
    assert "--engine" in done.err


# --memory -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "size",
    [
        "",
        "much",
        "0",
        "0GB",
        "-1",
        "-2GB",
        "2GiB",
        "1e9",
        "2 G B",
        "GB",
        "inf",
        "nan",
        "2PB",
        "1,5GB",
        "0.2",
        "0.0001KB",
    ],
)
def test_bad_sizes(work: Path, size: str) -> None:
    before = listing(work)
    done = run(*SWEEP, f"--memory={size}", "--run", "run")
    assert (done.code, done.out) == (2, ""), done.err
    assert f"--memory {size!r} is not a size: write for example 2GB" in done.err
    assert done.err.count("\n") == 1
    assert listing(work) == before


@pytest.mark.parametrize("size", ["1", "2000", "3KB", "0.5m", "1.5 GB", "2GB", "2gb", "1T", "100b"])
def test_sizes(work: Path, size: str) -> None:
    plan = good(*SWEEP, "--memory", size, "--dry-run", "--format", "json").json
    assert plan["engine"] == "replay"


def test_memory_changes_the_cost_and_not_the_table(work: Path) -> None:
    """Little memory means more base passes; the bits are the same."""
    little, much = (
        good(*SWEEP, "--memory", size, "--dry-run", "--format", "json").json for size in ("1KB", "2GB")
    )
    assert little["share"] > much["share"]
    assert little["peak_bytes"] <= much["peak_bytes"]
    tables = [
        good(*SWEEP, *FEW, "--memory", size, "--run", size, "--format", "json").out for size in ("1KB", "2GB")
    ]
    assert tables[0] == tables[1]


# --dry-run ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["auto", "replay", "full"])
def test_a_dry_run_as_json(work: Path, engine: str) -> None:
    before = listing(work)
    plan = good(*SWEEP, "--run", "run", "--engine", engine, "--dry-run", "--format", "json").json
    validate("plan", plan)
    assert listing(work) == before
    assert (plan["run"], plan["samples"]) == ("run", 18)
    assert plan["seconds"] > 0
    if engine == "full":
        assert (plan["engine"], plan["share"], plan["peak_bytes"]) == ("full", 1.0, None)
    else:
        assert plan["engine"] == "replay"
        assert 0 < plan["share"] < 1
        assert plan["peak_bytes"] > 8 * 16 * 16 * 4


def test_a_dry_run_in_words(work: Path) -> None:
    replay, full = (" ".join(good(*SWEEP, "--dry-run", "--engine", each).out.split()) for each in ("auto", "full"))
    assert "by replay: " in replay
    assert "% of the work of full forward passes; at most " in replay
    assert "by full forward passes run: " in full
    for text in (replay, full):
        assert re.match(r"about \S+ m?s, of which \S+ m?s to prepare ", text), text
        assert "40 variants to score, with the baseline and the donor, on 18 samples" in text
        assert "run: runs/" in text


def test_a_dry_run_tells_of_cells_without_effect(work: Path) -> None:
    spoil_counters("reconstruct.safetensors")
    plans = {
        engine: good(*SWEEP, "--engine", engine, "--dry-run", "--format", "json").json
        for engine in ("auto", "full")
    }
    for engine, status in (("auto", "no-effect"), ("full", "measured")):
        validate("plan", plans[engine])
        kinds = {row["kind"] for row in plans[engine]["rows"] if row["status"] == status}
        assert "bn.num_batches_tracked" in kinds
    assert plans["full"]["variants"] == plans["auto"]["variants"] + 6


def test_a_dry_run_of_what_cannot_be_captured_is_one_of_full_passes(work: Path) -> None:
    Path("own.py").write_text(LOOKS)
    plan = good(*SWEEP, "--model", "own.py:Looks", "--dry-run", "--format", "json").json
    validate("plan", plan)
    assert (plan["engine"], plan["share"], plan["peak_bytes"]) == ("full", 1.0, None)


# A damaged journal ----------------------------------------------------------------------------------------------


def test_a_damaged_journal_names_file_and_line(work_swept: Path) -> None:
    path = Path("run/journal/main.jsonl")
    lines = path.read_bytes().splitlines(True)
    lines[4] = lines[4].replace(b"A", b"B", 1)
    assert zlib.crc32(lines[4][9:-1]) != int(lines[4][:8], 16)
    path.write_bytes(b"".join(lines))
    before = listing(work_swept)
    for words in ([*SWEEP, "--run", "run"], ["report", "run"]):
        done = run(*words)
        assert (done.code, done.out) == (2, "")
        assert "line 5 of run/journal/main.jsonl is damaged" in done.err
        assert "--fresh" in done.err
        now = listing(work_swept)
        assert {**now, "run": None} == {**before, "run": None}  # the lock that came and went changed its time


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--top", "3", "--confidence", "2"], "confidence is 2"),
        (["--top", "3", "--jobs", "2"], "raced for by one process"),
        (["--run", "segment.safetensors"], "segment.safetensors: it is not a folder"),
        (["--run", "run", "--limit", "8"], "was made under other conditions"),
        (["-o", "segment.safetensors"], "is a checkpoint"),
    ],
)
def test_a_dry_run_refuses_what_a_run_would(work: Path, flags: list[str], said: str) -> None:
    good(*SWEEP, "--by", "kind", "--run", "run")
    for more in (["--dry-run"], []):
        done = run(*SWEEP, "--by", "kind", *flags, *more)
        assert (done.code, done.out) == (2, "")
        assert said in done.err
