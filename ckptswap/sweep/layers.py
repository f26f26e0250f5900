"""In which order a model's layers run."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from ckptswap.checkpoint import Checkpoint
    from ckptswap.task import Task


def layer_order(task: Task, checkpoint: Checkpoint) -> list[str]:
    """The checkpoint's layers in the order in which a forward pass first calls them.

    A layer that is not called by itself (attention's output projection, a stage that nothing reads) has its place
    behind the layer before it in the checkpoint.
    """
    layers = list(dict.fromkeys(entry.layer for entry in checkpoint.values()))
    called: dict[str, int] = {}
    with task.pinned():
        _run_with(task.model, lambda name: called.setdefault(name, len(called)), task)
    places: dict[str, tuple[int, int]] = {}
    before = -1
    for at, layer in enumerate(layers):
        before = called.get(layer, before)
        places[layer] = (before, at)
    return sorted(layers, key=places.__getitem__)


def _run_with(model: nn.Module, told: Callable[[str], object], task: Task) -> None:
    hooks = [
        module.register_forward_pre_hook(partial(_tell, told, name)) for name, module in model.named_modules()
    ]
    try:
        task.forward(task.first_inputs())
    finally:
        for hook in hooks:
            hook.remove()


def _tell(told: Callable[[str], object], name: str, *_: Any) -> None:
    told(name)
