"""What holds nothing of training: by dtype and kind, against plain numpy."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptswap.checkpoint import Checkpoint
from ckptswap.neutral import is_neutral, neutral

FLOATS = [np.float16, np.float32, np.float64, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, np.complex64]
LAYERS = {
    "bn.weight": 1, "bn.bias": 0, "bn.running_mean": 0, "bn.running_var": 1, "ln.weight": 1, "ln.bias": 0,
    "conv.weight": 0, "conv.bias": 0, "embed.weight": 0,
}  # fmt: skip
SHAPES = {"conv.weight": (3, 2, 3, 3), "embed.weight": (5, 3)}


def network(dtype: type) -> Checkpoint:
    draw = np.random.default_rng(0)
    arrays = {name: draw.normal(2, 0.1, SHAPES.get(name, (3,))).astype(dtype) for name in LAYERS}
    return Checkpoint.from_arrays(arrays | {"bn.num_batches_tracked": np.array(7)})


@pytest.mark.parametrize("dtype", FLOATS)
def test_norms_become_the_identity_and_all_else_zero(dtype: type) -> None:
    own = network(dtype)
    made = neutral(own)
    assert list(made) == list(own)
    for name, value in LAYERS.items():
        assert made[name].dtype == own[name].dtype
        assert np.array_equal(made.read(name), np.full(own[name].shape, value).astype(dtype)), name
        assert not is_neutral(own[name])
        assert is_neutral(made[name])


def test_what_is_no_float_stays() -> None:
    own = network(np.float32)
    assert neutral(own).read("bn.num_batches_tracked") == 7
    assert is_neutral(own["bn.num_batches_tracked"])


def test_powers_of_two_have_no_zero_and_stay() -> None:
    own = Checkpoint.from_arrays({"scale": np.array([2.0, 4.0]).astype(ml_dtypes.float8_e8m0fnu)})
    assert neutral(own).read("scale").astype(float).tolist() == [2.0, 4.0]


@given(st.lists(st.sampled_from([0.0, -0.0, 1.0, float("nan"), 1e-40]), max_size=6), st.integers(0, 40_000))
def test_zero_already_means_every_value(values: list[float], zeros: int) -> None:
    array = np.concatenate([np.zeros(zeros), values])
    entry = Checkpoint.from_arrays({"fc.bias": array})["fc.bias"]
    assert is_neutral(entry) == bool((array == 0).all())
