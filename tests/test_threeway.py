"""Who changed what: every combination of what two sides can do to a tensor."""

from __future__ import annotations

import numpy as np
import pytest

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import SelectionError
from ckptswap.selection import Selection
from ckptswap.threeway import STATUSES, three_way


def holding(**values: float) -> Checkpoint:
    return Checkpoint.from_arrays({name: np.full(2, value) for name, value in values.items()})


BASE = holding(kept=0, by_a=0, by_b=0, same=0, both=0, dropped=0, dropped_a=0, dropped_changed=0)
A = holding(kept=0, by_a=1, by_b=0, same=1, both=1, new_a=1, new_same=1, new_both=1, dropped_changed=1)
B = holding(kept=0, by_a=0, by_b=1, same=1, both=2, dropped_a=0, new_same=1, new_both=2)
TRUTH = {
    "kept": "unchanged", "by_a": "a", "by_b": "b", "same": "same", "both": "both",
    "dropped": "same", "dropped_a": "a", "dropped_changed": "both",
    "new_a": "a", "new_same": "same", "new_both": "both",
}  # fmt: skip


def test_every_way_to_change() -> None:
    found = three_way(BASE, A, B)
    assert {row.name: row.status for row in found.rows} == TRUTH
    assert found.summary == {status: list(TRUTH.values()).count(status) for status in STATUSES}


def test_the_sides_are_distances_from_the_base() -> None:
    row = next(row for row in three_way(BASE, A, B).rows if row.name == "both")
    assert row.a
    assert row.b
    assert row.a.distance
    assert row.b.distance
    assert (row.a.distance.rmse, row.b.distance.rmse) == (1.0, 2.0)


def test_what_both_sides_dropped_is_the_same_change() -> None:
    assert [row.status for row in three_way(holding(w=1, v=1), holding(v=1), holding(v=1)).rows] == [
        "unchanged",
        "same",
    ]


def test_a_selection_narrows_it() -> None:
    assert [row.name for row in three_way(BASE, A, B, Selection.parse(only=["by_*"])).rows] == ["by_a", "by_b"]
    with pytest.raises(SelectionError):
        three_way(BASE, A, B, Selection.parse(only=["nothing"]))
