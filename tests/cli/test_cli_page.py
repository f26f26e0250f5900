"""`report RUN --format html`, and the page that a sweep leaves."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from cli_program import SWAP, TASK, good, run

from ckptswap.formats import open_checkpoint


def data_of(page: str) -> dict:
    [found] = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page)
    return json.loads(found)


def test_the_page_of_a_run_is_the_one_that_its_sweep_left(work_swept: Path) -> None:
    done = good("report", "run", "--format", "html", "-o", "page.html")
    assert done.out == ""
    assert Path("page.html").read_text("utf-8") == Path("run/result.html").read_text("utf-8")
    assert good("report", "run", "--format", "html").out == Path("page.html").read_text("utf-8")


def test_the_page_tells_the_very_command_and_the_hashes(work_swept: Path) -> None:
    page = Path("run/result.html").read_text("utf-8")
    assert "ckptswap sweep --from reconstruct.safetensors --to segment.safetensors --data scans" in page
    with open_checkpoint("segment.safetensors") as recipient:
        assert recipient.sha256() in page
    assert page.count('class="strip"') == 9


def test_a_copied_command_makes_the_variant(work_swept: Path) -> None:
    data = data_of(Path("run/result.html").read_text("utf-8"))
    row = good("report", "run", "--format", "json").json["rows"][0]
    first, many = data["rows"][0]
    words = [f"--only {word}" for word in data["words"][first : first + many]]
    [path] = good(*shlex.split(f"{data['starts'][0]} {' '.join(words)}")[1:]).out.splitlines()
    changed = good("diff", "segment.safetensors", path, "--format", "json").json["rows"]
    assert [each["name"] for each in changed if each["status"] == "changed"] == row["tensors"]


def test_top_and_tolerance_and_metric_reach_the_page(work_swept: Path) -> None:
    page = good("report", "run", "--format", "html", "--top", "3", "--tolerance", "0.5", "--metric", "mse").out
    assert "more rows are left out by --top" in page
    assert "tolerance 0.5 as given" in page
    assert "drop in mse" in page
    assert "the worst by iou, this report is about mse" in page
    assert 'class="strip"' not in page


def test_an_unfinished_run_shows_what_waits_and_speaks_of_no_race(work_swept: Path) -> None:
    [journal] = Path("run/journal").glob("*.jsonl")
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[: len(lines) // 5]))
    page = good("report", "run", "--format", "html").out
    waiting = len(good("sweep", *SWAP, *TASK, "--dry-run", "--format", "json").json["rows"]) - len(
        good("report", "run", "--format", "json").json["rows"]
    )
    assert waiting > 0
    assert f"{waiting} are not scored yet." in page
    [heatmap] = re.findall(r'<figure id="heatmap-0">(.*?)<figcaption>', page, re.DOTALL)
    assert heatmap.count(">…") == waiting
    assert "race" not in page[page.index("<main>") : page.index("</main>")]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "segment.safetensors", "--format", "html"], "segment.safetensors holds no sweep"),
        (["run", "--format", "html", "--watch"], "leave --watch out"),
        (["nowhere", "--format", "html"], "nowhere holds no sweep"),
        (["run", "--format", "html", "-o", "segment.safetensors"], "is a checkpoint"),
        (["run", "--format", "html", "-o", "nowhere/page.html"], "nowhere"),
        (["run", "--format", "htm"], "htm"),
        (["run", "-o", "run/plan.json"], "is a part of the run"),
        (["run", "--format", "csv", "-o", "run/journal/main.jsonl"], "is a part of the run"),
    ],
)
def test_wrong_uses_are_a_sentence(work_swept: Path, arguments: list[str], said: str) -> None:
    before = sorted(Path().rglob("*"))
    done = run("report", *arguments)
    assert done.code == 2
    assert said in done.err
    assert done.out == ""
    assert sorted(Path().rglob("*")) == before
