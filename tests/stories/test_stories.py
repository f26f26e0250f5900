"""Ten people with networks of their own: what each types, and what is printed, letter by letter at 80 columns.

A story is a page. Its blocks run in their order as those of docs/ do, in an empty folder: `python` makes the files
with the network's own library, `sh` is typed, `text` is what that printed, stderr too, and a block with a title is
code of the person's own. `UPDATE_GOLDEN=1 pytest tests/stories` writes what is printed anew; read the diff first.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import programs
import pytest
from test_docs import refresh

STORIES = sorted(Path(__file__).parent.glob("*.md"))
MADE = Path(__file__).parents[2] / "examples" / "any-model"
OWN_LINES = 4
SCREEN = 40
TIMES = re.compile(r"\b[\d.]+ (?:s|min|h)\b")


def run(block: Any, folder: Path) -> str:
    """Run a block, and see all that a person sees of it; the code that an error ends with stands in brackets."""
    told = [sys.executable, "-c"] if block.language == "python" else ["bash", "-c"]
    path = {
        "PATH": programs.path(),
        "PYTHONPATH": os.pathsep.join([str(MADE), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]),
    }
    done = programs.run(
        [*told, block.body],
        cwd=folder, env={**os.environ, **path, "NO_COLOR": "1", "COLUMNS": "80"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    printed = TIMES.sub("… s", done.stdout)
    assert block.language == "sh" or not done.returncode, printed
    return f"{printed}[exit code {done.returncode}]\n" if done.returncode else printed


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.stem)
def test_what_is_typed_prints_what_the_story_says(story: Path, tmp_path: Path) -> None:
    text = story.read_text("utf-8")
    if needs := re.search(r"<!-- needs (\w+) -->", text):
        pytest.importorskip(needs[1])
    told = refresh.refreshed(text, tmp_path, run)
    if os.environ.get("UPDATE_GOLDEN") == "1":
        story.write_text(told, "utf-8")
    assert told == text


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.stem)
def test_a_story_is_short(story: Path) -> None:
    blocks = refresh.blocks(story.read_text("utf-8"))
    own = [line for block in blocks if block.title for line in block.body.splitlines() if line.strip()]
    assert len(own) <= OWN_LINES
    assert max(len(block.body.splitlines()) for block in blocks if block.language == "text") <= SCREEN
