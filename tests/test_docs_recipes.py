"""Recipes of the pages where things are not as there: a repository with rules of its own, a misspelt name."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ckptswap.checkpoint import Checkpoint
from ckptswap.formats import write_checkpoint

DOCS = Path(__file__).parents[1] / "docs"
RULE = "*.safetensors filter=big diff=big merge=big -text\n"
"""As Git LFS has it, whose own filter may be missing here, or be in use."""
BIN = Path(sys.executable).parent


def recipe(page: str, word: str) -> str:
    """The block of a page that holds this word."""
    blocks = (DOCS / "howto" / page).read_text("utf-8").split("```sh\n")[1:]
    return next(block.split("```")[0] for block in blocks if word in block.split("```")[0])


def shell(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = ["bash", "-euo", "pipefail", "-c", f"PATH='{BIN}':$PATH\n{script}"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with a rule and three networks, which the recipe has been applied to."""
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / ".gitattributes").write_text(RULE)
    assert shell(recipe("git.md", "git init"), tmp_path).returncode == 0
    for name in "abc":
        write_checkpoint(Checkpoint.from_arrays({"w": np.zeros(1000)}), folder / f"{name}.safetensors")
    assert shell("git add . && git commit -qm 'as initialised'", folder).returncode == 0
    return folder


def test_the_git_recipe_keeps_other_attributes(repository: Path) -> None:
    assert (repository / ".gitattributes").read_text().startswith(RULE)
    said = shell("git check-attr filter diff -- a.safetensors", repository).stdout
    assert said.splitlines() == ["a.safetensors: filter: big", "a.safetensors: diff: ckptswap"]


@pytest.mark.parametrize("driver", ["ckptswap", "stats"])
def test_a_damaged_file_does_not_end_git_diff(driver: str, repository: Path) -> None:
    if driver == "stats":
        lines = recipe("git.md", "textconv").splitlines()
        script = "\n".join(line for line in lines if "textconv" in line or "sed" in line)
        assert shell(script, repository).returncode == 0
    (repository / "a.safetensors").write_bytes(b"cut short")
    (repository / "b.safetensors").unlink()
    write_checkpoint(Checkpoint.from_arrays({"w": np.ones(1000)}), repository / "c.safetensors", force=True)
    done = shell("git diff", repository)
    assert done.returncode == 0, done.stderr
    assert "a.safetensors" in done.stderr
    assert ("1 tensor changed" if driver == "ckptswap" else "c.safetensors") in done.stdout


def test_a_misspelt_file_is_no_change(tmp_path: Path) -> None:
    for name, value in (("init", 0), ("segment", 1)):
        arrays = {"bn.weight": np.full(2, value), "bn.running_mean": np.zeros(2), "bn.running_var": np.zeros(2)}
        write_checkpoint(Checkpoint.from_arrays(arrays), tmp_path / f"{name}.safetensors")
    script = recipe("shell-scripts.md", "--exit-code")
    assert shell(script, tmp_path).stdout == "batch norm has changed\n"
    assert shell(script.replace("segment.", "init."), tmp_path).stdout == "batch norm is as it was\n"
    done = shell(script.replace("segment.", "segmnet."), tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "segmnet.safetensors" in done.stderr


def test_no_page_installs_from_an_index() -> None:
    """Which has no ckptswap: pages install a clone."""
    pages = [DOCS.parent / "README.md", *DOCS.rglob("*.md")]
    assert [page for page in pages if re.search(r"pip install[^\n]* '?ckptswap", page.read_text("utf-8"))] == []
