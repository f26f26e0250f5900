"""`FILE::KEY`: the way to one map of tensors among all that a file holds. Dots go into what a key holds, a key may
itself have dots, and numbers count through lists; so a file with several networks is as many checkpoints.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from ckptswap.entries import SIGN, Unread
from ckptswap.errors import FormatError, near
from ckptswap.formats.inert import Inert, shown
from ckptswap.shell import quoted

LETTERS_MOST, DEPTH_MOST, LOOKED_AT, NAMED_MOST = 200, 8, 100_000, 8

IsTensor = Callable[[Any], bool]


class Descent(NamedTuple):
    """One step down: what was gone into, and by which of its keys."""

    container: Any
    key: Any


def is_value(value: Any, is_tensor: IsTensor) -> bool:
    """Whether it is a tensor, be it one that is not read."""
    return isinstance(value, Unread) or is_tensor(value)


def children(value: Any) -> Iterable[tuple[Any, Any]]:
    """What a map or a list holds, and by which key; nothing for all else."""
    if isinstance(value, Inert):
        value = value.state
    if isinstance(value, dict):
        return value.items()
    return enumerate(value) if isinstance(value, list | tuple) else ()


def follow(content: Any, key: str, where: str) -> tuple[list[Descent], Any]:
    """The steps that a key takes in what a file holds, and where they end. Raises `FormatError` with near keys.

    Where several keys fit, the longest is taken.

    >>> steps, held = follow({"a.b": {"c": [5, 6]}, "a": 0}, "a.b.c.1", "a.pt")
    >>> [step.key for step in steps], held
    (['a.b', 'c', 1], 6)
    """
    steps: list[Descent] = []
    value, left = content, key
    while True:
        texts = [(shown(own, LETTERS_MOST), own) for own, _ in children(value)]
        fitting = [(text, own) for text, own in texts if left == text or left.startswith(f"{text}.")]
        if not fitting:
            raise _astray(content, key, left, value, where)
        text, own = max(fitting, key=lambda pair: len(pair[0]))
        steps.append(Descent(value, own))
        value = dict(children(value))[own]
        if left == text:
            return steps, value
        left = left[len(text) + 1 :]


def _astray(content: Any, key: str, left: str, value: Any, where: str) -> FormatError:
    """What is there instead of a key that leads nowhere."""
    begun = key[: len(key) - len(left)]
    there = [begun + shown(name) for name, _ in children(value)]
    place = repr(begun[:-1]) if begun else "it"
    if not there:
        remedy = f"{place} is {shown(value)}, in which there is nothing to go into"
    else:
        remedy = near(key, there) or f"{place} has the keys {_some(there)}"
    return FormatError(f"{where} has nothing under {shown(key)!r}", remedy=remedy)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - NAMED_MOST:,} more" if len(names) > NAMED_MOST else ""
    return ", ".join(map(repr, names[:NAMED_MOST])) + more


def maps(content: Any, is_tensor: IsTensor) -> Iterator[str]:
    """The keys of the maps and lists that hold tensors, the nearest first; what several lead to is given once.

    >>> list(maps({"g": {"w": 1.0}, "ema": {"shadow": {"w": 2.0}}, "n": 1}, lambda value: type(value) is float))
    ['g', 'ema.shadow']
    """
    waiting, seen, named, left = [("", content)], {id(content)}, {""}, LOOKED_AT
    for _ in range(DEPTH_MOST):
        for key, container in waiting:  # all of a level, before what may be too much is gone through
            if key not in named and any(is_value(value, is_tensor) for _, value in children(container)):
                named.add(key)
                yield key
        inner: list[tuple[str, Any]] = []
        for key, container in waiting:
            for name, value in children(container):
                if (left := left - 1) < 0:
                    return
                if isinstance(value, dict | list | tuple | Inert) and id(value) not in seen:
                    seen.add(id(value))
                    text = shown(name, LETTERS_MOST)
                    inner.append((f"{key}.{text}" if key else text, value))
        waiting = inner


def advice(path: str, keys: Iterable[str], joint: str = SIGN) -> str:
    """What to do, with some of these keys as the command line has them; '' where there are none.

    >>> advice("gan.pt", ["g", "d"])
    'name one: gan.pt::g or gan.pt::d'
    """
    named = [quoted(f"{path}{joint}{key}") for key in keys]
    more = f" (or one of {len(named) - NAMED_MOST:,} more)" if len(named) > NAMED_MOST else ""
    return f"name one: {' or '.join(named[:NAMED_MOST])}{more}" if named else ""
