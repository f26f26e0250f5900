"""`--normalize auto`: the mean and standard deviation that the model's own configuration names. Nothing is
downloaded.

By the `preprocessor_config.json` (Hugging Face) or `config.json` (timm) in the checkpoint's folder, by timm's or
torchvision's name of the network, or by that of smp's encoder (smp itself would ask the network).
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ckptswap.errors import UsageError
from ckptswap.task.data.request import DataRequest

AUTO = "auto"
PROCESSOR = "preprocessor_config.json"


@dataclass(frozen=True)
class Normalization:
    """MEAN/STD for images in 0…1, as `--normalize` takes it, and where that was found."""

    text: str
    source: str

    @property
    def note(self) -> str:
        """What a reader should know of it."""
        return f"images are normalized by {self.text}, as {self.source} says"


def normalization_of(request: DataRequest) -> Normalization:
    """What `--normalize auto` means. Raises `UsageError` where nothing says it, or where it is for other values
    than ours."""
    kind, _, name = (request.spec.model or "").partition(":")
    by_name = _BY_NAME.get(kind)
    known = _by_folder(request) or (by_name(name, request.spec.model_args) if by_name else None)
    if known is None:
        raise UsageError(
            f"nothing says how images are normalized for {request.spec.model or 'the model'}",
            remedy="give --normalize MEAN/STD",
        )
    mean, std, source = known
    return Normalization("/".join(",".join(f"{value:.8g}" for value in part) for part in (mean, std)), source)


Known = tuple[Sequence[float], Sequence[float], str] | None
"""Mean, standard deviation, and who says so."""


def _by_folder(request: DataRequest) -> Known:
    """What a file beside the checkpoint says."""
    said = request.configuration(PROCESSOR)
    inner = said.get("image_processor")
    said = inner if isinstance(inner, dict) else said
    source = f"{PROCESSOR} in {request.home()}"
    if "image_mean" in said and "image_std" in said:
        if not said.get("do_normalize", True):
            return [0.0], [1.0], source
        factor = said.get("rescale_factor", 1 / 255) if said.get("do_rescale", True) else 1
        if type(factor) not in (int, float) or abs(factor * 255 - 1) > 1e-3:
            raise UsageError(
                f"{request.home()} wants images that are scaled by {factor!s:.9}, not to 0…1",
                remedy="give --normalize MEAN/STD",
            )
        return _checked(said["image_mean"], said["image_std"], source)
    trained = request.configuration().get("pretrained_cfg")
    if not isinstance(trained, Mapping) or "mean" not in trained or "std" not in trained:
        return None
    return _checked(trained["mean"], trained["std"], f"config.json in {request.home()}")


def _checked(mean: Any, std: Any, source: str) -> Known:
    """One number, or one a channel, of each. Raises `UsageError` for anything else."""
    parts = [list(part) if isinstance(part, list | tuple) else [part] for part in (mean, std)]
    numbers = [float(value) if type(value) in (int, float) else math.nan for part in parts for value in part]
    if not numbers or not all(map(math.isfinite, numbers)):
        fault = f"{source} gives the mean {mean!r:.60} and the standard deviation {std!r:.60}"
        raise UsageError(fault, remedy="give --normalize MEAN/STD")
    return parts[0], parts[1], source


def _smp(_: str, args: Mapping[str, Any]) -> Known:
    encoder = str(args.get("encoder_name", "resnet34"))
    plain = encoder.removeprefix("tu-").removeprefix("timm-")
    names = (plain, f"tf_{plain}".replace("-", "_"), _OF_TIMM.get(plain, f"legacy_{plain}"))
    return next(filter(None, map(_of_timm, names)), None) or _torchvision(plain, {})


_OF_TIMM = {
    "inceptionv4": "inception_v4",
    "inceptionresnetv2": "inception_resnet_v2",
    "se_resnet50": "legacy_seresnet50",
    "se_resnet101": "legacy_seresnet101",
    "se_resnet152": "legacy_seresnet152",
    "se_resnext50_32x4d": "legacy_seresnext50_32x4d",
    "se_resnext101_32x4d": "legacy_seresnext101_32x4d",
}
"""What timm calls encoders that smp has by older names."""


def _timm(name: str, _: Mapping[str, Any]) -> Known:
    return _of_timm(name)


def _of_timm(name: str) -> Known:
    from timm.models import get_pretrained_cfg

    try:
        said = get_pretrained_cfg(name, allow_unregistered=True)
    except RuntimeError:  # timm knows the network, but not these weights of it
        return None
    return (said.mean, said.std, f"timm for {name}") if said is not None else None


def _torchvision(name: str, _: Mapping[str, Any]) -> Known:
    from torchvision.models import get_model_weights

    try:
        weights: Iterable[Any] = get_model_weights(name)
    except ValueError:
        return None
    for chosen in reversed([own.transforms() for own in weights]):
        if hasattr(chosen, "mean") and hasattr(chosen, "std"):
            return chosen.mean, chosen.std, f"torchvision for {name}"
    return None


_BY_NAME: Mapping[str, Callable[[str, Mapping[str, Any]], Known]] = {
    "smp": _smp, "timm": _timm, "torchvision": _torchvision
}  # fmt: skip
