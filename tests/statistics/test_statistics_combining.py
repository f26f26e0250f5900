"""p-values combined: held against the procedures' own definitions, and against what they promise."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ckptswap.statistics.combining import at_least, holm, of_all

P_VALUES = st.lists(st.integers(0, 1000).map(lambda n: n / 1000), min_size=1, max_size=8)
LEVELS = st.integers(1, 400).map(lambda n: n / 2000 + 1e-5)  # between the p-values' multiples


def rejected_by_holm(p_values: list[float], level: float) -> set[int]:
    """Holm's words: the smallest against level / n, the next against level / (n − 1), until one does not fall."""
    left, rejected = dict(enumerate(p_values)), set()
    while left:
        smallest = min(left, key=left.__getitem__)
        if left[smallest] > level / len(left):
            break
        rejected.add(smallest)
        del left[smallest]
    return rejected


@given(P_VALUES, LEVELS)
def test_holm_rejects_what_its_procedure_rejects(p_values: list[float], level: float) -> None:
    adjusted = {at for at, p in enumerate(holm(p_values)) if p <= level}
    assert adjusted == rejected_by_holm(p_values, level)


@given(P_VALUES)
def test_holm_keeps_order_and_never_sharpens(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(plain <= p <= 1 for plain, p in zip(p_values, adjusted, strict=True))
    assert [*np.array(adjusted)[np.argsort(p_values, kind="stable")]] == sorted(adjusted)


@given(P_VALUES, st.data())
def test_a_partial_conjunction_is_the_worst_of_its_unions(p_values: list[float], data: st.DataObject) -> None:
    """Benjamini and Heller: fewer than u are so, if in some n − u + 1 of them none is; the worst Bonferroni
    p-value of all such sets bounds that."""
    least = data.draw(st.integers(1, len(p_values)))
    size = len(p_values) - least + 1
    worst = max(min(1.0, size * min(chosen)) for chosen in combinations(p_values, size))
    assert at_least(least, p_values) == pytest.approx(worst)


@given(P_VALUES)
def test_all_is_the_worst_and_any_is_bonferronis(p_values: list[float]) -> None:
    assert of_all(p_values) == max(p_values)
    assert at_least(1, p_values) == pytest.approx(min(holm(p_values)))


@pytest.mark.parametrize(("least", "p_values"), [(0, [0.1]), (2, [0.1]), (1, [])])
def test_a_number_that_cannot_be_is_refused(least: int, p_values: list[float]) -> None:
    with pytest.raises(ValueError, match="takes a number from 1"):
        at_least(least, p_values)
    with pytest.raises(ValueError, match="takes a number from 1"):
        of_all([])


def test_what_is_wrong_is_claimed_no_oftener_than_the_level() -> None:
    """5,000 experiments of 12 correlated normal rows: 5 hold clearly, 7 lie on the bound. 'All', 'at least 6' and
    any refutation of a row that lies there are wrong."""
    rng = np.random.default_rng(5)
    noise = 0.8 * rng.normal(size=(5_000, 1)) + 0.6 * rng.normal(size=(5_000, 12))
    p_values = stats.norm.sf(noise + np.repeat([6.0, 0.0], [5, 7])).tolist()
    most = 0.05 + 2 * (0.05 * 0.95 / 5_000) ** 0.5
    assert np.mean([of_all(row) <= 0.05 for row in p_values]) <= most
    assert np.mean([at_least(6, row) <= 0.05 for row in p_values]) <= most
    assert np.mean([min(holm(row)[5:]) <= 0.05 for row in p_values]) <= most
    assert np.mean([at_least(5, row) <= 0.05 for row in p_values]) > 0.99, "5 do hold, and are found"
