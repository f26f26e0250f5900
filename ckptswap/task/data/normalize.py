"""`--normalize MEAN/STD` and `--resize HxW`."""

import re
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from ckptswap.errors import UsageError


def normalizer(text: str | None) -> Callable[[Tensor], Tensor]:
    """From 'MEAN/STD', one value or one a channel, to a function of images (…, C, H, W); None changes nothing.

    Raises `UsageError` for a text that makes no sense; the function does for images that it does not fit.

    >>> normalizer("0.5/0.25")(torch.ones(1, 1, 1)).item()
    2.0
    """
    if text is None:
        return lambda image: image
    try:
        mean, std = (torch.tensor([float(number) for number in part.split(",")]) for part in text.split("/"))
    except ValueError:
        remedy = "write for example 0.5/0.25, or auto"
        raise UsageError(f"--normalize {text!r} is not MEAN/STD", remedy=remedy) from None
    if not (torch.isfinite(mean).all() and torch.isfinite(std).all() and (std > 0).all()):
        raise UsageError(
            f"--normalize {text!r} is not finite, or a STD is not above 0", remedy="check the numbers"
        )

    def normalize(image: Tensor) -> Tensor:
        channels = image.shape[-3] if image.dim() >= 3 else 1
        if {len(mean), len(std)} - {1, channels} or not image.is_floating_point():
            raise UsageError(
                f"--normalize {text} does not fit {image.dtype} images of {channels} channels",
                remedy="give one value, or one a channel",
            )
        return (image - mean.view(-1, 1, 1)) / std.view(-1, 1, 1)

    return normalize


def resizer(text: str | None) -> Callable[[Tensor], Tensor]:
    """From 'HxW', or one number for both, to a function of images or masks (…, H, W); None changes nothing.

    Floats are averaged (bilinear, antialiased), whole numbers taken from the nearest. Raises `UsageError` for a
    text that makes no sense.

    >>> resizer("2x3")(torch.ones(1, 4, 6)).shape, resizer("2")(torch.ones(4, 4, dtype=torch.int64)).shape
    (torch.Size([1, 2, 3]), torch.Size([2, 2]))
    """
    if text is None:
        return lambda image: image
    sides = re.fullmatch(r"([1-9]\d{0,4})(?:[x×]([1-9]\d{0,4}))?", text)
    if sides is None:
        raise UsageError(f"--resize {text!r} is not HxW", remedy="write for example 224 or 512x1024")
    size = int(sides[1]), int(sides[2] or sides[1])

    def resize(image: Tensor) -> Tensor:
        whole = image.reshape(1, -1, *image.shape[-2:])
        if image.is_floating_point():
            made = functional.interpolate(whole, size, mode="bilinear", antialias=True)
        else:
            made = functional.interpolate(whole.double(), size, mode="nearest-exact").to(image.dtype)
        return made.reshape(*image.shape[:-2], *size)

    return resize
