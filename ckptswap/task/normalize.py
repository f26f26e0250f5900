"""`--normalize MEAN/STD`."""

from collections.abc import Callable

import torch
from torch import Tensor

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
        raise UsageError(f"--normalize {text!r} is not MEAN/STD", remedy="write for example 0.5/0.25") from None
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
