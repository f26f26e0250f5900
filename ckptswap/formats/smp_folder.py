"""Folders written by segmentation-models-pytorch's `save_pretrained`: config.json and model.safetensors."""

from __future__ import annotations

from pathlib import Path

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import FileError, FormatError
from ckptswap.formats.objects import parse_object
from ckptswap.formats.safetensors import open_safetensors
from ckptswap.storage import LocalFile

FORMAT = "smp folder"
WEIGHTS = "model.safetensors"
CONFIG_MOST = 10_000_000
CONFIG_KEY = "smp.config"
"""The metadata key under which config.json's text travels, for whoever builds the model."""


def open_smp_folder(folder: Path) -> Checkpoint:
    """Open the weights of a `save_pretrained` folder; its config.json becomes metadata."""
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise FileError(f"{folder} holds no model.safetensors", remedy="name the checkpoint file itself")
    config = folder / "config.json"
    said = {CONFIG_KEY: _config_text(config)} if config.is_file() else {}
    checkpoint = open_safetensors(weights)
    checkpoint.path, checkpoint.format = str(folder), FORMAT
    checkpoint.metadata = {**checkpoint.metadata, **said}
    return checkpoint


def _config_text(path: Path) -> str:
    file = LocalFile(path)
    try:
        if file.size > CONFIG_MOST:
            raise ValueError(f"takes {file.size:,} bytes; {CONFIG_MOST:,} is the most")
        raw = file.pread(file.size, 0)
        parse_object(raw)
    except ValueError as error:
        raise FormatError(f"{path} is no configuration", remedy=f"it {error}") from None
    finally:
        file.close()
    return raw.decode("utf-8")
