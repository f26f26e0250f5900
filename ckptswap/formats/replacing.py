"""What is made of a pickle's records, put in their place."""

from collections.abc import Callable
from typing import Any

from ckptswap.formats.inert import Inert


def replaced(content: Any, made: Callable[[Inert | tuple[Any, ...]], Any]) -> Any:
    """What a pickle holds, with what is made of each record and tuple, where it is not None, in its place. Maps
    and lists are changed in place, also those in tuples; those that were made are not looked into, and what is
    there twice is made once.

    >>> record = Inert("fractions.Fraction")
    >>> replaced({"a": [record, 1], "b": record}, lambda value: value.name)
    {'a': ['fractions.Fraction', 1], 'b': 'fractions.Fraction'}
    >>> replaced(({"a": record}, 1), lambda value: None if isinstance(value, tuple) else value.name)
    ({'a': 'fractions.Fraction'}, 1)
    """
    top = [content]
    waiting: list[list[Any] | dict[Any, Any] | tuple[Any, ...]] = [top]
    seen: set[int] = set()
    known: dict[int, Any] = {}
    while waiting:
        holder = waiting.pop()
        for key, value in list(holder.items() if isinstance(holder, dict) else enumerate(holder)):
            if isinstance(value, Inert | tuple) and not isinstance(holder, tuple):
                if id(value) not in known:
                    known[id(value)] = made(value)
                if known[id(value)] is not None:
                    holder[key] = known[id(value)]
                    continue
            if isinstance(value, dict | list | tuple) and id(value) not in seen:
                seen.add(id(value))
                waiting.append(value)
    return top[0]
