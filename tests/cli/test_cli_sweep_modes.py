"""Modes, donors, paths, new statistics, both ways and `select`, as a shell sees them."""

from __future__ import annotations

import csv
import shlex
from pathlib import Path

import pytest
from cli_program import SWAP, TASK, good, run, validate
from safetensors.numpy import load_file, save_file
from sweeping import plan_json, write_plan_json

SWEEP = ["sweep", *SWAP, *TASK, "--metric", "iou", "--run", "run"]
TO = SWAP[SWAP.index("--to") : SWAP.index("--to") + 2]
KIND = ["--by", "kind"]


def test_a_column_for_each_donor(work: Path) -> None:
    more = ["--from", "zeros", "--from", "shuffle:3", "--from", "init:1", "--from", "rewind"]
    done = good(*SWEEP, *more, *KIND)
    assert [line.split()[0] for line in done.out.split("donors\n")[1].splitlines()[:5]] == [
        "A",
        "B",
        "C",
        "D",
        "E",
    ]
    (head,) = (line.split() for line in done.out.splitlines() if line.startswith("kind "))
    assert head == ["kind", "numel", "A", "B", "C", "D", "E"]
    assert good("report", "run").out == done.out
    plan = good(*SWEEP, *more, *KIND, "--dry-run", "--format", "json").json
    assert plan["passes"] == (plan["variants"] + 1 + 5) * plan["samples"]
    assert "the baseline and 5 donors" in good(*SWEEP, *more, *KIND, "--dry-run").out.replace("\n", " ")
    data = good(*SWEEP, *more, *KIND, "--format", "json").json
    validate("sweep", data)
    assert [each["path"] for each in data["donors"]][1:4] == ["zeros", "shuffle:3", "init:1"]
    assert Path(data["donors"][4]["path"]).name == "init.safetensors"
    rows = {(row["kind"], row["donor"]): row for row in data["rows"]}
    assert rows["conv.weight", "zeros"]["drop"] > 0.05
    assert rows["conv.weight", "zeros"]["rel_l2"] == pytest.approx(1.0)
    table = list(csv.DictReader(good("report", "run", "--format", "csv").out.splitlines()))
    assert {row["donor"] for row in table} == {each["path"] for each in data["donors"]}


def test_the_same_donor_twice_is_one(work: Path) -> None:
    done = good(*SWEEP, "--from", SWAP[SWAP.index("--from") + 1], *KIND, "--format", "json")
    assert "donors" not in done.json


def test_a_curve_reads_from_the_first_layer_to_the_last(work: Path) -> None:
    done = good(*SWEEP, "--mode", "prefix", "--by", "layer", "--all")
    assert "all layers up to this one from the donor" in done.out
    data = good("report", "run", "--format", "json").json
    validate("sweep", data)
    assert data["mode"] == "prefix"
    assert data["findings"] == []
    measured = sorted((row for row in data["rows"] if row["rank"]), key=lambda row: len(row["tensors"]))
    assert measured[-1]["score"] == pytest.approx(data["donor_score"], abs=1e-12), "all layers are the donor"
    curve = done.out.split("all layers up to this one from the donor\n")[1]
    listed = [line.split()[1] for line in curve.splitlines() if line.strip()[:1].isdigit()]
    assert listed[: len(measured)] == [row["layer"] for row in measured]


def test_a_path_and_new_statistics(work: Path) -> None:
    flags = ["--alpha", "0:1:0.25", "--recalibrate-bn", 2, "--calibration-data", "others", *KIND]
    scans = Path("scans")
    Path("others").mkdir()
    (Path("others") / "images").mkdir()
    for at, image in enumerate(sorted((scans / "images").iterdir())):
        from PIL import Image

        with Image.open(image) as picture:
            picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(Path("others/images") / f"{at}{image.suffix}")
    done = good(*SWEEP, *flags, "--all")
    assert "recal." in done.out
    assert "barrier" in done.out
    data = good("report", "run", "--format", "json").json
    validate("sweep", data)
    rows = {row["kind"]: row for row in data["rows"]}
    assert [point["alpha"] for point in rows["conv.weight"]["path"]] == [0.25, 0.5, 0.75]
    assert rows["conv.weight"]["recalibrated"]["drop"] is not None
    assert rows["bn.num_batches_tracked"]["recalibrated"]["drop"] == 0
    assert "drop on the way to the donor, by alpha" in done.out
    assert rows["bn.running_var"]["recalibrated"]["drop"] is None
    plan = good(*SWEEP, *flags, "--dry-run", "--format", "json").json
    assert plan["variants"] == 1 + 6 + 6 * 3 + 4


def test_both_ways(work: Path) -> None:
    flags = ["--both", "--back-metric", "mse", *KIND]
    data = good(*SWEEP, *flags, "--format", "json").json
    assert data["schema"] == "ckptswap.both/1"
    for way, metric in (("forth", "iou"), ("back", "mse")):
        validate("sweep", data[way])
        assert data[way]["metric"] == metric
        assert good("report", f"run/{way}", "--format", "json").json == data[way]
    assert data["back"]["direction"] == "min"
    text = good(*SWEEP, *flags).out
    assert text.index("forth\n") < text.index("iou, higher") < text.index("back\n") < text.index("mse, lower")


def test_what_is_selected_scores_as_it_says(work_swept: Path) -> None:
    done = good("select", "run", "--tolerance", "0.05", "--to", "mixed.safetensors", "--format", "json")
    validate("select", done.json)
    assert (
        done.json["taken"] == sum(row["taken"] for row in done.json["rows"]) > 1
    )  # how many is the training's chance
    assert len(done.json["commands"]) == 1
    assert (done.json["drop"] if done.json["ci_high"] is None else done.json["ci_high"]) < 0.05
    program, *words = shlex.split(done.json["commands"][0])
    assert program == "ckptswap"
    assert good(*words).out.endswith("mixed.safetensors\n")
    scored = good("evaluate", TO[1], "mixed.safetensors", *TASK, "--metric", "iou", "--format", "json").json
    before, after = (each["scores"]["iou"]["value"] for each in scored["checkpoints"])
    assert after == pytest.approx(done.json["score"], abs=1e-12)
    assert before - after == pytest.approx(done.json["drop"], abs=1e-12)
    text = good("select", "run", "--tolerance", "0.05").out
    assert "can be taken together" in text
    shown = text.split("to make it\n")[1]
    assert shlex.split(shown.replace("\\\n", "").replace("selected.", "mixed.")) == [program, *words]


def test_nothing_fits_below_an_impossible_tolerance(work: Path) -> None:
    good(*SWEEP, "--from", "zeros", *KIND, "--kind", "conv.weight")
    data = good("select", "run", "--tolerance", "0", "--format", "json").json
    assert (data["taken"], data["commands"], data["drop"]) == (0, [], 0.0)
    assert len(data["rows"]) == 1


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--alpha", "0:2:0.5"], "outside 0…1"),
        (["--alpha", "0:1"], "is not a path"),
        (["--alpha", "0:1:0"], "is not a path"),
        (["--alpha", "nan"], "outside 0…1"),
        (["--mode", "prefix", *KIND], "adds layer to layer"),
        (["--mode", "all-but", "--by", "tensor"], "goes by layers or kinds"),
        (["--recalibrate-bn", "2"], "needs data that is not scored"),
        (["--recalibrate-bn", "2", "--calibration-data", "scans"], "also in the calibration data"),
        (["--calibration-data", "scans"], "for --recalibrate-bn"),
        (["--both"], "needs a metric"),
        (["--back-metric", "mse"], "are for --both"),
        (["--both", "--back-metric", "mse", "--format", "csv"], "two tables"),
        (["--both", "--back-metric", "mse", "--tolerance", "0.1"], "one metric"),
        (["--both", "--back-metric", "mse", "--from", "zeros"], "one donor"),
        (["--from", "shuffle"], "write shuffle:SEED"),
        (["--from", "noise:much"], "write noise:SHARE"),
        (["--alpha", "0.5", "--top", "3"], "scores no paths"),
    ],
)
def test_flags_that_make_no_sense(work: Path, flags: list[str], words: str) -> None:
    done = run(*SWEEP, *flags)
    assert done.code == 2
    assert words in done.err
    assert done.out == ""
    assert not Path("run").exists()


def test_select_on_what_is_no_plain_sweep(work: Path) -> None:
    assert "holds no sweep" in run("select", "nothing").err
    good(*SWEEP, "--mode", "suffix", "--by", "layer", "--layers", "head")
    done = run("select", "run")
    assert done.code == 2
    assert "--mode suffix" in done.err
    good("sweep", "--from", "zeros", *TO, *TASK, "--metric", "iou", *KIND, "--run", "other")
    done = run("select", "other", "--tolerance", "1")
    assert done.code == 2
    assert "no donor that is a file" in done.err
    good(*SWEEP, *KIND, "--run", "another")
    plan = plan_json("another")
    del plan["source"]
    write_plan_json("another", plan)
    assert "no sweep's plan (its part 'source' is missing)" in run("select", "another").err


def test_what_was_asked_is_shown_of_every_donor(work: Path) -> None:
    done = good(*SWEEP, "--from", "zeros", "--alpha", "0.5", *KIND)
    titles = [line for line in done.out.splitlines() if line.startswith("whole kinds")]
    assert titles == ["whole kinds, by the worst drop", "whole kinds: barrier on the way to the donor"]
    for format in ("md", "csv"):
        assert "barrier" in good("report", "run", "--format", format).out


def test_a_rule_may_concern_any_of_several_donors(work: Path) -> None:
    save_file({f"net.{name}": value for name, value in load_file("init.safetensors").items()}, "net.safetensors")
    more = ["--from", "net.safetensors", "--map", "net.*=*"]
    data = good(*SWEEP, *more, *KIND, "--format", "json").json
    drops = {row["kind"]: row["drop"] for row in data["rows"] if row["donor"] == "net.safetensors"}
    plain = good("sweep", "--from", "init.safetensors", *TO, *TASK, "--metric", "iou", *KIND, "--run", "plain",
                 "--format", "json").json  # fmt: skip
    assert drops == {row["kind"]: row["drop"] for row in plain["rows"]}
    commands = good("select", "run", "--tolerance", "0.5", "--format", "json").json["commands"]
    assert any("net.safetensors" in command for command in commands)
    for command in commands:
        good(*shlex.split(command)[1:], "--force")
