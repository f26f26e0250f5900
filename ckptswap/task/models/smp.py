"""`smp:NAME`: segmentation-models-pytorch's networks, and the folders that its `save_pretrained` writes.

`encoder_weights` is always None: the weights come from the checkpoint, and nothing is downloaded.
"""

import inspect
from collections.abc import Mapping
from typing import Any

from ckptswap.errors import ModelError, near
from ckptswap.registry import Source, library
from ckptswap.task.callables import call

# What smp hands on to timm for `tu-` encoders. A list, because timm also takes paths and addresses to load from.
_TIMM_ARGS = ("img_size", "dynamic_img_size", "patch_size", "window_size", "drop_path_rate")
_TIMM = ("tu-", "timm-")
# smp still reads those of its old configs.
_OLD_ARGS = ("decoder_use_batchnorm", "psp_use_batchnorm", "upscale_mode")


def built(name: str, args: Mapping[str, Any]) -> Any:
    """One of smp's networks. Raises `ModelError` for a name or arguments that do not exist."""
    smp = library("segmentation_models_pytorch")
    classes = {network.__name__: network for network in smp.MODEL_ARCHITECTURES_MAPPING.values()}
    if name not in classes:
        raise ModelError(
            f"smp has no model {name!r}", remedy=near(name, classes) or f"use one of {', '.join(classes)}"
        )
    _check_args(name, classes[name], args)
    _check_encoder(str(args.get("encoder_name", "")), smp.encoders.encoders)
    return call(f"smp:{name}", classes[name], {**args, "encoder_weights": None}, ModelError)


def spec_of(config: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """The spec and arguments that `save_pretrained`'s config.json means; None where it names no class.

    >>> spec_of({"_model_class": "Unet", "classes": 3, "encoder_weights": "imagenet"})
    ('smp:Unet', {'classes': 3, 'encoder_weights': None})
    """
    name = config.get("_model_class")
    if not isinstance(name, str):
        return None
    args = {key: value for key, value in config.items() if not key.startswith("_")}
    return f"smp:{name}", {**args, "encoder_weights": None}


def _check_args(name: str, model_class: type, args: Mapping[str, Any]) -> None:
    """smp swallows arguments that it does not know, so that a misspelt one would change nothing."""
    parameters = inspect.signature(model_class).parameters.values()
    known = [parameter.name for parameter in parameters if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]
    is_timm = str(args.get("encoder_name", "")).startswith(_TIMM)
    extra = (*_OLD_ARGS, *_TIMM_ARGS) if is_timm else _OLD_ARGS
    unknown = next((key for key in args if key not in known and key not in extra), None)
    if unknown is not None:
        remedy = near(unknown, known) or f"it takes {', '.join(known)}"
        raise ModelError(f"smp:{name} takes no argument {unknown!r}", remedy=remedy)


def _check_encoder(encoder: str, known: Mapping[str, Any]) -> None:
    """timm would follow `hf-hub:` and `local-dir:` names; a file's metadata must not send us anywhere."""
    if encoder.startswith(_TIMM):
        if ":" in encoder or "/" in encoder:
            raise ModelError(f"encoder {encoder!r} is not timm's own", remedy="build such a model in a file.py")
    elif encoder and encoder not in known:
        remedy = near(encoder, known) or "see smp's list of encoders"
        raise ModelError(f"smp has no encoder {encoder!r}", remedy=remedy)


SOURCE = Source(
    built,
    libraries=("segmentation-models-pytorch", "timm", "torchvision"),
    is_safe=True,
    spare=130_000_000,  # the classifier of a VGG, which smp drops, has 124 million
)
