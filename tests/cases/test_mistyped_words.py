"""The words of models, data and metrics as people mistype them: one sentence that says what to write, nothing
written.
"""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_program_of_cases import run
from PIL import Image

SOURCE = """
from torch import nn

def net():
    return nn.Sequential(nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
"""
OWN = "--model net.py:net --data set"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Checkpoints `a.pt` and `b.pt`, a folder a class, texts and arrays."""
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(SOURCE)
    for name in "ab":
        torch.save({"0.weight": torch.rand(2, 3, 1, 1), "0.bias": torch.rand(2)}, f"{name}.pt")
    for name in ("cat", "dog"):
        Path("set", name).mkdir(parents=True)
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(f"set/{name}/1.png")
    Path("lines.txt").write_text("one line\nand another\n")
    np.savez("arrays.npz", inputs=np.zeros((2, 3, 4, 4), np.float32), targets=np.array([0, 1]))
    return tmp_path


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--model timm/resnet10t --data set --metric loss", "is not a model: write 'timm:resnet10t'"),
        ("--model torchvision.resnet18 --data set --metric loss", "is not a model: write 'torchvision:resnet18'"),
        ("--model a.pt --data set --metric loss", "'a.pt' is not a model: it is a file: name what builds"),
        (
            "--model resnet18 --data set --metric loss",
            "'resnet18' is not a model: write timm:resnet18 or torchvision:resnet18",
        ),
        ("--model timm:resnet-10t --data set --metric loss", "did you mean 'resnet10t'"),
        ("--model torchvision:ResNet18 --data set --metric loss", "did you mean 'resnet18'"),
        ("--model hf:bert-base --data set --metric loss", "name a folder that save_pretrained wrote"),
        (f"{OWN} --model-args classes:2 --metric loss", "write key=value,key=value"),
        ("--model net.py:net --data lines.txt --metric loss", "write --data text:lines.txt"),
        ("--model net.py:net --data arrays.npz --metric loss", "write --data npz:arrays.npz"),
        ("--model net.py:net --data sett --metric loss", "there is no folder sett: did you mean 'set'"),
        ("--model net.py:net --data texts:lines.txt --metric loss", "did you mean 'text'"),
        ("--model net.py:net --data random:3,8,8 --metric kl", "write random:3x64x64"),
        (f"{OWN} --data-args colour=rgb --metric loss", "did you mean 'color'"),
        (f"{OWN} --metric top-1", "did you mean 'top1'"),
        (f"{OWN} --metric iou", "use accuracy, top1 or loss"),
        (f"{OWN} --metric torchmetrics:accuracy", "did you mean 'Accuracy'"),
        (f"{OWN} --metric loss --resize 224,224", "write for example 224 or 512x1024"),
        (f"{OWN} --metric loss --normalize imagenet", "write for example 0.5/0.25, or auto"),
        (f"{OWN} --metric loss --explian", "--explain"),
    ],
)
def test_it_is_told_what_to_write(here: Path, words: str, said: str) -> None:
    if "timm" in words or "torchvision" in words or "torchmetrics" in words:
        pytest.importorskip("timm")
        pytest.importorskip("torchmetrics")
    before = sorted(path for path in here.rglob("*") if "__pycache__" not in path.parts)
    done = run("evaluate", "a.pt", "--threads", 1, *shlex.split(words))
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("ckptswap: ")
    assert len(done.err.strip().splitlines()) == 1
    assert said in done.err
    assert sorted(path for path in here.rglob("*") if "__pycache__" not in path.parts) == before
