"""From a model spec, or from what a checkpoint says of itself, to a module in eval mode.

`smp:NAME` and `lab:NAME` are looked up in lists of names. `file.py:callable` and `package.module:callable` run the
user's own code, so only the command line may name them, never a file's metadata.
"""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import ModelError, near
from ckptswap.formats.smp_folder import CONFIG_KEY
from ckptswap.plainfiles import refuse_unwieldy
from ckptswap.task.bounds import bounded_by
from ckptswap.task.callables import call, is_callable_spec, load_callable

MODEL_KEY, ARGS_KEY, TASK_KEY = "ckptswap.model", "ckptswap.model_args", "ckptswap.task"
_FROM_METADATA = ("smp:", "lab:")
_EXAMPLE = "pass --model, for example --model smp:Unet --model-args encoder_name=resnet18,classes=1"
# What smp hands on to timm for `tu-` encoders. A list, because timm also takes paths and addresses to load from.
_TIMM_ARGS = ("img_size", "dynamic_img_size", "patch_size", "window_size", "drop_path_rate")
_LAZY = (UninitializedParameter, UninitializedBuffer)
_TIMM = ("tu-", "timm-")
_OLD_ARGS = (
    "decoder_use_batchnorm",
    "psp_use_batchnorm",
    "upscale_mode",
)  # smp still reads those of its old configs


def build_model(spec_name: str, args: Mapping[str, Any]) -> nn.Module:
    """The model that a spec names, freshly initialised, in eval mode.

    `encoder_weights` is always None for smp: the weights come from the checkpoint, and nothing is downloaded.
    Switches off `nn.TransformerEncoder`'s fast path for the whole process: its bits are not those of the layers.
    Raises `ModelError` for a name or arguments that don't exist, and for a model that stays in training mode.

    >>> build_model("lab:unet", {"width": 2, "depth": 1}).training
    False
    """
    torch.backends.mha.set_fastpath_enabled(False)
    scheme, _, name = spec_name.partition(":")
    if scheme == "smp":
        model = _build_smp(name, args)
    elif scheme == "lab":
        networks = importlib.import_module("ckptswap.lab.networks")
        model = call(spec_name, lambda **given: networks.build(name, **given), args, ModelError)
    elif is_callable_spec(spec_name):
        model = _build_own(spec_name, args)
    else:
        raise ModelError(
            f"{spec_name!r} is no model", remedy="write smp:NAME, file.py:name or package.module:name"
        )
    return _in_eval_mode(model, spec_name)


def build_named(checkpoint: Checkpoint, spec: str | None, args: Mapping[str, Any]) -> nn.Module:
    """The model of a spec, or where there is none the one that the checkpoint names, which may then not be larger
    than the checkpoint. Raises as `build_model` and `model_of` do.

    >>> said = {"ckptswap.model": "lab:unet", "ckptswap.model_args": '{"width": 1500}'}
    >>> build_named(Checkpoint.from_arrays({}, metadata=said, path="a.pt"), None, {})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ckptswap.errors.ModelError: the model that a.pt names itself needs more numbers than ...
    """
    if spec is not None:
        return build_model(spec, args)
    spec, args = model_of(checkpoint)
    with bounded_by(checkpoint, spec, args):
        return build_model(spec, args)


def model_of(checkpoint: Checkpoint) -> tuple[str, dict[str, Any]]:
    """The model spec and arguments that a checkpoint names itself (our own metadata, or smp's `save_pretrained`).

    Raises `ModelError` when it names none, or one that only the command line may name.

    >>> model_of(Checkpoint.from_arrays({}, metadata={"ckptswap.model": "lab:unet"}))
    ('lab:unet', {})
    """
    said = checkpoint.metadata
    if MODEL_KEY in said:
        return _named(said[MODEL_KEY], checkpoint), _object(said.get(ARGS_KEY, "{}"), ARGS_KEY, checkpoint)
    if CONFIG_KEY in said:
        return _from_smp_config(_object(said[CONFIG_KEY], "config.json", checkpoint), checkpoint)
    raise ModelError(f"{checkpoint.path} does not say what model it is", remedy=_EXAMPLE)


def target_of(checkpoint: Checkpoint) -> str | None:
    """What `ckptswap train` taught it to give: `masks` or `input`; None where it does not say."""
    if TASK_KEY not in checkpoint.metadata:
        return None
    return _object(checkpoint.metadata[TASK_KEY], TASK_KEY, checkpoint).get("target")


def depends_on_batch(model: nn.Module) -> bool:
    """Whether a batch norm without running statistics normalises by whatever else is in the batch."""
    norms = (each for each in model.modules() if isinstance(each, nn.modules.batchnorm._BatchNorm))
    return any(norm.running_mean is None for norm in norms)


def _build_smp(name: str, args: Mapping[str, Any]) -> nn.Module:
    import segmentation_models_pytorch as smp

    classes = {each.__name__: each for each in smp.MODEL_ARCHITECTURES_MAPPING.values()}
    if name not in classes:
        raise ModelError(
            f"smp has no model {name!r}", remedy=near(name, classes) or f"use one of {', '.join(classes)}"
        )
    _check_smp_args(name, classes[name], args)
    given = {**args, "encoder_weights": None}
    return call(f"smp:{name}", classes[name], given, ModelError)


def _check_smp_args(name: str, model_class: type, args: Mapping[str, Any]) -> None:
    """smp swallows arguments that it does not know, so that a misspelt one would change nothing."""
    encoder = str(args.get("encoder_name", ""))
    parameters = inspect.signature(model_class).parameters.values()
    known = [each.name for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD]
    extra = (*_OLD_ARGS, *_TIMM_ARGS) if encoder.startswith(_TIMM) else _OLD_ARGS
    unknown = next((key for key in args if key not in known and key not in extra), None)
    if unknown is not None:
        remedy = near(unknown, known) or f"it takes {', '.join(known)}"
        raise ModelError(f"smp:{name} takes no argument {unknown!r}", remedy=remedy)
    _check_encoder(encoder)


def _check_encoder(encoder: str) -> None:
    """timm would follow `hf-hub:` and `local-dir:` names; a file's metadata must not send us anywhere."""
    import segmentation_models_pytorch as smp

    if encoder.startswith(_TIMM):
        if ":" in encoder or "/" in encoder:
            raise ModelError(f"encoder {encoder!r} is not timm's own", remedy="build such a model in a file.py")
    elif encoder and encoder not in smp.encoders.encoders:
        remedy = near(encoder, smp.encoders.encoders) or "see smp's list of encoders"
        raise ModelError(f"smp has no encoder {encoder!r}", remedy=remedy)


def _build_own(spec_name: str, args: Mapping[str, Any]) -> nn.Module:
    function = load_callable(spec_name, ModelError)
    if isinstance(function, nn.Module):
        raise ModelError(f"{spec_name} is a model already", remedy="name a function that builds one")
    return call(spec_name, function, args, ModelError)


def _in_eval_mode(model: object, spec_name: str) -> nn.Module:
    if not isinstance(model, nn.Module):
        raise ModelError(f"{spec_name} gave a {type(model).__name__}", remedy="it must return a torch.nn.Module")
    if any(isinstance(each, _LAZY) for each in (*model.parameters(), *model.buffers())):
        raise ModelError(f"{spec_name} has lazy layers without a shape", remedy="run it once before returning it")
    if any(each.is_inference() for each in (*model.parameters(), *model.buffers())):
        raise ModelError(f"{spec_name} was built in inference mode", remedy="build it outside, to be written to")
    model.eval()
    training = [name or "the model itself" for name, each in model.named_modules() if each.training]
    if training:
        raise ModelError(
            f"{spec_name} stays in training mode after eval() ({training[0]})",
            remedy="let eval() reach every module",
        )
    return model.requires_grad_(False)


def _named(spec: str, checkpoint: Checkpoint) -> str:
    if not spec.startswith(_FROM_METADATA):
        raise ModelError(
            f"the metadata of {checkpoint.path} names the model {spec[:80]!r}, which could be a stranger's code",
            remedy="if you trust it, name it yourself with --model FILE:FUNCTION",
        )
    return spec


def _object(text: str, key: str, checkpoint: Checkpoint) -> dict[str, Any]:
    try:
        found = json.loads(text)
        refuse_unwieldy(found)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ModelError(f"{key} in {checkpoint.path} is no JSON object", remedy=_EXAMPLE)
    return found


def _from_smp_config(config: dict[str, Any], checkpoint: Checkpoint) -> tuple[str, dict[str, Any]]:
    name = config.get("_model_class")
    if not isinstance(name, str):
        raise ModelError(f"config.json in {checkpoint.path} has no _model_class", remedy=_EXAMPLE)
    args = {key: value for key, value in config.items() if not key.startswith("_")}
    return f"smp:{name}", {**args, "encoder_weights": None}
