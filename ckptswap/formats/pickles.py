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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO

from ckptswap.errors import FormatError
from ckptswap.formats.inert import (
    Build,
    ForbiddenNameError,
    Global,
    Inert,
    key_of,
    shown,
    unknown_global,
)
from ckptswap.formats.opcodes import ARGUMENTS

PICKLE_MOST = 64 << 20  # the longest pickle that is read, in bytes: some hundred thousand tensors
INSTRUCTIONS_MOST = 2_000_000
"""How many instructions are carried out: a tensor takes some thirty, and an empty container 72 bytes."""

NO_USE = "a checkpoint has no use for it; where you trust the file, save its `state_dict()` with what made it"

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
    ckptswap.formats.inert.ForbiddenPickleError: a.pkl is a pickle that asks for os.system, ...
    """
    try:
        # Old strings with odd escapes warn.
        with warnings.catch_warnings(action="ignore"), _uncollected():
            return _Machine(names, persistent, most, unknown).run(stream)
    except ForbiddenNameError as asked:
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
            raise ForbiddenNameError(full)
        self.stack.append(Global(full, self.names[full]) if full in self.names else unknown_global(full))

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
            target.update((key_of(key), value) for key, value in zip(items[::2], items[1::2], strict=True))
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
        raise ForbiddenNameError(f"extension {code} of copyreg", FormatError)


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
