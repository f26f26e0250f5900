"""What a state dict holds beside plain tensors: values that are not read here, told from what has none.

A tuple of packed weights, a numpy array and a map of tensors are values of the model: not read, they are neither
compared nor converted, and every command has to say so. A number, a text, None or a dtype is baggage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ckptswap.formats.pickles import Inert, shown

DEPTH_MOST = 50
HOLDERS: Mapping[str, str] = {
    **{f"numpy.{core}.multiarray._reconstruct": "a numpy array" for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": "a numpy array" for core in ("core", "_core")},
    "numpy.ndarray": "a numpy array",
    "_codecs.encode": "bytes",
    "builtins.bytearray": "bytes",
    "torch.distributed.checkpoint.metadata.BytesStorageMetadata": "bytes that were not opened",
}
"""Objects that are values whatever their state is."""


def unread(entries: Mapping[Any, Any], is_tensor: Callable[[Any], bool]) -> dict[str, str]:
    """Name → what it is, of the entries that hold values and are no tensors themselves.

    >>> unread({"w": 1.5, "packed": (1.5, None), "epoch": 3}, lambda value: type(value) is float)
    {'packed': 'a tuple that holds a tensor'}
    """
    search = _Search(is_tensor)
    described = {_label(name): search.what(value) for name, value in entries.items() if not is_tensor(value)}
    return {name: what for name, what in described.items() if what}


def _label(name: Any) -> str:
    return name if isinstance(name, str) else f"<{shown(name)}>"


class _Search:
    """Looks into containers, each of them once, however often and deep they hold each other."""

    def __init__(self, is_tensor: Callable[[Any], bool]) -> None:
        self._is_tensor = is_tensor
        self._known: dict[int, str | None] = {}

    def what(self, value: Any) -> str | None:
        held = self._held(value, 0)
        if held is None or not isinstance(value, tuple | list | dict):
            return held
        kind = "map" if isinstance(value, dict) else type(value).__name__
        return f"a {kind} that holds {held}"

    def _held(self, value: Any, depth: int) -> str | None:
        """The first value inside; where there is no end of looking, there may be one."""
        if self._is_tensor(value):
            return "a tensor"
        if isinstance(value, bytes | bytearray):
            return "bytes" if value else None
        if isinstance(value, Inert) and value.name in HOLDERS:
            return HOLDERS[value.name]
        held_parts = parts(value)
        if held_parts and depth == DEPTH_MOST:
            return "more than can be looked through"
        if held_parts and id(value) not in self._known:
            self._known[id(value)] = "itself"
            held = (self._held(part, depth + 1) for part in held_parts)
            self._known[id(value)] = next(filter(None, held), None)
        return self._known.get(id(value)) if held_parts else None


def parts(value: Any) -> Iterable[Any]:
    """What a container holds."""
    if isinstance(value, dict):
        return value.values()
    if isinstance(value, Inert):
        return (value.state,) if value.state is not None else ()
    return value if isinstance(value, tuple | list) else ()
