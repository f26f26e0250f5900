"""What a tensor's name, and its siblings' names and shapes, tell: its layer and its kind.

Both come from names and shapes alone, so that a selection means the same in every command, whether or not the
model's code is at hand.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from sys import intern

from ckptswap.blocks import blocks
from ckptswap.keras_roles import TorchLayer, torch_layers
from ckptswap.roles import Siblings, bare, role_of

Shape = tuple[int, ...]

MATCHES = ("names", "shape-order")
"""The ways in which names of two sides are brought together."""

ALIASES: Mapping[str, tuple[str, ...]] = {
    "bn.stats": ("bn.running_mean", "bn.running_var"),
    "bn.affine": ("bn.weight", "bn.bias"),
}
"""Kinds that have a name together."""
FORMER: Mapping[str, tuple[str, ...]] = {
    "attention.in_proj_weight": ("attn.qkv.weight",),
    "attention.in_proj_bias": ("attn.qkv.bias",),
    **{f"attention.{part}_proj_weight": (f"attn.{part}.weight",) for part in "qkv"},
    **{f"attention.bias_{part}": (f"attn.bias_{part}",) for part in "kv"},
}
"""Names that kinds once had, by which they are selected still."""

_BN_ROLES = frozenset({"weight", "bias", "running_mean", "running_var", "num_batches_tracked"})
_RNN = re.compile(r"(weight_ih|weight_hh|weight_hr|bias_ih|bias_hh)(?:_l\d+(?:_reverse)?)?(_g|_v|_orig|_u)?")
_ATTENTION = {
    "in_proj_weight": "attn.qkv.weight", "in_proj_bias": "attn.qkv.bias", "bias_k": "attn.bias_k",
    "bias_v": "attn.bias_v", **{f"{part}_proj_weight": f"attn.{part}.weight" for part in "qkv"},
}  # fmt: skip
"""What `nn.MultiheadAttention` owns itself."""
_FUSED_EXPERTS = {
    "gate_up_proj": "mlp.gate_up",
    "down_proj": "mlp.down",
    "gate_proj": "mlp.gate",
    "up_proj": "mlp.up",
}
"""Parameters that hold a matrix for each expert."""
_LORA = re.compile(r"(?:.*\.)?(?:lora_(?:embedding_)?(?:(A|down)|(B|up)|magnitude_vector))(?:\..*)?", re.DOTALL)
# torch.nn.utils.weight_norm and spectral_norm, then their torch.nn.utils.parametrizations successors.
_REPARAMETRISED = frozenset({"weight_g", "weight_v", "weight_orig", "weight_bar", "weight_u"})
_PARAMETRIZATION = re.compile(r"(?:(.*)\.)?parametrizations\.([^.]+)(?:\.\d+)?\.(original[01]?|_u|_v)", re.DOTALL)
_PARAMETRIZED_ROLE = {"original0": "_g", "original1": "_v", "original": "_orig", "_u": "_u", "_v": "_v"}
_QUANTISED_PART = re.compile(
    r"(?:(.*)\.)?(weight\.(?:(?:nested_)?(?:absmax|quant_map)|quant_state\.[^.]+|_\w+(?:\._\w+)*))", re.DOTALL
)
"""bitsandbytes' and quanto's parts of a weight, which stand below its name."""
_QUANTISED = re.compile(
    r"qweight|qzeros|scales|g_idx|SCB|weight_format|weight|W_q|scale|zero|weight\..+|"
    r"(?:weight|input|output|_weight)_(?=\w*\Z)\w*(?:packed|scale|zero_point|shape|g_idx|qdata)\w*"
)
"""The roles of a quantised weight's parts: GPTQ, AWQ, bitsandbytes, compressed-tensors, HQQ, torchao, fp8."""
_MARKS = re.compile(r"qweight|SCB|weight_format|W_q|weight_packed|weight_scale\w*|_weight_qdata|weight\..+")
"""The roles of which one tells that a module is quantised."""
_EMBEDDING = re.compile(
    r"(?:.*_)?(?:emb|embed|embeds|embedding|embeddings|embedder|embed_tokens|embed_positions|embed_in|wte|wpe)\d*"
    r"|tok|tokens?|vocab|shared|(?:.*_)?relative_attention_bias"
)
_PRELU = re.compile(r"(?:.*_)?(?:p_?relu|l?relu|act|activation|nonlin)_?\d*")
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
    if "parametrizations." in name and (parametrized := _PARAMETRIZATION.fullmatch(name)):
        layer, tensor, part = parametrized.groups()
        return layer or "", tensor + _PARAMETRIZED_ROLE[part]
    if "weight." in name and (part := _QUANTISED_PART.fullmatch(name)):
        return part[1] or "", part[2]
    layer, _, role = name.rpartition(".")
    return layer, role


def is_counter(name: str) -> bool:
    """Whether it counts batch norm's batches, for training only; old files lack it, or hold it as a float.

    >>> is_counter("encoder.1.num_batches_tracked"), is_counter("encoder.1.running_mean")
    (True, False)
    """
    return split_name(name)[1] == "num_batches_tracked"


def coarse(kind: str) -> str:
    """The kind that says less, which a tensor has too: of attention's, an MLP's and the head's layers, linear's.

    >>> coarse("attn.q.weight"), coarse("conv.bias")
    ('linear.weight', 'conv.bias')
    """
    family, _, role = kind.rpartition(".")
    if family.startswith(("attn.", "mlp.")) or family == "head":
        return f"linear.{role}"
    return {"spectral_u": f"{family}.weight_u", "spectral_v": f"{family}.weight_v"}.get(
        role, f"norm.{role}" if family == "prelu" else f"conv.{role}" if family == "bilinear" else kind
    )


def classify(shapes: Mapping[str, Shape]) -> dict[str, tuple[str, str]]:
    """Layer and kind of every tensor, from names and shapes (Source: torch.nn's own naming of parameters).

    >>> classify({"c.weight": (4, 3, 3, 3), "c.bias": (4,)})["c.bias"]
    ('c', 'conv.bias')
    """
    modules: dict[str, dict[str, Shape]] = defaultdict(dict)
    places = {name: split_name(name) for name in shapes}
    for name, (layer, role) in places.items():
        modules[layer][role] = shapes[name]
    spelt = torch_layers(modules)
    for layer, own in spelt.items():
        modules[layer] |= dict(own.roles.values())
    siblings = Siblings(modules)
    marks = _marks(role for _, role in places.values())
    marked = {layer for layer, roles in modules.items() if not marks.isdisjoint(roles)}
    families = {layer: _family(layer, modules, siblings, is_quantised=layer in marked) for layer in modules}
    families |= {layer: own.family for layer, own in spelt.items() if own.family}
    known = {layer: layer for layer in modules}  # one text for all tensors of a layer: there may be 200,000

    def kind(name: str, layer: str, role: str) -> str:
        own = _role(spelt, layer, role)
        return intern(_kind(name, own, modules[layer], families[layer], is_quantised=layer in marked))

    return {name: (known[layer], kind(name, layer, role)) for name, (layer, role) in places.items()}


def _role(spelt: Mapping[str, TorchLayer], layer: str, role: str) -> str:
    """What torch calls a role."""
    return spelt[layer].roles[role][0] if layer in spelt and role in spelt[layer].roles else role


def _marks(roles: Iterable[str]) -> set[str]:
    """The roles among these that tell that a module is quantised."""
    return set(filter(_MARKS.fullmatch, set(roles)))


def blocks_of(layers: Mapping[str, str], shapes: Mapping[str, Shape]) -> dict[str, str | None]:
    """The block of every layer, None for one that is in none; from the layers and shapes of tensors by name.

    >>> names = [f"h.{at}.conv{part}.weight" for at in (0, 1) for part in (1, 2)]
    >>> blocks_of({name: split_name(name)[0] for name in names}, dict.fromkeys(names, (4, 3, 3, 3)))["h.1.conv2"]
    'h.1'
    """
    has_matrix: dict[str, bool] = {}
    for name, layer in layers.items():
        has_matrix[layer] = has_matrix.get(layer, False) or len(shapes[name]) > 1
    return blocks(has_matrix)


def quantised(names: Iterable[str]) -> list[tuple[str, ...]]:
    """The tensors that are one weight together, of each module that is quantised: its values say nothing without
    their scales and zero points.

    >>> quantised(["q.qweight", "q.qzeros", "q.scales", "q.bias", "fc.weight"])
    [('q.qweight', 'q.qzeros', 'q.scales')]
    """
    modules: dict[str, dict[str, str]] = defaultdict(dict)
    places = {name: split_name(name) for name in names}
    if not (marks := _marks(role for _, role in places.values())):
        return []
    for name, (layer, role) in places.items():
        if _QUANTISED.fullmatch(role):
            modules[layer][role] = name
    marked = (parts for parts in modules.values() if len(parts) > 1 and not marks.isdisjoint(parts))
    return [tuple(parts.values()) for parts in marked]


def _kind(name: str, role: str, roles: Mapping[str, Shape], family: str | None, *, is_quantised: bool) -> str:
    if "lora_" in name and (lora := _LORA.fullmatch(name)):
        return "lora.a" if lora[1] else "lora.b" if lora[2] else "lora.magnitude"
    if rnn := _RNN.fullmatch(role):
        return f"rnn.{rnn[1]}{rnn[2] or ''}"
    if role in _ATTENTION:
        return _ATTENTION[role]
    if role in _FUSED_EXPERTS and len(roles[role]) == 3:
        return f"{_FUSED_EXPERTS[role]}.weight"
    if family == "bn" and role in _BN_ROLES:
        return f"bn.{role}"
    if family and role in ("weight_u", "weight_v") and "weight_u" in roles:
        return f"{family}.spectral_{role[-1]}"
    if family and (role in ("weight", "bias") or role in _REPARAMETRISED):
        return f"{family}.{role}"
    if family and is_quantised and _QUANTISED.fullmatch(role):
        return f"{family}.weight"
    return f"other.{role}"


def _family(
    layer: str, modules: Mapping[str, Mapping[str, Shape]], siblings: Siblings, *, is_quantised: bool
) -> str | None:
    """bn, conv, linear or what a linear layer is for, embedding, norm; None where the weight says nothing."""
    roles = modules[layer]
    if "running_mean" in roles or "running_var" in roles:
        return "bn"
    if is_quantised:
        return role_of(layer, siblings, has_bias="bias" in roles) or "linear"
    weight = next(
        (roles[role] for role in ("weight", "weight_orig", "weight_bar", "weight_v") if role in roles), None
    )
    if weight is None:
        return None
    own = bare(layer).rpartition(".")[2].lower()
    if len(weight) == 1 or roles.get("bias") == weight:
        # LayerNorm over several dimensions has a bias of the same shape; elsewhere a bias has one dimension.
        return "prelu" if _is_prelu(layer, own, modules) else "norm"
    if len(weight) == 2:  # an embedding has no bias; a Linear that is called 'time_embed' usually has one
        if "bias" not in roles and _EMBEDDING.fullmatch(own):
            return "embedding"
        if own == "out_proj" and not modules.get(layer.rpartition(".")[0], {}).keys().isdisjoint(_ATTENTION):
            return "attn.o"  # of nn.MultiheadAttention, whatever that is called
        return role_of(layer, siblings, has_bias="bias" in roles) or "linear"
    if len(weight) == 3 and "bilinear" in own:
        return "bilinear"
    return "conv" if 3 <= len(weight) <= 5 else None


def _is_prelu(layer: str, own: str, modules: Mapping[str, Mapping[str, Shape]]) -> bool:
    """Whether slopes rather than a norm's scales: they have no bias, and a name of their own, or there is but one,
    or they come right behind a convolution or batch norm in a row of modules."""
    roles = modules[layer]
    if "bias" in roles or "weight" not in roles:
        return False
    if _PRELU.fullmatch(own) or roles["weight"] == (1,):
        return True
    if not (own.isdecimal() and len(own) < 5 and int(own)):
        return False
    before = modules.get(f"{layer[: -len(own)]}{int(own) - 1}", {})
    wide = before.get("running_mean", before.get("weight", ()))
    is_conv_or_bn = "running_mean" in before or len(wide) > 2
    return is_conv_or_bn and wide[:1] == roles["weight"]
