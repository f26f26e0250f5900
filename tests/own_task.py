"""A user's own model, data and metric in one file, and a pair of checkpoints for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import odd_models
import pytest
import torch

from ckptswap.checkpoint import Checkpoint
from ckptswap.formats import open_checkpoint
from ckptswap.task import TaskSpec
from ckptswap.task.threads import pinned_threads

SOURCE = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.enc = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.dec = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 1, 1))
        self.unused = nn.Linear(2, 2)

    def forward(self, x):
        if not torch.isfinite(self.dec[3].weight).all():
            raise RuntimeError("this weight is no number")
        return self.dec(self.enc(x))


class Skip(nn.Module):
    # Nothing keeps it from being captured: batch norm, a skip connection, a module that is never read.

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.inner = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.head = nn.Conv2d(4, 1, 1)
        self.unused = nn.Linear(2, 2)

    def forward(self, x):
        y = torch.relu(self.norm(self.stem(x)))
        return self.head(y + self.inner(y))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Conv2d(1, 1, 3, padding=1)
        self.two = nn.Conv2d(1, 1, 3, padding=1)
        self.two.weight = self.one.weight

    def forward(self, x):
        return self.two(self.one(x))


def data(samples=20, group=2, sizes=(12,)):
    draw = torch.Generator().manual_seed(0)
    images = [torch.rand(1, size, size, generator=draw) for _ in range(samples) for size in sizes][:samples]
    return [(image, (image > 0.5).long()[0], at // group) for at, image in enumerate(images)]


def error(output, target):
    error.calls += 1
    return (output[:, 0] - target).square().mean(dim=(1, 2))


error.direction = "min"
error.calls = 0
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """The user's file."""
    path = tmp_path / "own.py"
    path.write_text(SOURCE)
    return path


@pytest.fixture
def spec(own: Path) -> TaskSpec:
    return TaskSpec(
        model=f"{own}:Net", data=f"{own}:data", metrics=(f"{own}:error", "iou"), batch_size=6, threads=1
    )


@pytest.fixture
def skip(own: Path, spec: TaskSpec) -> TaskSpec:
    """The task of the user's model that can be captured."""
    return replace(spec, model=f"{own}:Skip")


Save = Callable[..., Checkpoint]


@pytest.fixture
def save(own: Path, tmp_path: Path) -> Save:
    """`save(seed, name="Net", args, dtype, **changes)` writes a checkpoint of the user's model, or of one of
    `odd_models`, and opens it.
    """
    namespace: dict = vars(odd_models).copy()
    exec(own.read_text(), namespace)

    def write(
        seed: int,
        name: str = "Net",
        args: Mapping[str, Any] = MappingProxyType({}),
        dtype: torch.dtype = torch.float32,
        **changes: torch.Tensor,
    ) -> Checkpoint:
        torch.manual_seed(seed)
        state = namespace[name](**args).state_dict()
        for key, value in state.items():
            if value.is_floating_point():
                state[key] = value.copy_(value + 0.1 * torch.rand(value.shape)).to(dtype)
        state.update({key.replace("__", "."): value for key, value in changes.items()})
        path = tmp_path / f"{name}{seed}{'-'.join(changes)}.pt"
        torch.save(state, path)
        return open_checkpoint(path)

    return write


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """The plain loops compute as the task does, whose bits depend on the number of threads."""
    with pinned_threads(1):
        yield
