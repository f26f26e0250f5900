"""`report A B`, as a shell sees it."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from cli_program import SWAP, TASK, good, run, validate

SWEEP = ["sweep", *SWAP, *TASK, "--metric", "iou"]


@pytest.fixture
def two(work: Path) -> Path:
    good(*SWEEP, "--by", "kind", "--run", "one")
    good("sweep", "--from", "init:3", *SWAP[2:], *TASK, "--metric", "iou", "--by", "kind", "--run", "two")
    return work


def test_two_runs_side_by_side_in_every_format(two: Path) -> None:
    table = good("report", "one", "two")
    assert max(map(len, table.out.splitlines())) <= 80
    assert "Ranks' agreement (Kendall)" in table.out
    data = good("report", "one", "two", "--format", "json").json
    validate("agreement", data)
    alone = {row["kind"]: row for row in good("report", "two", "--format", "json").json["rows"]}
    for row in data["rows"]:
        assert row["runs"][1]["drop"] == alone[row["kind"]]["drop"]
    sheet = good("report", "one", "two", "--format", "csv")
    assert all(f"note: {run}: tolerance " in sheet.err for run in ("one", "two"))
    lines = list(csv.DictReader(sheet.out.splitlines()))
    assert [line["kind"] for line in lines] == [row["kind"] for row in data["rows"]]
    assert "| conv.weight |" in good("report", "one", "two", "--format", "md").out
    assert "more" in good("report", "one", "two", "--top", 1).out
    assert good("report", "one", "two", "--top", 1, "--format", "json").json["rows"] == data["rows"][:1]
    assert len(good("report", "one", "two", "--top", 1, "--format", "csv").out.splitlines()) == 2


def test_a_run_with_itself_is_one_run(two: Path) -> None:
    assert good("report", "one", "one").out == good("report", "one").out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["one", "two", "--watch"], "--watch follows one run"),
        (["one", "nowhere"], "nowhere"),
        (["one", "two", "--metric", "dice"], "dice"),
    ],
)
def test_used_wrong_it_says_so(two: Path, words: list[str], said: str) -> None:
    done = run("report", *words)
    assert (done.code, done.out) == (2, "")
    assert said in done.err
