"""A file of torch as a checkpoint: its model's tensors, and whether those that lie beside them are whole."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from ckptswap.checkpoint import Checkpoint
from ckptswap.entries import Tensor, Unread, with_key
from ckptswap.errors import FormatError, listing
from ckptswap.formats.arrays import array, device_tensor, with_held
from ckptswap.formats.inert import Global, Inert, shown
from ckptswap.formats.keys import follow
from ckptswap.formats.modules import ModelTensors, unfolded
from ckptswap.formats.replacing import replaced
from ckptswap.formats.state_dict import PLACES, StateDict, parts, refuse_inflated
from ckptswap.formats.torch_pickle import NAMES, Locate, View, view_fault
from ckptswap.storage import ByteSource
from ckptswap.ties import Extent, Ties

SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".pth.tar")
HYPERPARAMETERS, HYPERPARAMETERS_MOST = "hyper_parameters", 100_000
"""Lightning's key, and the letters that they may take."""
HYPERPARAMETERS_KEY = f"lightning.{HYPERPARAMETERS}"
"""The metadata key under which they travel, as JSON."""
OBJECT = "__object__"
"""What stands in that JSON for an object: `{OBJECT: its class}`."""


def checkpoint_of(
    content: Any, locate: Locate, file: ByteSource, format: str, key: str | None = None, **more: Any
) -> Checkpoint:
    """The checkpoint in what a file's pickle holds, each tensor checked against its storage: the map under a key,
    or the one that is told to be the model's; `more` are arguments for it. Raises `FormatError`, also where a
    tensor beside the model's cannot be read: `torch.load` opens no such file."""
    state, locate = _state(content, file.name, key), with_held(locate)
    tensors = [_tensor(name, view, locate, file.name) for name, view in state.tensors.items()]
    held = {view.storage.key: locate(view.storage).size for view in state.tensors.values()}
    refuse_inflated(tensors, sum(held.values()), file.name)
    extents = {}
    for name, view in state.tensors.items():
        steps = tuple((size, step) for size, step in zip(view.shape, view.strides, strict=True) if size > 1)
        begin, end = view.span
        extents[name] = Extent(view.storage.key, begin, end, (view.shape, steps, view.dtype), steps)
    ties = Ties.of(extents)
    _refuse_faulty(state, locate, file.name)
    metadata = {**more.pop("metadata", {}), **_hyperparameters(state.content)}
    notes = [*state.notes, *_of_records(state), *([str(ties)] if ties else [])]
    return Checkpoint(tensors, path=with_key(file.name, key), key=key, format=format, notes=notes, sources=[file],
                      unread=state.unread, ties=ties, beside=state.beside, stale=state.stale, metadata=metadata,
                      **more)  # fmt: skip


def _state(content: Any, where: str, key: str | None) -> StateDict:
    """The model's map in what a pickle holds, with the tensors of whole models under their names, and arrays as
    tensors: those of devices, those where a model is looked for, and all where there are no others."""
    content = unfolded(content, where)
    content = replaced(list(content) if isinstance(content, tuple) else content, device_tensor)
    if not any(isinstance(held, View | Unread) for _, held in _links(content)):
        content = replaced(content, array)
    with suppress(FormatError):  # where a key leads nowhere, which is said below
        steps = [follow(content, key, where)[0][-1]] if key else []
        for holder, own in (*steps, *((content, place) for place in PLACES)):
            if isinstance(holder, dict) and own in holder:
                holder[own] = replaced(holder[own], array)
    return StateDict.of(content, _is_tensor, where, key, lambda value: array(value) or value)


def _of_records(state: StateDict) -> list[str]:
    """What to say of classes that are not known: that the model's tensors lie in one, and which stand beside."""
    told = []
    if isinstance(state.whole, ModelTensors):
        told.append(f"the tensors of a {shown(state.whole.kind)}, of which nothing was built or run")
    classes: dict[str, str] = {}
    waiting, seen = [*reversed(state.around)], set()
    while waiting:  # each is looked into once, for the first key that leads to it
        key, value = waiting.pop()
        if isinstance(value, Inert) and value.name not in NAMES:
            classes.setdefault(value.name, key)
        if isinstance(value, dict | list | tuple | Inert) and id(value) not in seen:
            seen.add(id(value))
            waiting.extend((key, held) for held in parts(value) if isinstance(held, dict | list | tuple | Inert))
    if classes:
        told.append(f"left unread: {listing([f'{name} under {key!r}' for name, key in classes.items()], most=3)}")
    return told


def _hyperparameters(content: Any) -> dict[str, str]:
    """Those of a file of Lightning as metadata, nothing where it has none or they are too much."""
    held = content.get(HYPERPARAMETERS) if isinstance(content, dict) else None
    if not isinstance(held, dict) or "pytorch-lightning_version" not in content or _is_much(held):
        return {}
    named = {key: value for key, value in held.items() if isinstance(key, str) and not key.startswith("_")}
    try:
        text = json.dumps(named, default=_stand_in, skipkeys=True)
    except (ValueError, RecursionError):  # it holds itself
        return {}
    return {HYPERPARAMETERS_KEY: text} if len(text) <= HYPERPARAMETERS_MOST else {}


def _is_much(held: Any) -> bool:
    """Whether it has more parts than can be spelt, each counted as often as it would be: a few lists that hold one
    another twice, and so on, are a text without end."""
    waiting, count = [held], 0
    while waiting:
        inner = waiting.pop()
        inside = [*inner.values()] if isinstance(inner, dict) else inner
        count += len(inside)
        if count > HYPERPARAMETERS_MOST:
            return True
        waiting += [part for part in inside if isinstance(part, dict | list | tuple)]
    return False


def _stand_in(value: Any) -> dict[str, str]:
    return {OBJECT: value.name if isinstance(value, Inert | Global) else type(value).__name__}


def keys_holding(content: Any, key: str | None, is_meant: Callable[[View], bool]) -> list[str]:
    """The keys of what lies beside a map's tensors and is, or holds at any depth, a tensor that is meant."""
    return _keys(_state(content, "it", key), is_meant)


def _is_tensor(value: Any) -> bool:
    return isinstance(value, View)


def _tensor(name: str, view: View, locate: Locate, where: str) -> Tensor:
    stretch = locate(view.storage)
    if fault := view_fault(view, stretch.size):
        raise FormatError(f"{where} is damaged", remedy=f"tensor {shown(name)!r} {fault}")
    return Tensor(name, view.shape, view.dtype, view.source(stretch))


def _refuse_faulty(state: StateDict, locate: Locate, where: str) -> None:
    for held in {id(held): held for _, held in _links(state.content) if isinstance(held, View)}.values():
        try:
            fault = view_fault(held, locate(held.storage).size)
        except FormatError as error:
            fault = f"cannot be read ({error.remedy})"
        if fault:
            [key, *_] = _keys(state, lambda view, faulty=held: view is faulty)  # type: ignore[misc]
            raise FormatError(f"{where} is damaged", remedy=f"a tensor under {key!r} {fault}")


def _keys(state: StateDict, is_meant: Callable[[View], bool]) -> list[str]:
    holders: dict[int, list[int]] = defaultdict(list)
    pending = []
    for holder, held in _links(state.content):
        holders[id(held)].append(id(holder))
        if isinstance(held, View) and len(holders[id(held)]) == 1 and is_meant(held):
            pending.append(id(held))
    reached = set(pending)
    while pending:
        above = [holder for holder in holders.pop(pending.pop(), ()) if holder not in reached]
        reached.update(above)
        pending.extend(above)
    return [key for key, value in state.around if id(value) in reached]


def _links(content: Any) -> Iterator[tuple[Any, Any]]:
    """Every container with each tensor and container in it; each is looked into once, and told by identity."""
    waiting, seen = [content], {id(content)}
    while waiting:
        holder = waiting.pop()
        for held in parts(holder):
            if isinstance(held, View | dict | list | tuple | Inert):
                yield holder, held
                if not isinstance(held, View) and id(held) not in seen:
                    seen.add(id(held))
                    waiting.append(held)
