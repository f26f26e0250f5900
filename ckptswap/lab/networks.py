"""The paper's two networks as plain modules, with a conv bias and batch norm throughout.

Unlike smp's, their convolutions keep the bias where batch norm follows, so that every kind the paper swaps exists.
Stages are `encoder.0`, `encoder.1`, …, then `decoder.0`, …, then `head`: `--layers encoder.3` works as written.
Inputs are (N, in_channels, H, W) floats, outputs (N, classes, H, W) logits. H and W must be divisible by
2**depth (U-Net), or by 4 (PSPNet).
"""

import inspect
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ckptswap.errors import ModelError, near


class ConvNorm(nn.Module):
    """A convolution, batch norm and ReLU."""

    def __init__(self, inputs: int, outputs: int, size: int = 3, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        padding = size // 2 * dilation
        self.conv1 = nn.Conv2d(inputs, outputs, size, stride, padding=padding, dilation=dilation)
        self.bn1 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn1(self.conv1(x)))


class DoubleConv(ConvNorm):
    """Twice a 3×3 convolution, batch norm and ReLU; keeps H and W unless the first has a stride."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__(inputs, outputs, stride=stride, dilation=dilation)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=dilation, dilation=dilation)
        self.bn2 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn2(self.conv2(super().forward(x))))


class UpStage(DoubleConv):
    """Doubles H and W by a transposed convolution, puts the skip beside it where there is one, convolves twice."""

    def __init__(self, inputs: int, outputs: int, skips: bool) -> None:
        super().__init__((1 + skips) * outputs, outputs)
        self.up = nn.ConvTranspose2d(inputs, outputs, 2, stride=2)

    def forward(self, x: Tensor, skip: Tensor | None) -> Tensor:  # type: ignore[override]
        x = self.up(x)
        return super().forward(x if skip is None else torch.cat([x, skip], dim=1))


class UNet(nn.Module):
    """U-Net: `depth` max-pools, `width` channels first, doubled at each pool. H and W divisible by 2**depth.

    With `skips` false all goes through the deepest stage; with them an auto-encoder can copy its input past it.
    Source: Ronneberger et al. 2015, arXiv:1505.04597; here with padding, batch norm, and one skip a stage.

    >>> UNet(width=4, depth=2)(torch.zeros(1, 1, 8, 12)).shape
    torch.Size([1, 1, 8, 12])
    """

    def __init__(
        self, in_channels: int = 1, classes: int = 1, width: int = 12, depth: int = 3, skips: bool = True
    ) -> None:
        super().__init__()
        self.skips = skips
        widths = [width * 2**stage for stage in range(depth + 1)]
        pairs = list(itertools.pairwise(widths))
        self.encoder = nn.ModuleList([DoubleConv(a, b) for a, b in [(in_channels, width), *pairs]])
        self.decoder = nn.ModuleList([UpStage(deep, shallow, skips) for shallow, deep in reversed(pairs)])
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips: list[Tensor] = []
        for stage in self.encoder:
            x = stage(F.max_pool2d(x, 2) if skips else x)
            skips.append(x)
        for stage, skip in zip(self.decoder, reversed(skips[:-1]), strict=True):
            x = stage(x, skip if self.skips else None)
        return self.head(x)


class Residual(DoubleConv):
    """A basic residual block (He et al. 2016) whose shortcut is a 1×1 convolution with batch norm."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__(inputs, outputs, stride, dilation)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride)
        self.bn3 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.bn3(self.shortcut(x)))


class PSPNet(nn.Module):
    """Pyramid scene parsing on a small residual backbone of stride 4. H and W divisible by 4.

    Train with 2 or more samples a batch: batch norm after the coarsest pooling sees one value a sample.
    `pyramid.0` … `pyramid.3` pool to 1, 2, 3 and 6 cells a side. Source: Zhao et al. 2017, arXiv:1612.01105.

    >>> PSPNet(width=4).eval()(torch.zeros(1, 1, 24, 32)).shape
    torch.Size([1, 1, 24, 32])
    """

    bins = (1, 2, 3, 6)

    def __init__(self, in_channels: int = 1, classes: int = 1, width: int = 16) -> None:
        super().__init__()
        first, second = ConvNorm(in_channels, width, stride=2), Residual(width, width)
        third, fourth = Residual(width, 2 * width, stride=2), Residual(2 * width, 4 * width, dilation=2)
        self.encoder = nn.ModuleList([first, second, third, fourth])
        self.pyramid = nn.ModuleList([ConvNorm(4 * width, width, size=1) for _ in self.bins])
        self.decoder = nn.ModuleList([ConvNorm((4 + len(self.bins)) * width, 2 * width)])
        self.head = nn.Conv2d(2 * width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        full = x.shape[-2:]
        for stage in self.encoder:
            x = stage(x)
        size = x.shape[-2:]
        pooled = [conv(F.adaptive_avg_pool2d(x, side)) for conv, side in zip(self.pyramid, self.bins, strict=True)]
        x = torch.cat([x, *[_resize(features, size) for features in pooled]], dim=1)
        for stage in self.decoder:
            x = stage(x)
        return _resize(self.head(x), full)


def _resize(x: Tensor, size: torch.Size) -> Tensor:
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


NETWORKS: Mapping[str, Callable[..., nn.Module]] = {"unet": UNet, "pspnet": PSPNet}


def build(name: str, **args: Any) -> nn.Module:
    """One of `NETWORKS`, freshly initialised from torch's global generator.

    Raises ModelError for another name, and for arguments that it does not take.

    >>> build("unet", width=2, depth=1).head
    Conv2d(2, 1, kernel_size=(1, 1), stride=(1, 1))
    """
    if name not in NETWORKS:
        remedy = near(name, NETWORKS) or f"use one of {', '.join(NETWORKS)}"
        raise ModelError(f"the lab has no network {name!r}", remedy=remedy)
    known = inspect.signature(NETWORKS[name]).parameters
    for key, value in args.items():
        if key not in known:
            remedy = near(key, known) or f"it takes {', '.join(known)}"
            raise ModelError(f"lab:{name} takes no argument {key!r}", remedy=remedy)
        if isinstance(known[key].default, bool):
            fault, remedy = "neither true nor false", f"write {key}=true"
            is_right = isinstance(value, bool)
        else:
            fault, remedy = "not a whole number from 1", f"write {key}=1 or more"
            is_right = type(value) is int and value >= 1
        if not is_right:
            raise ModelError(f"lab:{name}: {key}={value!r} is {fault}", remedy=remedy)
    return NETWORKS[name](**args)


def built(name: str, args: Mapping[str, Any]) -> nn.Module:
    """The network of `lab:NAME`. Raises as `build` does."""
    return build(name, **args)
