"""`sweep --fail-on`: an exit code for scripts and CI."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_program import SWAP, TASK, Done, run

AGAIN = ["sweep", *SWAP, *TASK, "--metric", "iou,mse", "--run", "run"]


@pytest.mark.parametrize(("on", "passing"), [("sensitive", {"undecided"}), ("undecided", set())])
def test_1_when_a_row_is_of_those(on: str, passing: set[str], swept: tuple[Path, Done], work_swept: Path) -> None:
    verdicts = [row["verdict"] for row in swept[1].json["rows"]]
    failing = sum(verdict not in {"reusable", "unused", *passing} for verdict in verdicts)
    assert failing
    done = run(*AGAIN, "--fail-on", on, "-q", "-o", "table.txt")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith(f"ckptswap: {failing} of {len(verdicts)} rows ")
    assert done.err.count("\n") == 1
    assert Path("table.txt").read_text().strip()


def test_0_when_none_is(work_swept: Path) -> None:
    words = [*AGAIN, "--tolerance", "1000", "--fail-on", "undecided"]
    assert run(*words).code == 0
    Path("ckptswap.toml").write_text("tolerance = 1000\n")
    done = run(*AGAIN, "--fail-on", "undecided")
    assert done.code == 1
    assert "--tolerance of" in done.err
