"""A file that holds no state dict is told what it holds; and what is only saved in an odd way is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ckptswap as cs
from ckptswap.errors import FormatError

STATE = {"fc.weight": torch.arange(6.0).reshape(2, 3), "fc.bias": torch.ones(2)}


class OnDevice:
    """What torch writes of a tensor on a device without storages of its own: an array, since 2.4 a tensor."""

    def __init__(self, function: Any, values: Any, dtype: torch.dtype) -> None:
        self.how = function, (values, dtype, "xla:0", False)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.how


FROM_ARRAY = torch._utils._rebuild_device_tensor_from_numpy
FROM_TENSOR = torch._utils._rebuild_device_tensor_from_cpu_tensor
READ = {
    "an array of a TPU": {"state_dict": {"w": OnDevice(FROM_ARRAY, np.ones(2, "f4"), torch.float32)}},
    "its bfloat16": {"state_dict": {"w": OnDevice(FROM_ARRAY, np.ones(2, "f4"), torch.bfloat16)}},
    "a tensor of a TPU": {"state_dict": {"w": OnDevice(FROM_TENSOR, torch.ones(2), torch.float32)}},
    "bfloat16 as a tensor": {"w": OnDevice(FROM_TENSOR, torch.ones(2, dtype=torch.bfloat16), torch.bfloat16)},
}


@pytest.mark.parametrize("case", READ)
def test_tensors_of_devices_are_read(case: str, tmp_path: Path) -> None:
    torch.save(READ[case], tmp_path / "tpu.pt")
    with cs.open(tmp_path / "tpu.pt") as found:
        assert {name: found.read(name).astype("f4").tolist() for name in found} == {"w": [1, 1]}


def test_a_list_of_tensors_is_named_by_numbers(tmp_path: Path) -> None:
    torch.save([*STATE.values()], tmp_path / "list.pt")
    with cs.open(tmp_path / "list.pt") as found:
        assert {name: entry.shape for name, entry in found.items()} == {"0": (2, 3), "1": (2,)}
    torch.save([torch.zeros(2, 3), torch.ones(2)], tmp_path / "other.pt")
    cs.transplant(tmp_path / "list.pt", tmp_path / "other.pt", tmp_path / "out.pt", only="=0")
    first, second = torch.load(tmp_path / "out.pt")
    assert first.tolist() == STATE["fc.weight"].tolist()
    assert second.tolist() == [1, 1]


REFUSED = {
    "one tensor": (torch.rand(3), "holds one tensor, not a map of tensors"),
    "one parameter": (torch.nn.Parameter(torch.rand(3)), "holds one tensor, not a map of tensors"),
    "one array": (np.zeros(3), "holds one tensor, not a map of tensors"),
    "a number": (3, "holds no map of tensors but a number"),
    "a text": ("weights", "holds no map of tensors but a text"),
    "nothing": (None, "holds no map of tensors but None"),
    "what a run says of itself": ({"epoch": 3, "best": 0.5}, "its keys are 'epoch', 'best'"),
    "two networks in a list": ([STATE, {"w": torch.ones(1)}], "several maps .*::0 or .*::1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_it_holds_instead_is_said(case: str, tmp_path: Path) -> None:
    content, said = REFUSED[case]
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(FormatError, match=said):
        cs.open(tmp_path / "a.pt")
