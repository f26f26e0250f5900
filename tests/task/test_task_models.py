from __future__ import annotations

import json
import socket
from pathlib import Path

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from torch import nn

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import ModelError
from ckptswap.formats import open_checkpoint
from ckptswap.task.models.build import build_model, depends_on_batch
from ckptswap.task.models.named import model_of, target_of
from ckptswap.task.weights import load_into

SMALL = {"encoder_name": "resnet18", "in_channels": 1, "classes": 2, "decoder_channels": [32, 16, 8, 8, 8]}


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("something wanted the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.usefixtures("no_network")
def test_smp_models_never_download() -> None:
    model = build_model("smp:Unet", {**SMALL, "encoder_weights": "imagenet"})
    assert isinstance(model, smp.Unet)
    assert not any(each.training for each in model.modules())
    assert not any(each.requires_grad for each in model.parameters())
    assert not torch.backends.mha.get_fastpath_enabled()


def test_lab_models_are_found_by_name() -> None:
    assert build_model("lab:unet", {"width": 2, "depth": 1})(torch.zeros(1, 1, 8, 8)).shape == (1, 1, 8, 8)


@pytest.mark.parametrize(
    ("spec", "args", "message"),
    [
        ("smp:Uent", {}, "did you mean 'Unet'"),
        ("smp:Unet", {"enocder_name": "resnet18"}, "'enocder_name': did you mean 'encoder_name'"),
        ("smp:Unet", {"encoder_name": "resnet81"}, "no encoder 'resnet81': did you mean 'resnet18'"),
        ("smp:Unet", {"encoder_name": "tu-hf-hub:someone/net"}, "not timm's own"),
        (
            "smp:Unet",
            {"encoder_name": "tu-resnet18", "checkpoint_path": "/x"},
            "takes no argument 'checkpoint_path'",
        ),
        ("smp:Unet", {"classes": "many"}, r"smp:Unet failed: \w+"),
        ("lab:unte", {}, "did you mean 'unet'"),
        ("lab:unet", {"name": "x"}, "lab:unet"),
        ("unet", {}, "is not a model"),
        ("https://x.org/net", {}, "is not a model"),
    ],
)
def test_models_that_cannot_be_built(spec: str, args: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        build_model(spec, args)
    assert "\n" not in str(caught.value)


OWN = """
import torch
from torch import nn

def linear(inputs=1): return nn.Linear(inputs, 1)
def number(): return 3
def lazy(): return nn.LazyLinear(2)
ready = nn.Linear(1, 1)

class Stubborn(nn.Module):
    def train(self, mode=True): return super().train(True)

def nested(): return nn.Sequential(Stubborn())
"""


def test_a_users_own_file(tmp_path: Path) -> None:
    path = tmp_path / "net.py"
    path.write_text(OWN)
    model = build_model(f"{path}:linear", {"inputs": 4})
    assert isinstance(model, nn.Linear)
    assert model.in_features == 4
    for name, message in [
        ("number", "gave a int"),
        ("lazy", "lazy layers"),
        ("ready", "is a model already"),
        ("nested", r"stays in training mode after eval\(\) \(0\)"),
    ]:
        with pytest.raises(ModelError, match=message):
            build_model(f"{path}:{name}", {})


def test_a_save_pretrained_folder_says_what_it_is(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = smp.Unet(encoder_weights=None, **SMALL).eval()
    model.config["encoder_weights"] = "imagenet"
    model.save_pretrained(tmp_path / "net")
    with open_checkpoint(tmp_path / "net") as checkpoint:
        name, args = model_of(checkpoint)
        assert (name, args["encoder_weights"], args["classes"]) == ("smp:Unet", None, 2)
        again = build_model(name, args)
        load_into(again, checkpoint)
    image = torch.rand(1, 1, 32, 32)
    with torch.inference_mode():
        assert torch.equal(again(image), model(image))


def checkpoint_saying(**metadata: str) -> Checkpoint:
    named = {f"ckptswap.{key}": value for key, value in metadata.items()}
    return Checkpoint.from_arrays({"w": np.zeros(1)}, metadata=named, path="a.safetensors")


def test_metadata_names_model_arguments_and_target() -> None:
    checkpoint = checkpoint_saying(model="lab:pspnet", model_args='{"width": 4}', task='{"target": "input"}')
    assert model_of(checkpoint) == ("lab:pspnet", {"width": 4})
    assert target_of(checkpoint) == "input"
    assert target_of(checkpoint_saying(model="lab:unet")) is None


@pytest.mark.parametrize("spec", ["evil.py:run", "os:system", "/tmp/x.py:f", "lab", ""])
def test_metadata_cannot_name_a_strangers_code(spec: str) -> None:
    with pytest.raises(ModelError, match=r"stranger's code.*--model FILE:FUNCTION"):
        model_of(checkpoint_saying(model=spec))


@pytest.mark.parametrize("text", ["[1]", "{", "[" * 100_000, '"x"'])
def test_metadata_that_is_no_object(text: str) -> None:
    with pytest.raises(ModelError, match="not a JSON object"):
        model_of(checkpoint_saying(model="lab:unet", model_args=text))
    with pytest.raises(ModelError, match="not a JSON object"):
        target_of(checkpoint_saying(task=text))


def test_a_config_without_a_class() -> None:
    checkpoint = Checkpoint.from_arrays({}, metadata={"smp.config": json.dumps({"classes": 1})})
    with pytest.raises(ModelError, match="_model_class"):
        model_of(checkpoint)


def test_a_checkpoint_that_says_nothing() -> None:
    with pytest.raises(
        ModelError, match=r"a\.safetensors does not say what model it is: pass --model with what builds it"
    ):
        model_of(checkpoint_saying())


def test_a_model_built_in_inference_mode_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "own.py"
    path.write_text("import torch\n@torch.inference_mode()\ndef build(): return torch.nn.Linear(1, 1)\n")
    with pytest.raises(ModelError, match="was built in inference mode"):
        build_model(f"{path}:build", {})


def test_batch_norm_without_running_statistics_depends_on_the_batch() -> None:
    assert depends_on_batch(nn.Sequential(nn.BatchNorm2d(2, track_running_stats=False)))
    assert not depends_on_batch(nn.Sequential(nn.BatchNorm2d(2), nn.InstanceNorm2d(2)))
