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
NETWORKS = ("unet", "unet-no-skips", "pspnet", "smp-unet", "smp-pspnet", "unet-sgd", "unet-frozen-bias")
"""As the columns A to G of the verdicts."""
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


def high(cell: str) -> float:
    return float(re.findall(r"… (\S+)\)", cell)[0])


def numbers(claim: str, network: str = "", number: str = "") -> list[list[str]]:
    """The rows behind a claim's verdicts: claim, network, initialisation, number, mean, verdict."""
    return [
        row
        for row in TABLES["Every number behind a verdict"]
        if row[0] == claim and network in ("", row[1]) and number in row[3]
    ]


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
    says("the claim fails in 5 cases, is open in 7, and holds in 2, both smp's PSPNet")


def test_where_the_claim_after_new_statistics_holds_the_swap_improves_the_network() -> None:
    for init in (SHARED, INDEPENDENT):
        [row] = [row for row in TABLES[f"Verdicts, {init}"] if row[0] == "bn-statistics-matter-more-recalibrated"]
        assert [network for network, cell in zip(NETWORKS, row[1:], strict=True) if cell == "yes"] == [
            "smp-pspnet"
        ]
    new = [
        cell
        for kind in ("bn.weight", "bn.bias")
        for way in ("shared new", "independent new")
        for cell in shares(kind, way, ("smp-pspnet",))
    ]
    assert len(new) == 4
    assert all(mean(cell) < 0 and high(cell) <= 0 for cell in new), "each share is a gain"
    gains = [mean(row[4]) for row in numbers("bn-statistics-matter-more-recalibrated", "smp-pspnet")]
    assert [round(gain, 3) for gain in gains] == [0.002, 0.002]
    says("*improves* the network by a share of 0.002")


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


def test_networks_that_are_within_the_tolerance_in_every_cell() -> None:
    counts = {
        (row[1], row[2]): tuple(map(int, re.findall(r"\d+", row[4])))
        for row in numbers("bn-affine-reusable", number="cells")
    }
    assert len(counts) == 14
    within = {network for (network, _), (reusable, _, cells) in counts.items() if reusable == cells}
    assert within == {"pspnet", "smp-pspnet"}
    for network, cells in (("smp-pspnet", 28), ("pspnet", 30)):
        assert [counts[network, init] for init in ("shared", "independent")] == [(cells, 0, cells)] * 2
    wholes = [row for row in numbers("bn-affine-reusable") if "cells" not in row[3]]
    sure = {row[1] for row in wholes} - {row[1] for row in wholes if high(row[4]) >= 0.01}
    assert sure == {"smp-pspnet"}
    says("both PSPNets are surely within it in every cell (smp's in 28 of 28, the lab's in 30 of 30)")


def test_weights_after_new_statistics() -> None:
    pairs = [
        (network, mean(stale), mean(new), low(new))
        for network in NETWORKS
        for way in ("shared", "independent")
        for stale, new in zip(
            shares("conv.weight", way, (network,)), shares("conv.weight", f"{way} new", (network,)), strict=True
        )
    ]
    assert len(pairs) == 14
    less = [new for _, stale, new, _ in pairs if new < stale]
    assert (len(less), min(less), max(less)) == (12, 0.089, 0.640)
    assert [(network, new) for network, stale, new, _ in pairs if new >= stale] == [
        ("unet-sgd", 1.13),
        ("unet-sgd", 1.17),
    ]
    assert sum(least > 0.1 for *_, least in pairs) == 4
    says(
        "costs less in 12 of 14 cases, 0.089 to 0.640 (more only under SGD, 1.130 and 1.170)",
        "surely above 0.10 in 4",
    )


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
    of_lab = {
        network: cell
        for row in TABLES[f"Verdicts, {SHARED}"]
        if row[0] == "conv-bias-reusable"
        for network, cell in zip(NETWORKS, row[1:], strict=True)
        if network in LAB
    }
    assert shares("conv.bias", "shared", ("unet-frozen-bias",)) == []
    assert Counter(cell for network, cell in of_lab.items() if network != "unet-frozen-bias") == {"no": 2, "?": 2}
    says(
        "lose shares of 0.05 to 0.07 (not supported for two, undecided for two,",
        "nothing to swap where they are frozen)",
        "from independent ones 0.9 to 1.3",
    )
    says("With new statistics their share is exactly 0")
    assert verdicts("running-mean-absorbs-bias")["yes"] == 0


def test_biases_of_smps_networks() -> None:
    """As many as smp builds, none of them before batch norm."""
    smp = pytest.importorskip("segmentation_models_pytorch")
    for network, name, biases in (
        ("smp-unet", "Unet", ["segmentation_head.0"]),
        ("smp-pspnet", "PSPNet", ["decoder.psp.blocks.0.pool.1.0", "segmentation_head.0"]),
    ):
        model = getattr(smp, name)("resnet18", encoder_weights=None, in_channels=1, classes=1)
        convs = [
            each for each, module in model.named_modules() if getattr(module, "kernel_size", None) is not None
        ]
        assert [each for each in convs if getattr(model.get_submodule(each), "bias", None) is not None] == biases
        counts = {row[4] for row in numbers("conv-bias-reusable", network, "cells")}
        assert counts == {f"{len(biases)} reusable, 0 sensitive of {len(biases)}"}
        assert shares("conv.bias before BN", "shared", (network,)) == []
    says("the U-Net's only one is in the head, the PSPNet has two, in the head and in the pyramid's branch")


def test_no_interval_leaves_the_range_of_its_number() -> None:
    """Of correlations, areas, balanced accuracies and Dice."""
    predictors = TABLES["What tells beforehand? Cells of one kind; means over networks"]
    baselines = TABLES["Baselines: the segmentation network, and the auto-encoder on both tasks"]
    for cells, least in (
        ([row[2] for row in predictors] + [row[4] for row in numbers("rmse-predicts-drop")], -1),
        ([cell for row in predictors for cell in row[3:]] + [cell for row in baselines for cell in row[2:4]], 0),
    ):
        assert all(least <= low(cell) <= mean(cell) <= high(cell) <= 1 for cell in cells)
    first = [row for row in predictors if row[1] == "first order"]
    assert [(round(low(row[3]), 2), round(high(row[3]), 2)) for row in first] == [(0.65, 1.0), (0.66, 0.98)]
    says("(over five networks only: 0.65 to 1 and 0.66 to 0.98)")


def test_prefixes() -> None:
    halves = {
        (row[0], row[1]): list(map(mean, row[2:6])) for row in TABLES[next(t for t in TABLES if "Prefixes" in t)]
    }
    assert all(round(share, 1) == 0.1 for share in halves["smp-unet", "shared"])
    assert min(halves, key=lambda case: halves[case][2]) == ("smp-unet", "shared")
    says("smp's U-Net comes nearest (a share of 0.1 over most of its depth)")


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
        "correlation 0.38, area under the ROC curve 0.82 to 0.84 (over",
        "balanced accuracy 0.69 to 0.72",
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
