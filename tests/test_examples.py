"""The examples run as they are written."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from examples import EXAMPLES, shell


def test_swap_script(demo_folder: Path) -> None:
    printed = shell(f"{EXAMPLES}/swap.sh reconstruct.safetensors segment.safetensors", demo_folder).stdout
    assert "bn.running_mean" in printed
    assert "missing" not in printed


def test_own_task(tmp_path: Path) -> None:
    shutil.copy(EXAMPLES / "own_task/task.py", tmp_path)
    text = (tmp_path / "task.py").read_text("utf-8")
    command = re.search(r"    (ckptswap sweep .*?)\n\"\"\"", text, re.DOTALL)
    assert command
    printed = shell(f"python task.py && {command[1]} --threads 1", tmp_path).stdout
    assert re.search(r"\n1 +conv\.weight .* sensitive", printed)
