"""Donors that are made: what holds of their values, and that each word is the donor it says."""

from __future__ import annotations

import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import CkptswapError, MismatchError, UsageError
from ckptswap.formats import open_checkpoint, write_checkpoint
from ckptswap.sweep.donors import ORIGIN, is_made, open_donor
from ckptswap.task import TaskSpec
from ckptswap.task.models.build import build_model

FLOATS = hnp.arrays(
    st.sampled_from([np.float32, np.float64, np.float16]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0),
    elements=st.floats(-100, 100, width=16),
)


def made(word: str, values: np.ndarray, name: str = "w") -> np.ndarray:
    found = open_donor(word, Checkpoint.from_arrays({name: values}), TaskSpec()).read(name)
    assert (found.dtype, found.shape) == (values.dtype, values.shape)
    return found


@given(FLOATS)
def test_zeros_and_mean(values: np.ndarray) -> None:
    assert not made("zeros", values).any()
    if values.size:
        assert np.allclose(made("mean", values).astype(float), values.astype(float).mean(), rtol=1e-3, atol=1e-2)


@given(FLOATS, st.integers(0, 5))
def test_a_shuffle_keeps_every_value_and_is_the_seeds(values: np.ndarray, seed: int) -> None:
    word = f"shuffle:{seed}"
    assert sorted(made(word, values).ravel().tolist()) == sorted(values.ravel().tolist())
    assert made(word, values).tobytes() == made(word, values).tobytes()


def test_another_seed_and_another_tensor_are_shuffled_otherwise() -> None:
    values = np.arange(100.0)
    orders = {made(f"shuffle:{seed}", values, name).tobytes() for seed in (0, 1) for name in "wv"}
    assert len(orders | {values.tobytes()}) == 5


@given(
    hnp.arrays(np.float64, st.integers(1, 20), elements=st.floats(-100, 100).filter(lambda x: abs(x) > 1e-3)),
    st.sampled_from([0.01, 0.3, 0.9]),
)
def test_noise_is_of_the_size_that_it_says(values: np.ndarray, share: float) -> None:
    found = made(f"noise:{share}:3", values)
    assert np.linalg.norm(found - values) / np.linalg.norm(values) == pytest.approx(share)
    assert (np.sign(found) == np.sign(values)).all(), "a variance stays one"


def test_what_is_no_float_stays() -> None:
    own = {"n": np.arange(4), "b": np.array([True, False]), "h": np.ones(3, ml_dtypes.bfloat16)}
    for word in ("zeros", "shuffle:1", "noise:0.5", "mean"):
        donor = open_donor(word, Checkpoint.from_arrays(own), TaskSpec())
        assert donor.read("n").tolist() == [0, 1, 2, 3]
        assert donor["h"].dtype == "BF16"
        assert donor.path == word


def test_init_is_the_models_own_initialiser(tmp_path: Path) -> None:
    spec = TaskSpec(model="lab:unet", model_args={"width": 2, "depth": 1})
    state = build_model("lab:unet", {"width": 2, "depth": 1}).state_dict()
    arrays = {name: value.numpy().astype(np.float64) for name, value in state.items()}
    before = torch.random.get_rng_state()
    donor = open_donor("init:7", Checkpoint.from_arrays(arrays), spec)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(7)
    expected = build_model("lab:unet", {"width": 2, "depth": 1}).state_dict()
    assert list(donor) == list(expected)
    for name, value in expected.items():
        assert donor[name].dtype == "F64"
        assert np.array_equal(donor.read(name), value.numpy().astype(np.float64))


def test_rewind_finds_the_initialisation_beside_the_file(tmp_path: Path) -> None:
    init, other, trained = (tmp_path / f"{name}.safetensors" for name in ("z", "a", "b"))
    for path, value in ((init, 0.0), (other, 5.0)):
        write_checkpoint(Checkpoint.from_arrays({"w": np.full(2, value)}), path)
    with open_checkpoint(init) as start:
        said = {ORIGIN: start.sha256()}
    write_checkpoint(Checkpoint.from_arrays({"w": np.ones(2)}, metadata=said), trained)
    with open_checkpoint(trained) as recipient:
        with open_donor("rewind", recipient, TaskSpec()) as donor:
            assert donor.path == str(init)
        init.unlink()
        with pytest.raises(MismatchError, match="is the initialisation of"):
            open_donor("rewind", recipient, TaskSpec())
    with open_checkpoint(other) as recipient, pytest.raises(MismatchError, match="does not say"):
        open_donor("rewind", recipient, TaskSpec())


def test_a_file_of_such_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own = Checkpoint.from_arrays({"w": np.full(2, 3.0)})
    write_checkpoint(own, tmp_path / "zeros.safetensors")
    shutil.move("zeros.safetensors", "zeros")
    assert not is_made("./zeros")
    with open_donor("./zeros", own, TaskSpec()) as donor:
        assert donor.read("w").tolist() == [3.0, 3.0]


@pytest.mark.parametrize(
    "word",
    ["init", "init:", "init:x", "init:-1", "init:1:2", "zeros:1", "mean:", "shuffle", "shuffle:1.5", "noise",
     "noise:x", "noise:-1", "noise:0.1:x", "rewind:3"],
)  # fmt: skip
def test_words_without_sense(word: str) -> None:
    own = Checkpoint.from_arrays({"w": np.ones(2)})
    with pytest.raises(UsageError, match="makes no sense") as caught:
        open_donor(word, own, TaskSpec(model="lab:unet"))
    assert isinstance(caught.value, CkptswapError)
    assert word.partition(":")[0] in caught.value.remedy
