"""What a score is: model + data + metrics. The only room that knows smp, timm and torchvision.

`TaskSpec` is pure data and needs no torch; the other names load it when they are first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ckptswap.task.spec import TaskSpec

if TYPE_CHECKING:
    from ckptswap.task.metrics import Metric
    from ckptswap.task.task import Measured, Task, load_task

__all__ = ["Measured", "Metric", "Task", "TaskSpec", "load_task"]

_HOME = {"Metric": "metrics", "Measured": "task", "Task": "task", "load_task": "task"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
