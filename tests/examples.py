"""The examples, and the folders in which those of `any-model` have run."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import programs
import pytest
from once import once

EXAMPLES = Path(__file__).parents[1] / "examples"
ANY_MODEL = sorted((EXAMPLES / "any-model").glob("*.sh"))


def shell(command: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command as in a shell whose PATH begins with this environment; fails with what it printed."""
    environment = {**os.environ, "PATH": programs.path(), "LIMIT": "16", "NO_COLOR": "1"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command, "bash", *arguments],
        cwd=folder, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    # 141: `| head` closed the pipe before a command had printed all, as a reader may.
    assert done.returncode in (0, 141), f"{command}\n{done.stdout}\n{done.stderr}"
    return done


def any_model(factory: pytest.TempPathFactory, script: Path) -> Path:
    """The folder in which an example of `any-model` has run, once for all tests, with what it wrote to stderr."""

    def make(folder: Path) -> None:
        done = shell(str(script), folder)
        (folder / "stderr").write_text(done.stderr)

    return once(factory, f"any-model-{script.stem}", make)


def commands(script: Path) -> list[str]:
    """The commands of a script, as they are typed where its files lie."""
    text = script.read_text("utf-8").replace("\\\n  ", "").replace("$here/", "").replace('"', "")
    return [line for line in text.splitlines() if line.startswith("ckptswap")]
