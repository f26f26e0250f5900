"""Where a state dict hides in what a file holds, and what lies around and among its tensors.

It is looked for where training scripts put it (`state_dict`, `model`, …, Lightning's wrapper). A tuple of packed
weights, a numpy array and a map of tensors in it are values of the model: not read, they are neither compared nor
converted, and every command has to say so. A number, a text, None or a dtype is baggage.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

from ckptswap import dtypes
from ckptswap.checkpoint import NAME_MOST, Tensor, stale_note
from ckptswap.errors import FormatError, listing
from ckptswap.formats.pickles import Global, Inert, shown

INFLATION_MOST = 32  # how many times the bytes of a file its tensors may take: as often as its names share them
INFLATED_FREE = 64 << 20  # bytes that may be taken whatever is there
PLACES = ("state_dict", "model_state_dict", "model", "module", "net", "network", "weights", "params")
"""Keys under which training scripts keep the model's tensors, the likeliest first."""
_STALE = re.compile(r"optim|(^|_)ema(_|$)|momentum|averag|shadow", re.IGNORECASE)
_KEY_MOST = 200  # letters of a key that are looked at
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


@dataclass(frozen=True)
class StateDict:
    """The model's map in `content`: under `key`, or at the top (None). `is_tensor` tells what a tensor is.

    >>> content = {"state_dict": {"w": 1.5, "n": 1}, "epoch": 3}
    >>> state = StateDict.of(content, lambda value: type(value) is float, "a.pt")
    >>> state.key, state.tensors, state.beside
    ('state_dict', {'w': 1.5}, ('epoch', 'n'))
    """

    content: Mapping[Any, Any]
    key: Any
    whole: Mapping[Any, Any]
    is_tensor: Callable[[Any], bool]

    @classmethod
    def of(cls, content: Any, is_tensor: Callable[[Any], bool], where: str) -> "StateDict":
        """Raises `FormatError` where there is none, or one with impossible names."""
        if not isinstance(content, dict):
            what = content.name if isinstance(content, Inert | Global) else type(content).__name__
            raise FormatError(f"{where} holds no map of tensors but a {what}", remedy="save a `state_dict()`")
        state = cls(content, *_place(content, is_tensor, where), is_tensor)
        for name in state.whole:
            if not isinstance(name, str) and is_tensor(state.whole[name]):
                fault = f"{where} names a tensor {shown(name)}, not by text"
                raise FormatError(fault, remedy="save a `state_dict()`")
            if isinstance(name, str) and len(name) > NAME_MOST:
                raise FormatError(f"{where} has a name of {len(name):,} letters, beginning {name[:40]!r}",
                                  remedy=f"{NAME_MOST:,} is the most")  # fmt: skip
        return state

    @cached_property
    def entries(self) -> Mapping[Any, Any]:
        """What belongs to the model: an optimizer's state does not, which may lie among its tensors where they lie
        at the top."""
        if self.key is not None:
            return self.whole
        return {name: value for name, value in self.whole.items()
                if not (_is_stale(name) and isinstance(value, dict | list))}  # fmt: skip

    @cached_property
    def tensors(self) -> dict[str, Any]:
        """The entries that are tensors."""
        return {name: value for name, value in self.entries.items() if self.is_tensor(value)}

    @cached_property
    def unread(self) -> dict[str, str]:
        """The entries that hold values and are not tensors, and what they are."""
        return unread(self.entries, self.is_tensor)

    @cached_property
    def around(self) -> list[tuple[Any, Any]]:
        """All else that the file holds: at the top all but the model's map, and what is not a tensor in that."""
        top = [(key, value) for key, value in self.content.items() if key != self.key]
        inside = [(key, value) for key, value in self.whole.items() if not self.is_tensor(value)]
        return inside if self.key is None else [*top, *inside]

    @property
    def beside(self) -> tuple[str, ...]:
        """The keys of that, for whoever does not write it on."""
        return tuple(shown(key) for key, _ in self.around)

    @cached_property
    def stale(self) -> list[str]:
        """The keys of what belongs to these values of the tensors: an optimizer's state, averages."""
        return [shown(key) for key, value in self.content.items()
                if key != self.key and _is_stale(key) and isinstance(value, dict | list | Inert)]  # fmt: skip

    @property
    def notes(self) -> list[str]:
        """What a reader should know of what lies around the tensors, a sentence each."""
        lightning, notes = self.content.get("pytorch-lightning_version"), []
        if "pytorch-lightning_version" in self.content:
            notes.append(f"a checkpoint of Lightning {shown(lightning, most=20)}")
        strays = [shown(key) for key, value in self.content.items() if self.is_tensor(value)]
        if self.key is not None:
            notes.append(f"the tensors lie under {shown(self.key)!r}")
            notes += [f"left out what lies beside them: {listing(strays)}"] if strays else []
        notes += [stale_note(self.stale)] if self.stale else []
        baggage = [shown(name) for name, value in self.entries.items()
                   if not self.is_tensor(value) and name not in self.unread]  # fmt: skip
        return notes + ([f"left out what is not a tensor: {listing(baggage)}"] if baggage else [])


def _place(content: dict, is_tensor: Callable[[Any], bool], where: str) -> tuple[Any, dict]:
    """The key under which the model's tensors lie (None: at the top), and the map itself."""
    dicts = {id(value): value for value in content.values() if isinstance(value, dict)}  # each is looked at once
    wanted = {at for at, value in dicts.items() if any(map(is_tensor, value.values()))}
    maps = {key: value for key, value in content.items() if id(value) in wanted}
    key = next((key for key in PLACES if key in maps), None)
    if key is not None:
        return key, maps[key]
    if any(map(is_tensor, content.values())):
        return None, content
    if len(maps) == 1:
        return next(iter(maps.items()))  # a key may be None
    keys = listing([repr(shown(key)) if isinstance(key, str) else shown(key) for key in content])
    raise FormatError(f"{where} holds no tensors that can be told to be the model's",
                      remedy=f"its keys are {keys}" if keys else "it is empty")  # fmt: skip


def _is_stale(key: Any) -> bool:
    return isinstance(key, str) and bool(_STALE.search(key[:_KEY_MOST]))


def refuse_inflated(tensors: Sequence[Tensor], held: int, where: str) -> None:
    """Raises `FormatError` where tensors would take far more bytes than are there: a view may repeat a value
    without end. Weights that are tied or expanded repeat a few."""
    taken = sum(dtypes.bits(tensor.dtype) * prod(tensor.shape) // 8 for tensor in tensors)
    if taken > max(held * INFLATION_MOST, INFLATED_FREE):
        raise FormatError(f"{where} holds {held:,} B of tensors that would take {taken:,} B",
                          remedy="where you trust it, save its tensors with `.clone()`")  # fmt: skip


def unread(entries: Mapping[Any, Any], is_tensor: Callable[[Any], bool]) -> dict[str, str]:
    """Name → what it is, of the entries that hold values and are not tensors themselves.

    >>> unread({"w": 1.5, "packed": (1.5, None), "epoch": 3}, lambda value: type(value) is float)
    {'packed': 'a tuple that holds a tensor'}
    """
    # Containers are looked into once, however often and deep they hold each other.
    known: dict[int, str | None] = {}

    def held(value: Any, depth: int) -> str | None:
        """The first value inside; where there is no end of looking, there may be one."""
        if is_tensor(value):
            return "a tensor"
        if isinstance(value, bytes | bytearray):
            return "bytes" if value else None
        if isinstance(value, Inert) and value.name in HOLDERS:
            return HOLDERS[value.name]
        inside = parts(value)
        if inside and depth == DEPTH_MOST:
            return "more than can be looked through"
        if inside and id(value) not in known:
            known[id(value)] = "itself"
            known[id(value)] = next(filter(None, (held(part, depth + 1) for part in inside)), None)
        return known.get(id(value)) if inside else None

    described = {}
    for name, value in entries.items():
        if not is_tensor(value) and (what := held(value, 0)):
            if isinstance(value, tuple | list | dict):
                what = f"a {'map' if isinstance(value, dict) else type(value).__name__} that holds {what}"
            described[name if isinstance(name, str) else f"<{shown(name)}>"] = what
    return described


def parts(value: Any) -> Iterable[Any]:
    """What a container holds."""
    if isinstance(value, dict):
        return value.values()
    if isinstance(value, Inert):
        return (value.state,) if value.state is not None else ()
    return value if isinstance(value, tuple | list) else ()
