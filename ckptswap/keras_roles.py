"""What Keras and TensorFlow call a layer's own tensors, and what torch calls them."""

import re
from collections.abc import Mapping
from typing import NamedTuple

Shape = tuple[int, ...]

ROLES: Mapping[str, str] = {
    "kernel": "weight", "depthwise_kernel": "weight", "pointwise_kernel": "weight", "embeddings": "weight",
    "gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var",
    "alpha": "weight", "bias": "bias",
}  # fmt: skip
SEPARABLE = ("depthwise_kernel", "pointwise_kernel", "bias")
RECURRENT: Mapping[str, str] = {"kernel": "weight_ih", "recurrent_kernel": "weight_hh", "bias": "bias_ih"}
ORDER: Mapping[str, tuple[str, ...]] = {
    "dense": ("kernel", "bias"), "embedding": ("embeddings",), "p_re_lu": ("alpha",),
    **{f"{kind}conv{rank}d{end}": ("kernel", "bias") for kind in ("", "depthwise_") for rank in (1, 2, 3)
       for end in ("", "_transpose")},
    **dict.fromkeys(["separable_conv1d", "separable_conv2d"], SEPARABLE),
    **dict.fromkeys(["layer_normalization", "group_normalization"], ("gamma", "beta")),
    **dict.fromkeys(["lstm", "gru", "simple_rnn"], tuple(RECURRENT)),
    "batch_normalization": ("gamma", "beta", "moving_mean", "moving_variance"),
}  # fmt: skip
"""In which order Keras 3 numbers a layer's tensors, by its class."""
_TELLING = frozenset(["moving_variance", "recurrent_kernel", "embeddings", "depthwise_kernel", "pointwise_kernel"])
"""Roles that only these libraries use; a `kernel` or a `gamma` stands in files of torch too."""
_FAMILIES = {"embeddings": "embedding", "alpha": "prelu"}
"""What a layer is that has such a tensor."""
_COUNT, CELL = re.compile(r"_\d+$"), re.compile(r"\.(\w+_)?cell$")
NUMBERED = ".vars"


class TorchLayer(NamedTuple):
    """A layer's tensors as torch would have them, by their roles in the file: torch's role and shape; and what the
    layer is, where that is known."""

    roles: Mapping[str, tuple[str, Shape]]
    family: str | None = None


def numbered_roles(path: str, count: int) -> tuple[str, ...]:
    """What the tensors are that Keras 3 numbers below a layer's path, of which there are so many.

    >>> numbered_roles("layers.conv2d_1", 2), numbered_roles("layers.batch_normalization", 3)
    (('kernel', 'bias'), ())
    """
    kind = _COUNT.sub("", CELL.sub("", path).rpartition(".")[2])
    roles = ORDER.get(kind, ())
    if kind == "batch_normalization" and count < len(roles):
        return roles[2:] if count == 2 else ()  # of three, the first is a scale or a shift
    return ("depthwise_kernel", *roles[1:]) if kind.startswith("depthwise_") else roles


def torch_layers(modules: Mapping[str, Mapping[str, Shape]]) -> dict[str, TorchLayer]:
    """The layers of a file of Keras as torch would have them; none where nothing tells that it is such a file.

    >>> torch_layers({"c": {"kernel": (3, 3, 2, 8), "bias": (8,)}, "ls": {"gamma": (8,)}})["c"].roles
    {'kernel': ('weight', (8, 2, 3, 3)), 'bias': ('bias', (8,))}
    """
    own = {layer: roles for layer in modules if (roles := _keras_roles(layer, modules[layer]))}
    if not any(_tells(layer, roles, modules[layer]) for layer, roles in own.items()):
        return {}
    return {layer: _translated(roles, modules[layer]) for layer, roles in own.items()}


def _keras_roles(layer: str, shapes: Mapping[str, Shape]) -> dict[str, str]:
    """A layer's roles in the file, and Keras's names for them."""
    if layer.endswith(NUMBERED) and all(map(str.isdecimal, shapes)):
        roles = numbered_roles(layer.removesuffix(NUMBERED), len(shapes))
        return dict(zip(sorted(shapes, key=lambda number: int(number[:9])), roles, strict=False))
    has_norm = {"gamma", "beta"} <= shapes.keys() or "moving_variance" in shapes
    left = {"alpha"} | (set() if has_norm else {"gamma", "beta"})
    named = {role: role for role in shapes if role in ROLES or role in RECURRENT}
    return {} if named.keys() <= {"bias", *left} else {role: role for role in named if role not in left}


def _tells(layer: str, roles: Mapping[str, str], shapes: Mapping[str, Shape]) -> bool:
    kernel, bias = shapes.get("kernel", ()), shapes.get("bias")
    has_bias = len(kernel) > 1 and bias == kernel[-1:]
    return has_bias or layer.endswith(NUMBERED) or not _TELLING.isdisjoint(roles)


def _translated(roles: Mapping[str, str], shapes: Mapping[str, Shape]) -> TorchLayer:
    names = RECURRENT if "recurrent_kernel" in roles.values() else ROLES
    turned = {role: shapes[role] for role in roles}
    for role, own in roles.items():
        if own.endswith("kernel"):
            turned[role] = (*reversed(shapes[role][-2:]), *shapes[role][:-2])
    family = next((_FAMILIES[own] for own in roles.values() if own in _FAMILIES), None)
    return TorchLayer({role: (names[own], turned[role]) for role, own in roles.items() if own in names}, family)
