"""From a model spec, or from what a checkpoint says of itself, to a module in eval mode."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import ModelError, near
from ckptswap.registry import names, source_of
from ckptswap.task import in_memory
from ckptswap.task.callables import faults_of, is_callable_spec
from ckptswap.task.models import own
from ckptswap.task.models.bounds import bounded_by
from ckptswap.task.models.lookalike import named_so
from ckptswap.task.models.named import model_of

_LAZY = (UninitializedParameter, UninitializedBuffer)


def build_model(spec: str, args: Mapping[str, Any]) -> nn.Module:
    """Build the model that a spec names, freshly initialised, in eval mode.

    Switches off `nn.TransformerEncoder`'s fast path for the whole process: its bits are not those of the layers.
    Raises `ModelError` for a name or arguments that don't exist, and for a model that stays in training mode.

    >>> build_model("lab:unet", {"width": 2, "depth": 1}).training
    False
    """
    torch.backends.mha.set_fastpath_enabled(False)
    registered = source_of("models", spec)
    if spec.startswith(in_memory.PREFIX):
        model = in_memory.built(spec, args)
    elif registered is not None:
        source, rest = registered
        with faults_of(spec, ModelError):
            model = source.made(rest, args)
    elif is_callable_spec(spec):
        model = own.built(spec, args)
    else:
        raise ModelError(f"{spec!r} is not a model", remedy=_meant(spec))
    return _in_eval_mode(model, spec)


def build_named(checkpoint: Checkpoint, spec: str | None, args: Mapping[str, Any]) -> nn.Module:
    """Build the model of a spec, or where there is none the one that the checkpoint names, which may then not be
    larger than the checkpoint. Raises as `build_model` and `model_of` do.

    >>> metadata = {"ckptswap.model": "lab:unet", "ckptswap.model_args": '{"width": 1500}'}
    >>> build_named(Checkpoint.from_arrays({}, metadata=metadata, path="a.pt"), None, {})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ckptswap.errors.ModelError: the model that a.pt names itself needs more numbers than ...
    """
    if spec is not None:
        return build_model(spec, args)
    spec, args = model_of(checkpoint)
    if isinstance(spec, in_memory.InMemory):
        return build_model(spec, args)
    with bounded_by(checkpoint, spec, args):
        return build_model(spec, args)


def depends_on_batch(model: nn.Module) -> bool:
    """Tell whether a batch norm without running statistics normalises by whatever else is in the batch."""
    norms = (module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm))
    return any(norm.running_mean is None for norm in norms)


def _meant(spec: str) -> str:
    """What somebody may have wanted to write who wrote what is no model.

    >>> _meant("timm/resnet18"), _meant("timm.resnet18")
    ("write 'timm:resnet18'", "write 'timm:resnet18'")
    """
    if Path(spec).is_file():
        return "it is a file: name what builds the network, such as timm:NAME or file.py:function"
    for mark in ("/", "."):
        source, _, name = spec.partition(mark)
        if source in names("models") and name:
            return f"write '{source}:{name}'"
    if networks := named_so(spec):
        return f"write {' or '.join(networks)}"
    return near(spec.partition(":")[0], names("models")) or (
        "write timm:NAME, torchvision:NAME, smp:NAME, hf:FOLDER, file.py:name or package.module:name"
    )


def _in_eval_mode(model: object, spec: str) -> nn.Module:
    if not isinstance(model, nn.Module):
        raise ModelError(f"{spec} gave a {type(model).__name__}", remedy="it must return a torch.nn.Module")
    tensors = (*model.parameters(), *model.buffers())
    if any(isinstance(tensor, _LAZY) for tensor in tensors):
        raise ModelError(f"{spec} has lazy layers without a shape", remedy="run it once before returning it")
    if any(tensor.is_inference() for tensor in tensors):
        raise ModelError(f"{spec} was built in inference mode", remedy="build it outside, to be written to")
    model.eval()
    training = [name or "the model itself" for name, module in model.named_modules() if module.training]
    if training:
        raise ModelError(
            f"{spec} stays in training mode after eval() ({training[0]})", remedy="let eval() reach every module"
        )
    for parameter in model.parameters():  # a scripted model has no requires_grad_ of its own
        parameter.requires_grad_(False)
    return model
