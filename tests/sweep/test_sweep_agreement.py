"""Runs side by side, against scipy and made-up rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ckptswap.errors import UsageError
from ckptswap.report.agreement import agreement_document
from ckptswap.report.document import document_text
from ckptswap.report.text import Style
from ckptswap.statistics.ranks import tau
from ckptswap.sweep.agreement import Ranks, agreement
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
    assert [cell.layer for cell in found.cells] == ["x", "y", "z"], "the largest mean first, be it of one run"
    found = agreement({"a": a, "b": b}, order="spread")
    assert [cell.layer for cell in found.cells] == ["y", "x", "z"], "the largest spread first"
    assert [cell.differs for cell in found.cells] == [True, None, None]
    assert found.cells[1].rows[1] is None
    assert found.ranks == (Ranks(0, 1, "layer,kind", 1, None, None),), "one shared cell has no ranks"


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
    assert agreement({"a": a, "b": b}).ranks == (Ranks(0, 1, "layer,kind", 1, None, None),)


def test_whole_kinds_and_their_cells_are_ranked_apart() -> None:
    def whole(kind: str, drop: float) -> Row:
        return Row(None, kind, (kind,), 4, "measured", drop=drop)

    a = result(row("x", 0.5), row("y", 0.1), whole("k", 0.9), whole("m", 0.8))
    b = result(row("x", 0.4), row("y", 0.2), whole("k", 0.01), whole("m", 0.02))
    ranks = agreement({"a": a, "b": b}).ranks
    assert {pair.by: pair.kendall for pair in ranks} == {"layer,kind": 1.0, "kind": -1.0}
    assert [(pair.kendall, pair.spearman) for pair in ranks] == [
        (1.0, pytest.approx(1)),
        (-1.0, pytest.approx(-1)),
    ]


def test_a_cell_is_compared_with_a_cell_and_not_with_one_of_its_tensors() -> None:
    cell = Row("l", "rnn.weight", ("l.weight_l0", "l.weight_l1"), 8, "measured", drop=0.1)
    parts = [Row("l", "rnn.weight", (name,), 4, "measured", drop=0.7) for name in cell.tensors]
    found = agreement({"a": result(*parts, cell), "b": result(cell)})
    assert [[each and each.drop for each in shared.rows] for shared in found.cells] == [[0.1, 0.1]]


@given(st.lists(st.one_of(st.none(), st.floats(-1, 1)), min_size=2, max_size=6))
def test_means_are_scipys_over_the_runs_that_know_the_drop(drops: list[float | None]) -> None:
    runs = {str(at): result(row("x", drop), row("y", 0.1)) for at, drop in enumerate(drops)}
    (cell,) = (cell for cell in agreement(runs).cells if cell.layer == "x")
    known = [drop for drop in drops if drop is not None]
    if len(known) < 2:
        assert (cell.sd, cell.mean and cell.mean.estimate) == (None, known[0] if known else None)
        assert cell.mean is None or cell.mean.low is None
        return
    assert cell.sd == pytest.approx(np.std(known, ddof=1))
    if cell.sd > 1e-9:
        low, high = stats.t.interval(0.95, len(known) - 1, np.mean(known), stats.sem(known))
        assert (cell.mean.low, cell.mean.high) == (pytest.approx(low), pytest.approx(high))


def test_a_tensor_is_compared_with_the_same_tensor() -> None:
    def parts(first: float, second: float) -> SweepResult:
        drops = sorted({"l.a": first, "l.b": second}.items(), key=lambda pair: -pair[1])
        return result(*(Row("l", "rnn.weight", (name,), 4, "measured", drop=drop) for name, drop in drops))

    found = agreement({"a": parts(0.1, 0.5), "b": parts(0.3, 0.2)})
    assert {cell.tensor: cell.drops for cell in found.cells} == {"l.a": [0.1, 0.3], "l.b": [0.5, 0.2]}


def test_the_table_of_means_is_a_table() -> None:
    same = row("s", 0.0, status="identical")
    a, b = result(row("x", 0.5), same, row("f", None, status="failed")), result(row("x", 0.1), same)
    mean = agreement({"a": a, "b": b}).mean
    assert [(each.layer, each.status, each.drop) for each in mean.rows] == [
        ("x", "measured", 0.3),
        ("s", "identical", 0.0),
        ("f", "failed", None),
    ]
    ends = mean.rows[0].sim_low, mean.rows[0].sim_high
    assert ends == pytest.approx(stats.t.interval(0.95, 1, 0.3, stats.sem([0.5, 0.1])))


def test_a_copy_of_a_run_is_said_to_be_one() -> None:
    a = result(replace(row("x", 0.5), score=0.4))
    other = result(replace(row("x", 0.5), score=0.41))
    told = [run.notes for run in agreement({"a": a, "b": other, "c": a}).results]
    assert told == [(), (), ("holds the same scores as a: a copy is no second observation",)]


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
