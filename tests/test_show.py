"""Statistics of a checkpoint's tensors, streamed."""

from __future__ import annotations

import numpy as np
import pytest
from core_samples import packed

from ckptswap import checkpoint as module
from ckptswap.checkpoint import Checkpoint
from ckptswap.show import statistics


def test_statistics_are_numpy_s_over_many_chunks() -> None:
    values = np.random.default_rng(0).normal(5, 2, module.CHUNK // 2).astype(np.float32)
    found = statistics(Checkpoint.from_arrays({"w": values}))["w"]
    wide = values.astype(np.float64)
    assert (found.count, found.minimum, found.maximum) == (values.size, wide.min(), wide.max())
    assert found.mean == pytest.approx(wide.mean(), rel=1e-12)
    assert found.std == pytest.approx(wide.std(), rel=1e-9)


def test_the_deviation_of_large_integers_is_not_lost_over_many_chunks() -> None:
    values = 2**62 + np.random.default_rng(0).integers(0, 9, module.CHUNK // 4)
    values[: module.CHUNK // 8] += 3
    found = statistics(Checkpoint.from_arrays({"n": values}))["n"]
    assert found.std == pytest.approx((values - 2**62).std(), rel=1e-12)


def test_each_chosen_tensor_has_some() -> None:
    checkpoint = Checkpoint.from_arrays(
        {"none": np.zeros((0, 2)), "nan": np.array([np.nan, 1.0]), "left": np.ones(1)}
    )
    found = statistics(checkpoint, [checkpoint["none"], checkpoint["nan"]])
    assert list(found) == ["none", "nan"]
    assert (found["none"].count, found["none"].mean, found["none"].std) == (0, None, None)
    assert (found["nan"].nan, found["nan"].mean) == (1, 1.0)


def test_values_that_share_bytes_are_not_guessed() -> None:
    found = statistics(packed("w", "F4", (8,), b"\xff" * 4))["w"]
    assert (found.count, found.nan, found.mean) == (0, 0, None)


def test_progress_counts_bytes() -> None:
    said: list[tuple[int, int]] = []
    checkpoint = Checkpoint.from_arrays({"a": np.ones(4), "b": np.ones(6, "u1")})
    statistics(checkpoint, progress=lambda *seen: said.append(seen))
    assert said == [(32, 38), (38, 38)]
