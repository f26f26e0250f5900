"""`torchvision:NAME`: torchvision's networks for classification and segmentation.

`weights` and `weights_backbone` are always None: the weights come from the checkpoint, and nothing is downloaded.
"""

from collections.abc import Mapping
from typing import Any

from ckptswap.errors import ModelError, near
from ckptswap.registry import Source, library
from ckptswap.task.callables import call

_WEIGHTS = ("weights", "weights_backbone")
_SLOW_TO_BEGIN = ("googlenet", "inception_v3")
"""They draw their first values from scipy's distributions, and warn of it."""


def built(name: str, args: Mapping[str, Any]) -> Any:
    """One of torchvision's networks. Raises `ModelError` for a name or arguments that do not exist."""
    models = library("torchvision").models
    segments = models.list_models(models.segmentation)
    known = [*models.list_models(models), *segments]
    if name not in known:
        elsewhere = name in models.list_models()
        what = "gives no classes and no masks" if elsewhere else "is not one of its models"
        remedy = near(name, known) or "classification and segmentation are what can be scored"
        raise ModelError(f"torchvision's {name!r} {what}", remedy=remedy)
    refused = next((key for key in args if key in _WEIGHTS and args[key] is not None), None)
    if refused is not None:
        raise ModelError(
            f"torchvision:{name} takes no argument {refused!r} here", remedy="the weights come from the checkpoint"
        )
    fixed = dict.fromkeys(_WEIGHTS[: 2 if name in segments else 1])
    if name in _SLOW_TO_BEGIN:
        fixed["init_weights"] = False
    return call(f"torchvision:{name}", models.get_model_builder(name), {**args, **fixed}, ModelError)


SOURCE = Source(built, libraries=("torchvision",), is_safe=True)
