"""What the commands print: JSON by its schemas, csv and md that parse, -o, and selections that mean the same."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_program import SWAP, TASK, Done, good, run, validate

from ckptswap.checkpoint import Checkpoint
from ckptswap.formats import write_checkpoint

A, B = "init.safetensors", "segment.safetensors"
SCORED = [*TASK, "--metric", "iou,mse"]
REPEATED: dict[str, list[object]] = {
    "show": ["show", A],
    "show --stats": ["show", A, "--stats"],
    "diff": ["diff", A, B],
    "diff --by": ["diff", A, B, "--by", "layer,kind"],
    "diff --stat": ["diff", A, B, "--stat"],
    "evaluate": ["evaluate", B, "reconstruct.safetensors", *SCORED],
    "report": ["report", "run"],
    "select": ["select", "run", "--tolerance", "0.05"],
}
"""Commands that give the same output each time."""


@pytest.fixture(scope="module")
def outputs(swept: tuple[Path, Done]) -> dict[tuple[str, str], Done]:
    """Each command's output in each format."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(swept[0])
        return {
            (name, format): good(*words, "--format", format)
            for name, words in REPEATED.items()
            for format in ("table", "json", "csv", "md")
        }


# Formats --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REPEATED)
def test_json_keeps_its_schema(outputs: dict[tuple[str, str], Done], name: str) -> None:
    word = name.split()[0]
    data = outputs[name, "json"].json
    validate("sweep" if word == "report" else word, data)
    assert "1" in data["schema"]


@pytest.mark.parametrize("name", REPEATED)
def test_csv_has_a_header_and_as_many_rows_as_json(outputs: dict[tuple[str, str], Done], name: str) -> None:
    rows = list(csv.DictReader(io.StringIO(outputs[name, "csv"].out)))
    assert rows
    assert None not in rows[0], "a row is longer than the header"
    assert all(None not in row.values() for row in rows), "a row is shorter than the header"
    if "rows" in outputs[name, "json"].json:
        assert len(rows) == len(outputs[name, "json"].json["rows"])


@pytest.mark.parametrize("name", REPEATED)
def test_markdown_tables_are_rectangular(outputs: dict[tuple[str, str], Done], name: str) -> None:
    lines = outputs[name, "md"].out.splitlines()
    tables = [line.replace("\\|", "") for line in lines if line.startswith("|")]
    assert len(tables) > 2 or name == "diff --stat", "only --stat has nothing to list here"
    previous = ""
    for line in tables:
        if set(line) <= set("|-: "):
            assert previous.count("|") == line.count("|")
        previous = line


@pytest.mark.parametrize("name", ["show", "show --stats", "diff"])
def test_a_pipe_has_every_name_whole_and_a_row_a_line(outputs: dict[tuple[str, str], Done], name: str) -> None:
    """So that `ckptswap diff a b | grep layer1.0.bn1` finds the rows."""
    lines = outputs[name, "table"].out.splitlines()
    names = [row["name"] for row in outputs[name, "json"].json["rows"] if row.get("status") != "identical"]
    rows = [line.split() for line in lines]
    assert [name for name in names if sum(name in words for words in rows) != 1] == []
    assert not {*"…█░▏▎▍▌▋▊▉"} & {*outputs[name, "table"].out}


@pytest.mark.parametrize("name", ["show", "show --stats", "diff", "diff --by", "report"])
def test_tables_fit_the_width_that_is_asked_for(work_swept: Path, name: str) -> None:
    """All but a word of a command, such as a long path, which cannot be cut."""
    lines = good(*REPEATED[name], "--width", "80").out.splitlines()
    assert max(len(line) for line in lines if not re.fullmatch(r"  \S+( \\)?", line)) <= 80


@pytest.mark.parametrize("name", REPEATED)
@pytest.mark.parametrize("format", ["json", "csv"])
def test_o_writes_the_same_to_a_file(
    outputs: dict[tuple[str, str], Done], work_swept: Path, name: str, format: str
) -> None:
    done = good(*REPEATED[name], "--format", format, "-o", "out")
    assert done.out == ""
    assert Path("out").read_text("utf-8") == outputs[name, format].out


def test_csv_says_numbers_in_full(outputs: dict[tuple[str, str], Done]) -> None:
    rows = outputs["report", "json"].json["rows"]
    table = list(csv.DictReader(io.StringIO(outputs["report", "csv"].out)))
    for row, line in zip(rows, table, strict=True):
        for field in ("score", "drop", "rmse", "sim_high"):
            assert (float(line[field]) if line[field] else None) == row[field]


def test_non_finite_numbers_are_null_beside_a_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in ((A, np.nan), (B, np.inf)):
        arrays = {"c.bias": np.array([value], np.float32), "d.bias": np.array([value, 1], np.float32)}
        write_checkpoint(Checkpoint.from_arrays(arrays), name)
    data = good("diff", A, B, "--format", "json").json
    validate("diff", data)
    first = data["rows"][0]
    assert (first["rmse"], first["max_abs"], first["nan_a"], first["nan_b"]) == (None, None, 1, 0)
    shown = good("show", A, "--stats", "--format", "json").json
    validate("show", shown)
    assert [(row["mean"], row["max"], row["nan"]) for row in shown["rows"]] == [(None, None, 1), (1.0, 1.0, 1)]


def test_show_counts_tensor_bytes(work: Path) -> None:
    data = good("show", A, "--format", "json").json
    assert data["tensors"] == len(data["rows"])
    assert data["bytes"] == sum(row["nbytes"] for row in data["rows"])
    assert data["bytes"] < Path(A).stat().st_size
    assert {row["dtype"] for row in data["rows"]} == {"F32", "I64"}


def test_diff_lists_every_tensor_in_json_and_changed_ones_in_the_table(work: Path) -> None:
    data = good("diff", "reconstruct.safetensors", B, "--format", "json").json
    assert len(data["rows"]) == data["a"]["tensors"] == sum(data["summary"].values())
    assert data["summary"]["identical"] == 6
    table = good("diff", "reconstruct.safetensors", B)
    assert "batches_tracked" not in table.out
    assert "batches_tracked" in good("diff", "reconstruct.safetensors", B, "--all").out


@pytest.mark.parametrize("odd", range(3))
@pytest.mark.parametrize("flags", [["--strip-prefix", "net."], ["--map", "net.*=*"], []], ids=str)
def test_any_of_three_may_have_a_prefix(
    odd: int, flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for at in range(3):
        prefix = "net." if at == odd else ""
        arrays = {f"{prefix}c.bias": np.full(2, float(at)), f"{prefix}c.weight": np.zeros((2, 1, 1))}
        write_checkpoint(Checkpoint.from_arrays(arrays), f"{at}.safetensors")
    done = good("diff", *(f"{at}.safetensors" for at in range(3)), *flags, "--format", "json")
    wanted = {"c.bias": "both", "c.weight": "unchanged"}
    assert {row["name"].removeprefix("net."): row["status"] for row in done.json["rows"]} == wanted
    assert ("prefix 'net.'" in done.err) == (not flags)


def test_diff_agrees_with_a_plain_reading(work: Path) -> None:
    from safetensors.numpy import load_file

    ours, theirs = load_file(A), load_file(B)
    for row in good("diff", A, B, "--format", "json").json["rows"]:
        a, b = (each[row["name"]].astype(np.float64) for each in (ours, theirs))
        assert row["changed"] == int((ours[row["name"]] != theirs[row["name"]]).sum())
        assert row["max_abs"] == np.abs(a - b).max()
        assert row["rmse"] == pytest.approx(np.sqrt(np.square(a - b).mean()), rel=1e-12)


def test_stat_reads_no_values(work: Path) -> None:
    data = good("diff", A, B, "--stat", "--format", "json").json
    assert data["summary"]["unread"] == data["a"]["tensors"]
    assert {row["rmse"] for row in data["rows"]} == {None}


# Selection ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["--kind", "conv.bias"],
        ["--kind", "bn.stats,conv.weight"],
        ["--only", "bn.running_*"],
        ["--only", "*.bias", "--exclude", "bn.*"],
        ["--only", "=head.bias"],
        ["--layers", "encoder.1"],
        ["--layers", "encoder.0:1", "--kind", "bn.affine"],
        ["--layers", "**.conv1", "--layers", "head"],
        ["--layers", "encoder.*.conv2", "--only", "*.weight"],
    ],
    ids=" ".join,
)
def test_a_selection_means_the_same_everywhere(work: Path, flags: list[str]) -> None:
    show, diff, plan = (
        good(*command, *flags, "--format", "json").json["rows"]
        for command in (
            ["show", B],
            ["diff", A, B],
            ["sweep", *SWAP, *TASK, "--limit", "2", "--by", "tensor", "--dry-run"],
        )
    )
    names = [row["name"] for row in show]
    assert names
    assert names == [row["name"] for row in diff]
    assert names == good("transplant", *SWAP, *flags, "--dry-run").out.splitlines()
    assert sorted(names) == sorted(name for row in plan for name in row["tensors"])


@pytest.mark.parametrize("command", [["show", B], ["diff", A, B], ["transplant", *SWAP], ["sweep", *SWAP, *TASK]])
def test_a_selection_without_match_names_near_ones(work: Path, command: list[str]) -> None:
    done = run(*command, "--kind", "conv.wieght")
    assert (done.code, done.out) == (2, "")
    assert "conv.weight" in done.err


@pytest.mark.parametrize(
    "command",
    [["show", B], ["diff", A, B], ["diff", A, B, B], ["transplant", *SWAP], ["sweep", *SWAP, *TASK, "--dry-run"]],
    ids=lambda words: words[0],
)
@pytest.mark.parametrize(
    ("flags", "near"),
    [
        ([], ""),
        (
            ["--kind", "conv.bias,conv.wieght"],
            "--kind conv.wieght matches nothing in .*; did you mean 'conv.weight'",
        ),
        (["--only", "*.bias", "--only", "=haed.bias"], "--only =haed.bias .*; did you mean 'head.bias'"),
        (["--layers", "encoder,decodr"], "--layers decodr .*; did you mean 'decoder'"),
        (["--kind", "conv.*", "--exclude", "conv.bais"], "--exclude conv.bais .*; did you mean 'conv.bias'"),
    ],
    ids=str,
)
def test_a_misspelt_value_beside_a_right_one_is_named(
    work: Path, command: list[str], flags: list[str], near: str
) -> None:
    warned = [line for line in good(*command, *flags).err.splitlines() if "matches nothing" in line]
    assert len(warned) == bool(near)
    assert all(line.startswith("ckptswap: warning: ") and re.search(near, line) for line in warned)


def test_transplant_of_nothing_selected_is_everything(work: Path) -> None:
    """No flag selects all, so the result is the donor's tensors."""
    path = good("transplant", *SWAP, "-o", "all.safetensors").out.strip()
    data = good("diff", "reconstruct.safetensors", path, "--format", "json").json
    assert data["summary"]["identical"] == data["a"]["tensors"]


# Other commands -------------------------------------------------------------------------------------------------


def test_evaluate_agrees_with_the_sweep(swept: tuple[Path, Done], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(swept[0])
    found: dict[str, Any] = good(
        "evaluate", B, "reconstruct.safetensors", *TASK, "--metric", "iou", "--format", "json"
    ).json
    first, second = (each["scores"]["iou"]["value"] for each in found["checkpoints"])
    wanted = (swept[1].json["baseline"], swept[1].json["donor_score"])
    assert (first, second) == pytest.approx(wanted, rel=1e-14)  # one sums over groups, the other over samples


def test_a_task_file_says_the_same_as_flags(work: Path) -> None:
    Path("task.toml").write_text(
        "data = 'scans'\ngroup = '(s\\d+)_'\nbatch-size = 8\nthreads = 1\nmetric = ['iou', 'mse']\n"
    )
    by_flags = good("evaluate", B, *SCORED, "--format", "json")
    assert good("evaluate", B, "-c", "task.toml", "--format", "json") == by_flags
    limited = good("evaluate", B, "-c", "task.toml", "--limit", "4", "--format", "json")
    assert limited.json["samples"] == 4


def test_doctor_says_versions(work: Path) -> None:
    import torch

    versions = good("doctor", "--format", "json").json["versions"]
    assert torch.__version__.startswith(versions["torch"])
    assert "torch" in good("doctor").out


def test_convert_there_and_back(work: Path) -> None:
    for target in ("copy.npz", "copy.pt", "shards/", "again.safetensors"):
        done = good("convert", B, target)
        assert done.out.strip() == target.rstrip("/")
        found = good("diff", B, done.out.strip(), "--format", "json").json["summary"]
        assert found == {**dict.fromkeys(found, 0), "identical": found["identical"]}
        assert good("verify", done.out.strip(), "--format", "json").json
    before = Path("copy.npz").read_bytes()
    assert run("convert", A, "copy.npz").code == 2
    assert Path("copy.npz").read_bytes() == before


def test_files_in_json_are_utf_8(work: Path) -> None:
    Path(A).rename("größe.safetensors")
    assert good("show", "größe.safetensors", "--format", "json", "-o", "out.json").out == ""
    assert json.loads(Path("out.json").read_bytes())["path"] == "größe.safetensors"


def test_every_table_is_latex_too(swept: tuple[Path, Done], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(swept[0])
    commands = [REPEATED[name] for name in ("show", "diff", "evaluate", "report", "select")]
    for words in (*commands, ["diff", A, A, B]):
        text = good(*words, "--format", "latex").out
        assert text.startswith("% ckptswap")
        assert text.count("{") == text.count("}")
        assert text.count(r"\begin{") == text.count(r"\end{") > 0
