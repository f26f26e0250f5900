"""Runs side by side, against scipy and made-up rows."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ckptswap.errors import UsageError
from ckptswap.report.agreement import agreement_document
from ckptswap.report.document import document_text
from ckptswap.report.text import Style
from ckptswap.statistics.ranks import tau
from ckptswap.sweep.agreement import agreement
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
    assert found.kendall == {(0, 1, "layer,kind"): None}, "one shared cell has no ranks"


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
    assert agreement({"a": a, "b": b}).kendall == {(0, 1, "layer,kind"): None}


def test_whole_kinds_and_their_cells_are_ranked_apart() -> None:
    def whole(kind: str, drop: float) -> Row:
        return Row(None, kind, (kind,), 4, "measured", drop=drop)

    a = result(row("x", 0.5), row("y", 0.1), whole("k", 0.9), whole("m", 0.8))
    b = result(row("x", 0.4), row("y", 0.2), whole("k", 0.01), whole("m", 0.02))
    assert agreement({"a": a, "b": b}).kendall == {(0, 1, "layer,kind"): 1.0, (0, 1, "kind"): -1.0}


def test_a_cell_is_compared_with_a_cell_and_not_with_one_of_its_tensors() -> None:
    cell = Row("l", "rnn.weight", ("l.weight_l0", "l.weight_l1"), 8, "measured", drop=0.1)
    parts = [Row("l", "rnn.weight", (name,), 4, "measured", drop=0.7) for name in cell.tensors]
    found = agreement({"a": result(*parts, cell), "b": result(cell)})
    assert [[each and each.drop for each in shared.rows] for shared in found.cells] == [[0.1, 0.1]]


def test_the_lead_counts_what_can_be_told_and_notes_are_kept() -> None:
    a = result(row("x", 0.5), row("y", 0.1), row("only here", 0.3))
    b = replace(result(row("x", 0.9), row("y", 0.1)), notes=("2 cells are not scored yet",))
    text = document_text(agreement_document(agreement({"a": a, "b": b})), Style(200))
    assert "1 cell differs beyond the intervals" in text
    assert "of 2 of which two runs have them. 1 cell in one run only." in text
    assert "B: 2 cells are not scored yet" in text
    none = agreement({"a": result(row("x", 0.5, None)), "b": result(row("x", 0.9, None))})
    assert "nothing can be told apart" in document_text(agreement_document(none), Style(200))


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (replace(result(), metric="iou"), r"by iou \(max\) and mode only, the first run by dice"),
        (replace(result(), direction="min"), r"by dice \(min\)"),
        (replace(result(), mode="prefix"), "mode prefix"),
        (replace(result(), donors=(DonorScore("a", 0.1), DonorScore("b", 0.1))), "several donors"),
    ],
)
def test_what_cannot_be_compared_is_refused(other: SweepResult, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        agreement({"a": result(), "b": other})
    with pytest.raises(UsageError, match="one run only"):
        agreement({"a": result()})
