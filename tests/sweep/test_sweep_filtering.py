"""Some rows of a table: by what they take, by verdict, in another order."""

from __future__ import annotations

import pytest

from ckptswap.errors import SelectionError, UsageError
from ckptswap.selection import Selection
from ckptswap.sweep.filtering import shown
from ckptswap.sweep.result import Filtered, Row, SweepResult


def row(layer: str | None, kind: str | None, *tensors: str, rmse: float | None, verdict: str) -> Row:
    numel = 10 * len(tensors)
    return Row(layer, kind, tensors, numel, "measured", rmse=rmse, verdict=verdict)  # type: ignore[arg-type]


ROWS = (
    row(None, "conv.weight", "b.conv.weight", "a.conv.weight", rmse=0.1, verdict="undecided"),
    row("b.conv", None, "b.conv.weight", "b.conv.bias", rmse=0.3, verdict="reusable"),
    row("b.conv", "conv.bias", "b.conv.bias", rmse=None, verdict="unused"),
    row("a.conv", "conv.weight", "a.conv.weight", rmse=0.2, verdict="sensitive"),
)
TABLE = SweepResult("dice", "max", 0.01, 0.9, None, 8, ROWS, layers=("b.conv", "a.conv"))


def picked(**flags: list[str]) -> list[int]:
    return [ROWS.index(row) for row in shown(TABLE, Selection.parse(**flags)).rows]


def test_a_row_is_kept_that_takes_any_selected_tensor() -> None:
    assert picked(kind=["conv.bias"]) == [1, 2]
    assert picked(layers=["a"]) == [0, 3]
    assert picked(only=["*.weight"], layers=["b"]) == [0, 1]
    assert picked(exclude=["conv.weight"]) == [1, 2]
    assert shown(TABLE) is TABLE


def test_verdicts_are_alternatives_and_stay_those_of_the_table() -> None:
    part = shown(TABLE, verdicts=["sensitive", "unused"])
    assert [row.verdict for row in part.rows] == ["unused", "sensitive"]
    assert part.filtered == Filtered("--verdict sensitive --verdict unused", 4)
    assert (part.tolerance, part.baseline, part.samples) == (TABLE.tolerance, TABLE.baseline, TABLE.samples)


def test_other_orders_have_what_is_missing_last() -> None:
    def order(by: str) -> list[int]:
        return [ROWS.index(row) for row in shown(TABLE, order=by).rows]  # type: ignore[arg-type]

    assert order("rmse") == [1, 3, 0, 2]
    assert order("numel") == [0, 1, 2, 3]
    assert order("name") == [0, 3, 1, 2]
    assert order("layer") == [0, 1, 2, 3]


def test_what_does_not_exist_is_refused_with_near_names() -> None:
    with pytest.raises(
        SelectionError, match=r"--kind conv\.wieght matches nothing in the table; .*'conv\.weight'"
    ):
        shown(TABLE, Selection.parse(kind=["conv.wieght"]))
    with pytest.raises(SelectionError, match=r"no row of the table takes --layers a\.conv --kind conv.bias"):
        shown(TABLE, Selection.parse(kind=["conv.bias"], layers=["a.conv"]))
    with pytest.raises(UsageError, match="'sensible' is no verdict") as refused:
        shown(TABLE, verdicts=["sensible"])
    assert "sensitive" in str(refused.value.remedy)
    with pytest.raises(UsageError, match="'drops' is no order"):
        shown(TABLE, order="drops")  # type: ignore[arg-type]
