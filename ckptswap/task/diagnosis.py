"""Why a model may have failed on its input, in a sentence; looked for only where it did."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from ckptswap.errors import ModelError
from ckptswap.task.tree import Tree

_CONVOLUTIONS = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}
"""By the number of an input's dimensions."""
_OF_DTYPES = ("dtype", "scalar type", "half", "bfloat16")
"""Of what torch says where dtypes do not fit."""
_COLORS = {1: ("grey", "grey"), 3: ("RGB", "rgb")}
"""What images of so many channels are called: by people, and by `--data-args color=`."""


def diagnosed(model: nn.Module, inputs: Tree, reason: str) -> ModelError | None:
    """The first of the usual mismatches that input and model have, where `reason`, what was raised, may mean it;
    None where there is none of them.

    >>> import torch
    >>> fault = diagnosed(nn.Embedding(4, 2), torch.tensor([[1, 7]]), "index out of range in self")
    >>> fault.message
    "the inputs hold the token 7, and the model's embedding ends at 3"
    """
    said = reason.lower()
    looked_for = [_images_for_tokens, _beyond_the_embedding, _longer_than_positions]
    looked_for += [_of_other_channels] if "channel" in said else []
    looked_for += [_of_several_dtypes] if any(word in said for word in _OF_DTYPES) else []
    for look in looked_for:
        sentence = look(model, inputs)
        if sentence is not None:
            return ModelError(sentence[0], remedy=sentence[1])
    return None


def _images_for_tokens(model: nn.Module, inputs: Tree) -> tuple[str, str] | None:
    own: Any = getattr(model, "get_input_embeddings", None)
    is_text = callable(own) and _is_table(own)
    if not (is_text and isinstance(inputs, Tensor) and inputs.is_floating_point()):
        return None
    return "the inputs are images or numbers, and the model takes tokens", "--data text:FILE reads a text for it"


def _is_table(own: Any) -> bool:
    try:
        return isinstance(own(), nn.Embedding)
    except Exception:  # transformers raises where a model has none
        return False


def _beyond_the_embedding(model: nn.Module, inputs: Tree) -> tuple[str, str] | None:
    table = _embedding(model)
    for tokens in _tokens(inputs):
        low, high = (int(end) for end in tokens.aminmax()) if tokens.numel() else (0, 0)
        if table is not None and (high >= table.num_embeddings or low < 0):
            token = high if high >= table.num_embeddings else low
            return (
                f"the inputs hold the token {token}, and the model's embedding ends at {table.num_embeddings - 1}",
                "use the model's own tokenizer, for text --data-args tokenizer=FOLDER",
            )
    return None


def _longer_than_positions(model: nn.Module, inputs: Tree) -> tuple[str, str] | None:
    most = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    longest = max((tokens.shape[1] for tokens in _tokens(inputs)), default=0)
    if not isinstance(most, int) or longest <= most:
        return None
    return f"the inputs are {longest} tokens long, and the model takes {most}", f"--data-args length={most}"


def _of_other_channels(model: nn.Module, inputs: Tree) -> tuple[str, str] | None:
    if not isinstance(inputs, Tensor) or inputs.dim() not in _CONVOLUTIONS:
        return None
    kind = _CONVOLUTIONS[inputs.dim()]
    first = next((module for module in model.modules() if isinstance(module, kind)), None)
    if first is None or first.in_channels == inputs.shape[1]:
        return None
    given, wanted = inputs.shape[1], first.in_channels
    channels = "give the model its channels in --model-args (in_channels, in_chans)"
    if given not in _COLORS or wanted not in _COLORS:
        return f"the images have {given} channels, and the model takes {wanted}", channels
    (own, _), (other, color) = _COLORS[given], _COLORS[wanted]
    return (
        f"the images are {own}, and the model takes {other}",
        f"--data-args color={color} reads a folder's so, else {channels}",
    )


def _of_several_dtypes(model: nn.Module, inputs: Tree) -> tuple[str, str] | None:
    dtypes = {str(own.dtype).removeprefix("torch.") for own in model.parameters() if own.is_floating_point()}
    if len(dtypes) == 1 and not dtypes & {"float16", "bfloat16"}:
        return None
    named = " and ".join(sorted(dtypes))
    return (
        (f"the model's tensors are {named}, with which it cannot compute here", "--dtype f32") if dtypes else None
    )


def _embedding(model: nn.Module) -> nn.Embedding | None:
    own: Any = getattr(model, "get_input_embeddings", None)
    try:
        table = own() if callable(own) else None
    except Exception:  # transformers raises where a model has none
        table = None
    tables = (module for module in model.modules() if isinstance(module, nn.Embedding))
    return table if isinstance(table, nn.Embedding) else next(tables, None)


def _tokens(inputs: Tree) -> Iterator[Tensor]:
    """Inputs (N, T) of whole numbers that may be token ids."""
    parts = [inputs] if isinstance(inputs, Tensor) else []
    if isinstance(inputs, dict):
        parts = [inputs[name] for name in ("input_ids", "decoder_input_ids", "tokens") if name in inputs]
    elif isinstance(inputs, tuple):
        parts = list(inputs[:1])
    for part in parts:
        if isinstance(part, Tensor) and part.dim() == 2 and not (part.is_floating_point() or part.is_complex()):
            yield part
