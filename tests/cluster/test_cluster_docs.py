"""The Slurm command of docs/howto/clusters.md, on a small sweep: what it says beforehand is what jobs are told."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import chaos
import programs
import pytest

from ckptswap.errors import UsageError
from ckptswap.executors import slurm

PAGE = Path(__file__).parents[2] / "docs/howto/clusters.md"


def flags_of_the_page() -> list[str]:
    """The page's command from its --by on, without the pipe behind it."""
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    [block] = [text for text in blocks if "--dry-run" in text]
    words = shlex.split(block.replace("\\\n", " ").partition("|")[0])
    return words[words.index("--by") :]


@pytest.mark.cluster
@pytest.mark.usefixtures("slurm")
def test_a_dry_run_shows_what_the_jobs_are_told(tmp_path: Path) -> None:
    folder = chaos.make(tmp_path / "work")
    words = [*chaos.command("cluster"), *flags_of_the_page()]
    shown = programs.run(words, cwd=folder, capture_output=True, text=True, check=True).stdout
    header = json.loads(shown)["job"].splitlines()
    assert not (folder / "cluster").exists()
    done = programs.run(
        [word for word in words if word != "--dry-run"], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    [script] = (folder / "cluster/slurm").glob("*/*/*_submission.sh")
    told = script.read_text("utf-8").splitlines()
    token = script.parents[1].name
    assert [line.replace("TOKEN", token) for line in header] == told[: len(header)]
    logs = [path.read_text("utf-8") for path in script.parent.glob("*_log.out")]
    assert len(logs) == 2
    assert all("this node is" in log for log in logs)


def test_a_line_of_a_shell_is_a_list_of_one() -> None:
    assert slurm._checked({"setup": "module load cuda", "time": 5}) == {"setup": ["module load cuda"], "time": 5}


@pytest.mark.parametrize(
    ("name", "hint"), [("partitoin", "'partition'"), ("reservation", 'additional_parameters={"res')]
)
def test_a_parameter_that_does_not_exist_is_named(name: str, hint: str) -> None:
    with pytest.raises(UsageError, match=name) as caught:
        slurm._checked({name: "x"})
    assert hint in str(caught.value)
    assert "\n" not in str(caught.value)
