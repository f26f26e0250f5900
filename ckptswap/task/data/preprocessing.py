"""`--normalize auto`: the mean and standard deviation that the model's own configuration names. Nothing is
downloaded.

By smp's encoder, by timm's or torchvision's name of the network, or by the `preprocessor_config.json` (Hugging
Face) or `config.json` (timm) in the checkpoint's folder.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ckptswap.errors import UsageError
from ckptswap.task.data.request import DataRequest

AUTO = "auto"


def normalization_of(request: DataRequest) -> str:
    """MEAN/STD for images in 0…1, as `--normalize` takes it.

    Raises `UsageError` where nothing says it, or where it is for other values than ours.
    """
    kind, _, name = (request.spec.model or "").partition(":")
    by_name = _BY_NAME.get(kind)
    wanted = _by_folder(request) or (by_name(name, request.spec.model_args) if by_name else None)
    if wanted is None:
        raise UsageError(
            f"nothing says how images are normalized for {request.spec.model or 'the model'}",
            remedy="give --normalize MEAN/STD",
        )
    mean, std = wanted
    return "/".join(",".join(f"{float(value):.8g}" for value in part) for part in (mean, std))


Known = tuple[Sequence[float], Sequence[float]] | None


def _by_folder(request: DataRequest) -> Known:
    """What a file beside the checkpoint says."""
    said = request.configuration("preprocessor_config.json")
    said = said.get("image_processor", said)
    if "image_mean" in said and "image_std" in said:
        if not said.get("do_normalize", True):
            return [0.0], [1.0]
        factor = said.get("rescale_factor", 1 / 255)
        if not said.get("do_rescale", True) or abs(factor * 255 - 1) > 1e-3:
            raise UsageError(
                f"{request.home()} wants images that are scaled by {factor:g}, not to 0…1",
                remedy="give --normalize MEAN/STD",
            )
        return said["image_mean"], said["image_std"]
    return _pair(request.configuration().get("pretrained_cfg"))


def _pair(said: Any) -> Known:
    """timm's way of saying it."""
    if not isinstance(said, Mapping) or "mean" not in said or "std" not in said:
        return None
    return said["mean"], said["std"]


def _smp(_: str, args: Mapping[str, Any]) -> Known:
    """By timm's network of the encoder's name: smp would ask the network for its own settings."""
    encoder = str(args.get("encoder_name", "resnet34"))
    return _timm(encoder.removeprefix("tu-").removeprefix("timm-"), args)


def _timm(name: str, _: Mapping[str, Any]) -> Known:
    from timm.models import get_pretrained_cfg

    said = get_pretrained_cfg(name, allow_unregistered=True)
    return (said.mean, said.std) if said is not None else None


def _torchvision(name: str, _: Mapping[str, Any]) -> Known:
    from torchvision.models import get_model_weights

    try:
        [*weights] = get_model_weights(name)
    except ValueError:
        return None
    chosen = weights[-1].transforms() if weights else None
    return (chosen.mean, chosen.std) if chosen is not None and hasattr(chosen, "mean") else None


_BY_NAME: Mapping[str, Callable[[str, Mapping[str, Any]], Known]] = {
    "smp": _smp, "timm": _timm, "torchvision": _torchvision
}  # fmt: skip
