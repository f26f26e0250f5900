"""Layers as torch itself runs them, where a trace would take them apart into operations that round otherwise.

- A linear layer over contiguous tensors of more than three dimensions is one operation, `addmm`; a trace makes a
  product and a sum of it.
- A GRU computes its gates in place, in slices of one tensor; without writes, each has memory of its own. There
  other elements fall together into one vector instruction, and torch's sigmoid rounds these otherwise than those
  that are left over at the end of a row.
- Layers over packed sentences read the lengths in C++, where fake tensors have none.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode

_ATEN = torch.ops.aten
_LAYERS = ("gru", "lstm", "rnn_tanh", "rnn_relu")


class PlainLayers(TorchFunctionMode):
    """In here such layers, and the padding of packed sentences, are traced as what torch runs without a trace."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", None)
        if kwargs:
            return func(*args, **kwargs)
        if func is linear and len(args) == 3 and args[2] is not None and args[0].dim() > 3:
            return _fused(*args) if args[0].is_contiguous() else func(*args)
        if name in _LAYERS:
            is_packed = not isinstance(args[3], bool)
            if is_packed or name == "gru":
                return _whole(name, args, is_packed)
        if name == "_pad_packed_sequence":
            data, sizes, *how = args
            return tuple(padded(data, sizes, *how, int(sizes[0])))
        return func(*args)


def _fused(inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    rows = torch.addmm(bias, inputs.view(-1, inputs.shape[-1]), weight.t())
    return rows.view(*inputs.shape[:-1], len(weight))


def _whole(name: str, args: tuple[Any, ...], is_packed: bool) -> Any:
    """What `torch.gru` and its like give for these arguments, of either signature."""
    inputs, (state, weights, *how) = args[: 1 + is_packed], args[1 + is_packed :]
    states = [state] if isinstance(state, Tensor) else list(state)
    output, *last = recurrent(name, list(inputs), states, list(weights), *how[:5], is_packed or how[5])
    return (output, *last)


@torch.library.custom_op("ckptswap::recurrent", mutates_args=())
def recurrent(
    name: str,
    inputs: Sequence[Tensor],
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
    has_biases: bool,
    layers: int,
    dropout: float,
    train: bool,
    both_ways: bool,
    batch_first: bool,
) -> list[Tensor]:
    """All layers of an `nn.RNNBase` over padded sentences, or packed ones and their `batch_sizes`: torch's own."""
    state = list(states) if name == "lstm" else states[0]
    how = [has_biases, layers, dropout, train, both_ways]
    if len(inputs) == 2:
        return list(getattr(_ATEN, name).data(*inputs, state, weights, *how))
    return list(getattr(_ATEN, name).input(*inputs, state, weights, *how, batch_first))


@recurrent.register_fake
def _(name: Any, inputs: Any, states: Any, weights: Any, has_biases: Any, layers: Any, dropout: Any, train: Any,
      both_ways: Any, batch_first: Any) -> list[Tensor]:  # fmt: skip
    width = states[0].shape[-1] * (1 + both_ways)
    is_turned = len(inputs) == 1 and batch_first
    shape = (inputs[0].transpose(0, 1) if is_turned else inputs[0]).shape
    output = inputs[0].new_empty((*shape[:-1], width))
    return [output.transpose(0, 1) if is_turned else output, *(state.new_empty(state.shape) for state in states)]


@torch.library.custom_op("ckptswap::padded", mutates_args=())
def padded(
    data: Tensor, sizes: Tensor, batch_first: bool, value: float, length: int, samples: int
) -> list[Tensor]:
    """Packed sentences as a padded batch of so many `samples`, and their lengths: torch's own."""
    return list(_ATEN._pad_packed_sequence.default(data, sizes, batch_first, value, length))


@padded.register_fake
def _(data: Any, sizes: Any, batch_first: Any, value: Any, length: Any, samples: Any) -> list[Tensor]:
    output = data.new_empty((max(length, sizes.shape[0]), samples, *data.shape[1:]))
    return [output.transpose(0, 1) if batch_first else output, sizes.new_empty((samples,))]
