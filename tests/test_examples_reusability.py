"""What examples/reusability/README.md says in numbers is counted again from the tables that the run left."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "examples/reusability"
PROSE = " ".join((FOLDER / "README.md").read_text("utf-8").split())
SHARED, INDEPENDENT = "shared initialisation", "independent initialisation"
LAB = ("unet", "unet-no-skips", "pspnet", "unet-sgd", "unet-frozen-bias")
OF_KINDS = ("shared", "shared new", "shared back", "independent", "independent new", "independent back")


def tables() -> dict[str, list[list[str]]]:
    """Title → rows, of every table in report.md."""
    found: dict[str, list[list[str]]] = {}
    for part in (FOLDER / "report.md").read_text("utf-8").split("\n## ")[1:]:
        lines = [line for line in part.splitlines() if line.startswith("|")]
        found[part.splitlines()[0]] = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]
    return found


TABLES = tables()


def mean(cell: str) -> float:
    return float(cell.split(" ")[0])


def low(cell: str) -> float:
    return float(re.findall(r"\((\S+) …", cell)[0])


def verdicts(claim: str, *inits: str) -> Counter[str]:
    chosen = inits or (SHARED, INDEPENDENT)
    return Counter(
        cell for init in chosen for row in TABLES[f"Verdicts, {init}"] if row[0] == claim for cell in row[1:]
    )


def shares(kind: str, way: str, networks: tuple[str, ...] = ()) -> list[str]:
    """The cell of a kind in each network's table, where there is one."""
    found = []
    for title, rows in TABLES.items():
        network = title.partition(": share of each")[0]
        if "share of each" in title and (not networks or network in networks):
            found += [row[1 + OF_KINDS.index(way)] for row in rows if row[0] == kind]
    return [cell for cell in found if cell not in ("–", "")]


def says(*parts: str) -> None:
    for part in parts:
        assert part in PROSE, part


def test_statistics() -> None:
    found = verdicts("bn-statistics-matter-more")
    assert (found["yes"], found["?"]) == (13, 1)
    assert verdicts("bn-running-mean-matters-more")["yes"] == 14
    variance = verdicts("bn-running-var-matters-more")
    assert (variance["yes"], variance["no"]) == (7, 0)
    again = verdicts("bn-statistics-matter-more-recalibrated")
    assert (again["yes"], again["no"], again["?"]) == (2, 5, 7)
    says("Supported in 13 of 14 cases", "running mean alone in all 14, the variance alone in 7, never refuted")
    says("the claim holds in 2 cases, fails in 5 and is open in 7")


def test_affine() -> None:
    adamw = tuple(name for name in (*LAB, "smp-unet", "smp-pspnet") if name != "unet-sgd")
    single = [
        mean(cell)
        for kind in ("bn.weight", "bn.bias")
        for way in ("shared", "independent")
        for cell in shares(kind, way, adamw)
    ]
    assert (min(single), max(single)) == (-0.002, 0.018)
    together = [
        mean(cell) for way in ("shared", "independent") for cell in shares("bn.weight + bn.bias", way, adamw)
    ]
    assert round(max(together), 2) == 0.05
    assert (
        min(
            mean(cell)
            for way in ("shared", "independent")
            for cell in shares("bn.weight + bn.bias", way, ("unet-sgd",))
        )
        > 0.5
    )
    back = [
        mean(cell)
        for kind in ("bn.weight", "bn.bias")
        for way in ("shared back", "independent back")
        for cell in shares(kind, way)
    ]
    assert (round(min(back), 2), round(max(back), 1)) == (0.02, 0.8)
    says("a share of −0.002 to 0.018, both together up to 0.05", "more than half of what the network knows")
    says("Back to the auto-encoder each costs 0.02 to 0.8 in psnr")
    rows = {
        init: next(row[1:] for row in TABLES[f"Verdicts, {init}"] if row[0] == "bn-affine-reusable")
        for init in (SHARED, INDEPENDENT)
    }
    assert rows == {
        SHARED: ["?", "?", "?", "?", "yes", "no", "?"],
        INDEPENDENT: ["?", "?", "?", "no", "yes", "no", "?"],
    }


def test_weights() -> None:
    whole = [cell for way in ("shared", "independent") for cell in shares("conv.weight", way)]
    assert (min(map(mean, whole)), max(map(mean, whole))) == (0.365, 1.561)
    assert sum(low(cell) > 0.1 for cell in whole) == 11
    found = verdicts("conv-weight-very-sensitive")
    assert (found["yes"], found["no"]) == (1, 0)
    early = verdicts("conv-weight-early-layers-matter-more")
    assert (early["yes"], early["no"]) == (3, 3)
    assert verdicts("conv-weight-sensitive-at-equal-distance")["yes"] == 0
    says("costs 0.365 to 1.561, surely above 0.10 in 11 of 14 cases", "(supported once, refuted never)")
    says("3 cases for early layers, 3 against")


def test_biases() -> None:
    shared = [mean(cell) for cell in shares("conv.bias", "shared", LAB)]
    assert (round(min(shared), 2), round(max(shared), 2)) == (0.05, 0.07)
    found = verdicts("conv-bias-reusable", SHARED)
    assert (found["no"], found["yes"]) == (2, 2)
    independent = [mean(cell) for cell in shares("conv.bias", "independent", LAB)]
    assert (round(min(independent), 1), round(max(independent), 1)) == (0.9, 1.3)
    assert verdicts("conv-bias-reusable", INDEPENDENT) == {"no": 5, "yes": 2}
    assert verdicts("conv-bias-harm-lies-before-norm", INDEPENDENT) == {"yes": 5, "–": 2}
    new = [cell for way in ("shared new", "independent new") for cell in shares("conv.bias before BN", way)]
    assert set(new) == {"0 (0 … 0)", "0"} or set(new) == {"0 (0 … 0)"}
    says(
        "lose shares of 0.05 to 0.07 (not supported for two, undecided for two)",
        "from independent ones 0.9 to 1.3",
    )
    says("With new statistics their share is exactly 0")
    assert verdicts("running-mean-absorbs-bias")["yes"] == 0


def test_reasons_and_predictors() -> None:
    assert verdicts("features-are-general", INDEPENDENT) == {"no": 7}
    assert verdicts("features-are-general", SHARED) == {"no": 4, "?": 3}
    says("not in 4 cases, and 3 are undecided")
    single = verdicts("rmse-predicts-drop")
    assert (single["yes"], single["no"]) == (4, 3)
    rows = {
        (row[0], row[1]): row[2:]
        for row in TABLES["What tells beforehand? Cells of one kind; means over networks"]
    }
    by = {
        name: [[round(mean(cell), 2) for cell in rows[init, name]] for init in ("shared", "independent")]
        for name in ("rmse", "first order")
    }
    assert sorted(each[0] for each in by["rmse"]) == [0.02, 0.06]
    assert sorted(each[2] for each in by["rmse"]) == [0.51, 0.53]
    assert {each[0] for each in by["first order"]} == {0.38}
    assert sorted(each[1] for each in by["first order"]) == [0.82, 0.84]
    assert sorted(each[2] for each in by["first order"]) == [0.69, 0.72]
    says("rank correlation is 0.02 to 0.06 (undecided; single cases go both ways, 4 for, 3 against)")
    says(
        "balanced accuracy 0.51 to 0.53",
        "correlation 0.38, area under the ROC curve 0.82 to 0.84, balanced accuracy 0.69 to 0.72",
    )


@pytest.mark.parametrize("name", ["kinds.svg", "prefixes.svg", "rmse.svg", "report.md"])
def test_what_it_shows_is_there(name: str) -> None:
    assert f"({name})" in PROSE
    assert (FOLDER / name).stat().st_size > 10_000


def test_baselines() -> None:
    rows = TABLES["Baselines: the segmentation network, and the auto-encoder on both tasks"]
    dice = [mean(row[2]) for row in rows]
    assert (round(min(dice), 2), round(max(dice), 2)) == (0.9, 0.97)
    assert {row[5] for row in rows} == {"5"}
    says("(Dice 0.90 to 0.97)", "5 seeds of 7 networks")
