"""`report A B`, as a shell sees it."""

from __future__ import annotations

import contextlib
import csv
import re
import shutil
from pathlib import Path

import pytest
from cli_program import SWAP, TASK, good, run, validate
from once import once

pytestmark = pytest.mark.usefixtures("two")


@pytest.fixture
def two(pair: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pair's folder with two runs, as the current one. Nothing is written to it."""

    def make(place: Path) -> None:
        shutil.copytree(pair, place / "work")
        with contextlib.chdir(place / "work"):
            for name, donor in (("one", SWAP[1]), ("two", "init:3")):
                good("sweep", "--from", donor, *SWAP[2:], *TASK, "--metric", "iou", "--by", "kind", "--run", name)

    monkeypatch.chdir(once(tmp_path_factory, "compared", make) / "work")


def test_two_runs_side_by_side_in_every_format() -> None:
    table = good("report", "one", "two", "--width", 80)
    assert max(map(len, table.out.splitlines())) <= 80
    assert "How alike they rank: Kendall's tau" in table.out
    data = good("report", "one", "two", "--format", "json").json
    validate("agreement", data)
    alone = {row["kind"]: row for row in good("report", "two", "--format", "json").json["rows"]}
    for row in data["rows"]:
        assert row["values"][1]["drop"] == alone[row["kind"]]["drop"]
    sheet = good("report", "one", "two", "--format", "csv")
    assert all(f"note: {run}: tolerance " in sheet.err for run in ("one", "two"))
    lines = list(csv.DictReader(sheet.out.splitlines()))
    for name in ("kind", "runs", "mean", "sd", "ci_low", "ci_high"):
        assert [line[name] for line in lines] == [
            "" if row[name] is None else str(row[name]) for row in data["rows"]
        ]
    assert "| conv.weight |" in good("report", "one", "two", "--format", "md").out
    assert "more" in good("report", "one", "two", "--top", 1).out
    assert good("report", "one", "two", "--top", 1, "--format", "json").json["rows"] == data["rows"][:1]
    assert len(good("report", "one", "two", "--top", 1, "--format", "csv").out.splitlines()) == 2


def test_a_run_with_itself_is_one_run() -> None:
    done = good("report", "one", "./one")
    assert done.out == good("report", "one").out
    assert "./one is one, which counts once" in done.err


def test_a_verdict_chooses_cells_and_hides_no_run_of_them() -> None:
    rows = good("report", "one", "two", "--verdict", "sensitive", "--format", "json").json["rows"]
    found = [[value["verdict"] for value in row["values"]] for row in rows]
    assert all("sensitive" in verdicts for verdicts in found)
    assert any(set(verdicts) != {"sensitive"} for verdicts in found)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["one", "two", "--watch"], "--watch follows one run"),
        (["one", "nowhere"], "nowhere"),
        (["one", "two", "--metric", "dice"], "dice"),
        (["one", "two", "--kind", "nosuch"], "nosuch"),
        (["one", "--sort", "spread"], "'spread' is of several runs"),
    ],
)
def test_used_wrong_it_says_so(words: list[str], said: str) -> None:
    done = run("report", *words)
    assert (done.code, done.out) == (2, "")
    assert said in done.err


def test_a_page_of_several_runs_has_every_cell_and_loads_nothing(tmp_path: Path) -> None:
    page = tmp_path / "runs.html"
    good("report", "one", "two", "--format", "html", "-o", page)
    text = page.read_text("utf-8")
    rows = good("report", "one", "two", "--format", "json").json["rows"]
    table = text.split('<table id="table"')[1].split("</table>")[0]
    assert table.count("<tr") == len(rows) + 1
    assert all(row["kind"] in table for row in rows)
    assert "How alike they rank" in text
    assert not re.search(r"(?:src|href)=\"(?!#|data:)", text), "one file"
    good("report", "one", "two", "--format", "html", "--top", 1, "-o", page)
    assert f"And {len(rows) - 1} more." in page.read_text("utf-8"), "which replaces its own kind"


def test_means_are_drawn_of_the_runs_that_are_named(tmp_path: Path) -> None:
    good("plot", "one", "two", "--picture", "bars", "-o", tmp_path / "x.svg")
    text = (tmp_path / "x.svg").read_text()
    for shown in ("mean drop in iou", "mean of 2 runs with 95 % t interval", ">one<", ">two<", ">mean<"):
        assert shown in text
    done = run("plot", "one", "two", "-o", tmp_path / "y.svg")
    assert (done.code, "one and two have nothing for a heatmap" in done.err) == (2, True)


def test_means_as_latex_have_a_row_a_cell() -> None:
    data = good("report", "one", "two", "--format", "json").json
    text = good("report", "one", "two", "--format", "latex", "--sort", "name").out
    drops = text.split(r"\caption{Drops.")[1].split(r"\bottomrule")[0]
    assert drops.count(r"\\") == len(data["rows"]) + 1
