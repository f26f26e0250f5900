"""What a tensor's name, and its siblings' names and shapes, tell: its layer and its kind.

Both come from names and shapes alone, so that a selection means the same in every command, whether or not the
model's code is at hand.
"""

import re
from collections import defaultdict
from collections.abc import Mapping

Shape = tuple[int, ...]

ALIASES: Mapping[str, tuple[str, ...]] = {
    "bn.stats": ("bn.running_mean", "bn.running_var"),
    "bn.affine": ("bn.weight", "bn.bias"),
}
"""Kinds that have a name together."""

_BN_ROLES = frozenset({"weight", "bias", "running_mean", "running_var", "num_batches_tracked"})
_RNN = re.compile(r"(weight_ih|weight_hh|weight_hr|bias_ih|bias_hh)(?:_l\d+(?:_reverse)?)?(_g|_v|_orig|_u)?")
_ATTENTION = frozenset(
    ["in_proj_weight", "in_proj_bias", "q_proj_weight", "k_proj_weight", "v_proj_weight", "bias_k", "bias_v"]
)
# torch.nn.utils.weight_norm and spectral_norm, then their torch.nn.utils.parametrizations successors.
_REPARAMETRISED = frozenset({"weight_g", "weight_v", "weight_orig", "weight_u"})
_PARAMETRIZATION = re.compile(r"(?:(.*)\.)?parametrizations\.([^.]+)(?:\.\d+)?\.(original[01]?|_u|_v)", re.DOTALL)
_PARAMETRIZED_ROLE = {"original0": "_g", "original1": "_v", "original": "_orig", "_u": "_u", "_v": "_v"}
_EMBEDDING = re.compile(r"(?:.*_)?(?:emb|embed|embeds|embedding|embeddings|embedder|embed_tokens|wte|wpe)\d*")
_DIGITS = re.compile(r"([0-9]+)")


def natural_key(text: str) -> tuple[tuple[int, str, str], ...]:
    """A sort key by which numbers inside a name, of any length, count as numbers.

    >>> sorted(["layer10", "layer2"], key=natural_key)
    ['layer2', 'layer10']
    """
    # The longer number is the larger. Python refuses to read one of 5,000 digits, which a file may hold.
    return tuple(
        (len(plain := part.lstrip("0")), plain, part) if at % 2 else (0, part, "")
        for at, part in enumerate(_DIGITS.split(text))
    )


def split_name(name: str) -> tuple[str, str]:
    """The layer that owns a tensor and the tensor's role in it.

    >>> split_name("encoder.0.conv1.weight"), split_name("conv.parametrizations.weight.original0")
    (('encoder.0.conv1', 'weight'), ('conv', 'weight_g'))
    """
    if parametrized := _PARAMETRIZATION.fullmatch(name):
        layer, tensor, part = parametrized.groups()
        return layer or "", tensor + _PARAMETRIZED_ROLE[part]
    layer, _, role = name.rpartition(".")
    return layer, role


def is_counter(name: str) -> bool:
    """Whether it counts batch norm's batches, for training only; old files lack it, or hold it as a float.

    >>> is_counter("encoder.1.num_batches_tracked"), is_counter("encoder.1.running_mean")
    (True, False)
    """
    return split_name(name)[1] == "num_batches_tracked"


def classify(shapes: Mapping[str, Shape]) -> dict[str, tuple[str, str]]:
    """Layer and kind of every tensor, from names and shapes (Source: torch.nn's own naming of parameters).

    >>> classify({"c.weight": (4, 3, 3, 3), "c.bias": (4,)})["c.bias"]
    ('c', 'conv.bias')
    """
    modules: dict[str, dict[str, Shape]] = defaultdict(dict)
    places = {name: split_name(name) for name in shapes}
    for name, (layer, role) in places.items():
        modules[layer][role] = shapes[name]
    families = {layer: _family(layer, roles) for layer, roles in modules.items()}
    return {name: (layer, _kind(role, families[layer])) for name, (layer, role) in places.items()}


def _kind(role: str, family: str | None) -> str:
    if rnn := _RNN.fullmatch(role):
        return f"rnn.{rnn[1]}{rnn[2] or ''}"
    if role in _ATTENTION:
        return f"attention.{role}"
    if family == "bn" and role in _BN_ROLES:
        return f"bn.{role}"
    if family and (role in ("weight", "bias") or role in _REPARAMETRISED):
        return f"{family}.{role}"
    return f"other.{role}"


def _family(layer: str, roles: Mapping[str, Shape]) -> str | None:
    """bn, conv, linear, embedding or norm; None for a module whose weight says nothing."""
    if "running_mean" in roles or "running_var" in roles:
        return "bn"
    weight = roles.get("weight", roles.get("weight_orig", roles.get("weight_v")))
    if weight is None:
        return None
    if len(weight) == 1 or roles.get("bias") == weight:
        return "norm"  # LayerNorm over several dimensions has a bias of the same; elsewhere a bias has one
    if len(weight) == 2:  # an embedding has no bias; a Linear that is called 'time_embed' usually has one
        is_embedding = "bias" not in roles and _EMBEDDING.fullmatch(layer.rpartition(".")[2].lower())
        return "embedding" if is_embedding else "linear"
    return "conv" if 3 <= len(weight) <= 5 else None
