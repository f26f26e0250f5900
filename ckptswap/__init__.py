"""ckptswap: checkpoints as maps from names to tensors, to diff, transplant, evaluate and sweep.

>>> import ckptswap as cs
>>> import numpy as np
>>> zeros = cs.Checkpoint.from_arrays({"head.weight": np.zeros((1, 2)), "head.bias": np.zeros(1)})
>>> ones = cs.Checkpoint.from_arrays({"head.weight": np.ones((1, 2)), "head.bias": np.ones(1)})
>>> cs.diff(zeros, cs.transplant(ones, zeros, kind="linear.bias")).summary["changed"]
1

`open`, `save`, `diff`, `transplant`, `evaluate`, `sweep` and `report` are the commands as functions
(`ckptswap.api`). They are loaded when they are first asked for, and torch when a model first has to run.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ckptswap.version import __version__

if TYPE_CHECKING:
    from ckptswap.api import diff, evaluate, open, report, save, sweep, transplant
    from ckptswap.checkpoint import Checkpoint
    from ckptswap.selection import Selection

__all__ = [
    "Checkpoint", "Selection", "__version__", "diff", "evaluate", "open", "report", "save", "sweep", "transplant",
]  # fmt: skip
_ELSEWHERE = {"Checkpoint": "ckptswap.checkpoint", "Selection": "ckptswap.selection"}


class _Package(ModuleType):
    """`ckptswap.diff` is a function, whatever has been imported; `from ckptswap.diff import …` finds the module.

    The import system sets each submodule as an attribute of its package, where it would hide the function.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in __all__ and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(import_module(_ELSEWHERE.get(name, "ckptswap.api")), name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__})


sys.modules[__name__].__class__ = _Package
