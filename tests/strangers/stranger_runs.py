"""A small sweep in a folder of its own, and the ways in which a stranger makes another of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from cli_program import good

from ckptswap.sweep.run_folder.plain import JOURNAL
from ckptswap.sweep.run_folder.sealed import sealed, unsealed

PLAN = "plan.json"

SOURCE = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 2, 3, padding=1)
        self.norm = nn.BatchNorm2d(2)
        self.head = nn.Conv2d(2, 1, 1)

    def forward(self, x):
        return self.head(torch.relu(self.norm(self.stem(x))))


def data(samples=18):
    draw = torch.Generator().manual_seed(0)
    images = torch.rand(samples, 1, 8, 8, generator=draw)
    return [(image, (image[0] > 0.5).long(), at // 2) for at, image in enumerate(images)]
"""
TASK = [
    "--model",
    "own.py:Net",
    "--data",
    "own.py:data",
    "--metric",
    "iou,mse",
    "--threads",
    "1",
    "--batch-size",
    "6",
]
SWEEP = ["sweep", "--from", "donor.pt", "--to", "recipient.pt", *TASK, "--run", "run", "--format", "json"]
AGAIN = ["--from", "donor.pt", "--recipient", "recipient.pt", "--model", "own.py:Net", "--data", "own.py:data"]
"""What `select` must be told of a stranger's copy of this run."""


def make(folder: Path) -> None:
    """`own.py`, two checkpoints, and their sweep in `run`; the folder is the current one."""
    (folder / "own.py").write_text(SOURCE)
    namespace: dict[str, Any] = {}
    exec(SOURCE, namespace)
    for seed, name in enumerate(("recipient", "donor")):
        torch.manual_seed(seed)
        state = namespace["Net"]().state_dict()
        for value in state.values():
            if value.is_floating_point():
                value += 0.1 * torch.rand(value.shape)
        torch.save(state, folder / f"{name}.pt")
    good(*SWEEP, "--tolerance", "0.01")


def plan_of(run: Path) -> dict[str, Any]:
    """What a run's `plan.json` says."""
    return unsealed((run / PLAN).read_bytes())


def forge(run: Path, change: Callable[[dict[str, Any]], object], mark: str | None = None) -> None:
    """Change a plan as somebody does who knows how we write it, but not the user's secret."""
    contents = plan_of(run)
    change(contents)
    text = sealed(contents)
    assert '"mark": null' in text
    (run / PLAN).write_text(text.replace('"mark": null', f'"mark": {json.dumps(mark)}', 1))


def mark_of(run: Path) -> str:
    """The mark that a plan bears."""
    return json.loads((run / PLAN).read_text())["mark"]


def journal(run: Path) -> Path:
    """The one file of the run's journal."""
    return run / JOURNAL / "main.jsonl"
