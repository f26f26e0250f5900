"""What is said of a file that does not say what model it is: what to type for this very file."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import timm
import torch
import torchvision
from torch import nn

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import ModelError
from ckptswap.formats import open_checkpoint
from ckptswap.formats.smp_folder import CONFIG_KEY
from ckptswap.task.fit import entries_of, fit_of
from ckptswap.task.models import lookalike
from ckptswap.task.models.build import build_model
from ckptswap.task.models.named import model_of
from ckptswap.task.spec import parse_args

MADE: dict[str, Callable[[], nn.Module]] = {
    "timm:resnet18": lambda: timm.create_model("resnet18", num_classes=5, in_chans=1),
    "timm:mobilenetv3_small_050": lambda: timm.create_model("mobilenetv3_small_050", num_classes=0),
    "torchvision:mobilenet_v2": lambda: torchvision.models.mobilenet_v2(num_classes=21),
    "smp:FPN": lambda: smp.FPN("resnet18", encoder_weights=None, classes=3, in_channels=1),
}


def said(checkpoint: Checkpoint) -> str:
    with pytest.raises(ModelError) as caught:
        model_of(checkpoint)
    assert "does not say what model it is" in caught.value.message
    return caught.value.remedy


@pytest.mark.parametrize("name", MADE)
def test_what_is_said_builds_the_network(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is typed, it builds what the file fills, with no tensor left on either side."""
    monkeypatch.setattr(lookalike, "SECONDS", 120)
    with torch.device("meta"):
        checkpoint = entries_of(MADE[name]().state_dict())
    _, flags = said(checkpoint).split("fit ", 1)
    words = dict(zip(*[iter(shlex.split(flags))] * 2, strict=True))
    assert words["--model"].partition(":")[0] == name.partition(":")[0]
    with torch.device("meta"):
        model = build_model(words["--model"], parse_args(words["--model-args"]))
    assert fit_of(model.state_dict(), checkpoint).problems == ""


def test_lightning_is_answered_with_lightning(tmp_path: Path) -> None:
    content = {
        "pytorch-lightning_version": "2.5.0",
        "state_dict": {"net.weight": torch.zeros(2, 2)},
        "hyper_parameters": {"width": 2},
    }
    torch.save(content, tmp_path / "last.ckpt")
    with open_checkpoint(tmp_path / "last.ckpt") as checkpoint:
        assert "--model lightning:FILE.py:CLASS" in said(checkpoint)


@pytest.mark.parametrize("name", ["bert.encoder.layer.0.attention.self.query.weight", "h.0.attn.c_attn.weight"])
def test_names_of_transformers_are_answered_with_its_folder(name: str) -> None:
    words = said(Checkpoint.from_arrays({name: np.zeros((4, 4), np.float32)}))
    assert "save_pretrained" in words
    assert "smp:" not in words


def test_a_configuration_without_architectures_is_transformers_own() -> None:
    checkpoint = Checkpoint.from_arrays({}, metadata={CONFIG_KEY: '{"model_type": "bert"}'}, path="bert")
    with pytest.raises(ModelError, match=r"architectures.*'bert'") as caught:
        model_of(checkpoint)
    assert "smp:" not in str(caught.value)


def test_what_nobody_knows_is_told_all_ways() -> None:
    words = said(Checkpoint.from_arrays({"own.layer": np.zeros(3)}))
    assert all(way in words for way in ("timm:NAME", "torchvision:NAME", "smp:NAME", "file.py:function"))


def test_without_the_libraries_the_answer_is_general(monkeypatch: pytest.MonkeyPatch) -> None:
    for library in ("timm", "torchvision"):
        monkeypatch.setitem(sys.modules, library, None)
    weights = {"layer1.0.conv1.weight": np.ones((4, 4, 3, 3)), "fc.bias": np.ones(5)}
    assert "pass --model with what builds it" in lookalike.what_to_type(Checkpoint.from_arrays(weights))
    assert lookalike.named_so("resnet18") == []


@pytest.mark.parametrize(("format", "word"), [("torchscript", "script"), ("torch.export", "export")])
def test_a_file_that_holds_its_network_builds_it(format: str, word: str) -> None:
    checkpoint = Checkpoint.from_arrays({"w": np.zeros(3)})
    checkpoint.path, checkpoint.format = "a.pt", format
    assert lookalike.what_to_type(checkpoint) == f"pass --model {word}:a.pt, which runs the code that it holds"
