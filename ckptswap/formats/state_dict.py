"""Where a state dict hides in what a file holds, and what lies around and among its tensors.

It is looked for where training scripts put it (`state_dict`, `model`, …, Lightning's wrapper). Tensors and numpy's
arrays in maps, lists and tuples inside it count as its own. What else holds values of the model (bytes, arrays of
objects) is not read, neither compared nor converted, and every command has to say so. A number, a text, None or a
dtype is baggage.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

from ckptswap import dtypes
from ckptswap.checkpoint import stale_note
from ckptswap.entries import NAME_MOST, SIGN, Tensor, Unread
from ckptswap.errors import FormatError, listing
from ckptswap.formats.inert import Global, Inert, shown
from ckptswap.formats.keys import LETTERS_MOST, Descent, IsTensor, advice, children, follow, is_value, maps
from ckptswap.formats.modules import ModelTensors
from ckptswap.formats.nested import DEPTH_MOST, Made, spread
from ckptswap.formats.torch_pickle import FROM_BUFFER, RECONSTRUCTED, SCALARS

INFLATION_MOST = 32  # how many times the bytes of a file its tensors may take: as often as its names share them
INFLATED_FREE = 64 << 20  # bytes that may be taken whatever is there
PLACES = ("state_dict", "model_state_dict", "model", "module", "net", "network", "weights", "params")
"""Keys under which training scripts keep the model's tensors, the likeliest first."""
_STALE = re.compile(r"optim|(^|_)ema(_|$)|momentum|averag|shadow", re.IGNORECASE)
_OPTIMIZER = re.compile(r"optim|momentum", re.IGNORECASE)
_KEY_MOST = 200  # letters of a key that are looked at
HOLDERS: Mapping[str, str] = {
    **dict.fromkeys([*RECONSTRUCTED, *FROM_BUFFER, "numpy.ndarray"], "a numpy array"),
    "_codecs.encode": "bytes",
    "builtins.bytearray": "bytes",
    "torch.distributed.checkpoint.metadata.BytesStorageMetadata": "bytes that were not opened",
}
"""Objects that are values whatever their state is."""
_CALLED = {bool: "True or False", int: "a number", float: "a number", str: "a text", type(None): "None",
           bytes: "bytes", bytearray: "bytes", tuple: "a tuple"}  # fmt: skip
_NO_VALUES = (*SCALARS, "numpy.dtype", "datetime.")
"""How the names of those begin that are none, though bytes describe them: a number, a day."""


@dataclass(frozen=True)
class StateDict:
    """A map in `content`, and the `steps` to it (none: at the top), which may have been asked for. `is_tensor`
    tells what a tensor is, `made` gives that for which something else stands.

    >>> content = {"state_dict": {"w": 1.5, "n": 1}, "epoch": 3}
    >>> state = StateDict.of(content, lambda value: type(value) is float, "a.pt")
    >>> state.key, state.tensors, state.beside
    ('state_dict', {'w': 1.5}, ('epoch', 'n'))
    """

    content: Any
    steps: Sequence[Descent]
    whole: Mapping[Any, Any]
    is_tensor: IsTensor
    is_asked: bool
    made: Made

    @classmethod
    def of(
        cls,
        content: Any,
        is_tensor: IsTensor,
        where: str,
        key: str | None = None,
        made: Made = lambda value: value,
    ) -> "StateDict":
        """The map under a key, or the one that is told to be the model's. Raises `FormatError` where there is
        none, or one with impossible names."""
        steps, whole = _place(content, is_tensor, where) if key is None else _asked(content, key, is_tensor, where)
        state = cls(content, steps, whole, is_tensor, key is not None, made)
        for name, value in (*state.whole.items(), *state.entries.items()):  # which may have been made tensors
            if not isinstance(name, str) and is_tensor(value):
                fault = f"{where} names a tensor {shown(name)}, not by text"
                raise FormatError(fault, remedy="save a `state_dict()`")
            if isinstance(name, str) and len(name) > NAME_MOST:
                raise FormatError(f"{where} has a name of {len(name):,} letters, beginning {name[:40]!r}",
                                  remedy=f"{NAME_MOST:,} is the most")  # fmt: skip
        return state

    @cached_property
    def key(self) -> str | None:
        """By which the map is asked for; None at the top."""
        return ".".join(shown(step.key) for step in self.steps) if self.steps else None

    @cached_property
    def own(self) -> Mapping[Any, Any]:
        """What belongs to the model: an optimizer's state does not, which may lie among tensors at the top."""
        if self.steps:
            return self.whole
        return {name: value for name, value in self.whole.items()
                if not (_is_stale(name) and isinstance(value, dict | list))}  # fmt: skip

    @cached_property
    def entries(self) -> Mapping[Any, Any]:
        """The same, with the tensors in its containers under names of their own, where that can be."""
        return spread(self.own, lambda value: is_value(value, self.is_tensor), self.made)

    @cached_property
    def tensors(self) -> dict[str, Any]:
        """The entries that are tensors and can be read."""
        return {name: value for name, value in self.entries.items() if self.is_tensor(value)}

    @cached_property
    def unread(self) -> dict[str, Unread]:
        """The entries that hold values and are not read, and what they are."""
        return unread(self.entries, self.is_tensor)

    @cached_property
    def around(self) -> list[tuple[str, Any]]:
        """All else that the file holds, by keys: beside each step, and what is not a tensor in the model's map."""
        kept = {id(value) for value in self.entries.values()}
        opened = {key for key, value in self.own.items() if id(value) not in kept}
        return [*self._beside_steps, *((shown(key), value) for key, value in self.whole.items()
                                       if not self.is_tensor(value) and key not in opened)]  # fmt: skip

    @cached_property
    def _beside_steps(self) -> list[tuple[str, Any]]:
        beside, above = [], ""
        for step in self.steps:
            beside += [(above + shown(key), value) for key, value in children(step.container) if key != step.key]
            above += f"{shown(step.key)}."
        return beside

    @property
    def beside(self) -> tuple[str, ...]:
        """The keys of that, for whoever does not write it on."""
        return tuple(key for key, _ in self.around)

    @cached_property
    def stale(self) -> list[str]:
        """The keys of what belongs to these values of the tensors: an optimizer's state, averages."""
        beside = self._beside_steps if self.steps else [(shown(key), held) for key, held in self.whole.items()]
        return [key for key, value in beside if _is_stale(key) and isinstance(value, dict | list | Inert)]

    @property
    def notes(self) -> list[str]:
        """What a reader should know of what lies around the tensors, a sentence each."""
        notes = []
        if isinstance(self.content, dict) and "pytorch-lightning_version" in self.content:
            notes.append(f"a checkpoint of Lightning {shown(self.content['pytorch-lightning_version'], most=20)}")
        if self.steps and not self.is_asked:
            keys = (key for key in maps(self.content, self.is_tensor) if not _OPTIMIZER.search(key))
            others = [key for key in keys if not f"{key}.".startswith(f"{self.key}.")]
            more = f" (other maps of tensors: {listing([SIGN + key for key in others], most=4)})" if others else ""
            notes.append(f"the tensors lie under {self.key!r}{more}")
        if strays := [key for key, value in self._beside_steps if is_value(value, self.is_tensor)]:
            notes.append(f"left out what lies beside them: {listing(strays)}")
        notes += [stale_note(self.stale)] if self.stale else []
        baggage = [shown(name) for name, value in self.entries.items()
                   if not self.is_tensor(value) and name not in self.unread]  # fmt: skip
        return notes + ([f"left out what is not a tensor: {listing(baggage)}"] if baggage else [])


def _asked(content: Any, key: str, is_tensor: IsTensor, where: str) -> tuple[list[Descent], Mapping[Any, Any]]:
    """The map under a key: that itself where it holds tensors, else the model's in it."""
    if not key:
        remedy = advice(where, maps(content, is_tensor)) or "it holds no map of tensors"
        raise FormatError(f"{where}{SIGN} names no key", remedy=remedy)
    steps, held = follow(content, key, where)
    if is_value(held, is_tensor):
        above = key[: len(key) - len(shown(steps[-1].key, LETTERS_MOST))].rstrip(".")
        raise FormatError(f"{where}{SIGN}{shown(key)} is a single tensor",
                          remedy=f"name what holds it: {where}{f'{SIGN}{above}' if above else ''}")  # fmt: skip
    inside = dict(children(held))
    if any(is_value(value, is_tensor) for value in inside.values()):
        return steps, inside if isinstance(held, dict) else {shown(name): value for name, value in inside.items()}
    if not inside:
        raise FormatError(f"{where}{SIGN}{shown(key)} is {shown(held)}, not a map of tensors",
                          remedy=advice(where, maps(content, is_tensor)) or "it holds none")  # fmt: skip
    more, whole = _place(held, is_tensor, f"{where}{SIGN}{shown(key)}", joint=".")
    return [*steps, *more], whole


def _place(
    content: Any, is_tensor: IsTensor, where: str, joint: str = SIGN
) -> tuple[list[Descent], Mapping[Any, Any]]:
    """The steps to the model's tensors (none: at the top), and the map itself."""
    if isinstance(content, ModelTensors) and content:
        return [], content
    inside = dict(children(content))
    if inside and isinstance(content, list | tuple) and all(is_value(value, is_tensor) for value in content):
        return [], {shown(at): value for at, value in inside.items()}  # as `get_weights` gives them
    dicts = {id(value): value for value in inside.values() if isinstance(value, dict)}  # each is looked at once
    wanted = {
        at
        for at, value in dicts.items()
        if (isinstance(value, ModelTensors) and value) or any(is_value(each, is_tensor) for each in value.values())
    }
    held = {key: value for key, value in inside.items() if id(value) in wanted}
    if (key := next((key for key in PLACES if key in held), None)) is not None:
        return [Descent(content, key)], held[key]
    if isinstance(content, dict) and any(is_value(value, is_tensor) for value in content.values()):
        return [], content
    if len(held) == 1:
        [(key, whole)] = held.items()  # a key may be None
        return [Descent(content, key)], whole
    keys = list(maps(content, is_tensor))
    likely = [key for key in keys if not any(map(_is_stale, key.split(".")))]
    if len(likely) == 1:
        return _asked(content, likely[0], is_tensor, where)
    if keys:
        best = [key for key in keys if not _OPTIMIZER.search(key)] or keys
        raise FormatError(f"{where} holds several maps of tensors, and none is the model's by its name",
                          remedy=advice(where, best, joint))  # fmt: skip
    if is_value(content, is_tensor):
        raise FormatError(
            f"{where} holds one tensor, not a map of tensors", remedy="save it in a dict: {'NAME': tensor}"
        )
    if not isinstance(content, dict):
        own = content.name if isinstance(content, Inert | Global) else type(content).__name__
        what = _CALLED.get(type(content)) or f"a {own}"
        raise FormatError(f"{where} holds no map of tensors but {what}", remedy="save a `state_dict()`")
    named = listing([repr(shown(key)) if isinstance(key, str) else shown(key) for key in inside])
    raise FormatError(f"{where} holds no tensors that can be told to be the model's",
                      remedy=f"its keys are {named}" if named else "it is empty")  # fmt: skip


def _is_stale(key: Any) -> bool:
    return isinstance(key, str) and bool(_STALE.search(key[:_KEY_MOST]))


def refuse_inflated(tensors: Iterable[Tensor], held: int, where: str) -> None:
    """Raises `FormatError` where tensors would take far more bytes than are there: a view may repeat a value
    without end. Weights that are tied or expanded repeat a few."""
    if taken := inflated(tensors, held):
        raise FormatError(f"{where} holds {held:,} B of tensors that would take {taken:,} B",
                          remedy="where you trust it, save its tensors with `.clone()`")  # fmt: skip


def inflated(tensors: Iterable[Tensor], held: int) -> int:
    """The bytes that tensors would take, where these are far more than are there; else 0.

    >>> huge = Tensor("w", (1 << 30,), "F32", source=None)
    >>> inflated([huge], held=4), inflated([huge], held=1 << 30)
    (4294967296, 0)
    """
    taken = sum(dtypes.bits(tensor.dtype) * prod(tensor.shape) // 8 for tensor in tensors)
    return taken if taken > max(held * INFLATION_MOST, INFLATED_FREE) else 0


def unread(entries: Mapping[Any, Any], is_tensor: IsTensor) -> dict[str, Unread]:
    """Name → what it is, of the entries that hold values and are not tensors that can be read.

    >>> found = unread({"w": 1.5, "packed": (1.5, None), "epoch": 3}, lambda value: type(value) is float)
    >>> {name: str(what) for name, what in found.items()}
    {'packed': 'a tuple that holds a tensor'}
    """
    # Containers are looked into once, however often and deep they hold each other.
    known: dict[int, str | None] = {}

    def held(value: Any, depth: int) -> str | None:
        """The first value inside; where there is no end of looking, there may be one."""
        if is_value(value, is_tensor):
            return "a tensor"
        if isinstance(value, bytes | bytearray):
            return "bytes" if value else None
        if isinstance(value, Inert) and value.name in HOLDERS:
            return HOLDERS[value.name]
        if isinstance(value, Inert) and value.name.startswith(_NO_VALUES):
            return None
        inside = parts(value)
        if inside and depth == DEPTH_MOST:
            return "more than can be looked through"
        if inside and id(value) not in known:
            known[id(value)] = "itself"
            known[id(value)] = next(filter(None, (held(part, depth + 1) for part in inside)), None)
        return known.get(id(value)) if inside else None

    described = {}
    for name, value in entries.items():
        if isinstance(value, Unread):
            described[name if isinstance(name, str) else f"<{shown(name)}>"] = value
        elif not is_tensor(value) and (what := held(value, 0)):
            if isinstance(value, tuple | list | dict):
                what = f"a {'map' if isinstance(value, dict) else type(value).__name__} that holds {what}"
            described[name if isinstance(name, str) else f"<{shown(name)}>"] = Unread(what)
    return described


def parts(value: Any) -> Iterable[Any]:
    """What a container holds."""
    if isinstance(value, dict):
        return value.values()
    if isinstance(value, Inert):
        return (*value.held, *((value.state,) if value.state is not None else ()))
    return value if isinstance(value, tuple | list) else ()
