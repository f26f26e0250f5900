"""From blocks to each variant's statistics in the order of the data."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptswap.scoring.scorer import Block
from ckptswap.sweep.run_folder.blocks import Scores

WALK = [[3, 1], [0, 2], [4]]


def block(variant: str, batch: int, values: list[float], failed: str | None = None) -> Block:
    return Block(variant, batch, {} if failed else {"iou": np.array(values)[:, None]}, failed)


@st.composite
def walks(draw: st.DrawFn) -> list[list[int]]:
    """All samples in any order, cut into batches anywhere."""
    order = draw(st.permutations(range(draw(st.integers(1, 12)))))
    cuts = {0, *draw(st.sets(st.integers(1, len(order)))), len(order)}
    return [list(order[start:end]) for start, end in pairwise(sorted(cuts))]


@given(walks(), st.integers(1, 4), st.data())
def test_every_sample_is_in_its_place(walk: list[list[int]], width: int, data: st.DataObject) -> None:
    """Whatever is scored, and in whatever order it came; NaN elsewhere."""
    samples = sum(map(len, walk))
    table = np.arange(samples * width, dtype=float).reshape(samples, width)
    done = data.draw(st.lists(st.sampled_from(range(len(walk))), unique=True))
    scores = Scores([Block("v", number, {"m": table[walk[number]]}) for number in done], walk)
    there = [place for number in done for place in walk[number]]
    expected = np.full((samples, width if done else 1), np.nan)
    expected[there] = table[there] if done else np.nan
    np.testing.assert_array_equal(scores.statistics("v", "m"), expected)
    assert scores.done("v") == len(there)
    assert scores.samples == samples
    assert scores.is_begun("v") == bool(done)
    assert scores.failed("v") is None


def test_variants_and_metrics_do_not_mix() -> None:
    both = Block("v", 2, {"iou": np.array([[0.5]]), "iou:pooled": np.array([[1.0, 2, 3, 4]])})
    scores = Scores([both, block("w", 0, [0.1, 0.2])], WALK)
    assert scores.statistics("v", "iou")[4].tolist() == [0.5]
    assert scores.statistics("v", "iou:pooled").shape == (5, 4)
    assert scores.statistics("w", "iou")[[3, 1], 0].tolist() == [0.1, 0.2]
    assert (scores.done("v"), scores.done("w")) == (1, 2)


def test_what_is_not_begun() -> None:
    scores = Scores([], WALK)
    assert not scores.is_begun("v")
    assert (scores.done("v"), scores.failed("v"), scores.samples) == (0, None, 5)
    assert np.isnan(scores.statistics("v", "iou")).all()
    assert scores.statistics("v", "iou").shape == (5, 1)


@pytest.mark.parametrize("turn", [1, -1])
def test_a_failure_is_that_of_the_first_batch_where_it_failed(turn: int) -> None:
    found = [block("v", 0, [0.1, 0.2]), block("v", 1, [], "first"), block("v", 2, [], "second")][::turn]
    scores = Scores(found, WALK)
    assert scores.failed("v") == "first"
    assert scores.is_begun("v")
    assert scores.done("v") == 2
    assert np.isnan(scores.statistics("v", "iou")[:, 0]).tolist() == [True, False, True, False, True]


def test_a_variant_that_only_failed() -> None:
    scores = Scores([block("v", 1, [], "it broke")], WALK)
    assert scores.is_begun("v")
    assert (scores.done("v"), scores.failed("v")) == (0, "it broke")
    assert np.isnan(scores.statistics("v", "iou")).all()
