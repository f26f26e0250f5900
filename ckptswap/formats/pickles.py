"""Reading a pickle without running it: a machine for the pickle opcodes that builds only inert values.

`pickle.Unpickler` with a guarded `find_class` still calls, sets attributes and allocates at the file's command.
This machine knows plain containers and numbers, and the names it is given; a name outside them is refused, and
even the admitted ones are never imported: each stands for a small function of ours. torch's own weights-only
reader works the same way, but needs torch.
"""

from __future__ import annotations

import pickletools
import warnings
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

from ckptswap.errors import FormatError

PICKLE_MOST = 64 << 20
"""The longest pickle that is read, in bytes: some hundred thousand tensors."""

Build = Callable[[tuple], Any]
"""Makes the inert value that stands for a call of a global with these arguments."""

_OLD_MODULES = {"__builtin__": "builtins", "copy_reg": "copyreg"}
_LITERAL = frozenset(["INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
                      "STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
                      "BYTEARRAY8", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"])  # fmt: skip
_CONSTANT: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple, "EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set,
}  # fmt: skip
_NOTHING = frozenset(["PROTO", "FRAME"])
_FAULTS = (ValueError, LookupError, TypeError, OverflowError, AttributeError, RecursionError, MemoryError)


class Global:
    """A name that a pickle asked for and that is admitted; `build` stands in for calling it."""

    __slots__ = ("build", "name")

    def __init__(self, name: str, build: Build) -> None:
        self.name = name
        self.build = build


class Inert:
    """An object that a pickle describes and that is not built: its class's name, and the state it was given."""

    __slots__ = ("name", "state")

    def __init__(self, name: str) -> None:
        self.name = name
        self.state: Any = None


def inert(name: str) -> Build:
    """A stand-in whose arguments are ignored."""
    return lambda arguments: Inert(name)


def plain_dict(arguments: tuple) -> dict:
    """`dict()` and its subclasses: empty, or made of a list of pairs; whatever else is ignored."""
    pairs = arguments[0] if arguments and isinstance(arguments[0], list) else ()
    return {_key(key): value for key, value in pairs}


class ForbiddenGlobalError(Exception):
    """A pickle asked for a name that is not admitted."""


def read_pickle(
    stream: BinaryIO,
    names: Mapping[str, Build],
    persistent: Callable[[Any], Any] | None = None,
    *,
    where: str,
    remedy: str = "if it holds a whole model, save its `state_dict()` instead, where you trust it",
) -> Any:
    """The value of one pickle, inert; the stream is left after its end.

    `names` are the globals admitted, as `module.name`; `persistent` resolves persistent ids. Raises `FormatError`
    naming the global that is not admitted, or saying that the pickle is damaged.

    >>> import io, pickle
    >>> read_pickle(io.BytesIO(pickle.dumps({"a": [1, 2.5]})), {}, where="a.pkl")
    {'a': [1, 2.5]}
    >>> try:
    ...     read_pickle(io.BytesIO(b"cos\\nsystem\\n(S'true'\\ntR."), {}, where="a.pkl")
    ... except FormatError as error:
    ...     print(error.message)
    a.pkl is a pickle that asks for os.system, which could run code; it was not loaded
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # old strings with odd escapes warn
            return _Machine(names, persistent).run(stream)
    except ForbiddenGlobalError as asked:
        fault = f"{where} is a pickle that asks for {asked.args[0]}, which could run code; it was not loaded"
        raise FormatError(fault, remedy=remedy) from None
    except _FAULTS as error:
        raise FormatError(f"{where} holds a damaged pickle", remedy=_reason(error)) from None


def _reason(error: Exception) -> str:
    text = str(error).splitlines()[0] if str(error) else ""
    return text[:120] if isinstance(error, ValueError) and text else "its instructions make no sense"


class _Machine:
    """The stack, the marks and the memo of one pickle."""

    def __init__(self, names: Mapping[str, Build], persistent: Callable[[Any], Any] | None) -> None:
        self.names = names
        self.persistent = persistent
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self, stream: BinaryIO) -> Any:
        for opcode, argument, _ in pickletools.genops(stream):
            name = opcode.name
            if name in _LITERAL:
                self.stack.append(argument)
            elif name in _CONSTANT:
                self.stack.append(_CONSTANT[name]())
            elif name in _OPERATIONS:
                _OPERATIONS[name](self, argument)
            elif name not in _NOTHING and name != "STOP":
                raise ValueError(f"its instruction {name} has no place in a checkpoint")
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
        if full not in self.names:
            raise ForbiddenGlobalError(full)
        self.stack.append(Global(full, self.names[full]))

    def find_on_stack(self, _: object) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise ValueError("it asks for a global that has no name")
        self.find(module, name)

    def call(self, function: Any, arguments: Any) -> None:
        if not isinstance(function, Global) or not isinstance(arguments, tuple):
            raise ValueError("it calls what cannot be called")
        self.stack.append(function.build(arguments))

    def reduce(self, _: object) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        self.call(function, arguments)

    def new_with_keywords(self, _: object) -> None:
        self.stack.pop()
        self.reduce(None)

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
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, Inert):
            raise ValueError("it appends to what is no list")

    def add(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], set):
            raise ValueError("it adds to what is no set")
        self.stack[-1].update(map(_key, items))

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, dict):
            target.update((_key(key), value) for key, value in zip(items[::2], items[1::2], strict=True))
        elif not isinstance(target, Inert):
            raise ValueError("it sets items of what is no map")

    def set_item(self, _: object) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.set_items([key, value])

    def dict_since_mark(self, _: object) -> None:
        items = self.since_mark()
        self.push({})
        self.set_items(items)

    def put(self, at: int) -> None:
        self.memo[at] = self.stack[-1]

    def load(self, identity: Any) -> None:
        if self.persistent is None:
            raise ValueError("it refers to something outside itself")
        self.stack.append(self.persistent(identity))

    def extension(self, code: int) -> None:
        raise ForbiddenGlobalError(f"extension {code} of copyreg")


def _key(key: Any) -> Any:
    """A key that can be hashed at once: hashing deeply nested tuples would overflow C's stack."""
    parts = key if type(key) is tuple else (key,)
    if len(parts) > 64 or any(type(part) in (tuple, list, dict, set, bytearray) for part in parts):
        raise ValueError("one of its maps has a key that is no plain value")
    return key


_OPERATIONS: dict[str, Callable[[_Machine, Any], object]] = {
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
    "FROZENSET": lambda machine, _: machine.push(frozenset(map(_key, machine.since_mark()))),
    "APPEND": lambda machine, _: machine.append([machine.stack.pop()]),
    "APPENDS": lambda machine, _: machine.append(machine.since_mark()),
    "ADDITEMS": lambda machine, _: machine.add(machine.since_mark()),
    "SETITEM": _Machine.set_item,
    "SETITEMS": lambda machine, _: machine.set_items(machine.since_mark()),
    "GLOBAL": lambda machine, argument: machine.find(*argument.split(" ", 1)),
    "STACK_GLOBAL": _Machine.find_on_stack,
    "REDUCE": _Machine.reduce,
    "NEWOBJ": _Machine.reduce,
    "NEWOBJ_EX": _Machine.new_with_keywords,
    "INST": _Machine.instance,
    "OBJ": _Machine.obj,
    "BUILD": _Machine.build,
    **dict.fromkeys(["PUT", "BINPUT", "LONG_BINPUT"], _Machine.put),
    **dict.fromkeys(["GET", "BINGET", "LONG_BINGET"], lambda machine, at: machine.push(machine.memo[at])),
    "MEMOIZE": lambda machine, _: machine.put(len(machine.memo)),
    "PERSID": _Machine.load,
    "BINPERSID": lambda machine, _: machine.load(machine.stack.pop()),
    **dict.fromkeys(["EXT1", "EXT2", "EXT4"], _Machine.extension),
}
