"""Weights of Keras as torch has them: the names of a layer's own tensors, and kernels turned round.

Keras keeps a dense kernel as (in, out) and a convolution's as (size…, in, out); torch as (out, in, size…). What a
layer is called is left to `--map` and `--match`.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ckptswap.checkpoint import Checkpoint
from ckptswap.entries import Entry, Tensor
from ckptswap.formats.hdf5 import LAYERS
from ckptswap.keras_roles import CELL, RECURRENT, ROLES, SEPARABLE, numbered_roles
from ckptswap.naming import split_name
from ckptswap.presets.rearranged import Arrange, rearranged
from ckptswap.renaming import renamed

_SEPARABLE = dict(zip(SEPARABLE, ("depthwise.weight", "pointwise.weight", "pointwise.bias"), strict=True))
_RECURRENT = {role: f"{name}_l0" for role, name in RECURRENT.items()}
_BIAS_HH = "bias_hh_l0"
_NUMBERED = re.compile(r"(.+)\.vars\.(\d+)", re.DOTALL)
_TWICE = re.compile(r"(.+)\.\1(?=\.|$)", re.DOTALL)  # Keras 2 names a layer's group and what is in it


class _Place(NamedTuple):
    """Where a tensor belongs: its layer, under Keras's name, and what it is there."""

    layer: str
    role: str


def as_torch(ours: Checkpoint, reference: Checkpoint) -> tuple[Checkpoint, str]:
    """A file of Keras under torch's names of a layer's tensors, its kernels laid out as torch's; what was done."""
    layers: dict[str, dict[str, Entry]] = defaultdict(dict)
    for name, place in _places(ours).items():
        layers[place.layer][place.role] = ours[name]
    made: list[Tensor] = []
    names: dict[str, str] = {}
    for layer, own in layers.items():
        for entry, name, arrange in _torch_layer(layer, own, reference):
            tensor = entry if arrange is None else rearranged(ours, entry.name, arrange)
            if entry.name in names:  # a second tensor of one of Keras's
                made.append(replace(tensor, name=name))
                continue
            names[entry.name] = name
            made += [tensor] if arrange else []
    kernels = f"; {len(made)} are turned round, (in, out) to (out, in)" if made else ""
    what = f"{ours.path} is taken under torch's names of a layer's tensors: {len(names)} of {len(ours)}{kernels}"
    return renamed(ours.holding(made), names), what


def _places(ours: Checkpoint) -> dict[str, _Place]:
    """What each tensor is; of those that can be told."""
    numbered: dict[str, dict[int, str]] = defaultdict(dict)
    found = {}
    for name in ours:
        if match := _NUMBERED.fullmatch(name):
            numbered[match[1]][int(match[2][:9])] = name
        else:
            layer, role = split_name(name)
            twice = _TWICE.match(layer)
            once = layer[len(twice[1]) + 1 :] if twice else layer
            found[name] = _Place(CELL.sub("", once), role)
    said = _said(ours.metadata)
    for path, own in numbered.items():
        for role, (_, name) in zip(numbered_roles(path, len(own)), sorted(own.items()), strict=False):
            found[name] = _Place(_called(CELL.sub("", path), said), role)
    return {name: found[name] for name in ours if name in found}


def _said(metadata: Mapping[str, str]) -> Mapping[str, str]:
    """What Keras 3 calls its groups."""
    return json.loads(metadata.get(LAYERS, "{}"))


def _called(path: str, said: Mapping[str, str]) -> str:
    """A layer by the names that its builder gave, in place of those of classes."""
    parts = path.split(".")
    ways = (".".join(parts[: at + 1]) for at in range(len(parts)))
    return ".".join(said.get(way, part) for way, part in zip(ways, parts, strict=True) if part != "layers")


def _torch_layer(
    layer: str, own: Mapping[str, Entry], reference: Checkpoint
) -> Iterator[tuple[Entry, str, Arrange | None]]:
    """Keras's tensors of a layer, torch's names for them, and how they are turned."""
    if "recurrent_kernel" in own:
        # Torch has no recurrent layer of convolutions.
        yield from _recurrent(layer, own) if len(own["recurrent_kernel"].shape) == 2 else ()
        return
    ends = _SEPARABLE if "pointwise_kernel" in own else ROLES
    for role, entry in own.items():
        if role not in ends:
            continue
        name = f"{layer}.{ends[role]}" if layer else ends[role]
        wanted = reference[name].shape if name in reference else None
        yield entry, name, _turned(role, entry.shape, own.get("bias"), wanted)


def _turned(
    role: str, shape: tuple[int, ...], bias: Entry | None, wanted: tuple[int, ...] | None
) -> Arrange | None:
    """How a tensor is turned; a kernel as the shape on the other side tells, else as its name and its bias do."""
    rank = len(shape)
    if role == "alpha" and set(shape[:-1]) == {1}:  # slopes that are shared along the other axes
        return np.ravel
    if "kernel" not in role:
        return None
    if rank == 2:
        return np.transpose
    if not 3 <= rank <= 5 or (bias is not None and len(bias.shape) != 1):
        return None  # a dense layer of several axes, as in attention
    each = (shape[-2] * shape[-1], 1, *shape[:-2])
    is_each = role == "depthwise_kernel" or (bias is not None and bias.shape == each[:1] != (shape[-1],))
    is_each = wanted == each if wanted in (each, (shape[-1], shape[-2], *shape[:-2])) else is_each
    return _depthwise if is_each else _convolution


def _convolution(kernel: np.ndarray) -> np.ndarray:
    return np.moveaxis(kernel, (-1, -2), (0, 1))


def _depthwise(kernel: np.ndarray) -> np.ndarray:
    return np.moveaxis(kernel, (-2, -1), (0, 1)).reshape(-1, 1, *kernel.shape[:-2])


def _recurrent(layer: str, own: Mapping[str, Entry]) -> Iterator[tuple[Entry, str, Arrange | None]]:
    """An LSTM's, a GRU's (whose gates come in another order) or a plain network's."""
    width, total = own["recurrent_kernel"].shape
    is_gru = total == 3 * width
    gates = _reset_first if is_gru else np.asarray
    for role, end in _RECURRENT.items():
        if (entry := own.get(role)) is None:
            continue
        if role != "bias":
            yield entry, f"{layer}.{end}", lambda values: gates(values.T)
        elif len(entry.shape) == 1 and not is_gru:
            yield entry, f"{layer}.{end}", None
        elif len(entry.shape) == 2:
            yield entry, f"{layer}.{end}", lambda values: gates(values[0])
            yield entry, f"{layer}.{_BIAS_HH}", lambda values: gates(values[1])


def _reset_first(rows: np.ndarray) -> np.ndarray:
    update, reset, new = np.split(rows, 3)
    return np.concatenate([reset, update, new])
