"""Runs side by side, against scipy and made-up rows."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ckptswap.errors import UsageError
from ckptswap.sweep.agreement import agreement, tau
from ckptswap.sweep.result import DonorScore, Row, SweepResult

NUMBERS = st.integers(-4, 4).map(float)


@given(st.lists(st.tuples(NUMBERS, NUMBERS), max_size=12))
def test_tau_is_scipys(pairs: list[tuple[float, float]]) -> None:
    a, b = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    if len(set(a)) < 2 or len(set(b)) < 2:
        assert tau(pairs) is None
    else:
        assert tau(pairs) == pytest.approx(stats.kendalltau(a, b).statistic)


def row(layer: str, drop: float | None, width: float | None = 0.1, status: str = "measured") -> Row:
    ends = {} if width is None or drop is None else {"sim_low": drop - width, "sim_high": drop + width}
    return Row(layer, "conv.bias", (f"{layer}.bias",), 4, status, drop=drop, **ends)  # type: ignore[arg-type]


def result(*rows: Row) -> SweepResult:
    return SweepResult("dice", "max", 0.01, 0.9, None, 8, rows)


def test_cells_are_matched_by_name_and_missing_ones_stay_missing() -> None:
    a, b = result(row("x", 0.5), row("y", 0.1)), result(row("y", 0.9), row("z", 0.2))
    found = agreement({"a": a, "b": b})
    assert [cell.layer for cell in found.cells] == ["y", "x", "z"], "the largest spread first"
    assert [cell.differs for cell in found.cells] == [True, None, None]
    assert found.cells[1].rows[1] is None
    assert found.kendall == {(0, 1): None}, "one shared cell has no ranks"


@pytest.mark.parametrize(
    ("other", "differs"),
    [
        (row("x", 0.69), False),
        (row("x", 0.71), True),
        (row("x", 0.7, None), None),
        (row("x", 0.0, status="identical"), True),
    ],
)
def test_cells_differ_when_their_intervals_do_not_meet(other: Row, differs: bool | None) -> None:
    found = agreement({"a": result(row("x", 0.5)), "b": result(other)})
    assert found.cells[0].differs is differs


def test_what_was_not_measured_has_no_rank() -> None:
    a = result(row("x", 0.5), row("y", 0.1), row("z", None, status="failed"))
    b = result(row("x", 0.4), row("y", 0.0, status="identical"), row("z", 0.3))
    assert agreement({"a": a, "b": b}).kendall == {(0, 1): None}


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (replace(result(), metric="iou"), "by iou and mode only, the first run by dice"),
        (replace(result(), mode="prefix"), "mode prefix"),
        (replace(result(), donors=(DonorScore("a", 0.1), DonorScore("b", 0.1))), "several donors"),
    ],
)
def test_what_cannot_be_compared_is_refused(other: SweepResult, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        agreement({"a": result(), "b": other})
    with pytest.raises(UsageError, match="one run only"):
        agreement({"a": result()})
