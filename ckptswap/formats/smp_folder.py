"""Folders written by segmentation-models-pytorch's `save_pretrained`: config.json and model.safetensors."""

from __future__ import annotations

import json
from pathlib import Path

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import FileError, FormatError
from ckptswap.formats.safetensors import open_safetensors

FORMAT = "smp folder"
WEIGHTS = "model.safetensors"
CONFIG_KEY = "smp.config"
"""The metadata key under which config.json's text travels, for whoever builds the model."""


def open_smp_folder(folder: Path) -> Checkpoint:
    """Open the weights of a `save_pretrained` folder; its config.json becomes metadata."""
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise FileError(f"{folder} holds no model.safetensors", remedy="name the checkpoint file itself")
    checkpoint = open_safetensors(weights)
    checkpoint.path, checkpoint.format = str(folder), FORMAT
    config = folder / "config.json"
    if config.is_file():
        checkpoint.metadata = {**checkpoint.metadata, CONFIG_KEY: _config_text(config)}
    return checkpoint


def _config_text(path: Path) -> str:
    try:
        text = path.read_text("utf-8")
        if not isinstance(json.loads(text), dict):
            raise ValueError("not an object")
    except (ValueError, RecursionError, OSError) as error:
        raise FormatError(f"{path} is no configuration", remedy=str(error)) from None
    return text
