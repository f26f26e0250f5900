"""Checkpoints elsewhere, at the command line: every command that reads takes them, none prints what is secret, and
a sweep is continued only with the version that it began with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from cli_program import Done, good, run, run_process
from far_server import FarServer, serving

import ckptswap as cs

NET = """
from torch import nn

def net():
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 1, 1))
"""
TASK = ["--model", "net.py:net", "--data", "random:1x8x8", "--metric", "kl", "--limit", "16", "--threads", "1"]
SHAPES = {"0.weight": (2, 1, 3, 3), "0.bias": (2,), "1.weight": (1, 2, 1, 1), "1.bias": (1,)}


def arrays(seed: int) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    return {name: draw.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}


@pytest.fixture
def far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FarServer]:
    """A folder with a network and its checkpoint `own.pt`, and a server of another."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    Path("net.py").write_text(NET)
    cs.save(arrays(0), "own.pt")
    with serving({"/a.pt": cs.save(arrays(1), "a.pt").read_bytes()}) as server:
        yield server


def clean(*words: object) -> Done:
    """A command that ends well, and says nothing secret."""
    done = good(*words)
    assert "sekret" not in done.out + done.err
    return done


def test_every_command_that_reads(far: FarServer) -> None:
    there = f"{far.url}/a.pt?sig=sekret"
    assert clean("show", there, "--format", "json").json["tensors"] == 4
    assert clean("show", there, "--format", "json").json["path"].startswith(f"{far.url}/a.pt?hidden=")
    assert clean("diff", there, "own.pt", "--format", "json").json["summary"]["changed"] == 4
    assert clean("diff", "--stat", there, "a.pt", "--format", "json").json["summary"]["unread"] == 4
    assert "sound" in clean("verify", there).out
    assert clean("convert", there, "b.npz").out == "b.npz\n"
    assert clean("diff", "a.pt", "b.npz", "--exit-code").code == 0
    out = clean("transplant", "--from", there, "--to", "own.pt", "--only", "0.bias").out.strip()
    assert out == "own+0.bias@a.safetensors"
    assert "sekret" not in str(cs.open(out).metadata)
    assert clean("diff", "own.pt", out, "--format", "json").json["summary"]["changed"] == 1
    scores = clean("evaluate", there, "a.pt", *TASK, "--format", "json").json["checkpoints"]
    assert [each["scores"]["kl"]["value"] for each in scores] == [0, 0]


def test_a_sweep_goes_on_with_the_same_version_only(far: FarServer) -> None:
    sweep = ["sweep", "--to", "own.pt", *TASK, "--run", "run", "--format", "json"]
    table = clean(*sweep, "--from", f"{far.url}/a.pt?sig=sekret").json["rows"]
    assert {row["status"] for row in table} == {"measured"}
    for path in Path("run").rglob("*"):
        assert path.is_dir() or b"sekret" not in path.read_bytes()
    plan = json.loads(Path("run/plan.json").read_text())
    assert f"{far.url}/a.pt " in json.dumps(plan)
    blocks = sum(len(path.read_bytes()) for path in Path("run/journal").iterdir())
    clean(*sweep, "--from", f"{far.url}/a.pt?sig=sekret2")  # signed anew
    assert sum(len(path.read_bytes()) for path in Path("run/journal").iterdir()) == blocks
    far.files["/a.pt"] = cs.save(arrays(2), "a.pt", force=True).read_bytes()
    done = run(*sweep, "--from", f"{far.url}/a.pt?sig=sekret2")
    assert done.code == 2
    assert "donor" in done.err
    assert "sekret" not in done.err
    lost = run("select", "run")
    assert lost.code == 2
    assert "donor" in lost.err


def test_children_know_what_their_parent_knows(far: FarServer) -> None:
    """Workers get what is printed and written, and the rest by their environment."""
    hidden = clean("show", f"{far.url}/a.pt?sig=sekret", "--format", "json").json["path"]
    assert run_process("show", hidden).code == 0
    assert all(asked.path == "/a.pt?sig=sekret" for asked in far.asked)
    lost = run_process("show", hidden, env={"_CKPTSWAP_ADDRESSES": "{}"})
    assert lost.code == 2
    assert f"what stood behind the ? of {hidden} is kept nowhere, since it may be secret" in lost.err


@pytest.mark.parametrize(
    "words",
    [
        ("convert", "own.pt", "{there}"),
        ("transplant", "--from", "a.pt", "--to", "own.pt", "-o", "{there}"),
        ("show", "own.pt", "--format", "json", "-o", "{there}"),
        ("sweep", "--from", "a.pt", "--to", "own.pt", *TASK, "--run", "{there}"),
    ],
    ids=["convert", "transplant", "show -o", "sweep --run"],
)
def test_nothing_is_written_there(far: FarServer, words: tuple[str, ...]) -> None:
    for there in (f"{far.url}/b.npz?sig=sekret", "s3://bucket/b.npz", "hf://org/net/b.npz"):
        before = sorted(path for path in Path().iterdir() if path.name != "__pycache__")
        done = run(*(word.format(there=there) for word in words))
        assert done.code == 2
        assert f"nothing is written to {there.partition(':')[0]}: name a place on this machine" in done.err
        assert "sekret" not in done.err
        assert sorted(path for path in Path().iterdir() if path.name != "__pycache__") == before
    assert far.asked == []


def test_an_error_is_one_sentence_without_a_secret(far: FarServer) -> None:
    host = far.url.removeprefix("http://")
    for there in (
        f"{far.url}/b.pt?sig=sekret",
        f"http://ann:sekret@{host}/b.pt",
        f"{far.url}/a.pt?sig=sekret::ema",
        "https://ann:sekret@host:99999/a.pt",
        "https://ann:sekret@/a.pt",
    ):
        done = run("show", there)
        assert done.code == 2
        assert done.err.count("\n") == 1
        assert "sekret" not in done.err
        assert "Traceback" not in done.err
