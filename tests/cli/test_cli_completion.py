"""What TAB offers in a real bash, and what it does not."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import programs
import pytest

from ckptswap.checkpoint import Checkpoint
from ckptswap.formats import write_checkpoint

ASK = r"""
eval "$(_CKPTSWAP_COMPLETE=source_bash ckptswap)"
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
_ckptswap_completion ckptswap
printf '%s\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(autouse=True)
def _files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint of four layers, and the folder as the current one."""
    arrays = {
        "encoder.0.conv.weight": np.ones((2, 1, 3, 3)),
        "encoder.0.conv.bias": np.ones(2),
        "encoder.10.bn.running_mean": np.ones(2),
        "encoder.10.bn.running_var": np.ones(2),
        "encoder.2.fc.weight": np.ones((2, 2)),
        "evil\x1b[31m.w": np.ones(2),
        "evil $(touch PWNED).w": np.ones(2),
        "evil'.w": np.ones(2),
        "evil,.w": np.ones(2),
    }
    monkeypatch.chdir(tmp_path)
    write_checkpoint(Checkpoint.from_arrays(arrays), "a.safetensors")
    write_checkpoint(Checkpoint.from_arrays({"head.bias": np.ones(2)}), "b.safetensors")


def offered(*words: str, **more: str) -> list[str]:
    environment = {**os.environ, "PATH": programs.path(), **more}
    done = subprocess.run(
        ["bash", "-c", ASK, "bash", "ckptswap", *words], capture_output=True, text=True, env=environment
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_layers_are_those_of_the_file_in_natural_order() -> None:
    found = offered("show", "a.safetensors", "--layers", "enc")
    assert found == ["encoder", "encoder.0", "encoder.0.conv", "encoder.2", "encoder.2.fc", "encoder.10",
                     "encoder.10.bn"]  # fmt: skip
    assert offered("show", "a.safetensors", "--layers", "encoder.1") == ["encoder.10", "encoder.10.bn"]


def test_names_and_kinds_go_on_behind_a_comma() -> None:
    assert offered("show", "a.safetensors", "--only", "encoder.0.conv.b") == ["encoder.0.conv.bias"]
    assert offered("show", "a.safetensors", "--kind", "conv.bias,bn.s") == ["conv.bias,bn.stats"]


def test_the_recipient_of_a_transplant_is_asked() -> None:
    words = ["transplant", "--from", "b.safetensors", "--to", "a.safetensors", "--layers", "encoder.2"]
    assert offered(*words) == ["encoder.2", "encoder.2.fc"]


@pytest.mark.parametrize(
    "words",
    [
        ["show", "nowhere.safetensors", "--layers", "enc"],
        ["show", "--layers", "enc"],
        ["show", "notes.txt", "--layers", "enc"],
        ["show", "a.safetensors", "--only", "evil"],
    ],
)
def test_what_cannot_be_told_offers_nothing(words: list[str]) -> None:
    Path("notes.txt").write_text("no checkpoint")
    assert offered(*words) == []


def test_defaults_that_make_no_sense_do_not_disturb_a_shell() -> None:
    assert offered("show", "a.safetensors", "--kind", "bn.s", CKPTSWAP_NONSENSE="1") == ["bn.stats"]
