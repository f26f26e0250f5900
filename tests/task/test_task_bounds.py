"""A checkpoint that names its own model names none that is larger than itself."""

from __future__ import annotations

import json
import threading
from typing import Any

import numpy as np
import pytest
from torch import nn

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import ModelError
from ckptswap.task.models.bounds import bounded_by
from ckptswap.task.models.build import build_model, build_named


def saying(spec: str, args: dict[str, Any], held: dict[str, np.ndarray] | None = None) -> Checkpoint:
    said = {"ckptswap.model": spec, "ckptswap.model_args": json.dumps(args)}
    arrays = held or {"w": np.zeros(9, np.float32)}
    return Checkpoint.from_arrays(arrays, metadata=said, path="stranger.safetensors")


@pytest.mark.parametrize(
    ("spec", "args"),
    [
        ("lab:unet", {"width": 1500}),
        ("lab:unet", {"width": 10**15}),
        ("lab:unet", {"classes": 10**9}),
        ("lab:unet", {"depth": 10**9}),
        ("lab:pspnet", {"width": 3000}),
        ("smp:Unet", {"encoder_name": "resnet18", "classes": 10**9}),
        ("smp:Unet", {"encoder_name": "resnet18", "in_channels": 10**8}),
        ("smp:Unet", {"encoder_name": "resnet18", "decoder_channels": [10**5, 10**5, 10**5, 10**4, 10]}),
        ("smp:PSPNet", {"encoder_name": "resnet18", "upsampling": 10**6}),
        ("smp:Unet", {"encoder_name": "tu-vit_tiny_patch16_224", "img_size": 100_000}),
        ("smp:Unet", {"encoder_name": "tu-vit_tiny_patch16_224", "img_size": [224, 100_000]}),
        ("smp:Unet", {"encoder_name": "tu-swin_tiny_patch4_window7_224", "window_size": 64}),
        ("smp:Unet", {"encoder_name": "tu-swin_tiny_patch4_window7_224", "window_size": [[64, 64]]}),
    ],
    ids=str,
)
def test_a_huge_network_in_the_metadata_is_a_sentence(spec: str, args: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=r"^the model that stranger\.safetensors names itself|can't allocate"):
        build_named(saying(spec, args), None, {})


@pytest.mark.parametrize(
    "text", ["[" * 900 + "]" * 900, '{"width": ' + "9" * 4000 + "}", '{"a": ' + "[" * 30 + "]" * 30 + "}"]
)
def test_arguments_that_cannot_be_printed_are_a_sentence(text: str) -> None:
    said = {"ckptswap.model": "lab:unet", "ckptswap.model_args": text}
    with pytest.raises(ModelError, match="not a JSON object"):
        build_named(Checkpoint.from_arrays({}, metadata=said), None, {})


@pytest.mark.parametrize(
    ("spec", "args"),
    [
        ("lab:unet", {"width": 2, "depth": 1}),
        ("lab:pspnet", {"width": 2}),
        ("smp:Unet", {"encoder_name": "resnet18", "classes": 3, "in_channels": 4}),
        ("smp:FPN", {"encoder_name": "tu-mobilenetv3_small_050"}),
    ],
    ids=str,
)
def test_a_network_that_the_checkpoint_fills_is_built(spec: str, args: dict[str, Any]) -> None:
    held = {name: value.numpy() for name, value in build_model(spec, {**args, "encoder_weights": None}
            if spec.startswith("smp") else args).state_dict().items()}  # fmt: skip
    built = build_named(saying(spec, args, held), None, {}).state_dict()
    assert {name: tuple(value.shape) for name, value in built.items()} == {n: a.shape for n, a in held.items()}


def test_what_the_command_line_names_has_no_bound() -> None:
    assert build_named(saying("lab:unet", {}), "lab:unet", {"width": 3, "depth": 1}).head.in_channels == 3


def test_only_the_thread_that_builds_it_is_counted_and_only_meanwhile() -> None:
    with bounded_by(saying("lab:unet", {}), "lab:unet", {}):
        other = threading.Thread(target=nn.Linear, args=(100, 100))
        other.start()
        other.join()
        with pytest.raises(ModelError, match="needs more numbers"):
            nn.Linear(100, 100)
    nn.Linear(100, 100)
