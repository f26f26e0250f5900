"""What a pickle's values become: plain containers, and records of what is named, called or made, none of which is.

Only text is hashed and compared, and whoever speaks of a value does it by `shown`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ckptswap.errors import FormatError
from ckptswap.formats.effects import would_act
from ckptswap.formats.opcodes import NAME_MOST

Build = Callable[[tuple], Any]  # makes the inert value that stands for a call of a global with these arguments

_KEY = "a key"  # the name of the cases of keys, which is not a class's


@dataclass(frozen=True, slots=True, eq=False)
class Global:
    """A name that a pickle asked for and that is admitted; `build` stands in for calling it."""

    name: str
    build: Build


@dataclass(slots=True, eq=False)
class Inert:
    """An object that a pickle describes and that is not built: its class's name, the state it was given, and what
    it was called with, or was put into it."""

    name: str
    state: Any = None
    held: Sequence[Any] = ()

    def hold(self, items: list[Any]) -> None:
        """Keep what is put into it."""
        if not isinstance(self.held, list):
            self.held = list(self.held)
        self.held.extend(items)


def inert(name: str) -> Build:
    """A stand-in that keeps its arguments."""
    return lambda arguments: Inert(name, held=arguments)


def plain_dict(arguments: tuple) -> dict:
    """`dict()` and its subclasses: empty, or made of a list of pairs or of a dict; whatever else is ignored."""
    given = arguments[0] if arguments else ()
    pairs = given.items() if isinstance(given, dict) else given if isinstance(given, list) else ()
    return {key_of(key): value for key, value in pairs}


def _constructed(arguments: tuple, own: slice) -> Any:
    if not arguments or not isinstance(arguments[0], Global) or arguments[0].name in CONSTRUCTORS:
        raise ValueError("it makes an object of what is not a class")
    return arguments[0].build(arguments[own])


CONSTRUCTORS: Mapping[str, Build] = {
    "copyreg._reconstructor": lambda arguments: _constructed(arguments, slice(2, 3)),  # class, base, value
    "copyreg.__newobj__": lambda arguments: _constructed(arguments, slice(1, None)),  # class, …
    **{
        f"builtins.{kind.__name__}": inert(f"builtins.{kind.__name__}")
        for kind in (object, int, float, str, bytes, tuple)
    },
}
"""How protocols 0 and 1 make objects of the classes that are admitted; bases of such classes."""


def enum_member(enums: frozenset[str]) -> Build:
    """`getattr(enum, name)`, by which early releases of Python 3.11 pickle members of enums, and nothing else."""

    def build(arguments: tuple) -> Inert:
        owner, *names = arguments
        if not isinstance(owner, Global) or owner.name not in enums or [*map(type, names)] != [str]:
            raise ForbiddenNameError("builtins.getattr")
        return Inert(owner.name)

    return build


def attribute(arguments: tuple) -> Global:
    """`getattr(class, name)`, by which pickles name members of enums and methods of classes: a name of its own."""
    owner, *names = arguments
    if not isinstance(owner, Global) or [*map(type, names)] != [str]:
        raise ForbiddenNameError("builtins.getattr")
    return unknown_global(f"{owner.name}.{names[0]}")


def unknown_global(name: str) -> Global:
    """A name that nothing stands in for, as a record; one that would act if it were called is refused."""
    if would_act(name):
        raise ForbiddenNameError(name)
    if len(name) > NAME_MOST:
        raise ValueError(f"it asks for a global whose name has {len(name):,} letters")
    return Global(name, inert(name))


def shown(value: Any, most: int = 60) -> str:
    """A stranger's value in a few letters: text as it is, other containers by their kind alone.

    >>> shown("conv.weight"), shown((1, 2)), shown(None), shown("a" * 100, most=3)
    ('conv.weight', 'a tuple', 'None', 'aaa…')
    """
    if isinstance(value, Inert) and value.name == _KEY:
        value = value.state
    if isinstance(value, str):
        return value if len(value) <= most else f"{value[:most]}…"
    if value is None or type(value) in (bool, int, float):
        return repr(value)[:most]
    return value.name if isinstance(value, Inert | Global) else f"a {type(value).__name__}"


class ForbiddenPickleError(FormatError):
    """A pickle that asks by its name for a global that is not admitted."""


class ForbiddenNameError(Exception):
    """A pickle asked for a name that is not admitted, or for what has a number only: an extension of copyreg."""

    def __init__(self, name: str, refusal: type[FormatError] = ForbiddenPickleError) -> None:
        super().__init__(name)
        self.refusal = refusal


def key_of(key: Any) -> Any:
    """Text, which Python hashes with a secret, and what is told by identity; other values in a case that is.

    Numbers and tuples can be chosen so that all of them collide, and nests so that one takes for ever to hash.
    """
    if isinstance(key, str | bytes | Inert | Global) or key is None or key is True or key is False:
        return key
    if isinstance(key, list | dict | bytearray):
        raise ValueError("one of its maps has a key that cannot be one")
    return Inert(_KEY, key)
