"""Every example that a command's --help shows runs as it is written (`demo` and `reproduce`: elsewhere)."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from cli_program import SWAP, good, run

COMMANDS = (
    "show",
    "diff",
    "transplant",
    "evaluate",
    "sweep",
    "report",
    "plot",
    "select",
    "train",
    "convert",
    "verify",
    "doctor",
)


def examples(command: str) -> list[str]:
    """The lines after `Examples:`, each with its continuations; read from the program's own help."""
    text = good(command, "--help").out
    block = re.search(r"^ *Examples:\n((?: +.+\n)+)", text, re.MULTILINE)
    assert block, f"{command} --help shows no examples"
    lines = re.sub(r"\\\n\s*", "", block[1]).splitlines()
    return [line.strip() for line in lines]


EXAMPLES = [(command, each) for command in COMMANDS for each in examples(command)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the examples expect: three checkpoints trained on brain slices, and the run of a sweep."""
    pytest.importorskip("nilearn")
    folder = tmp_path_factory.mktemp("examples")
    small = ["--model", "lab:unet", "--model-args", "width=2,depth=3", "--data-args", "part=train", "--steps", 2]
    with contextlib.chdir(folder):
        good("train", "segment", *small, "--save-init", "init.safetensors", "-o", "segment.safetensors")
        good("train", "reconstruct", *small, "--init-from", "init.safetensors", "-o", "reconstruct.safetensors")
        good(
            "sweep",
            *SWAP,
            "--data",
            "lab:mni",
            "--metric",
            "dice",
            "--limit",
            9,
            "--layers",
            "head",
            "--run",
            "run",
        )
    shutil.copytree(folder / "run", folder / "other-run")
    return folder


def arguments(command: str) -> list[str]:
    """A command line as bash would hand it to the program, in the current folder."""
    script = "ckptswap() { printf '%s\\0' \"$@\"; }\n" + command
    done = subprocess.run(["bash", "-euc", script], capture_output=True, text=True, check=True)
    return done.stdout.split("\0")[:-1]


def test_there_are_examples_of_every_command() -> None:
    assert {command for command, _ in EXAMPLES} == set(COMMANDS)
    assert len(EXAMPLES) > 20
    assert all(
        line.startswith(f"ckptswap {command} ") or line == f"ckptswap {command}" for command, line in EXAMPLES
    )


@pytest.mark.parametrize(("command", "line"), EXAMPLES, ids=[line for _, line in EXAMPLES])
def test_example(folder: Path, tmp_path: Path, command: str, line: str) -> None:
    shutil.copytree(folder, tmp_path / "work")
    with contextlib.chdir(tmp_path / "work"):
        before = set(Path().rglob("*"))
        first, _, rest = line.partition(" | ")
        done = run(*arguments(first))
        assert done.code == 0, done.err
        assert done.out.strip() or "-o " in first
        if "-o " in first:
            assert set(Path().rglob("*")) - before
        if rest and shutil.which("jq"):
            piped = subprocess.run(
                ["bash", "-euc", rest], input=done.out, capture_output=True, text=True, check=True
            )
            nothing = (
                "select" in first and done.json["commands"] == []
            )  # on nine groups no cell is proven reusable
            assert (piped.stdout.strip() not in ("", "null")) != nothing
