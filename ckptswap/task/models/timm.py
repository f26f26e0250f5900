"""`timm:NAME`: timm's networks, and the folders that its `save_pretrained` writes.

`pretrained` is always False: the weights come from the checkpoint, and nothing is downloaded.
"""

from collections.abc import Mapping
from typing import Any

from ckptswap.errors import ModelError, near
from ckptswap.registry import Source, library
from ckptswap.task.callables import call

_FROM_ELSEWHERE = ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir")
"""Arguments by which timm would open files or ask the network."""


def built(name: str, args: Mapping[str, Any]) -> Any:
    """One of timm's networks. Raises `ModelError` for a name or arguments that do not exist."""
    timm = library("timm")
    # timm would follow names such as `hf-hub:…`; a file's metadata must not send us anywhere.
    if name.partition(".")[0] not in timm.list_models():
        remedy = near(name, timm.list_models()) or "see timm.list_models()"
        raise ModelError(f"timm has no model {name!r}", remedy=remedy)
    refused = next((key for key in args if key in _FROM_ELSEWHERE), None)
    if refused is not None:
        raise ModelError(
            f"timm:{name} takes no argument {refused!r} here", remedy="the weights come from the checkpoint"
        )
    return call(f"timm:{name}", timm.create_model, {"model_name": name, **args, "pretrained": False}, ModelError)


def spec_of(config: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """The spec and arguments that `save_pretrained`'s config.json means; None where it names no architecture.

    >>> spec_of({"architecture": "resnet18", "num_classes": 3, "pretrained_cfg": {"input_size": [1, 64, 64]}})
    ('timm:resnet18', {'in_chans': 1, 'num_classes': 3})
    """
    name, trained = config.get("architecture"), config.get("pretrained_cfg")
    if not isinstance(name, str):
        return None
    trained = trained if isinstance(trained, Mapping) else {}
    args: dict[str, Any] = {}
    size = trained.get("input_size")
    if isinstance(size, list) and len(size) == 3:
        args = {"in_chans": size[0]} | ({"img_size": size[1:]} if trained.get("fixed_input_size") else {})
    args |= {key: config[key] for key in ("num_classes", "global_pool") if key in config}
    own = config.get("model_args")
    return f"timm:{name}", {**args, **(own if isinstance(own, Mapping) else {})}


SOURCE = Source(built, libraries=("timm",), is_safe=True)
