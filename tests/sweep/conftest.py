"""A user's own model, data and metric in one file, and a pair of checkpoints for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ckptswap.checkpoint import Checkpoint
from ckptswap.formats import open_checkpoint
from ckptswap.task import TaskSpec

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


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Conv2d(1, 1, 3, padding=1)
        self.two = nn.Conv2d(1, 1, 3, padding=1)
        self.two.weight = self.one.weight

    def forward(self, x):
        return self.two(self.one(x))


def data(samples=20, group=2):
    draw = torch.Generator().manual_seed(0)
    images = torch.rand(samples, 1, 12, 12, generator=draw)
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


Save = Callable[..., Checkpoint]


@pytest.fixture
def save(own: Path, tmp_path: Path) -> Save:
    """`save(seed, name="Net", **changes)` writes a checkpoint of the user's model and opens it."""
    namespace: dict = {}
    exec(own.read_text(), namespace)

    def write(seed: int, name: str = "Net", **changes: torch.Tensor) -> Checkpoint:
        torch.manual_seed(seed)
        state = namespace[name]().state_dict()
        for value in state.values():
            if value.is_floating_point():
                value += 0.1 * torch.rand(value.shape)
        state.update({key.replace("__", "."): value for key, value in changes.items()})
        path = tmp_path / f"{name}{seed}{'-'.join(changes)}.pt"
        torch.save(state, path)
        return open_checkpoint(path)

    return write
