"""`ckptswap sweep` and `report`: the run folder, continuing, stopping, failing parts, the same table again."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import programs
import pytest
from cli_program import SWAP, TASK, Done, good, listing, program, run, validate
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

SWEEP = ["sweep", *SWAP, *TASK, "--metric", "iou,mse", "--run", "run"]
FEW = ["--kind", "bn.weight"]
COUNTED = """
import time
from pathlib import Path

def counted(output, target):
    with open("calls", "a") as log:
        log.write("x")
    if Path("slow").exists():
        time.sleep(0.2)
    return (output[:, 0] - target).abs().mean((1, 2))

counted.direction = "min"

def picky(output, target):
    if output.isnan().any():
        raise ArithmeticError("I take no NaN")
    return output.mean((1, 2, 3))

picky.direction = "max"

def half_blind(output, target):
    value = output.mean((1, 2, 3))
    value[value > 10] = float("nan")
    return value

half_blind.direction = "max"
"""


# One run --------------------------------------------------------------------------------------------------------


def test_the_folder_is_printed_and_holds_the_exports(swept: tuple[Path, Done]) -> None:
    folder, done = swept
    assert "run: run\n" in done.err
    there = {each.name for each in (folder / "run").iterdir()}
    exports = {f"result.{ending}" for ending in ("json", "csv", "md", "html")}
    assert there == {"plan.json", "journal", "samples.json", *exports}
    assert (folder / "run/result.json").read_text("utf-8") == done.out


def test_json_keeps_its_schema_and_its_promises(swept: tuple[Path, Done]) -> None:
    data = swept[1].json
    validate("sweep", data)
    assert (data["metric"], data["direction"], data["samples"]) == ("iou", "max", 18)
    measured = [row for row in data["rows"] if row["status"] == "measured"]
    assert [row["rank"] for row in measured] == list(range(1, 41))
    drops = [row["drop"] for row in measured]
    assert drops == sorted(drops, reverse=True)
    for row in measured:
        assert row["drop"] == pytest.approx(data["baseline"] - row["score"], abs=1e-12)
        assert row["sim_low"] <= row["ci_low"] <= row["drop"] <= row["ci_high"] <= row["sim_high"]
        assert row["verdict"].replace("unused", "reusable") in verdicts_by_p(row)
        assert (row["unseen"] is not None) == (row["verdict"] in ("reusable", "unused"))
    for row in data["rows"][len(measured) :]:
        assert (row["status"], row["kind"]) == ("identical", "bn.num_batches_tracked")
        assert (row["score"], row["drop"], row["verdict"]) == (data["baseline"], 0, "reusable")
        assert row["rank"] is row["sim_low"] is row["ci_high"] is None


def verdicts_by_p(row: dict[str, float]) -> set[str]:
    """What a row may be: other rows can only leave it open."""
    assert row["p_reusable"] + row["p_sensitive"] >= 1
    return {"undecided"} | {word for word in ("reusable", "sensitive") if row[f"p_{word}"] <= 0.025}


def test_what_verdicts_keep_and_presume_belongs_to_the_table(swept: tuple[Path, Done], work_swept: Path) -> None:
    """The run remembers neither here; `report` takes others, and says so."""
    usual, other = swept[1].json, good("report", "run", "--error", "fdr", "--se", "successive", "--format", "json")
    validate("sweep", other.json)
    assert (other.json["error"], other.json["se"]) == ("fdr", "successive")
    assert not {"error", "se"} & usual.keys()
    assert other.err.count("false discovery rate") == other.err.count("neighbouring groups") == 1
    rows = {tuple(row["tensors"]): row for row in usual["rows"]}
    assert all(row["drop"] == rows[tuple(row["tensors"])]["drop"] for row in other.json["rows"])
    assert other.json["rows"] != usual["rows"]


def test_what_matters_is_said_whatever_the_format(swept: tuple[Path, Done], work_swept: Path) -> None:
    """The table prints its tolerance; with JSON and csv, which have no place for words, stderr has them."""
    assert "of a trivial prediction" in good("report", "run").out
    assert "of a trivial prediction" in swept[1].err
    assert "of a trivial prediction" in good("report", "run", "--format", "csv").err


@pytest.mark.parametrize("format", ["table", "json", "csv", "md"])
def test_report_is_the_sweeps_table_again(work_swept: Path, format: str) -> None:
    before = (work_swept / "run/journal/main.jsonl").read_bytes()
    again = good(*SWEEP, "--format", format)
    report = good("report", "run", "--format", format)
    assert again.out == report.out
    assert (work_swept / "run/journal/main.jsonl").read_bytes() == before, "nothing was scored again"
    if format != "table":
        assert (work_swept / f"run/result.{format}").read_text("utf-8") == report.out


def test_report_has_the_other_metric_and_another_tolerance(work_swept: Path) -> None:
    other = good("report", "run", "--metric", "mse", "--format", "json").json
    validate("sweep", other)
    assert (other["metric"], other["direction"]) == ("mse", "min")
    loose = good("report", "run", "--tolerance", "5", "--format", "json").json
    assert {row["verdict"] for row in loose["rows"]} <= {"reusable", "unused"}
    assert run("report", "run", "--metric", "ioo").code == 2


def test_top_cuts_the_table_not_the_run(work_swept: Path) -> None:
    short, whole = good("report", "run", "--top", "3"), good("report", "run")
    assert len(short.out) < len(whole.out)
    assert len(json.loads(Path("run/result.json").read_text("utf-8"))["rows"]) == 46


def test_a_report_of_some_rows_says_so_in_every_form(work_swept: Path) -> None:
    flags = ["--kind", "conv.*", "--verdict", "sensitive,undecided", "--sort", "rmse"]
    part = good("report", "run", *flags, "--format", "json")
    validate("sweep", part.json)
    whole = good("report", "run", "--format", "json").json["rows"]
    kept = [
        row for row in whole if row["kind"].startswith("conv.") and row["verdict"] in ("sensitive", "undecided")
    ]
    assert sorted(row["rmse"] for row in part.json["rows"]) == sorted(row["rmse"] for row in kept) != []
    words = (
        f"{len(kept)} of {len(whole)} rows: --kind 'conv.*' --verdict sensitive --verdict undecided --sort rmse"
    )
    assert f"note: {words}" in part.err
    assert words in good("report", "run", *flags).out.replace("\n", " ")
    wrong = run("report", "run", "--kind", "conv.wieght")
    assert wrong.code == 2
    assert "did you mean 'conv.weight'" in wrong.err


def test_ascii_is_ascii(work_swept: Path) -> None:
    assert good("report", "run", "--ascii").out.isascii()


def test_dry_run_writes_nothing_and_prints_the_plan(work: Path) -> None:
    before = listing(work)
    done = good(*SWEEP, "--dry-run", "--format", "json")
    assert listing(work) == before
    plan = done.json
    assert (plan["run"], plan["samples"], plan["variants"]) == ("run", 18, 40)
    assert plan["passes"] == (plan["variants"] + 2) * 18
    assert plan["cells"] == len(plan["rows"]) == 46
    assert "conv.weight" in good(*SWEEP, "--dry-run").out
    assert listing(work) == before


def test_without_run_the_folder_is_named_by_its_key(work: Path) -> None:
    words = ["sweep", *SWAP, *TASK, *FEW]
    first = good(*words, "--format", "json")
    [folder] = Path("runs").iterdir()
    assert f"run: {folder}" in first.err
    assert good(*words, "--format", "json").out == first.out
    good(*words, "--batch-size", "4")
    assert len(list(Path("runs").iterdir())) == 2


def test_several_ways_of_splitting_share_a_run(work: Path) -> None:
    data = good(*SWEEP, "--by", "kind", "--by", "layer", "--by", "tensor", *FEW, "--format", "json").json
    whole_kinds = [row for row in data["rows"] if row["layer"] is None and row["kind"]]
    whole_layers = [row for row in data["rows"] if row["layer"] and row["kind"] is None]
    assert [row["kind"] for row in whole_kinds] == ["bn.weight"]
    assert len(whole_layers) == 6
    assert len(whole_kinds[0]["tensors"]) == 6


# The key --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        (["--batch-size", "4"], "batch_size was 8, is 4"),
        (["--threads", "2"], "threads was 1, is 2"),
        (["--limit", "9"], "limit"),
        (["--metric", "dice"], "metrics"),
    ],
)
def test_another_key_is_refused_naming_the_part(work_swept: Path, flags: list[str], part: str) -> None:
    before = listing(work_swept)
    done = run(*SWEEP, *flags)
    assert (done.code, done.out) == (2, "")
    assert part in done.err
    assert "--fresh" in done.err
    assert listing(work_swept) == before


def test_changed_inputs_are_refused_by_content(work_swept: Path) -> None:
    Path("reconstruct.safetensors").write_bytes(Path("init.safetensors").read_bytes())
    done = run(*SWEEP)
    assert (done.code, done.out) == (2, "")
    assert "donor changed" in done.err


def test_what_decides_no_score_continues(work_swept: Path) -> None:
    """Tolerance, selection and splitting are not the key; only what is new is scored."""
    before = lines(Path("run/journal/main.jsonl"))
    good(*SWEEP, "--tolerance", "0.1", *FEW)
    assert lines(Path("run/journal/main.jsonl")) == before
    good(*SWEEP, "--by", "kind", *FEW)
    after = lines(Path("run/journal/main.jsonl"))
    assert after[: len(before)] == before
    assert len(after) == len(before) + 3  # eighteen samples in batches of eight


def test_fresh_sets_the_old_journal_aside(work_swept: Path) -> None:
    before = Path("run/journal/main.jsonl").read_bytes()
    data = good(*SWEEP, "--batch-size", "4", *FEW, "--fresh", "--format", "json").json
    assert len(data["rows"]) == 6
    assert Path("run/journal.1/main.jsonl").read_bytes() == before
    assert len(lines(Path("run/journal/main.jsonl"))) == 1 + 8 * 5  # its head, then eighteen samples in fours


def test_a_damaged_line_is_named_and_can_be_repaired(work_swept: Path) -> None:
    whole, journal = good("report", "run", "--format", "json").out, Path("run/journal/main.jsonl")
    before = lines(journal)
    journal.write_bytes(b"\n".join([*before[:2], before[2].replace(b"full", b"fall"), *before[3:], b""]))
    done = run(*SWEEP)
    assert (done.code, done.out) == (2, "")
    assert f"line 3 of {journal} is damaged" in done.err
    assert "--repair" in done.err
    again = good(*SWEEP, "--repair", "--format", "json")
    assert again.out == whole
    assert "left out 1 damaged line (3)" in again.err
    assert sorted(lines(journal)) == sorted(before)


def test_a_plan_and_a_journal_that_nothing_is_left_of_are_repaired_together(work_swept: Path) -> None:
    whole, journal, plan = (
        good("report", "run", "--format", "json").out,
        Path("run/journal/main.jsonl"),
        "run/plan.json",
    )
    for path in (journal, Path(plan)):
        path.write_bytes(path.read_bytes().replace(b"key", b"kex", 1))
    again = good(*SWEEP, "--repair", "--format", "json")
    assert again.out == whole == good("report", "run", "--format", "json").out


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines()


# Stopped --------------------------------------------------------------------------------------------------------


def test_a_stopped_sweep_keeps_its_journal_and_continues(work: Path) -> None:
    """First Ctrl-C, then SIGTERM, then to the end: every variant is scored once, and the table is the same."""
    Path("mine.py").write_text(COUNTED)
    words = ["sweep", *SWAP, *TASK, "--batch-size", "18", *FEW, "--metric", "mine.py:counted"]
    whole = good(*words, "--run", "whole", "--format", "json")
    calls = len(Path("calls").read_text())
    words += ["--run", "run", "--format", "json"]

    Path("slow").touch()
    kept = 0
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        done = stopped(words, number, Path("run/journal/main.jsonl"), least=1 + kept + 2)
        assert done.code == code, done.err
        assert done.out == ""
        assert done.err.splitlines()[-1].startswith("ckptswap: ")
        assert "Traceback" not in done.err
        kept = len(lines(Path("run/journal/main.jsonl"))) - 1
    assert 4 <= kept < 8
    partial = good("report", "run", "--format", "json")
    assert len(partial.json["rows"]) == kept - 2
    assert "not scored yet" in good("report", "run").out

    Path("slow").unlink()
    Path("calls").unlink()
    before = lines(Path("run/journal/main.jsonl"))
    assert good(*words).out == whole.out
    assert lines(Path("run/journal/main.jsonl"))[: 1 + kept] == before
    assert len(Path("calls").read_text()) == calls - kept


def stopped(words: Sequence[object], number: int, journal: Path, least: int) -> Done:
    """Start the program, wait until the journal has so many records, and send it a signal."""
    with programs.Popen(program(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as started:
        while not journal.exists() or len(lines(journal)) < least:
            assert started.poll() is None, started.communicate()
            time.sleep(0.01)
        started.send_signal(number)
        out, err = started.communicate(timeout=60)
    return Done(started.returncode, out, err)


# Failing parts --------------------------------------------------------------------------------------------------


def spoil(path: str, name: str, value: float) -> None:
    """Fill one tensor of a checkpoint, metadata kept."""
    with safe_open(path, "np") as opened:
        metadata = opened.metadata()
    arrays = load_file(path)
    arrays[name] = np.full_like(arrays[name], value)
    save_file(arrays, path, metadata)


@pytest.mark.parametrize(
    ("metric", "value", "reason"),
    [
        ("iou", np.nan, "NaN or infinite"),
        ("mine.py:picky", np.nan, "ArithmeticError: I take no NaN"),
        ("mine.py:half_blind", 1e6, "mine.py:half_blind is NaN"),
    ],
)
def test_a_failing_variant_is_a_row_and_exit_3(work: Path, metric: str, value: float, reason: str) -> None:
    Path("mine.py").write_text(COUNTED)
    spoil("reconstruct.safetensors", "head.bias", value)
    done = run("sweep", *SWAP, *TASK, "--metric", metric, "--layers", "head", "--run", "run", "--format", "json")
    assert done.code == 3, done.err
    validate("sweep", done.json)
    [failed] = [row for row in done.json["rows"] if row["status"] == "failed"]
    assert failed["tensors"] == ["head.bias"]
    assert reason in failed["reason"]
    assert [failed[key] for key in ("rank", "score", "drop", "sim_low", "verdict")] == [None] * 5
    assert [row["status"] for row in done.json["rows"]] == ["measured", "failed"]
    assert done.json["donor_score"] is None
    assert "1 of 2" in done.err
    assert "head" in good("report", "run").out


def test_evaluate_with_a_failing_checkpoint_is_exit_3(work: Path) -> None:
    spoil("reconstruct.safetensors", "head.bias", np.nan)
    done = run("evaluate", "segment.safetensors", "reconstruct.safetensors", *TASK, "--format", "json")
    assert done.code == 3
    validate("evaluate", done.json)
    first, second = (each["scores"]["iou"] for each in done.json["checkpoints"])
    assert first["value"] is not None
    assert second["value"] is None


def test_a_misfit_is_a_row_and_exit_0(work: Path) -> None:
    good("train", "reconstruct", "--model", "lab:unet", "--model-args", "width=3,depth=1", "--data", "scans",
         "--steps", 1, "--threads", 1, "-o", "reconstruct.safetensors", "--force")  # fmt: skip
    data = good(*SWEEP, "--layers", "head", "--format", "json").json
    validate("sweep", data)
    assert {row["kind"]: row["status"] for row in data["rows"]} == {
        "conv.bias": "measured",
        "conv.weight": "mismatch",
    }
    [row] = [row for row in data["rows"] if row["status"] == "mismatch"]
    assert "[1, 3, 1, 1]" in row["reason"]
    assert row["drop"] is row["score"] is None
    assert data["donor_score"] is None


def test_few_groups_give_no_interval(work: Path) -> None:
    data = good(*SWEEP, *FEW, "--limit", "6", "--format", "json")
    assert {row["verdict"] for row in data.json["rows"]} == {"undecided"}
    assert {row["sim_low"] for row in data.json["rows"]} == {None}
    assert data.err.count("fewer than 8") == 1
    assert data.json["drawn"]["seed"] == 3411
    assert f"6 of {data.json['drawn']['of']} samples at random" in data.err
