"""ckptswap: checkpoints as maps from names to tensors, to diff, transplant, evaluate and sweep.

>>> import ckptswap as cs
>>> import numpy as np
>>> zeros = cs.Checkpoint.from_arrays({"head.weight": np.zeros((1, 2)), "head.bias": np.zeros(1)})
>>> ones = cs.Checkpoint.from_arrays({"head.weight": np.ones((1, 2)), "head.bias": np.ones(1)})
>>> cs.diff(zeros, cs.transplant(ones, zeros, kind="linear.bias")).summary["changed"]
1

The commands are functions here (`ckptswap.api`): `show`, `diff`, `transplant`, `evaluate`, `sweep`, `report`,
`plot`, `select`, `convert`, `verify`, `train`, `demo`, `reproduce`; beside them `open` and `save`, and what a
command does for a flag or for more arguments: `diff3`, `sweep_both`, `compare`. They are loaded when they are
first asked for, and torch when a model first has to run.
"""

import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ckptswap.version import __version__
from ckptswap.waiting import let_waiting_threads_sleep

if TYPE_CHECKING:
    # isort: off
    from ckptswap.api import compare, convert, demo, diff, diff3, evaluate, explain, open, plot, report, reproduce
    from ckptswap.api import save, select, show, sweep, sweep_both, train, transplant, verify
    from ckptswap.checkpoint import Checkpoint
    from ckptswap.selection import Selection

__all__ = [
    "Checkpoint", "Selection", "__version__", "compare", "convert", "demo", "diff", "diff3", "evaluate", "explain",
    "open", "plot", "report", "reproduce", "save", "select", "show", "sweep", "sweep_both", "train", "transplant",
    "verify",
]  # fmt: skip
_ELSEWHERE = {"Checkpoint": "ckptswap.checkpoint", "Selection": "ckptswap.selection"}
_ROOMS = ("diff", "report", "show", "sweep", "transplant", "verify")
"""Modules of ours that have the name of a function; the import system makes each an attribute of this package, as
which it is that `function`."""


def _api() -> ModuleType:
    """The functions; from now on results show themselves, and a notebook hears what they tell."""
    import_module("ckptswap.report.display").shows_itself()
    import_module("ckptswap.notebook").listens_in_notebooks()
    return import_module("ckptswap.api")


class function:
    """One of the functions above that has the name of a module of ours, as a value: it is called and documented as
    the function, and has what is in the module (`ckptswap.sweep.runner`)."""

    __slots__ = ("_module",)

    def __init__(self, module: ModuleType) -> None:
        object.__setattr__(self, "_module", module)

    @property
    def __dict__(self) -> dict[str, Any]:  # type: ignore[override]
        """What is in the module: who replaces one of its names looks there for what to put back."""
        return vars(self._module)

    def __call__(self, *args: Any, **how: Any) -> Any:
        return self._function(*args, **how)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self._module, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._module, name)

    def __get__(self, owner: object, kind: object = None) -> "function":
        return self  # by this it is a routine to `help`

    def __repr__(self) -> str:
        return f"<function ckptswap.{self.__name__}>"

    def __dir__(self) -> list[str]:
        return dir(self._module)

    @property
    def __name__(self) -> str:
        return self._module.__name__.rpartition(".")[2]

    @property
    def __signature__(self) -> Any:
        return _api().signature_of(self._function)

    @property
    def __doc__(self) -> str | None:  # type: ignore[override]
        return _api().doc_of(self._function)

    @property
    def _function(self) -> Callable[..., Any]:
        return getattr(_api(), self.__name__)


class _Package(ModuleType):
    """Loads what is asked for, when it is asked for."""

    def __setattr__(self, name: str, value: object) -> None:
        if name in _ROOMS and isinstance(value, ModuleType):
            value = function(value)
        super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        if name in _ROOMS:
            import_module(f"ckptswap.{name}")  # which sets it
            return vars(self)[name]
        if name in __all__:
            return getattr(import_module(_ELSEWHERE[name]) if name in _ELSEWHERE else _api(), name)
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__})


let_waiting_threads_sleep()  # in every process of ours, since each begins here, and torch comes later
sys.modules[__name__].__class__ = _Package
