"""Whole models in a pickle: a module that is not built still says which tensors are its own, and by which names.

`torch.save(model)` pickles objects of classes that only their authors' code can build. Their state is plain: maps
of parameters, of buffers and of modules, of which this makes what their `state_dict()` would be.
"""

from collections.abc import Iterator
from functools import cache, partial
from typing import Any

from ckptswap.errors import FormatError
from ckptswap.formats.inert import Inert
from ckptswap.formats.replacing import replaced

DEPTH_MOST = 100  # modules in modules
NAMES_MOST = 1_000_000  # of one model
LETTERS_MOST = 64 << 20  # of all its names: each has those of the modules above it
PARAMETERS, BUFFERS, MODULES, _NOT_SAVED = "_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"


class ModelTensors(dict[str, Any]):
    """The tensors of a module by their names, and the module's class."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind


def unfolded(content: Any, where: str) -> Any:
    """What a pickle holds, with each module in its maps, lists and tuples as the map of its tensors. Maps and
    lists are changed in place. Raises `FormatError` for modules in modules without end.

    >>> layer = Inert("torch.nn.modules.linear.Linear", {"_parameters": {"weight": 1.5}, "_modules": {}})
    >>> net = Inert("net.Net", {"_parameters": {}, "_buffers": {"n": 2}, "_modules": {"head": layer}})
    >>> unfolded({"ema": net, "epoch": 3}, "a.pt")
    {'ema': {'n': 2, 'head.weight': 1.5}, 'epoch': 3}
    """
    tensors_of = cache(partial(_state_of, where=where))  # a module is told from others by its identity

    def made(value: Inert | tuple[Any, ...]) -> Any:
        if is_module(value):
            return tensors_of(value)
        if isinstance(value, tuple) and any(map(is_module, value)):
            return [tensors_of(part) if is_module(part) else part for part in value]
        return None

    return replaced(content, made)


def is_module(value: Any) -> bool:
    """Whether a record is of a module of torch."""
    if not isinstance(value, Inert) or not isinstance(value.state, dict):
        return False
    return all(isinstance(value.state.get(part), dict) for part in (PARAMETERS, MODULES))


def _state_of(module: Inert, where: str) -> ModelTensors:
    tensors, letters = ModelTensors(module.name), 0
    waiting = [("", module, 0)]
    while waiting:
        above, inner, depth = waiting.pop()
        own = list(_own(inner))
        held = [(name, part) for name, part in _named(inner.state[MODULES]) if is_module(part)]
        letters += sum(len(above) + len(name) for name, _ in (*own, *held))  # before any of them is spelt
        names = len(tensors) + len(own) + len(waiting) + len(held)
        if depth > DEPTH_MOST or names > NAMES_MOST or letters > LETTERS_MOST:
            remedy = f"{DEPTH_MOST} in one another, and {NAMES_MOST:,} names, are the most"
            raise FormatError(f"{where} holds a model of too many modules", remedy=remedy)
        tensors.update((above + name, value) for name, value in own)
        waiting += [(f"{above}{name}.", part, depth + 1) for name, part in reversed(held)]
    return tensors


def _own(module: Inert) -> Iterator[tuple[str, Any]]:
    """A module's own parameters and buffers, but those that are never saved."""
    left = _texts(module.state.get(_NOT_SAVED))
    yield from ((name, value) for name, value in _named(module.state[PARAMETERS]) if value is not None)
    for name, value in _named(module.state.get(BUFFERS)):
        if value is not None and name not in left:
            yield name, value


def _named(part: Any) -> list[tuple[str, Any]]:
    """What a map holds under texts: other keys are a stranger's values, which nobody spells out."""
    return (
        [(name, value) for name, value in part.items() if isinstance(name, str)] if isinstance(part, dict) else []
    )


def _texts(of: Any) -> set[str]:
    """The texts in a set, which pickles put into it or give it as a list."""
    items = of.held if isinstance(of, Inert) else []
    parts = [part for item in items for part in (item if isinstance(item, list) else [item])]
    return {part for part in parts if isinstance(part, str)}
