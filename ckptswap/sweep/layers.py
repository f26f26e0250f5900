"""In which order a model's layers run, and which of them batch norm follows."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.hooks import RemovableHandle

from ckptswap.checkpoint import Checkpoint
from ckptswap.task import Task

Hook = Callable[..., None]


def layer_order(task: Task, checkpoint: Checkpoint) -> list[str]:
    """The checkpoint's layers in the order in which a forward pass first calls them. One that is not called by
    itself (attention's output projection) has its place behind the one before it."""
    layers = list(dict.fromkeys(entry.layer for entry in checkpoint.values()))
    called: dict[str, int] = {}

    def begins(name: str, *_: Any) -> None:
        called.setdefault(name, len(called))

    _forward(task, begins, once=False)
    places: dict[str, tuple[int, int]] = {}
    before = -1
    for at, layer in enumerate(layers):
        before = called.get(layer, before)
        places[layer] = (before, at)
    return sorted(layers, key=places.__getitem__)


def layers_before_norm(task: Task) -> dict[str, str]:
    """Layers whose output goes straight into a batch norm → that batch norm's, as one forward pass has it."""
    given: dict[int, tuple[str, Tensor]] = {}
    normed: dict[str, str] = {}

    def receives(name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        if isinstance(module, _BatchNorm) and args and id(args[0]) in given:
            normed[given[id(args[0])][0]] = name

    def gives(name: str, module: nn.Module, args: tuple[Any, ...], output: object) -> None:
        if isinstance(output, Tensor) and not list(module.children()):
            given[id(output)] = (name, output)  # held, so that no other takes its id

    _forward(task, receives, gives)
    return normed


def _forward(task: Task, before: Hook, after: Hook | None = None, *, once: bool = True) -> None:
    """Run the model, telling of each module by its name before and after it runs; `once`: by one name only."""
    hooks: list[RemovableHandle] = []
    with task.pinned():
        try:
            for name, module in task.model.named_modules(remove_duplicate=once):
                if isinstance(module, torch.jit.ScriptModule):  # it lets nobody listen: the file's order stays
                    continue
                hooks.append(module.register_forward_pre_hook(partial(before, name)))
                if after is not None:
                    hooks.append(module.register_forward_hook(partial(after, name)))
            task.forward(task.first_inputs())
        finally:
            for hook in hooks:
                hook.remove()
