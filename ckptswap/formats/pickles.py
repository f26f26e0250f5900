"""Reading a pickle without running it: a machine for the pickle opcodes that builds only inert values.

`pickle.Unpickler` with a guarded `find_class` still calls, sets attributes and allocates at the file's command.
This machine knows plain containers and numbers, and the names it is given, none of which is imported: each stands
for a small function of ours. Any other is refused, or where the caller wants it, becomes a record of what the
pickle says of it, unless it would act if it were called (`effects`). A small pickle can also take the machine:
by millions of containers, by keys that collide, by nests of shared tuples that no `repr`, `hash` or `==` comes out
of. So the instructions are counted, only text is hashed and compared, and whoever speaks of a value does it by
`shown`.
"""

import gc
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

from ckptswap.errors import FormatError
from ckptswap.formats.effects import would_act
from ckptswap.formats.opcodes import ARGUMENTS, NAME_MOST

PICKLE_MOST = 64 << 20  # the longest pickle that is read, in bytes: some hundred thousand tensors
INSTRUCTIONS_MOST = 2_000_000
"""How many instructions are carried out: a tensor takes some thirty, and an empty container 72 bytes."""

NO_USE = "a checkpoint has no use for it; where you trust the file, save its `state_dict()` with what made it"

Build = Callable[[tuple], Any]  # makes the inert value that stands for a call of a global with these arguments

_OLD_MODULES = {"__builtin__": "builtins", "copy_reg": "copyreg"}
_OLD_NAMES = {
    "builtins.xrange": "builtins.range",
    "builtins.unicode": "builtins.str",
    "builtins.long": "builtins.int",
}
_LITERAL = frozenset(["INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
                      "STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
                      "BYTEARRAY8", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"])  # fmt: skip
_FAULTS = (ValueError, LookupError, TypeError, OverflowError, AttributeError, RecursionError, MemoryError)
_NEVER_PUT = object()
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
    return {_key(key): value for key, value in pairs}


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
            raise _ForbiddenError("builtins.getattr")
        return Inert(owner.name)

    return build


def attribute(arguments: tuple) -> Global:
    """`getattr(class, name)`, by which pickles name members of enums and methods of classes: a name of its own."""
    owner, *names = arguments
    if not isinstance(owner, Global) or [*map(type, names)] != [str]:
        raise _ForbiddenError("builtins.getattr")
    return _unknown(f"{owner.name}.{names[0]}")


def _unknown(name: str) -> Global:
    if would_act(name):
        raise _ForbiddenError(name)
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


class _ForbiddenError(Exception):
    """A pickle asked for a name that is not admitted, or for what has a number only: an extension of copyreg."""

    def __init__(self, name: str, refusal: type[FormatError] = ForbiddenPickleError) -> None:
        super().__init__(name)
        self.refusal = refusal


class _TooMuchError(Exception):
    """A pickle has more instructions than are carried out."""


def read_pickle(
    stream: BinaryIO,
    names: Mapping[str, Build],
    persistent: Callable[[Any], Any] | None = None,
    *,
    where: str,
    remedy: str = NO_USE,
    most: int = INSTRUCTIONS_MOST,
    unknown: bool = False,
) -> Any:
    """The value of one pickle, inert; the stream is left after its end.

    `names` are the globals admitted, as `module.name`; with `unknown` also others that would not act: these become
    records. `persistent` resolves persistent ids; `most` is how many instructions are carried out. Raises
    `FormatError` naming the global that is not admitted, or saying that the pickle is damaged or too long.

    >>> import io, pickle
    >>> read_pickle(io.BytesIO(pickle.dumps({"a": [1, 2.5]})), {}, where="a.pkl")
    {'a': [1, 2.5]}
    >>> read_pickle(io.BytesIO(b"cos\\nsystem\\n(S'true'\\ntR."), {}, where="a.pkl", remedy="don't")
    Traceback (most recent call last):
    ckptswap.formats.pickles.ForbiddenPickleError: a.pkl is a pickle that asks for os.system, ...
    """
    try:
        # Old strings with odd escapes warn.
        with warnings.catch_warnings(action="ignore"), _uncollected():
            return _Machine(names, persistent, most, unknown).run(stream)
    except _ForbiddenError as asked:
        name = shown(asked.args[0], most=200)
        fault = f"{where} is a pickle that asks for {name}, which could run code; it was not loaded"
        raise asked.refusal(fault, remedy=remedy) from None
    except _TooMuchError:
        fault = (
            f"{where} is a pickle of more than {most:,} instructions, too many for the tensors that it could hold"
        )
        raise FormatError(fault, remedy="where you trust it, save its `state_dict()` alone") from None
    except _FAULTS as error:
        reason = str(error).splitlines()[0][:120] if isinstance(error, ValueError) and str(error) else ""
        remedy = reason or "its instructions make no sense"
        raise FormatError(f"{where} holds a damaged pickle", remedy=remedy) from None


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without garbage collections: none of a pickle's values is garbage, and each would look through them all."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class _Machine:
    """The stack, the marks and the memo of one pickle."""

    def __init__(
        self, names: Mapping[str, Build], persistent: Callable[[Any], Any] | None, most: int, unknown: bool
    ) -> None:
        self.names = names
        self.unknown = unknown
        self.persistent = persistent
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memo: list[Any] = []
        self.most = self.left = most

    def run(self, stream: BinaryIO) -> Any:
        read, known = stream.read, _INSTRUCTIONS.get
        while (code := read(1)) != b".":
            self.left -= 1
            if self.left < 0:
                raise _TooMuchError
            if (instruction := known(code)) is None:
                raise ValueError(f"it has an instruction {code!r}, which has no place in a checkpoint")
            argument, operation = instruction
            operation(self, argument(stream) if argument else None)
        return self.stack.pop()

    def push(self, value: object) -> None:
        self.stack.append(value)

    def mark(self, _: object) -> None:
        self.marked.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marked.pop()
        return items

    def pop(self, _: object) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.since_mark()

    def tuple_of(self, count: int) -> None:
        items = self.stack[-count:]
        if len(items) < count:
            raise ValueError("it takes more from its stack than is there")
        self.stack[-count:] = [tuple(items)]

    def find(self, module: str, name: str) -> None:
        full = f"{_OLD_MODULES.get(module, module)}.{name}"
        full = _OLD_NAMES.get(full, full)
        if full not in self.names and not self.unknown:
            raise _ForbiddenError(full)
        self.stack.append(Global(full, self.names[full]) if full in self.names else _unknown(full))

    def find_on_stack(self, _: object) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise ValueError("it asks for a global that has no name")
        self.find(module, name)

    def call(self, function: Any, arguments: Any) -> None:
        if not isinstance(function, Global) or not isinstance(arguments, tuple):
            raise ValueError("it calls what cannot be called")
        self.left -= len(arguments) + sum(len(part) for part in arguments if isinstance(part, list | dict | tuple))
        self.stack.append(function.build(arguments))

    def reduce(self, _: object) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        self.call(function, arguments)

    def instance(self, argument: str) -> None:
        arguments = tuple(self.since_mark())
        self.find(*argument.split(" ", 1))
        self.call(self.stack.pop(), arguments)

    def obj(self, _: object) -> None:
        function, *arguments = self.since_mark()
        self.call(function, tuple(arguments))

    def build(self, _: object) -> None:
        """An object's state; only inert objects keep it (an OrderedDict's attributes are not ours to know)."""
        state = self.stack.pop()
        if isinstance(self.stack[-1], Inert):
            self.stack[-1].state = state

    def append(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list | Inert):
            raise ValueError("it appends to what is not a list")
        if isinstance(target, list):
            target.extend(items)
        else:
            target.hold(items)

    def add(self, items: list[Any]) -> None:
        """What a set holds is kept as a list: in a set it would have to be hashed and compared."""
        if not isinstance(self.stack[-1], Inert):
            raise ValueError("it adds to what is not a set")
        self.stack[-1].hold(items)

    def frozen(self, _: object) -> None:
        self.push(Inert("builtins.frozenset", held=self.since_mark()))

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, dict):
            target.update((_key(key), value) for key, value in zip(items[::2], items[1::2], strict=True))
        elif isinstance(target, Inert):
            target.hold(items)
        else:
            raise ValueError("it sets items of what is not a map")

    def dict_since_mark(self, _: object) -> None:
        items = self.since_mark()
        self.push({})
        self.set_items(items)

    def put(self, at: int) -> None:
        """Remember the last value. Writers count from 0 or 1, so that no number outruns the instructions."""
        if not 0 <= at <= self.most - self.left:
            raise ValueError("it counts its values in an impossible way")
        if at >= len(self.memo):
            self.memo += [_NEVER_PUT] * (at + 1 - len(self.memo))
        self.memo[at] = self.stack[-1]

    def get(self, at: int) -> None:
        value = self.memo[at] if at >= 0 else _NEVER_PUT
        if value is _NEVER_PUT:
            raise LookupError
        self.stack.append(value)

    def load(self, identity: Any) -> None:
        if self.persistent is None:
            raise ValueError("it refers to something outside itself")
        self.stack.append(self.persistent(identity))

    def extension(self, code: int) -> None:
        raise _ForbiddenError(f"extension {code} of copyreg", FormatError)


def _key(key: Any) -> Any:
    """Text, which Python hashes with a secret, and what is told by identity; other values in a case that is.

    Numbers and tuples can be chosen so that all of them collide, and nests so that one takes for ever to hash.
    """
    if isinstance(key, str | bytes | Inert | Global) or key is None or key is True or key is False:
        return key
    if isinstance(key, list | dict | bytearray):
        raise ValueError("one of its maps has a key that cannot be one")
    return Inert(_KEY, key)


_OPERATIONS: dict[str, Callable[[_Machine, Any], object]] = {
    **dict.fromkeys(_LITERAL, _Machine.push),
    **dict.fromkeys(["PROTO", "FRAME"], lambda machine, _: None),
    "NONE": lambda machine, _: machine.stack.append(None),
    "NEWTRUE": lambda machine, _: machine.stack.append(True),
    "NEWFALSE": lambda machine, _: machine.stack.append(False),
    "EMPTY_TUPLE": lambda machine, _: machine.stack.append(()),
    "EMPTY_LIST": lambda machine, _: machine.stack.append([]),
    "EMPTY_DICT": lambda machine, _: machine.stack.append({}),
    "EMPTY_SET": lambda machine, _: machine.stack.append(Inert("builtins.set")),
    "MARK": _Machine.mark,
    "POP": _Machine.pop,
    "POP_MARK": lambda machine, _: machine.since_mark(),
    "DUP": lambda machine, _: machine.stack.append(machine.stack[-1]),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.since_mark())),
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "LIST": lambda machine, _: machine.push(machine.since_mark()),
    "DICT": _Machine.dict_since_mark,
    "FROZENSET": _Machine.frozen,
    "APPEND": lambda machine, _: machine.append([machine.stack.pop()]),
    "APPENDS": lambda machine, _: machine.append(machine.since_mark()),
    "ADDITEMS": lambda machine, _: machine.add(machine.since_mark()),
    "SETITEM": lambda machine, _: machine.set_items([machine.stack.pop(), machine.stack.pop()][::-1]),
    "SETITEMS": lambda machine, _: machine.set_items(machine.since_mark()),
    "GLOBAL": lambda machine, argument: machine.find(*argument.split(" ", 1)),
    "STACK_GLOBAL": _Machine.find_on_stack,
    "REDUCE": _Machine.reduce,
    "NEWOBJ": _Machine.reduce,
    "NEWOBJ_EX": lambda machine, _: machine.reduce(machine.stack.pop()),  # keywords are ignored
    "INST": _Machine.instance,
    "OBJ": _Machine.obj,
    "BUILD": _Machine.build,
    **dict.fromkeys(["PUT", "BINPUT", "LONG_BINPUT"], _Machine.put),
    **dict.fromkeys(["GET", "BINGET", "LONG_BINGET"], _Machine.get),
    "MEMOIZE": lambda machine, _: machine.put(len(machine.memo)),
    "PERSID": _Machine.load,
    "BINPERSID": lambda machine, _: machine.load(machine.stack.pop()),
    **dict.fromkeys(["EXT1", "EXT2", "EXT4"], _Machine.extension),
}
_INSTRUCTIONS = {
    code: (argument, _OPERATIONS[name]) for code, (name, argument) in ARGUMENTS.items() if name in _OPERATIONS
}
