"""The four claims on made-up rows whose truth is known."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ckptswap.errors import UsageError
from ckptswap.lab.findings import findings
from ckptswap.lab.findings import judge as laid_on
from ckptswap.statistics import Interval, Tails
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


def tails(value: float, width: float | None, bound: float) -> Tails:
    """Of a normal estimate whose 95 % interval is the value ± width; with no width, the value decides."""
    if width is None:
        return Tails()
    if width == 0:
        return Tails(float(value > bound), float(value <= bound))
    return Tails(*(float(stats.norm.sf(sign * (bound - value) / width * 1.96)) for sign in (1, -1)))


@dataclass(frozen=True)
class Synthetic:
    """Rows, and contrasts whose interval is the weighted drop ± width (or none)."""

    result: SweepResult
    width: float | None = 0.005

    def value(self, weights: dict[int, float]) -> float:
        drops = [self.result.rows[at].drop for at in weights]
        assert None not in drops
        return sum(w * d for w, d in zip(weights.values(), drops, strict=True))

    def contrast(self, weights: dict[int, float]) -> Interval:
        value = self.value(weights)
        if self.width is None:
            return Interval(value, None, None)
        return Interval(value, value - self.width, value + self.width)

    def tails(self, weights: dict[int, float], bound: float = 0.0) -> Tails:
        return tails(self.value(weights), self.width, bound)


def row(
    layer: str | None, kind: str, drop: float, width: float | None = 0.005, tolerance: float = TOLERANCE
) -> Row:
    low, high = (None, None) if width is None else (drop - width, drop + width)
    below, above = tails(drop, width, tolerance)
    told = {"sim_low": low, "sim_high": high, "p_reusable": below, "p_sensitive": above, "verdict": "undecided"}
    return Row(layer, kind, (), 1, "measured", drop=drop, **told)


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
    rows = swap(
        table(PAPER),
        "encoder.1",
        "bn.weight",
        status="failed",
        drop=None,
        verdict=None,
        p_reusable=None,
        p_sensitive=None,
    )
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


def judged_by(**p_values: tuple[Tails, ...]) -> dict[str, Finding]:
    """The paper's table, with these p-values of a kind's whole and its cells (kinds with _ for the dot)."""
    rows = table(PAPER)
    for kind, told in p_values.items():
        for layer, (below, above) in zip((None, *LAYERS), told, strict=True):
            rows = swap(rows, layer, kind.replace("_", "."), p_reusable=below, p_sensitive=above)
    return judge(rows)


def test_what_is_shown_row_by_row_supports_though_the_table_leaves_every_row_undecided() -> None:
    finding = judged_by(conv_bias=(Tails(0.04, 0.96),) * 4)["conv-bias-reusable"]
    assert finding.verdict == "supported"
    assert (finding.numbers["p_for"], finding.numbers["conv.bias.reusable"]) == (0.04, 3)


def test_one_row_that_is_not_shown_leaves_it_open() -> None:
    found = judged_by(conv_bias=(*(Tails(0.001, 0.999),) * 3, Tails(0.06, 0.94)))
    assert found["conv-bias-reusable"].verdict == "undecided"


@pytest.mark.parametrize(("p_value", "expected"), [(0.02, "undecided"), (0.012, "not supported")])
def test_refutation_must_withstand_the_number_of_the_claims_own_rows(p_value: float, expected: str) -> None:
    """Four rows: 4 × 0.02 is above the level, 4 × 0.012 is not."""
    finding = judged_by(conv_bias=(*(Tails(0.5, 0.5),) * 3, Tails(0.9, p_value)))["conv-bias-reusable"]
    assert finding.verdict == expected
    assert finding.numbers["p_against"] == pytest.approx(4 * p_value)
    assert finding.numbers["conv.bias.cells.p_against"] == p_value


def test_a_row_that_would_change_nothing_has_no_share_in_refutation() -> None:
    rows = swap(table(PAPER), LAYERS[0], "conv.bias", status="identical", drop=0.0)
    rows = swap(rows, LAYERS[1], "conv.bias", p_reusable=0.9, p_sensitive=0.016)
    finding = judge(rows)["conv-bias-reusable"]
    assert finding.numbers["p_against"] == pytest.approx(3 * 0.016)
    assert finding.verdict == "not supported"


P_VALUES = st.integers(1, 199).map(
    lambda n: Tails(n / 1000, 1 - n / 1000) if n < 100 else Tails(n / 200, 1 - n / 200)
)


@given(st.tuples(*[P_VALUES] * 4))
def test_half_of_the_cells_by_a_plain_loop(told: tuple[Tails, ...]) -> None:
    """Of three cells two are half and more: the second smallest p, twice; and of the other side likewise."""
    finding = judged_by(conv_weight=told)["conv-weight-very-sensitive"]
    above, below = (sorted(cell[side] for cell in told[1:]) for side in (1, 0))
    assert finding.numbers["conv.weight.cells.p_for"] == pytest.approx(min(1, 2 * above[1]))
    assert finding.numbers["conv.weight.cells.p_against"] == pytest.approx(min(1, 2 * below[1]))
    is_refuted, is_shown = 2 * 2 * below[1] <= 0.05, 2 * above[1] <= 0.05
    assert finding.verdict == ("not supported" if is_refuted else "supported" if is_shown else "undecided")


def test_missing_p_values_are_named() -> None:
    found = judged_by(conv_bias=(*(Tails(0.001, 0.999),) * 3, Tails()))["conv-bias-reusable"]
    assert found.verdict == "undecided"
    assert "conv.bias: 1 cell has no p-value" in found.rule


def test_rows_that_were_looked_at_until_something_was_known_are_not_judged() -> None:
    with pytest.raises(UsageError, match="judged once"):
        laid_on(SimpleNamespace(is_decided=True, result=None))
