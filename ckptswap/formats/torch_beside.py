"""Tensors that a file of torch holds beside the model's: whether they are whole, and under which keys they lie."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ckptswap.errors import FormatError
from ckptswap.formats.pickles import Inert, shown
from ckptswap.formats.torch_pickle import Locate, View, others, view_fault


def refuse_faulty(content: Any, locate: Locate, where: str) -> None:
    """Raises `FormatError` where a tensor beside the model's cannot be read: `torch.load` opens no such file."""
    seen: set[int] = set()
    for _, held in _links(content):
        if isinstance(held, View) and id(held) not in seen:
            seen.add(id(held))
            fault = _fault(held, locate)
            if fault:
                [key, *_] = keys_of(content, lambda view, faulty=held: view is faulty)  # type: ignore[misc]
                raise FormatError(f"{where} is damaged", remedy=f"a tensor under {key!r} {fault}")


def keys_of(content: Any, is_meant: Callable[[View], bool]) -> list[str]:
    """The keys of what lies beside the model's tensors and is, or holds at any depth, a tensor that is meant."""
    holders: dict[int, list[int]] = defaultdict(list)
    found = []
    for holder, held in _links(content):
        holders[id(held)].append(id(holder))
        if isinstance(held, View) and len(holders[id(held)]) == 1 and is_meant(held):
            found.append(id(held))
    reached = set(found)
    while found:
        new = [each for each in holders.pop(found.pop(), ()) if each not in reached]
        reached.update(new)
        found.extend(new)
    return [shown(key) for key, value in others(content) if id(value) in reached]


def _fault(view: View, locate: Locate) -> str | None:
    try:
        return view_fault(view, locate(view.storage).size)
    except FormatError as error:
        return f"cannot be read ({error.remedy})"


def _links(content: Any) -> Iterator[tuple[Any, Any]]:
    """Every container with each tensor and container in it; each is looked into once, and told by identity."""
    waiting, seen = [content], {id(content)}
    while waiting:
        holder = waiting.pop()
        for held in _parts(holder):
            if isinstance(held, View | dict | list | tuple | Inert):
                yield holder, held
                if not isinstance(held, View) and id(held) not in seen:
                    seen.add(id(held))
                    waiting.append(held)


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return (value.state,) if isinstance(value, Inert) else value
