from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import pytest

from ckptswap.registry import Source
from ckptswap.task import libraries
from ckptswap.task.libraries import code_hashes, versions_of
from ckptswap.task.metrics import load_metrics
from ckptswap.task.models.build import build_model
from ckptswap.task.spec import TaskSpec

SMALL = {"encoder_name": "resnet18", "decoder_channels": [32, 16, 8, 8, 8]}


def names(spec: TaskSpec) -> set[str]:
    load_metrics(spec)
    found = versions_of(spec, build_model(spec.model or "", spec.model_args))
    assert all(version(name) == number for name, number in found.items())
    return set(found)


def test_a_network_of_ours_needs_torch_alone() -> None:
    assert names(TaskSpec(model="lab:unet", data="scans/train")) == {"torch"}


def test_a_source_says_which_libraries_decide_what_it_gives() -> None:
    smp = {"torch", "segmentation-models-pytorch", "timm", "torchvision"}
    assert names(TaskSpec(model="smp:Unet", model_args=SMALL, data="scans")) == smp
    assert names(TaskSpec(model="lab:unet", data="lab:mni")) == {"torch", "nilearn"}


def test_of_the_users_code_count_the_package_what_its_file_imports_and_what_its_model_is_made_of(
    tmp_path: Path,
) -> None:
    (tmp_path / "net.py").write_text("def build():\n    import timm\n    return timm.create_model('test_vit')\n")
    (tmp_path / "score.py").write_text("from PIL import Image\nimport json\n\ndef own(output, target): ...\n")
    spec = TaskSpec(model=f"{tmp_path}/net.py:build", metrics=(f"{tmp_path}/score.py:own",), direction="max")
    assert names(spec) >= {"torch", "timm", "pillow"}
    assert "json" not in names(spec)
    assert set(code_hashes(spec)) == {spec.model, *spec.metrics}
    assert "torchvision" in names(TaskSpec(model="torchvision.models:resnet18"))


def test_another_version_is_another_key(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source("ckptswap.lab.networks:built", libraries=("timm", "not-installed"))
    monkeypatch.setattr(libraries, "source_of", lambda group, name: (source, "unet"))
    before = versions_of(TaskSpec(model="own:unet"), build_model("lab:unet", {}))
    assert before["timm"] == version("timm")
    assert before["not-installed"] == ""
    monkeypatch.setattr(libraries, "version_of", lambda name: "9.9" if name == "timm" else "1")
    assert versions_of(TaskSpec(model="own:unet"), build_model("lab:unet", {}))["timm"] == "9.9"
