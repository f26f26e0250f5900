from __future__ import annotations

import csv
import dataclasses
import io
import re
from statistics import median

import report_samples as samples
from report_samples import findings_text, kind_summary

from ckptswap.report.screen import sweep_table
from ckptswap.report.sweep import sweep_csv, sweep_json, sweep_md
from ckptswap.report.text import Style
from ckptswap.sweep.result import Row, SweepResult

WIDE = Style(160)


def of(*rows: Row) -> SweepResult:
    return SweepResult("mse", "min", 0.01, 0.02, None, 5, rows)


def test_csv_has_the_numbers_of_the_json_in_full() -> None:
    result = samples.sweep()
    rows = list(csv.DictReader(io.StringIO(sweep_csv(result))))
    for found, row in zip(rows, sweep_json(result)["rows"], strict=True):
        for name in ("rank", "numel", "rmse", "score", "drop", "ci_low", "sim_high", "samples"):
            assert found[name] == "" if row[name] is None else float(found[name]) == row[name]
        assert found["tensors"] == ";".join(row["tensors"])


def test_every_form_has_every_metric_and_the_one_that_ranks_comes_first() -> None:
    result = samples.several()
    document = sweep_json(result)
    assert [metric["name"] for metric in document["metrics"]] == ["dice", "mse", "torchmetrics:F1Score"]
    table = list(csv.DictReader(io.StringIO(sweep_csv(result))))
    for found, row, own in zip(table, document["rows"], result.rows, strict=True):
        assert list(row["metrics"]) == ["dice", "mse", "torchmetrics:F1Score"]
        assert row["metrics"]["dice"] == {name: row[name] for name in ("score", "drop", "ci_low", "ci_high")}
        assert row["metrics"]["mse"] == dataclasses.asdict(own.others[0])
        for name, value in row["metrics"]["mse"].items():
            assert found[f"mse.{name}"] == ("" if value is None else repr(value))
    assert "also **mse** (lower is better): baseline 0.0123, donor 0.5" in sweep_md(result)
    assert "mse.drop" in sweep_md(result)
    assert "metrics" not in sweep_json(samples.sweep())


def test_every_measured_row_is_shown_once_and_in_order() -> None:
    text = sweep_table(samples.sweep(), WIDE)
    ranks = [int(found) for found in re.findall(r"^ ?\s*(\d+)  (?:encoder|bn|conv)", text, re.M)]
    whole = len(samples.SIZES)
    measured = [row for row in samples.sweep().rows if row.status == "measured"]
    assert ranks == [*range(1, whole + 1), *range(1, len(measured) - whole + 1)]


def test_top_says_how_many_it_left_out() -> None:
    assert sweep_table(samples.sweep(), WIDE, top=2).count("more\n") == 2
    assert "more\n" not in sweep_table(samples.sweep(), WIDE)


def test_whole_layers_and_the_root_module_have_names() -> None:
    text = sweep_table(of(Row("", None, ("scale",), 1, "measured", rank=1, drop=0.5, verdict="undecided")), WIDE)
    assert "whole layers" in text
    assert "(root)" in text
    assert "lower is better" in text


def test_rows_of_one_layer_and_kind_are_told_apart_by_their_tensor() -> None:
    rows = [
        Row("rnn", "rnn.weight_ih", (f"rnn.weight_ih_l{i}",), 9, "measured", rank=i + 1, drop=0.1) for i in (0, 1)
    ]
    text = sweep_table(of(*rows), WIDE)
    assert "rnn.weight_ih_l0" in text
    assert "rnn.weight_ih_l1" in text


def test_missing_intervals_are_dashes_not_zeros() -> None:
    row = Row("c", "conv.bias", ("c.bias",), 4, "measured", rank=1, score=0.5, drop=0.1, verdict="undecided")
    for style in (Style(80), WIDE):
        line = sweep_table(of(row), style).splitlines()[5]
        assert line.startswith("1  c")
        assert "–" in line
        assert "±0" not in line


def test_reasons_are_gathered() -> None:
    rows = [Row(f"l{i}", "conv.bias", (f"l{i}.bias",), 4, "mismatch", reason="no such tensor") for i in range(8)]
    text = sweep_table(of(*rows), WIDE)
    assert text.count("no such tensor") == 1
    assert "l4 conv.bias and 3 more: no such tensor" in text
    assert "   8 mismatch" in text


def test_kind_summary_against_plain_counting() -> None:
    result = samples.sweep()
    lines = {line.split()[0]: line.split()[1:] for line in kind_summary(result, WIDE).splitlines()[2:]}
    for kind in samples.SIZES:
        cells = [row for row in result.rows if row.kind == kind and row.layer is not None]
        drops = [row.drop for row in cells if row.drop is not None]
        found = lines[kind]
        assert float(found[1]) == float(f"{max(drops):.4f}")
        assert abs(float(found[2]) - median(drops)) < 1e-4
        counts = [
            sum(row.verdict == each for row in cells) for each in ("reusable", "unused", "sensitive", "undecided")
        ]
        assert [int(each) for each in found[3:7]] == counts
        (whole,) = [row for row in result.rows if row.kind == kind and row.layer is None]
        assert abs(float(found[7]) - (whole.drop or 0)) < 1e-4
    assert lines["conv.weight"][0] == "8/9"


def test_nothing_to_say_is_an_empty_text() -> None:
    assert kind_summary(of(), WIDE) == ""
    assert findings_text(of(), WIDE) == ""
    assert "not ranked" not in sweep_table(of(), WIDE)


def test_md_has_sections_findings_and_notes() -> None:
    text = sweep_md(samples.sweep())
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        "### Whole kinds",
        "### Cells",
        "### Findings",
    ]
    assert "- **undecided**: The weight and bias" in text
    assert "0.01 × " in text
    assert sweep_md(dataclasses.replace(samples.sweep(), findings=())).count("###") == 2


def test_a_kind_s_cells_are_counted_without_their_tensors() -> None:
    cell = Row("l", "rnn.weight", ("l.weight_l0", "l.weight_l1"), 8, "measured", drop=0.1, verdict="reusable")
    parts = [
        Row("l", "rnn.weight", (name,), 4, "measured", drop=0.9, verdict="sensitive") for name in cell.tensors
    ]
    text = kind_summary(SweepResult("dice", "max", 0.01, 0.9, None, 8, (*parts, cell)), Style())
    assert text.splitlines()[2].split() == ["rnn.weight", "1", "+0.100", "+0.100", "1", "0", "0", "–"]


def test_an_uneven_interval_is_shown_to_its_farther_end() -> None:
    """An exact bound of a row that got better in one group, and one that is cut at the largest drop."""
    rows = (
        Row("a", "conv.bias", ("a.bias",), 1, "measured", 1, drop=-0.0625, sim_low=-0.4, sim_high=0.25),
        Row("b", "conv.bias", ("b.bias",), 1, "measured", 2, drop=0.75, sim_low=0.25, sim_high=1.0),
    )
    text = sweep_table(of(*rows), Style(99))
    assert re.findall(r"±(0\.\d+)", text) == ["0.338", "0.500"]


def test_what_is_not_finite_stands_in_place_of_a_distance_and_a_reason_in_every_format() -> None:
    said = "no distance: donor 1 NaN"
    row = Row("a", "conv.bias", ("a.bias",), 1, "measured", 1, drop=0.5, reason=said, non_finite="donor 1 NaN")
    assert re.search(r"conv.bias +1 +NaN ", sweep_table(of(row), WIDE))
    data = sweep_json(of(row))["rows"][0]
    assert (data["rmse"], data["reason"]) == (None, said)
    assert "non_finite" not in data
    assert said in sweep_csv(of(row))
    assert said in sweep_md(of(row))
