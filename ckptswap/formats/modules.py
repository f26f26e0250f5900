"""Whole models in a pickle: a module that is not built still says which tensors are its own, and by which names.

`torch.save(model)` pickles objects of classes that only their authors' code can build. Their state is plain: maps
of parameters, of buffers and of modules, of which this makes what their `state_dict()` would be.
"""

from typing import Any

from ckptswap.errors import FormatError
from ckptswap.formats.pickles import Inert

DEPTH_MOST = 100  # modules in modules
NAMES_MOST = 1_000_000  # of one model
_PARAMETERS, _BUFFERS, _MODULES, _NOT_SAVED = "_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"


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
    made: dict[int, ModelTensors] = {}
    top = [content]
    waiting: list[list[Any] | dict[Any, Any]] = [top]
    seen: set[int] = set()
    while waiting:
        holder = waiting.pop()
        for key, value in list(holder.items() if isinstance(holder, dict) else enumerate(holder)):
            if is_module(value):
                if id(value) not in made:
                    made[id(value)] = _state_of(value, where)
                holder[key] = made[id(value)]
            elif isinstance(value, tuple) and any(map(is_module, value)):
                holder[key] = [_state_of(part, where) if is_module(part) else part for part in value]
            elif isinstance(value, dict | list) and id(value) not in seen:
                seen.add(id(value))
                waiting.append(value)
    return top[0]


def is_module(value: Any) -> bool:
    """Whether a record is of a module of torch."""
    if not isinstance(value, Inert) or not isinstance(value.state, dict):
        return False
    return all(isinstance(value.state.get(part), dict) for part in (_PARAMETERS, _MODULES))


def _state_of(module: Inert, where: str) -> ModelTensors:
    tensors = ModelTensors(module.name)
    waiting = [("", module, 0)]
    while waiting:
        above, inner, depth = waiting.pop()
        _take(inner, above, tensors)
        held = [(name, part) for name, part in inner.state[_MODULES].items() if is_module(part)]
        waiting += [(f"{above}{name}.", part, depth + 1) for name, part in reversed(held)]
        if depth > DEPTH_MOST or len(tensors) + len(waiting) > NAMES_MOST:
            remedy = f"{DEPTH_MOST} in one another, and {NAMES_MOST:,} names, are the most"
            raise FormatError(f"{where} holds a model of too many modules", remedy=remedy)
    return tensors


def _take(module: Inert, above: str, tensors: ModelTensors) -> None:
    """A module's own parameters and buffers, but those that are never saved."""
    parameters, buffers = module.state[_PARAMETERS], module.state.get(_BUFFERS)
    tensors.update((f"{above}{name}", value) for name, value in parameters.items() if value is not None)
    if isinstance(buffers, dict):
        left = _texts(module.state.get(_NOT_SAVED))
        tensors.update((f"{above}{name}", value) for name, value in buffers.items()
                       if value is not None and name not in left)  # fmt: skip


def _texts(of: Any) -> set[str]:
    """The texts in a set, which pickles put into it or give it as a list."""
    items = of.held if isinstance(of, Inert) else []
    parts = [part for item in items for part in (item if isinstance(item, list) else [item])]
    return {part for part in parts if isinstance(part, str)}
