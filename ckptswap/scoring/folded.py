"""What several layers of a network are as one, equal but for rounding: a captured graph's shorter operations.

Batch norm in eval mode is an affine map of each channel, which a convolution before it can do as well. A map that
is made twice as large by repetition and then convolved by 3×3 is one transposed convolution by 4×4, of stride 2:
Shi et al. 2016, "Is the deconvolution layer the same as a convolutional layer?", arXiv:1609.07009.
"""

import torch
from torch import Tensor


def folded_weight(weight: Tensor, scale: Tensor | None, variance: Tensor, eps: float, channels: int) -> Tensor:
    """A convolution's weight with the batch norm behind it multiplied in; `channels` is the dimension of its
    output channels.

    >>> folded_weight(torch.ones(1, 1, 1, 1), torch.tensor([3.0]), torch.tensor([4.0]), 0.0, 0).item()
    1.5
    """
    shape = [-1 if at == channels else 1 for at in range(weight.dim())]
    return (weight.double() * _gain(scale, variance, eps).view(shape)).to(weight.dtype)


def folded_bias(
    bias: Tensor | None, scale: Tensor | None, shift: Tensor | None, mean: Tensor, variance: Tensor, eps: float
) -> Tensor:
    """A convolution's bias with the batch norm behind it worked in.

    >>> one = torch.ones(1)
    >>> folded_bias(None, one, one, 2 * one, 4 * one, 0.0).item()
    0.0
    """
    offset = (0.0 if bias is None else bias.double()) - mean.double()
    result = offset * _gain(scale, variance, eps)
    return (result if shift is None else result + shift.double()).to(mean.dtype)


def _gain(scale: Tensor | None, variance: Tensor, eps: float) -> Tensor:
    gain = (variance.double() + eps).rsqrt()
    return gain if scale is None else gain * scale.double()


def doubling(weight: Tensor, first: int, last: int) -> Tensor:
    """What transposed convolution (stride 2, padding 1) does to a map what a 3×3 one (padding 1) does to channels
    `first` to `last` of that map twice as large, each value four times: (out, in, 3, 3) → (in, out, 4, 4).

    >>> doubling(torch.ones(1, 2, 3, 3), 1, 2)[0, 0].tolist()[:2]
    [[1.0, 2.0, 2.0, 1.0], [2.0, 4.0, 4.0, 2.0]]
    """
    chosen = weight[:, first:last].flip(2, 3).transpose(0, 1)
    spread = torch.nn.functional.pad(chosen.double(), (1, 1, 1, 1))
    rows = spread[:, :, 1:] + spread[:, :, :-1]
    return (rows[..., 1:] + rows[..., :-1]).to(weight.dtype)


def without(weight: Tensor, first: int, last: int) -> Tensor:
    """A convolution's weight without the input channels `first` to `last`.

    >>> without(torch.ones(1, 5, 3, 3), 1, 3).shape
    torch.Size([1, 3, 3, 3])
    """
    return torch.cat([weight[:, :first], weight[:, last:]], 1)


def channels_last(weight: Tensor) -> Tensor:
    """The same values, those of one place together where it has two dimensions of space.

    >>> channels_last(torch.ones(2, 3, 5, 5)).stride()
    (75, 1, 15, 3)
    """
    return weight.contiguous(memory_format=torch.channels_last) if weight.dim() == 4 else weight
