"""show, diff and evaluate: what stands in a table, beyond the golden texts."""

from __future__ import annotations

import csv
import io

import numpy as np
import report_samples as samples

from ckptswap.checkpoint import Checkpoint
from ckptswap.report.checkpoint import show_csv, show_json, show_md, show_table
from ckptswap.report.diff import diff_csv, diff_md, diff_table
from ckptswap.report.evaluate import evaluate_csv, evaluate_md
from ckptswap.report.text import Style

WIDE = Style(160)


def test_show_of_some_entries_sums_only_those() -> None:
    checkpoint = Checkpoint.from_arrays({"a": np.zeros((2, 3), np.float32), "b": np.zeros(5, np.int64)})
    data = show_json(checkpoint, [checkpoint["b"]])
    assert (data["tensors"], data["bytes"]) == (1, 40)
    assert [row["name"] for row in data["rows"]] == ["b"]


def test_show_of_nothing_is_its_summary() -> None:
    data = samples.show() | {"rows": [], "tensors": 0, "bytes": 0}
    assert show_table(data, WIDE).splitlines() == [
        "runs/brain/segment.safetensors  safetensors",
        "0 tensors  0 elements  0 B",
    ]


def test_names_in_forty_columns_can_be_told_apart() -> None:
    """Other columns go first; what is left of two names differs, or names are folded."""
    shown = [line.split()[0] for line in show_table(samples.show(), Style(40)).splitlines()[1:13]]
    assert len(set(shown)) == 12
    folded = "".join(line[2:22].strip() for line in diff_table(samples.diff(), Style(40)).splitlines())
    changed = [row["name"] for row in samples.diff()["rows"] if row["status"] not in ("identical", "unread")]
    assert [name for name in changed if name not in folded] == []


def test_show_exports_have_statistics_only_when_there_are() -> None:
    assert show_csv(samples.show()).splitlines()[0] == "name,layer,block,kind,shape,dtype,numel,nbytes"
    rows = list(csv.DictReader(io.StringIO(show_csv(samples.show(stats=True)))))
    assert [row["mean"] for row in rows[:1]] == ["-1.5e-05"]
    assert rows[-2]["mean"] == ""
    assert rows[0]["shape"] == "64x3x7x7"
    assert "| nan |" in show_md(samples.show(stats=True))


def test_diff_shows_changes_only_unless_asked() -> None:
    name = "encoder.layer1.0.bn1.running_mean"
    assert name not in diff_table(samples.diff(), WIDE)
    assert name in diff_table(samples.diff(), WIDE, every=True)
    assert name not in diff_md(samples.diff())
    assert name in diff_md(samples.diff(), every=True)
    assert name in diff_csv(samples.diff())


def test_diff_without_a_difference_is_two_paths_and_a_line() -> None:
    data = samples.diff() | {"rows": [], "summary": {"changed": 0, "identical": 45}}
    assert diff_table(data, WIDE).splitlines()[2:] == ["", " 0 tensors changed, 45 identical"]


def test_diff_colours_sides_as_git_does() -> None:
    text = diff_table(samples.diff(), Style(160, colour=True))
    (gone,) = [line for line in text.splitlines() if "layer1.0.conv1.weight" in line]
    (new,) = [line for line in text.splitlines() if "layer1.0.conv1.bias" in line]
    assert gone.startswith("\x1b[31m-")
    assert new.startswith("\x1b[32m+")


def test_grouped_rows_have_counts_in_place_of_names() -> None:
    rows = list(csv.DictReader(io.StringIO(diff_csv(samples.grouped()))))
    assert [row["tensors"] for row in rows] == ["4"] * 3
    assert "name" not in rows[0]
    assert "| tensors | layer |" in diff_md(samples.grouped())


def test_evaluate_rows_are_scores_then_differences() -> None:
    rows = list(csv.DictReader(io.StringIO(evaluate_csv(samples.evaluate()))))
    assert [row["quantity"] for row in rows] == ["score"] * 4 + ["difference"] * 2
    assert rows[3]["value"] == ""
    assert float(rows[4]["value"]) == 0.03
    assert evaluate_md(samples.evaluate()).count("\n") == 2 + 2 + 6
