"""JSON ↔ frozen dataclasses: what a file of ours says must be of the types of the fields, and no more is let in.

A checksum says that nothing has changed since, not who wrote it: files may come from strangers.
"""

import math
import types
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import MISSING, Field, field, fields, is_dataclass
from functools import cache
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from ckptswap.errors import UsageError, brief

MOST = 1 << 62  # no whole number is larger
Count = Annotated[int, "0 or more"]  # a whole number, 0 or more
Record = TypeVar("Record")


def option(default: Any, help: str, *, factory: Callable[[], Any] | None = None, **metadata: Any) -> Any:
    """Make a field that is a flag of the command line too.

    `metadata` has what a flag needs: `metavar`, `flag` where it is called otherwise, `short`, `choices`,
    `least`, `negated` where there is a `--no-FLAG` too, `parse` where its text is more than its value; and
    `defaults`, which says whose defaults may set it.
    """
    given: Any = {"default_factory": factory} if factory else {"default": default}
    return field(**given, metadata={**metadata, "help": help})


def flag_name(part: Field[Any]) -> str:
    """What a field is called on the command line, without dashes before it."""
    return str(part.metadata.get("flag", part.name)).replace("_", "-")


def to_json(value: Any) -> Any:
    """What JSON has of a dataclass, or of a tuple or mapping that holds some; `from_json` reads it back."""
    if is_dataclass(value):
        return {field.name: to_json(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {name: to_json(part) for name, part in value.items()}
    if not isinstance(value, tuple | list) or (value and type(value[0]) in (int, float, str)):
        return value  # there may be millions of numbers
    return [to_json(part) for part in value]


def from_json(form: Callable[..., Record], value: Any) -> Record:
    """The dataclass of which `asdict` made this, possibly after a round trip through text.

    Raises `ValueError`, whose text ends a sentence, naming the first part that is of another type, is missing, or
    belongs nowhere.

    >>> from dataclasses import make_dataclass
    >>> Point = make_dataclass("Point", [("place", tuple[float, ...]), ("name", str | None, None)])
    >>> from_json(Point, {"place": [0, 0.5]})
    Point(place=(0, 0.5), name=None)
    """
    if not isinstance(value, Mapping):
        raise ValueError("it is not a JSON object")
    known, parts = _hints(form), {}
    for name, part in value.items():
        if name not in known:
            raise ValueError(f"its part {name!r:.40} belongs nowhere")
        try:
            parts[name] = parsed(known[name], part)
        except ValueError:
            raise ValueError(f"its part {name!r} is not what it should be") from None
    for part in fields(form):  # type: ignore[arg-type]
        if part.default is MISSING and part.default_factory is MISSING and part.name not in parts:
            raise ValueError(f"its part {part.name!r} is missing")
    return form(**parts)


def refuse_odd_options(told: Any) -> None:
    """Raises `UsageError` for an option of a dataclass (`option`) that is of another type than its field.

    >>> from dataclasses import make_dataclass
    >>> Options = make_dataclass("Options", [("way", Literal["up", "down"], option("up", "Where to."))])
    >>> refuse_odd_options(Options("left"))
    Traceback (most recent call last):
    ckptswap.errors.UsageError: --way is 'left': use up or down
    """
    whole: Any = type(told)
    for part in fields(told):
        form, value = _hints(whole)[part.name], getattr(told, part.name)
        try:
            if "help" in part.metadata:
                parsed(form, value)
        except ValueError:
            choices = [inner for inner in (form, *get_args(form)) if get_origin(inner) is Literal]
            words = [word for choice in choices for word in get_args(choice)]
            remedy = f"use {' or '.join(words)}" if words else "`ckptswap sweep --help` says what it takes"
            raise UsageError(f"--{flag_name(part)} is {brief(value)}", remedy=remedy) from None


@cache
def _hints(form: Any) -> dict[str, Any]:
    hints = get_type_hints(form, include_extras=True)
    return {field.name: hints[field.name] for field in fields(form)}


def parsed(form: Any, value: Any) -> Any:
    """A value that JSON gave, as this type; raises `ValueError` where it is of another.

    >>> parsed(tuple[str, ...] | None, ["a", "b"])
    ('a', 'b')
    """
    if isinstance(form, type) and is_dataclass(form):
        return from_json(form, value)
    origin, inner = get_origin(form), get_args(form)
    if origin in (Union, types.UnionType):
        for one in inner:
            with suppress(ValueError):
                return parsed(one, value)
        raise ValueError(value)
    if origin is tuple:
        return _as_tuple(inner, value)
    if origin is Literal:
        return _checked(value, isinstance(value, str) and value in inner)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        _checked(value, isinstance(value, Mapping))
        return {parsed(inner[0], name): parsed(inner[1], part) for name, part in value.items()}
    is_right = _PLAIN.get(form)
    return _checked(value, is_right(value) if is_right else type(value) is form)


def _as_tuple(inner: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
    _checked(value, isinstance(value, list | tuple))
    if inner[-1:] != (Ellipsis,):
        _checked(value, len(value) == len(inner))
        return tuple(map(parsed, inner, value))
    if inner[0] == Count:  # there may be millions
        _checked(value, set(map(type, value)) <= {int} and (not value or 0 <= min(value) <= max(value) < MOST))
        return tuple(value)
    return tuple(parsed(inner[0], part) for part in value)


def _checked(value: Any, is_right: bool) -> Any:
    if not is_right:
        raise ValueError(value)
    return value


def _is_finite(value: Any) -> bool:
    return (type(value) is int and abs(value) < MOST) or (type(value) is float and math.isfinite(value))


_PLAIN: Mapping[Any, Callable[[Any], bool]] = {
    Any: lambda value: True,
    Count: lambda value: type(value) is int and 0 <= value < MOST,
    int: lambda value: type(value) is int and abs(value) < MOST,
    float: _is_finite,
    None: lambda value: value is None,
}
"""What a value of a type must be, where that is more than its type."""
