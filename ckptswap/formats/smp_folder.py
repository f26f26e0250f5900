"""Folders that `save_pretrained` wrote (of segmentation-models-pytorch, for example): config.json and
model.safetensors."""

from contextlib import closing

from ckptswap.checkpoint import Checkpoint, Home
from ckptswap.errors import FormatError
from ckptswap.formats.format import Format
from ckptswap.formats.objects import parse_object
from ckptswap.formats.safetensors import open_safetensors
from ckptswap.storage import ByteSource, Folder

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
CONFIG_MOST = 10_000_000
CONFIG_KEY = "smp.config"  # the metadata key under which config.json's text travels, for whoever builds the model


def open_smp_folder(weights: ByteSource, folder: Folder) -> Checkpoint:
    """Open the weights of a `save_pretrained` folder; its config.json becomes metadata."""
    checkpoint = open_safetensors(weights)
    checkpoint.path, checkpoint.format = folder.name, FORMAT.name
    checkpoint.home = Home(folder.path, has_index=False) if folder.path else None
    if folder.holds(CONFIG):
        with closing(folder.open(CONFIG)) as file:
            try:
                raw = file.whole(CONFIG_MOST)
                parse_object(raw)
            except ValueError as error:
                raise FormatError(f"{file.name} is not a configuration", remedy=f"it {error}") from None
        checkpoint.metadata = {**checkpoint.metadata, CONFIG_KEY: raw.decode("utf-8")}
    return checkpoint


FORMAT = Format("smp folder", open_smp_folder, inside=lambda folder: WEIGHTS if folder.holds(WEIGHTS) else None)
