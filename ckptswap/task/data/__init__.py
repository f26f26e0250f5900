"""What a model is scored on: one file a source, found by name through the registry, or a folder that is known by
its look.

What needs torch is loaded when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ckptswap.task.data.loading import MEMORY, Batch, Data, Progress, load_data

__all__ = ["MEMORY", "Batch", "Data", "Progress", "load_data"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.loading"), name)
