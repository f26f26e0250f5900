"""Pickles of numpy arrays, as zoos publish them, and arrays that torch saved: they are as inert as tensors."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ckptswap as cs
from ckptswap.errors import FormatError

RANDOM = np.random.default_rng(0)
MODEL = {"stem.conv1.weight": RANDOM.normal(size=(4, 3, 7, 7)).astype("f4"), "stem.norm.running_var": np.ones(4)}
MODEL |= {"fortran": np.asfortranarray(RANDOM.normal(size=(3, 4))), "big": np.arange(4, dtype=">f4")}
MODEL |= {
    "strided": np.arange(12.0).reshape(3, 4)[:, ::2],
    "mask": np.array([True, False]),
    "none": np.zeros((0, 3)),
}


def pickled(content: Any, path: Path, protocol: int = 4) -> None:
    path.write_bytes(pickle.dumps(content, protocol))


def saved(content: Any, path: Path) -> None:
    torch.save(content, path)


WRITERS: dict[str, Callable[[Any, Path], None]] = {
    "zoo.pkl": pickled,
    "zoo2.pkl": lambda content, path: pickled(content, path, 2),
    "numpy.pth": saved,
    "legacy.pth": lambda content, path: torch.save(content, path, _use_new_zipfile_serialization=False),
}
AROUND: dict[str, Callable[[dict[str, np.ndarray]], Any]] = {
    "by themselves": lambda model: model,
    "detectron2": lambda model: {"model": model, "__author__": "someone", "matching_heuristics": True},
    "caffe2": lambda model: {"blobs": model, "cfg": "a: 1"},
    "with an optimizer": lambda model: {"model": model, "optimizer": {"m": np.zeros(3)}, "iteration": 3},
    "in a tuple": lambda model: (model, {"epoch": 3}),
}


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("name", WRITERS)
def test_the_arrays_are_the_tensors(name: str, around: str, tmp_path: Path) -> None:
    WRITERS[name](AROUND[around](MODEL), tmp_path / name)
    with cs.open(tmp_path / name) as found:
        assert set(found) == set(MODEL)
        for key, array in MODEL.items():
            np.testing.assert_array_equal(found.read(key), array)


def test_weights_without_names(tmp_path: Path) -> None:
    """As `pickle.dump(model.get_weights(), file)` leaves them, and with what stands around."""
    arrays = [*MODEL.values()]
    for content in (arrays, tuple(arrays), (arrays, 3)):
        pickled(content, tmp_path / "weights.pkl")
        with cs.open(tmp_path / "weights.pkl") as found:
            assert [found.read(str(at)).tolist() for at in range(len(MODEL))] == [a.tolist() for a in arrays]


@pytest.mark.parametrize("protocol", [0, 1])
@pytest.mark.parametrize("content", [{"w": np.ones(2)}, [np.ones(2)]])
def test_pickles_of_python_2_are_called_so(protocol: int, content: Any, tmp_path: Path) -> None:
    pickled(content, tmp_path / "old.pkl", protocol)
    with pytest.raises(FormatError, match=r"is a pickle of protocol 0 or 1.*np\.savez"):
        cs.open(tmp_path / "old.pkl")


def test_arrays_that_are_no_numbers_are_not_called_equal(tmp_path: Path) -> None:
    for name, text in (("a.pkl", "x"), ("b.pkl", "y")):
        odd = {"texts": np.array([text]), "objects": np.array([text, None], object), "pair": np.zeros(1, "f4,i4")}
        pickled({"w": np.ones(2), **odd}, tmp_path / name)
    found = cs.diff(tmp_path / "a.pkl", tmp_path / "b.pkl")
    assert (found.summary["identical"], found.summary["unread"]) == (1, 3)
