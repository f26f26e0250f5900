"""Case 05: batch norm statistics that overflowed (one Inf, one NaN) hid behind RMSE 0, cosine 1, the last places.

Relatives, each tried: NaN in A only; in both at equal places with equal bits; in both with other payloads; −Inf;
Inf against −Inf; nothing finite at all; every float dtype, bf16 and fp8 among them; groups (--by); every --sort;
csv, md and notebooks; three files; `show --stats` in a narrow terminal; finite values whose difference, or whose
squares, no double holds; integers, which are never marked; a sweep's RMSE in table, json, plan and html.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import programs
import pytest

from ckptswap.checkpoint import Checkpoint
from ckptswap.cli.main import main
from ckptswap.diff import Diff, diff
from ckptswap.formats import open_checkpoint
from ckptswap.report import diff as report
from ckptswap.report.display import shows_itself
from ckptswap.report.text import Style
from ckptswap.threeway import three_way

INF, NAN = float("inf"), float("nan")
WIDE = Style(width=120)


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    """Run the program in this process, in a folder of its own; what it printed."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["ckptswap", *words])
        with pytest.raises(SystemExit) as end:
            main()
        assert not end.value.code, capsys.readouterr().err
        return capsys.readouterr().out

    return run


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """The case itself: a good net, the same with what overflowed, and that with one bias moved a little."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    state = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8)).state_dict()
    torch.save(state, tmp_path / "good.pt")
    state["1.running_mean"][1], state["1.running_var"][1] = INF, NAN
    torch.save(state, tmp_path / "amp.pt")
    state["0.bias"][0] += 0.001
    torch.save(state, tmp_path / "amp_more.pt")
    return tmp_path


def line_of(table: str, name: str) -> str:
    return next(line for line in table.splitlines() if f" {name} " in f"{line} ")


def names_of(table: str) -> list[str]:
    return [line.split()[1] for line in table.splitlines() if line[:2] in ("~ ", "= ", "! ")]


def compared(a, b, dtype: str = "f4") -> Diff:
    sides = (
        Checkpoint.from_arrays({"odd.w": np.array(side, dtype), "plain.w": np.ones(3, "f4")}) for side in (a, b)
    )
    return diff(*sides)


def shown(found: Diff, *, every: bool = False) -> str:
    return report.diff_table(report.diff_json(found.sorted()), WIDE, every=every)


def test_the_case(files: Path, shell) -> None:
    table = shell("diff", "good.pt", "amp.pt")
    for name, mark in (("1.running_mean", "b 1 Inf"), ("1.running_var", "b 1 NaN")):
        line = line_of(table, name)
        assert mark in line
        assert line.split("12.5 %")[1].split() == ["–"] * 4, "no RMSE 0, no cosine 1.0000"
    rows = {row["name"]: row for row in json.loads(shell("diff", "good.pt", "amp.pt", "--format", "json"))["rows"]}
    assert [rows["1.running_var"][key] for key in ("nan_a", "nan_b", "inf_b", "changed")] == [0, 1, 0, 1]
    assert rows["1.running_mean"]["inf_b"] == 1


@pytest.mark.parametrize("by", ["name", "rmse", "max_abs", "rel_l2", "changed"])
def test_they_come_first_however_it_is_sorted(files: Path, shell, by: str) -> None:
    ranked = names_of(shell("diff", "good.pt", "amp_more.pt", "--sort", by))
    assert (set(ranked[:2]), ranked[2]) == ({"1.running_mean", "1.running_var"}, "0.bias")
    assert names_of(shell("diff", "good.pt", "amp_more.pt", "--sort", by, "--top", "1")) == ranked[:1]
    rows = json.loads(shell("diff", "good.pt", "amp_more.pt", "--sort", by, "--format", "json"))["rows"]
    assert [row["name"] for row in rows[:3]] == ranked


@pytest.mark.parametrize(
    ("a", "b", "mark"),
    [
        ([NAN, 1, 2], [0, 1, 2], "a 1 NaN"),
        ([0, 1, 2], [-INF, 1, 2], "b 1 Inf"),
        ([INF, 1, 2], [-INF, 1, 2], "both 1 Inf"),
        ([NAN, INF, 2], [NAN, 3, 2], "a 1 NaN, 1 Inf; b 1 NaN"),
        ([NAN, NAN, 1], [INF, -INF, 1], "a 2 NaN; b 2 Inf"),
        ([NAN, NAN, NAN], [1, 2, 3], "a 3 NaN"),
    ],
    ids=["NaN in a only", "-Inf", "Inf against -Inf", "both sorts", "NaN to Inf", "nothing finite"],
)
def test_every_side_and_sort_is_marked(a: list[float], b: list[float], mark: str) -> None:
    found = compared(a, b)
    line = line_of(shown(found), "odd.w")
    assert f" {mark} " in line
    assert line.split()[-4:] == ["–"] * 4
    left, right = np.array(a, "f4"), np.array(b, "f4")
    row = report.diff_json(found)["rows"][0]
    for side, values in (("a", left), ("b", right)):
        assert row[f"nan_{side}"] == np.isnan(values).sum()
        assert row[f"inf_{side}"] == np.isinf(values).sum()
    both = np.isfinite(left) & np.isfinite(right)
    rmse = float(np.sqrt(np.mean((left[both] - right[both]) ** 2))) if both.any() else None
    assert row["rmse"] == rmse, "json: over what is finite, null over nothing"


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "bfloat16", "float8_e4m3fn", "float8_e5m2", "c8"])
def test_every_float_dtype(dtype: str) -> None:
    kind = getattr(ml_dtypes, dtype, dtype)
    found = compared([1.0, 2.0, 3.0], [1.0, NAN, 3.0], kind)
    assert " b 1 NaN " in line_of(shown(found), "odd.w")


def test_equal_bits_are_identical_and_said_below() -> None:
    found = compared([NAN, INF, 1], [NAN, INF, 1])
    assert found.rows[0].status == "identical"
    assert "1 identical tensor with NaN or Inf on both sides: --all shows which" in shown(found)
    assert " both 1 NaN, 1 Inf " in line_of(shown(found, every=True), "odd.w")
    assert "NaN" not in shown(compared([1, 2], [1, 2]))


def test_other_payloads_of_nan_are_a_change_that_is_marked() -> None:
    a, b = (np.array([bits, 0x3F800000], "u4").view("f4") for bits in (0x7FC00000, 0x7FC00001))
    found = compared(a, b)
    assert (found.rows[0].status, found.rows[0].changed) == ("changed", 1)
    assert " both 1 NaN " in line_of(shown(found), "odd.w")


@pytest.mark.parametrize("dtype", ["i1", "i8", "u8", "?"])
def test_integers_are_never_marked(dtype: str) -> None:
    table = shown(compared([0, 1, 1], [1, 1, 0], dtype))
    assert "not finite" not in table
    assert "NaN" not in table


def test_groups_are_marked_too() -> None:
    found = compared([1, NAN, 3], [INF, 2, 3]).grouped(["layer"])
    assert " a 1 NaN; b 1 Inf " in line_of(shown(found), "odd")


def test_csv_md_and_notebooks_tell_of_them(files: Path, shell) -> None:
    lines = list(csv.DictReader(shell("diff", "good.pt", "amp.pt", "--format", "csv").splitlines()))
    assert (lines[0]["name"], lines[0]["inf_b"], lines[1]["nan_b"]) == ("1.running_mean", "1", "1")
    heading, _, first = shell("diff", "good.pt", "amp.pt", "--format", "md").split("\n\n")[1].splitlines()[:3]
    at = [word.strip() for word in heading.split("|")].index("inf_b")
    assert first.split("|")[at].strip() == "1"
    found = diff(open_checkpoint("good.pt"), open_checkpoint("amp.pt"))
    shows_itself()
    assert "<td>b 1 NaN" in found._repr_html_()  # type: ignore[attr-defined]


def test_three_files(files: Path, shell) -> None:
    table = shell("diff", "good.pt", "amp.pt", "amp_more.pt")
    assert line_of(table, "1.running_mean").split("bn.running_mean")[1].split() == [
        "a",
        "1",
        "Inf",
        "b",
        "1",
        "Inf",
    ]
    data = json.loads(shell("diff", "good.pt", "amp.pt", "good.pt", "--format", "json"))
    assert [row["name"] for row in data["rows"][:2]] == ["1.running_mean", "1.running_var"]
    row = data["rows"][1]
    assert (row["nan_a"], row["inf_a"], row["rel_l2_a"]) == (1, 0, 0.0)
    assert "nan_b" not in row
    mended = three_way(*map(open_checkpoint, ("amp.pt", "good.pt", "good.pt")))
    assert mended.rows[0].non_finite == {"base": (0, 1)}


def test_stats_are_not_spared_where_there_are_some(files: Path, shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    heading = shell("show", "--stats", "amp.pt").splitlines()[0]
    assert {"nan", "inf"} <= set(heading.split())


def test_differences_that_no_double_holds_come_before_what_is_small() -> None:
    """1e308 − (−1e308), the squares of 1e200; and in f32, 1e38 − (−1e38), which doubles do hold."""
    names = {"difference": 1e308, "squares": 1e200, "small": 1e-3}
    a = Checkpoint.from_arrays({name: np.array([value, 1.0]) for name, value in names.items()})
    b = Checkpoint.from_arrays({name: np.array([-value, 1.0]) for name, value in names.items()})
    found = diff(a, b)
    rows = {row["name"]: row for row in report.diff_json(found)["rows"]}
    assert (rows["difference"]["rmse"], rows["difference"]["max_abs"], rows["difference"]["mean_abs"]) == (
        None,
    ) * 3
    assert (rows["squares"]["rmse"], rows["squares"]["max_abs"]) == (None, 2e200)
    for by in ("rmse", "max_abs", "rel_l2"):
        assert [row.name for row in found.sorted(by).rows][-1] == "small", by
    assert not any(row.distance and row.distance.non_finite for row in found.rows)
    single = compared([1e38, 1], [-1e38, 1]).rows[0].distance
    assert single is not None
    assert single.rmse == pytest.approx(2e38 / np.sqrt(2), rel=1e-6)


# A sweep's RMSE --------------------------------------------------------------------------------------------------

MODEL = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)
        self.gate = nn.Parameter(torch.ones(4))

    def forward(self, x):
        return self.norm(self.conv(x)).mean(1, keepdim=True) + torch.nan_to_num(self.gate, posinf=1.0).mean()


def data():
    draw = torch.Generator().manual_seed(0)
    return [(torch.rand(1, 4, 4, generator=draw), torch.zeros(4, 4, dtype=torch.int64)) for _ in range(9)]


def error(output, target):
    return output.square().mean(dim=(1, 2, 3))


error.direction = "min"
"""


def test_a_sweep_has_no_distance_to_what_is_not_finite(
    tmp_path: Path, shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A running mean with an Inf fails; a gate whose NaN and Inf the network mends is measured."""
    torch = pytest.importorskip("torch")
    Path("net.py").write_text(MODEL)
    torch.manual_seed(0)
    conv, norm = torch.nn.Conv2d(1, 2, 1), torch.nn.BatchNorm2d(2)
    state = {f"conv.{name}": value for name, value in conv.state_dict().items()}
    state |= {f"norm.{name}": value for name, value in norm.state_dict().items()} | {"gate": torch.ones(4)}
    torch.save(state, "recipient.pt")
    donor = {name: value.clone() for name, value in state.items()}
    donor["norm.running_mean"][0] = INF
    donor["gate"] = torch.tensor([NAN, INF, 1.0, 1.0])
    donor["conv.bias"] += 0.5
    torch.save(donor, "donor.pt")
    task = ["--model", "net.py:Net", "--data", "net.py:data", "--metric", "net.py:error", "--tolerance", "0.01"]
    swap = ["sweep", "--from", "donor.pt", "--to", "recipient.pt", *task, "--run", "run"]

    plan = {
        tuple(row["tensors"]): row for row in json.loads(shell(*swap, "--dry-run", "--format", "json"))["rows"]
    }
    assert (plan["gate",]["rmse"], plan["gate",]["reason"]) == (None, "no distance: donor 1 NaN, 1 Inf")
    main_words = ["ckptswap", *swap, "--format", "json"]
    rows = swept(main_words)
    gate, mean, bias = rows["gate",], rows["norm.running_mean",], rows["conv.bias",]
    assert (gate["status"], gate["rmse"], gate["rel_l2"]) == ("measured", None, None)
    assert gate["reason"].endswith("no distance: donor 1 NaN, 1 Inf")
    assert (mean["status"], mean["rmse"], mean["drop"]) == ("failed", None, None)
    assert mean["reason"].endswith("; no distance: donor 1 Inf")
    assert bias["rmse"] == pytest.approx(0.5)
    assert bias["reason"] is None
    table = shell("report", "run")
    assert "2 rows take or replace values that are NaN or infinite, and have no distance" in " ".join(
        table.split()
    )
    assert "no distance: donor 1 Inf" in " ".join(table.split())
    monkeypatch.setenv("COLUMNS", "120")
    assert sum(" NaN Inf " in line for line in shell("report", "run").splitlines()) == 1
    page = shell("report", "run", "--format", "html")
    assert "<td>NaN Inf" in page
    assert "no distance: donor 1 NaN, 1 Inf" in page


def swept(words: list[str]) -> dict[tuple[str, ...], dict]:
    """The rows of a sweep of which one failed, as json (exit 3)."""
    done = programs.run([sys.executable, "-m", *words], capture_output=True, text=True, timeout=300)
    assert done.returncode == 3, done.stderr
    return {tuple(row["tensors"]): row for row in json.loads(done.stdout)["rows"]}
