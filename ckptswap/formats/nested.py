"""The tensors of a state dict that lie deeper, in its maps, lists and tuples: each is named by the way to it, with
dots, as torch itself names what lies in modules."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ckptswap.entries import NAME_MOST
from ckptswap.formats.inert import shown

OPAQUE = "_extra_state"
"""How the names end under which modules keep what is nobody else's to read: torch's own."""
DEPTH_MOST = 50
LOOKED_AT = 200_000  # values in containers, which may hold each other many times

Made = Callable[[Any], Any]
"""Gives the tensor that a value stands for, if it does, else the value."""


class _TooMuchError(Exception):
    """There is no end of looking."""


def spread(entries: Mapping[Any, Any], is_value: Callable[[Any], bool], made: Made) -> dict[Any, Any]:
    """The values by name, with those in containers in their place. A container stays as it is where it holds no
    tensor, more than can be looked through, or what would have a name that is taken.

    >>> content = {"w": 1.5, "head": {"a": [2.5, 3]}, "b": [4.5], "b.0": 5, "_extra_state": [6.5]}
    >>> spread(content, lambda value: type(value) is float, lambda value: value)
    {'w': 1.5, 'head.a.0': 2.5, 'head.a.1': 3, 'b': [4.5], 'b.0': 5, '_extra_state': [6.5]}
    """
    looked, named = _Looked(made), dict[Any, Any]()
    for name, value in entries.items():
        inside = looked.inside(name, value) if _is_open(name, value) else {name: made(value)}
        is_free = not any(way in entries or way in named for way in inside if way != name)
        named |= inside if is_free and any(map(is_value, inside.values())) else {name: value}
    return named


def _is_open(name: Any, value: Any) -> bool:
    return isinstance(value, dict | list | tuple) and isinstance(name, str) and not name.endswith(OPAQUE)


class _Looked:
    """Looks into containers, as long as there is an end of it."""

    def __init__(self, made: Made) -> None:
        self.made, self.left = made, LOOKED_AT

    def inside(self, name: str, value: Any) -> dict[str, Any]:
        """What a container holds, by the ways to it; nothing where that cannot be told, or two have one name."""
        try:
            ways = list(self._ways(name, value, 0))
        except _TooMuchError:
            return {}
        named = dict(ways)
        return named if len(named) == len(ways) else {}

    def _ways(self, way: str, value: Any, depth: int) -> Iterator[tuple[str, Any]]:
        if not isinstance(value, dict | list | tuple):
            yield way, self.made(value)
            return
        self.left -= len(value)
        if depth == DEPTH_MOST or self.left < 0 or len(way) > NAME_MOST:
            raise _TooMuchError
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from self._ways(f"{way}.{shown(key, NAME_MOST)}", part, depth + 1)
