from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import torch
from torch import nn

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import MismatchError
from ckptswap.task.weights import check_fit, load_into, to_torch


def arrays_of(model: nn.Module) -> dict[str, np.ndarray]:
    return {name: value.numpy().copy() for name, value in model.state_dict().items()}


def small() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    nn.init.normal_(model[1].running_mean)
    return model


def test_every_tensor_arrives_with_its_bits() -> None:
    source, model = small(), nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    source[0].weight.data[0, 0, 0, 0] = float("nan")
    load_into(model, Checkpoint.from_arrays(arrays_of(source)))
    for name, value in model.state_dict().items():
        assert value.numpy().tobytes() == source.state_dict()[name].numpy().tobytes()


def test_old_files_lack_num_batches_tracked() -> None:
    arrays = arrays_of(small())
    del arrays["1.num_batches_tracked"]
    model = small()
    load_into(model, Checkpoint.from_arrays(arrays))
    del arrays["1.running_mean"]
    with pytest.raises(MismatchError, match=r"1 missing \(1\.running_mean\)"):
        load_into(model, Checkpoint.from_arrays(arrays))


def test_all_that_does_not_fit_is_listed_and_nothing_is_copied() -> None:
    model = nn.Sequential(*[nn.Linear(2, 2) for _ in range(12)], nn.BatchNorm1d(3))
    before = arrays_of(model)
    arrays = {f"x{at}": np.zeros(1) for at in range(11)}
    arrays |= {"0.weight": np.zeros((2, 2)), "0.bias": np.zeros((3,)), "12.running_mean": np.zeros(3, np.int64)}
    with pytest.raises(MismatchError) as caught:
        load_into(model, Checkpoint.from_arrays(arrays, path="b.pt"))
    message = str(caught.value)
    assert message.startswith("b.pt does not fit the model: 25 missing (1.weight, 1.bias, ")
    assert "and 15 more); 11 unexpected (x0, x1," in message
    assert "x9 and 1 more); 2 mismatched (0.bias: [3] in the file, [2] in the model" in message
    assert "12.running_mean: I64 in the file, float32 in the model" in message
    assert all(np.array_equal(value, before[name]) for name, value in arrays_of(model).items())


def test_a_wrappers_prefix_is_taken_off_and_said() -> None:
    arrays = {f"module.{name}": value for name, value in arrays_of(small()).items()}
    model = small()
    fit = load_into(model, Checkpoint.from_arrays(arrays))
    assert fit.said == "the tensors of <memory> are taken without the prefix 'module.', to match the model"
    assert all(np.array_equal(value, arrays[f"module.{name}"]) for name, value in arrays_of(model).items())


@pytest.mark.parametrize(
    "name",
    ["bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float16", "float64"],
)
def test_floats_of_another_precision_are_converted(name: str) -> None:
    dtype = np.dtype(getattr(ml_dtypes, name, name))
    values = np.array([[0.5, -1.5]]).astype(dtype)
    model = nn.Linear(2, 1, bias=False)
    load_into(model, Checkpoint.from_arrays({"weight": values}))
    assert model.weight.tolist() == [[0.5, -1.5]]
    assert to_torch(values).dtype == getattr(torch, name)


def test_zero_dimensions_and_no_elements() -> None:
    assert to_torch(np.array(3, np.int64)).item() == 3
    assert to_torch(np.array(2, ml_dtypes.bfloat16)).item() == 2
    assert to_torch(np.zeros((0, 2), ml_dtypes.bfloat16)).shape == (0, 2)


def test_whole_numbers_bools_and_floats_do_not_mix() -> None:
    model = nn.Linear(1, 1, bias=False)
    model.register_buffer("mask", torch.zeros(1, dtype=torch.bool))
    for weight, mask in [
        (np.zeros((1, 1), np.int32), np.zeros(1, bool)),
        (np.zeros((1, 1)), np.zeros(1, np.uint8)),
    ]:
        with pytest.raises(MismatchError, match="1 mismatched"):
            load_into(model, Checkpoint.from_arrays({"weight": weight, "mask": mask}))


def unreadable(arrays: dict[str, np.ndarray]) -> Checkpoint:
    """A checkpoint whose names and shapes are known, and whose values nobody may ask for."""

    class Unread(Checkpoint):
        def read(self, name: str) -> np.ndarray:
            raise AssertionError(f"{name} was read")

    known = Checkpoint.from_arrays(arrays, path="c.pt")
    return Unread(known.values(), path="c.pt", format="memory")


def test_a_fit_is_checked_without_a_value() -> None:
    model = small()
    before = arrays_of(model)
    fit = check_fit(model, unreadable(arrays_of(small())))
    assert list(fit.loaded) == list(model.state_dict())
    assert fit.kept == fit.left == fit.notes == ()
    assert all(np.array_equal(value, before[name]) for name, value in arrays_of(model).items())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"0.bias": None}, r"c\.pt does not fit the model: 1 missing \(0\.bias\): --partial loads the 6 of"),
        ({"extra": np.zeros(1)}, r"1 unexpected \(extra\)"),
        ({"0.bias": np.zeros((2, 1), np.float32)}, r"1 mismatched \(0\.bias: \[2, 1\] in the file, \[2\] in"),
        ({"0.bias": np.zeros(2, np.int64)}, r"1 mismatched \(0\.bias: I64 in the file, float32 in the model\)"),
        ({"1.num_batches_tracked": np.zeros((), bool)}, "BOOL in the file, int64 in the model"),
        ({"1.num_batches_tracked": np.zeros(1, np.int64)}, r"\[1\] in the file, \[\] in the model"),
    ],
)
def test_a_misfit_is_told_as_loading_would(change: dict[str, np.ndarray | None], words: str) -> None:
    arrays = {name: value for name, value in {**arrays_of(small()), **change}.items() if value is not None}
    with pytest.raises(MismatchError, match=words) as checked:
        check_fit(small(), unreadable(arrays))
    with pytest.raises(MismatchError) as loaded:
        load_into(small(), Checkpoint.from_arrays(arrays, path="c.pt"))
    assert str(checked.value) == str(loaded.value)


def test_what_is_forgiven_in_a_fit() -> None:
    """A counter that old files lack, and floats of another precision."""
    arrays = {name: value.astype(np.float64) if value.dtype.kind == "f" else value
              for name, value in arrays_of(small()).items()}  # fmt: skip
    for dtype in (np.float16, np.float32, np.float64, np.int32, np.uint8, ml_dtypes.bfloat16):
        arrays["1.num_batches_tracked"] = np.array(96).astype(dtype)
        model = small()
        assert "1.num_batches_tracked" in load_into(model, Checkpoint.from_arrays(arrays)).loaded
        assert model.state_dict()["1.num_batches_tracked"].item() == 96
    del arrays["1.num_batches_tracked"]
    fit = check_fit(small(), unreadable(arrays))
    assert (len(fit.loaded), fit.kept, fit.left) == (6, (), ())
