"""The four claims on made-up rows whose truth is known."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from ckptswap.lab.findings import findings
from ckptswap.statistics import Interval
from ckptswap.sweep.result import Finding, Row, SweepResult

TOLERANCE = 0.01
LAYERS = ("encoder.0", "encoder.1", "head")
KINDS = ("bn.running_mean", "bn.running_var", "bn.weight", "bn.bias", "conv.weight", "conv.bias")
PAPER = dict(zip(KINDS, (0.6, 0.3, 0.0, 0.0, 0.7, 0.0), strict=True))
CLAIMS = (
    "bn-statistics-matter-more",
    "bn-affine-reusable",
    "conv-weight-very-sensitive",
    "conv-bias-reusable",
)


@dataclass(frozen=True)
class Synthetic:
    """Rows, and contrasts whose interval is the weighted drop ± width (or none)."""

    result: SweepResult
    width: float | None = 0.005

    def contrast(self, weights: dict[int, float]) -> Interval:
        drops = [self.result.rows[at].drop for at in weights]
        assert None not in drops
        value = sum(w * d for w, d in zip(weights.values(), drops, strict=True))
        if self.width is None:
            return Interval(value, None, None)
        return Interval(value, value - self.width, value + self.width)


def row(
    layer: str | None, kind: str, drop: float, width: float | None = 0.005, tolerance: float = TOLERANCE
) -> Row:
    low, high = (None, None) if width is None else (drop - width, drop + width)
    verdict = "undecided"
    if low is not None and high is not None:
        verdict = "sensitive" if low > tolerance else "reusable" if high < tolerance else "undecided"
    return Row(layer, kind, (), 1, "measured", drop=drop, sim_low=low, sim_high=high, verdict=verdict)


def table(
    whole: dict[str, float], cells: dict[str, tuple[float, ...]] | None = None, **how: float | None
) -> tuple[Row, ...]:
    """Whole-kind rows, then one cell a layer; cells drop as their kind does unless told."""
    cells = cells or {}
    wholes = [row(None, kind, drop, **how) for kind, drop in whole.items()]
    singles = [
        row(layer, kind, drop, **how)
        for kind in whole
        for layer, drop in zip(LAYERS, cells.get(kind, (whole[kind],) * len(LAYERS)), strict=True)
    ]
    return (*wholes, *singles)


def judge(rows: tuple[Row, ...], width: float | None = 0.005) -> dict[str, Finding]:
    result = SweepResult("dice", "max", TOLERANCE, 0.95, 0.0, 50, rows)
    found = findings(Synthetic(result, width))
    assert tuple(each.claim for each in found) == CLAIMS
    return {each.claim: each for each in found}


def verdicts(rows: tuple[Row, ...], width: float | None = 0.005) -> list[str]:
    return [each.verdict for each in judge(rows, width).values()]


def swap(rows: tuple[Row, ...], layer: str | None, kind: str, **changes: object) -> tuple[Row, ...]:
    assert any((each.layer, each.kind) == (layer, kind) for each in rows)
    return tuple(replace(each, **changes) if (each.layer, each.kind) == (layer, kind) else each for each in rows)  # type: ignore[arg-type]


def test_all_supported_where_the_paper_is_right() -> None:
    assert verdicts(table(PAPER)) == ["supported"] * 4


def test_none_supported_where_it_is_the_other_way_round() -> None:
    opposite = dict(zip(KINDS, (0.0, 0.0, 0.6, 0.3, 0.0, 0.7), strict=True))
    assert verdicts(table(opposite)) == ["not supported"] * 4


@pytest.mark.parametrize("way", ["depth:1", "re:(encoder)"])
def test_parts_by_depth_or_expression_are_no_cells(way: str) -> None:
    """Those of the four that are worst would turn every claim over."""
    worst = [replace(row("encoder", kind, 0.9), by=(way, "kind")) for kind in KINDS]
    cells = [replace(each, by=("kind",) if each.layer is None else ("layer", "kind")) for each in table(PAPER)]
    assert judge((*cells, *worst)) == judge(tuple(cells))
    whole = [each for each in cells if each.layer is None]
    assert all("no cells" in found.rule for found in judge((*whole, *worst)).values())


def test_undecided_where_intervals_are_wide() -> None:
    assert verdicts(table(PAPER, width=2.0), width=2.0) == ["undecided"] * 4


def test_undecided_without_intervals() -> None:
    found = judge(table(PAPER, width=None), width=None)
    assert {each.verdict for each in found.values()} == {"undecided"}
    assert all("8 groups" in found[claim].rule for claim in CLAIMS)


def test_undecided_without_rows_naming_what_is_missing() -> None:
    found = judge(())
    assert {each.verdict for each in found.values()} == {"undecided"}
    assert "conv.bias" in found["conv-bias-reusable"].rule
    assert "bn.running_mean" in found["bn-statistics-matter-more"].rule


@pytest.mark.parametrize("keep_whole", [True, False])
def test_half_a_table_refutes_but_does_not_support(keep_whole: bool) -> None:
    half = tuple(each for each in table(PAPER) if (each.layer is None) == keep_whole)
    assert verdicts(half) == ["undecided"] * 4
    wrong = table(dict(zip(KINDS, (0.0, 0.0, 0.6, 0.3, 0.0, 0.7), strict=True)))
    assert verdicts(tuple(each for each in wrong if (each.layer is None) == keep_whole)) == ["not supported"] * 4


def test_claim_1_is_the_difference_of_means_of_both_forms() -> None:
    cells = {"bn.running_mean": (0.1, 0.2, 0.3), "bn.bias": (0.06, 0.0, 0.0)}
    numbers = judge(table(PAPER, cells))[CLAIMS[0]].numbers
    assert numbers["whole_kinds.contrast"] == pytest.approx((0.6 + 0.3) / 2 - 0.0)
    assert numbers["cells.contrast"] == pytest.approx((0.6 + 0.9) / 6 - 0.06 / 6)
    assert numbers["cells.bn.running_mean"] == pytest.approx(0.2)
    assert numbers["cells.low"] == pytest.approx(0.24 - 0.005)


def test_claim_1_is_refuted_when_cells_alone_say_so() -> None:
    cells = {"bn.running_mean": (0.0,) * 3, "bn.running_var": (0.0,) * 3, "bn.bias": (0.3,) * 3}
    assert verdicts(table(PAPER, cells))[0] == "not supported"


def test_claim_1_is_refuted_by_an_interval_that_ends_at_zero() -> None:
    equal = {**PAPER, "bn.running_mean": 0.0, "bn.running_var": 0.0}
    assert verdicts(table(equal), width=0.0)[0] == "not supported"


def test_identical_cells_count_as_drop_zero() -> None:
    rows = table(PAPER)
    for layer in LAYERS[:2]:
        rows = swap(rows, layer, "bn.running_mean", status="identical", drop=0.0, verdict="reusable")
    numbers = judge(rows)[CLAIMS[0]].numbers
    assert numbers["cells.contrast"] == pytest.approx((0.6 + 0.9) / 6)


def test_a_kind_that_is_equal_in_both_networks_decides_nothing() -> None:
    rows = table(PAPER)
    for layer in (None, *LAYERS):
        rows = swap(
            rows, layer, "bn.weight", status="identical", drop=0.0, sim_low=None, sim_high=None, verdict="reusable"
        )
    found = judge(rows)
    assert [each.verdict for each in found.values()] == ["undecided", "undecided", "supported", "supported"]
    assert "bn.weight would change nothing" in found["bn-affine-reusable"].rule
    assert found["bn-affine-reusable"].numbers["bn.weight.not_run"] == 3


def test_a_failed_row_leaves_the_contrast_open_and_supports_no_reuse() -> None:
    rows = swap(table(PAPER), "encoder.1", "bn.weight", status="failed", drop=None, verdict=None)
    found = judge(rows)
    assert [each.verdict for each in found.values()] == ["undecided", "undecided", "supported", "supported"]
    assert "encoder.1 bn.weight is failed" in found[CLAIMS[0]].rule


def test_a_whole_kind_that_does_not_fit_is_named() -> None:
    rows = swap(
        table(PAPER), None, "conv.weight", status="mismatch", drop=None, sim_low=None, sim_high=None, verdict=None
    )
    found = judge(rows)["conv-weight-very-sensitive"]
    assert found.verdict == "undecided"
    assert "conv.weight is mismatch" in found.rule


@pytest.mark.parametrize(("kind", "at"), [("bn.bias", 1), ("conv.bias", 3)])
def test_one_sensitive_cell_refutes_reuse(kind: str, at: int) -> None:
    found = verdicts(table(PAPER, {kind: (0.0, 0.2, 0.0)}))
    assert found[at] == "not supported"
    assert verdicts(table(PAPER, {kind: (0.0, 0.012, 0.0)}))[at] == "undecided"


def test_a_sensitive_whole_kind_refutes_reuse_though_no_cell_does() -> None:
    cells = {"conv.bias": (0.0, 0.0, 0.0)}
    assert verdicts(table({**PAPER, "conv.bias": 0.06}, cells))[3] == "not supported"


@pytest.mark.parametrize(
    ("whole", "cells", "expected"),
    [
        (0.12, (0.5, 0.5, 0.0), "supported"),
        (0.09, (0.5, 0.5, 0.5), "not supported"),  # above the tolerance, yet below ten times
        (0.102, (0.5, 0.5, 0.5), "undecided"),
        (0.7, (0.5, 0.0, 0.0), "not supported"),  # most cells are reusable
        (0.7, (0.5, 0.011, 0.0), "undecided"),
    ],
)
def test_very_sensitive(whole: float, cells: tuple[float, ...], expected: str) -> None:
    assert verdicts(table({**PAPER, "conv.weight": whole}, {"conv.weight": cells}))[2] == expected


def test_numbers_hold_bounds_and_counts() -> None:
    numbers = judge(table(PAPER, {"conv.weight": (0.5, 0.0, 0.011)}))["conv-weight-very-sensitive"].numbers
    assert numbers["bound"] == pytest.approx(0.1)
    assert numbers["conv.weight.sim_low"] == pytest.approx(0.695)
    assert (numbers["conv.weight.cells"], numbers["conv.weight.sensitive"], numbers["conv.weight.reusable"]) == (
        3,
        1,
        1,
    )


def test_a_cell_that_two_splits_share_counts_once() -> None:
    rows = table(PAPER, {"bn.running_mean": (0.1, 0.2, 0.3)})
    again = tuple(each for each in rows if each.layer == LAYERS[0])
    assert judge(rows + again)[CLAIMS[0]] == judge(rows)[CLAIMS[0]]
