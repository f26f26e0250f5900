"""Words that real shells give back as they were."""

from __future__ import annotations

import shlex
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptswap.shell import joined, printable

WORDS = st.lists(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=1, max_size=5
)
HARD = [
    "=conv.bias",
    "a b",
    "it's",
    '"',
    "$(touch x)",
    "`x`",
    "*",
    "a\nb",
    "\\",
    "",
    "-n",
    "~",
    "é",
    "\x1b[31m",
    "\U0001f600",
]


@given(WORDS)
def test_a_line_is_taken_apart_into_the_same_words(words: list[str]) -> None:
    assert shlex.split(joined(words)) == words


@pytest.mark.parametrize("shell", ["sh", "bash", "zsh"])
def test_shells_read_the_same_words(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell}")
    line = f"printf '%s\\0' {joined(HARD)}"
    said = subprocess.run([shell, "-c", line], capture_output=True, check=True).stdout
    assert said.decode().split("\0")[:-1] == HARD


def test_what_is_shown_is_printable_and_means_the_same_to_bash() -> None:
    line = " ".join(map(printable, HARD))
    assert line.isprintable()
    said = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, check=True, env={"LC_ALL": "C.UTF-8"}
    )
    assert said.stdout.decode().split("\0")[:-1] == HARD
