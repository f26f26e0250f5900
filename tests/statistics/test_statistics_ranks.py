"""Ranks against plain loops and scipy: what a screen is held to."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ckptswap.statistics.ranks import auc, spearman, top_overlap

FEW = st.lists(st.sampled_from([-1.0, 0.0, 0.5, 2.0, 3.0]), min_size=1, max_size=9)
"""With many ties."""


@given(FEW, FEW)
def test_auc_is_that_of_a_loop_over_pairs(low: list[float], high: list[float]) -> None:
    wins = sum((b > a) + 0.5 * (b == a) for a, b in itertools.product(low, high))
    assert auc(low, high) == pytest.approx(wins / (len(low) * len(high)))
    statistic = stats.mannwhitneyu(high, low).statistic
    assert auc(low, high) == pytest.approx(statistic / (len(low) * len(high)))


def test_there_is_no_auc_of_one_sort() -> None:
    assert auc([], [1.0]) is auc([1.0], []) is None


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=6), st.integers(1, 5))
def test_tops_share_what_they_do_when_ties_are_broken_at_random(pairs: list[tuple[int, int]], count: int) -> None:
    """The mean over every order in which equal ones can stand, of either side."""
    x, y = [float(a) for a, _ in pairs], [float(b) for _, b in pairs]
    if len(pairs) <= count:
        assert top_overlap(x, y, count) is None
        return
    orders = list(itertools.permutations(range(len(pairs))))

    def tops(values: list[float]) -> list[float]:
        """How often each is among the largest."""
        hits = [0] * len(values)
        for order in orders:
            for at in sorted(order, key=lambda at: -values[at])[:count]:
                hits[at] += 1
        return [times / len(orders) for times in hits]

    expected = sum(a * b for a, b in zip(tops(x), tops(y), strict=True)) / count
    assert top_overlap(x, y, count) == pytest.approx(expected)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=9))
def test_rank_correlation_is_scipys(pairs: list[tuple[int, int]]) -> None:
    x, y = [float(a) for a, _ in pairs], [float(b) for _, b in pairs]
    if len(set(x)) > 1 and len(set(y)) > 1:
        assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic)
    else:
        assert spearman(x, y) is None
