"""The examples run as they are written."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import programs

ROOT = Path(__file__).parent.parent


def shell(command: str, folder: Path, *arguments: str) -> str:
    """Run a command as in a shell whose PATH begins with this environment; fails with what it said."""
    environment = {**os.environ, "PATH": programs.path(), "LIMIT": "16", "NO_COLOR": "1"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command, "bash", *arguments],
        cwd=folder, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    # 141: `| head` closed the pipe before a command had printed all, as a reader may.
    assert done.returncode in (0, 141), f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_swap_script(demo_folder: Path) -> None:
    printed = shell(f"{ROOT}/examples/swap.sh reconstruct.safetensors segment.safetensors", demo_folder)
    assert "bn.running_mean" in printed
    assert "missing" not in printed


def test_own_task(tmp_path: Path) -> None:
    shutil.copy(ROOT / "examples/own_task/task.py", tmp_path)
    text = (tmp_path / "task.py").read_text("utf-8")
    command = re.search(r"    (ckptswap sweep .*?)\n\"\"\"", text, re.DOTALL)
    assert command
    printed = shell(f"python task.py && {command[1]} --threads 1", tmp_path)
    assert re.search(r"\n1 +conv\.weight .* sensitive", printed)
