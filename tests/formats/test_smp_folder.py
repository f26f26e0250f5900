"""Folders of `save_pretrained`: the weights, and the configuration as metadata."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import FileError, FormatError
from ckptswap.formats import open_checkpoint, write_checkpoint
from ckptswap.formats.smp_folder import CONFIG_KEY


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_checkpoint(
        Checkpoint.from_arrays({"w": np.arange(3)}, metadata={"a": "b"}), tmp_path / "model.safetensors"
    )
    return tmp_path


def test_the_configuration_travels_as_metadata(folder: Path) -> None:
    (folder / "config.json").write_text('{"classes": 1}')
    with open_checkpoint(folder) as found:
        assert (found.path, found.format) == (str(folder), "smp folder")
        assert json.loads(found.metadata[CONFIG_KEY]) == {"classes": 1}
        assert found.metadata["a"] == "b"
        assert found.read("w").tolist() == [0, 1, 2]


def test_a_folder_without_configuration_is_only_weights(folder: Path) -> None:
    with open_checkpoint(folder) as found:
        assert dict(found.metadata) == {"a": "b"}


@pytest.mark.parametrize("content", ["[]", "{", '{"a": 1, "a": 2}', '{"a":' + "[" * 100_000])
def test_a_configuration_that_is_none_is_refused(content: str, folder: Path) -> None:
    (folder / "config.json").write_text(content)
    with pytest.raises(FormatError, match="is not a configuration"):
        open_checkpoint(folder)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="name the checkpoint file itself"):
        open_checkpoint(tmp_path)


def test_what_smp_writes(tmp_path: Path) -> None:
    smp = pytest.importorskip("segmentation_models_pytorch")
    model = smp.Unet("resnet18", encoder_weights=None, encoder_depth=3, decoder_channels=(8, 8, 8))
    model.save_pretrained(tmp_path / "m")
    with open_checkpoint(tmp_path / "m") as found:
        assert found.format == "smp folder"
        assert set(found) == set(model.state_dict())
        assert (
            found.read("encoder.conv1.weight").tobytes()
            == model.state_dict()["encoder.conv1.weight"].numpy().tobytes()
        )
