"""In which order a model's layers run, and which of them batch norm follows."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.hooks import RemovableHandle

from ckptswap.checkpoint import Checkpoint
from ckptswap.task import Task


def layer_order(task: Task, checkpoint: Checkpoint) -> list[str]:
    """The checkpoint's layers in the order in which a forward pass first calls them.

    A layer that is not called by itself (attention's output projection, a stage that nothing reads) has its place
    behind the layer before it in the checkpoint.
    """
    layers = list(dict.fromkeys(entry.layer for entry in checkpoint.values()))
    called: dict[str, int] = {}

    def begins(name: str, *_: Any) -> None:
        called.setdefault(name, len(called))

    _run_hooked(
        task,
        (
            module.register_forward_pre_hook(partial(begins, name))
            for name, module in task.model.named_modules(remove_duplicate=False)
        ),
    )
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

    _run_hooked(
        task,
        (
            hook
            for name, module in task.model.named_modules()
            for hook in (
                module.register_forward_pre_hook(partial(receives, name)),
                module.register_forward_hook(partial(gives, name)),
            )
        ),
    )
    return normed


def _run_hooked(task: Task, hooks: Iterable[RemovableHandle]) -> None:
    """One forward pass, pinned, with these hooks, which are registered as they are drawn."""
    with task.pinned():
        registered = list(hooks)
        try:
            task.forward(task.first_inputs())
        finally:
            for hook in registered:
                hook.remove()
