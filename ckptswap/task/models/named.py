"""What a checkpoint says of itself: which model it is of, and what it was trained to give. No torch."""

import json
from collections.abc import Mapping
from typing import Any

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import ModelError
from ckptswap.formats.peft import CONFIG_KEY as ADAPTER_KEY
from ckptswap.formats.smp_folder import CONFIG_KEY
from ckptswap.plainfiles import refuse_unwieldy
from ckptswap.registry import is_safe, source_of
from ckptswap.task.in_memory import InMemory
from ckptswap.task.models import hf, smp, timm

MODEL_KEY, ARGS_KEY, TASK_KEY = "ckptswap.model", "ckptswap.model_args", "ckptswap.task"


def model_of(checkpoint: Checkpoint) -> tuple[str, dict[str, Any]]:
    """The model spec and arguments that a checkpoint names itself (the module in memory whose tensors it is, our
    own metadata, or the configuration that `save_pretrained` of smp, transformers or timm wrote beside it).

    Raises `ModelError` when it names none, or one that only the command line may name.

    >>> model_of(Checkpoint.from_arrays({}, metadata={"ckptswap.model": "lab:unet"}))
    ('lab:unet', {})
    """
    metadata = checkpoint.metadata
    if checkpoint.module is not None:
        return InMemory.of(checkpoint.module), {}
    if MODEL_KEY in metadata:
        spec = metadata[MODEL_KEY]
        if not is_safe("models", spec):
            what = f"the metadata of {checkpoint.path} names the model {spec[:80]!r}"
            raise ModelError(
                f"{what}, which could be a stranger's code",
                remedy="if you trust it, name it yourself with --model FILE:FUNCTION",
            )
        return spec, _object(metadata.get(ARGS_KEY, "{}"), ARGS_KEY, checkpoint)
    if ADAPTER_KEY in metadata:
        remedy = f"peft:{checkpoint.path} is its base with the adapter added, or name the model with --model"
        raise ModelError(f"{checkpoint.path} is an adapter alone", remedy=remedy)
    if CONFIG_KEY not in metadata:
        raise ModelError(f"{checkpoint.path} does not say what model it is", remedy=_what_to_type(checkpoint))
    config = _object(metadata[CONFIG_KEY], "config.json", checkpoint)
    named = smp.spec_of(config) or hf.spec_of(config) or timm.spec_of(config)
    if named is None:
        what = f"config.json in {checkpoint.path} has no _model_class and no architectures"
        kind = config.get("model_type")
        if isinstance(kind, str):  # transformers' own word
            folder = f'write "architectures": ["CLASS"] into it, the class of transformers for {kind!r:.40}'
            raise ModelError(what, remedy=f"{folder}, such as its …ForSequenceClassification")
        raise ModelError(what, remedy=_what_to_type(checkpoint))
    spec, args = named
    return spec, completed(spec, args, checkpoint)


def completed(spec: str, args: Mapping[str, Any], checkpoint: Checkpoint) -> dict[str, Any]:
    """A model's arguments, with what the checkpoint holds of them where nothing was said.

    >>> completed("smp:Unet", {"classes": 1}, Checkpoint.from_arrays({}))
    {'classes': 1}
    """
    registered = source_of("models", spec)
    complete = registered[0].completed if registered else None
    return dict(complete(args, checkpoint) if complete else args)


def target_of(checkpoint: Checkpoint) -> str | None:
    """What `ckptswap train` taught it to give: `masks` or `input`; None where it does not say."""
    if TASK_KEY not in checkpoint.metadata:
        return None
    return _object(checkpoint.metadata[TASK_KEY], TASK_KEY, checkpoint).get("target")


def _object(text: str, key: str, checkpoint: Checkpoint) -> dict[str, Any]:
    try:
        content = json.loads(text)
        refuse_unwieldy(content)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        remedy = "mend it, or name the model yourself with --model"
        raise ModelError(f"{key} in {checkpoint.path} is not a JSON object", remedy=remedy)
    return content


def _what_to_type(checkpoint: Checkpoint) -> str:
    from ckptswap.task.models.lookalike import what_to_type  # which needs torch, for an error only

    return what_to_type(checkpoint)
