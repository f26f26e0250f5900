"""Folders that `save_pretrained` wrote (of segmentation-models-pytorch, transformers, timm): config.json and
model.safetensors, or pytorch_model.bin in old ones."""

import json
from contextlib import closing

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import FormatError
from ckptswap.formats.format import Format
from ckptswap.formats.objects import parse_object
from ckptswap.formats.opening import open_file
from ckptswap.home import LocalHome
from ckptswap.storage import ByteSource, Folder

WEIGHTS, OLD_WEIGHTS = "model.safetensors", "pytorch_model.bin"
CONFIG = "config.json"
_LIBRARIES = {"_model_class": "smp", "architectures": "transformers", "architecture": "timm"}
CONFIG_MOST = 10_000_000
CONFIG_KEY = "smp.config"  # the metadata key under which config.json's text travels, for whoever builds the model


def open_smp_folder(weights: ByteSource, folder: Folder) -> Checkpoint:
    """Open the weights of a `save_pretrained` folder; its config.json becomes metadata."""
    checkpoint = open_file(weights, folder)
    checkpoint.path = folder.name
    checkpoint.home = LocalHome(folder.path, has_index=False) if folder.path else None
    config = config_of(folder)
    checkpoint.metadata = {**checkpoint.metadata, **config}
    whose = _whose(config.get(CONFIG_KEY, "{}"))
    checkpoint.format = whose if weights.name.endswith(WEIGHTS) else f"{whose}, {checkpoint.format}"
    return checkpoint


def _whose(config: str) -> str:
    """Which library's folder it is, by what each calls the network in its configuration."""
    named = json.loads(config)
    library = next((name for key, name in _LIBRARIES.items() if key in named), "smp")
    return f"{library} folder"


def config_of(folder: Folder) -> dict[str, str]:
    """A folder's config.json as metadata; none where there is none. Raises `FormatError` where it is not JSON."""
    return {CONFIG_KEY: _config_text(folder.open(CONFIG))} if folder.holds(CONFIG) else {}


def _inside(folder: Folder) -> str | None:
    if folder.holds(WEIGHTS):
        return WEIGHTS
    return OLD_WEIGHTS if folder.holds(OLD_WEIGHTS) and folder.holds(CONFIG) else None


def _config_text(file: ByteSource) -> str:
    with closing(file):
        try:
            raw = file.whole(CONFIG_MOST)
            parse_object(raw)
        except ValueError as error:
            raise FormatError(f"{file.name} is not a configuration", remedy=f"it {error}") from None
    return raw.decode("utf-8")


FORMAT = Format("smp folder", open_smp_folder, inside=_inside)
