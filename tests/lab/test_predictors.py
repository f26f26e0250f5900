"""Predictors of reusability against scipy and plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from test_claims import pair

from ckptswap.lab.pairs import CellShare
from ckptswap.lab.predictors import balanced_accuracy, kind_auc, kind_correlation, threshold, threshold_gains

Cells = list[tuple[float, float]]
CELLS = st.lists(
    st.tuples(st.sampled_from([0.1, 0.2, 0.3, 0.5, 0.9]), st.sampled_from([-0.1, 0.0, 0.02, 0.4])), max_size=12
)


@given(CELLS)
def test_auc_is_that_of_mann_and_whitney(cells: Cells) -> None:
    inside = [x for x, share in cells if share < 0.01]
    outside = [x for x, share in cells if share >= 0.01]
    found = kind_auc([pair(cells=own("conv.bias", [x for x, _ in cells], [share for _, share in cells]))], "rmse")
    if not inside or not outside:
        assert found is None
        return
    expected = stats.mannwhitneyu(outside, inside).statistic / (len(inside) * len(outside))
    assert found == pytest.approx(expected)


@given(CELLS)
def test_no_threshold_does_better(cells: Cells) -> None:
    found = threshold(cells)
    tried = [balanced_accuracy(cells, limit) for limit in np.linspace(0.05, 0.95, 181)]
    inner = [each for each in tried if each is not None]
    if found is None:
        assert not inner or len({x for x, _ in cells}) < 2
    else:
        best = balanced_accuracy(cells, found)
        between = [balanced_accuracy(cells, limit) for limit in np.linspace(0.1001, 0.8999, 161)]
        assert best is not None
        assert best >= max(each for each in between if each is not None) - 1e-12 or len({x for x, _ in cells}) < 5


def own(kind: str, numbers: list[float], shares: list[float]) -> tuple[CellShare, ...]:
    return tuple(
        CellShare(f"l{at}", kind, at, share, rmse, None, None, None)
        for at, (rmse, share) in enumerate(zip(numbers, shares, strict=True))
    )


def test_correlation_is_spearmans_within_kinds_of_five_cells() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 7)), rng.normal(size=(2, 5))
    few = own("conv.bias", [1.0, 2.0], [1.0, 2.0])
    found = pair(cells=(*own("conv.weight", *a.tolist()), *own("bn.bias", *b.tolist()), *few))
    expected = np.mean([stats.spearmanr(*a).statistic, stats.spearmanr(*b).statistic])
    assert kind_correlation(found, "rmse") == pytest.approx(expected)
    assert kind_correlation(found, "first_order") is None
    assert kind_auc([pair(cells=())], "rmse") is None


def test_a_threshold_is_tried_on_the_network_that_it_was_not_fitted_on() -> None:
    """Each network by itself is told apart perfectly; only one scale carries over."""
    shares = [0.0, 0.0, 0.5, 0.5]
    alike = [pair(arm=name, cells=own("conv.weight", [1, 2, 3, 4], shares)) for name in "ab"]
    assert threshold_gains(alike, "rmse") == {"a": 0.5, "b": 0.5}
    scaled = [alike[0], pair(arm="b", cells=own("conv.weight", [10, 20, 30, 40], shares))]
    assert threshold_gains(scaled, "rmse") == {"a": 0.0, "b": 0.0}
    assert threshold_gains(alike[:1], "rmse") == {"a": None}, "nothing to fit it on"
