"""By what a model or a metric in memory is known, so that a run is continued by the same one only.

No file tells. A hash does, of what it is made of (a model's modules, a function's code and the values that it
refers to, what an object holds) and of what it gives for the first batch, which tells values apart that are kept
elsewhere.
"""

import dis
import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
from torch import Tensor, nn

from ckptswap.task.arrays import bytes_of
from ckptswap.task.distributions import is_installed
from ckptswap.task.in_memory import InMemory
from ckptswap.task.spec import TaskSpec

_PLACE = re.compile(r" at 0x[0-9a-f]+")
_NOT_CODE = ("__dict__", "__weakref__", "__doc__", "__firstlineno__", "__static_attributes__")
_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(...))
_KEPT = (*_PLAIN, Tensor, np.ndarray, np.generic, frozenset, set, tuple, list, Mapping)
"""What of an object is looked at; its other attributes may lead anywhere."""


def in_memory(spec: TaskSpec) -> list[InMemory]:
    """The model and the metrics of a task that stand in memory; of data all bytes are hashed anyway."""
    return [word for word in (spec.model, *spec.metrics) if isinstance(word, InMemory)]


def hashes(
    spec: TaskSpec, model: nn.Module, output: Tensor, statistics: Mapping[str, np.ndarray]
) -> dict[str, str]:
    """SHA-256 of each of them by its word. `output` (n, …) is what the model gives for the first batch,
    `statistics` (n, K) what metrics make of that.
    """
    given = {word: statistics[word] for word in spec.metrics} | {str(spec.model): output.detach().cpu().numpy()}
    told = {word: _texts(model if word == spec.model else word.value, set()) for word in in_memory(spec)}
    return {word: _hash(texts, np.ascontiguousarray(given[word])) for word, texts in told.items()}


def _hash(texts: Iterator[str], values: np.ndarray) -> str:
    digest = hashlib.sha256(_PLACE.sub("", "\n".join(texts)).encode("utf-8", "surrogatepass"))
    digest.update(values.tobytes())
    return digest.hexdigest()


def _texts(value: Any, seen: set[int]) -> Iterator[str]:
    """What of a value decides what code does that uses it, each part once."""
    if isinstance(value, _PLAIN):
        yield repr(value)
    elif id(value) in seen:
        yield "again"
    else:
        seen.add(id(value))
        yield from _parts(value, seen)


def _parts(value: Any, seen: set[int]) -> Iterator[str]:
    if isinstance(value, nn.Module):
        yield from _of_module(value, seen)
    elif isinstance(value, Tensor | np.ndarray | np.generic):
        raw = bytes_of(value).tobytes() if isinstance(value, Tensor) else value.tobytes()
        yield f"{value.dtype} {tuple(value.shape)} {hashlib.sha256(raw).hexdigest()}"
    elif isinstance(value, CodeType):
        yield f"{value.co_code.hex()} {value.co_names}"
        yield from _all(value.co_consts, seen)
    elif isinstance(value, FunctionType | type):
        yield f"{value.__module__}.{value.__qualname__}"
        if not is_installed(value.__module__):
            yield from _of_code(value, seen)
    elif isinstance(value, MethodType):
        yield from _all((value.__func__, value.__self__), seen)
    elif isinstance(value, partial):
        yield from _all((value.func, value.args, value.keywords), seen)
    elif isinstance(value, ModuleType):
        yield value.__name__
    elif isinstance(value, frozenset | set):
        yield from sorted(text for part in value for text in _texts(part, seen))
    elif isinstance(value, tuple | list):
        yield from _all(value, seen)
    elif isinstance(value, Mapping):
        yield from _all((part for item in value.items() for part in item), seen)
    else:
        yield from _texts(type(value), seen)
        yield from _all((own for own in getattr(value, "__dict__", {}).values() if isinstance(own, _KEPT)), seen)


def _all(values: Any, seen: set[int]) -> Iterator[str]:
    for value in values:
        yield from _texts(value, seen)


def _of_code(value: Any, seen: set[int]) -> Iterator[str]:
    """The code of a function, and what it refers to; or all that a class has of its own."""
    if isinstance(value, type):
        own = (part for name, part in vars(value).items() if name not in _NOT_CODE)
        yield from _all((getattr(part, "__func__", part) for part in own), seen)
        yield from _all(value.__bases__, seen)
        return
    yield from _all((value.__code__, value.__defaults__, value.__kwdefaults__), seen)
    yield from _all(_enclosed(value), seen)
    names = sorted(set(_globals_of(value.__code__)))
    yield from _all((value.__globals__[name] for name in names if name in value.__globals__), seen)


def _enclosed(function: FunctionType) -> Iterator[Any]:
    """The values of the functions around it that it refers to, as far as these are there."""
    for cell in function.__closure__ or ():
        with suppress(ValueError):  # nobody has set it, as where it stands behind a return
            yield cell.cell_contents


def _globals_of(code: CodeType) -> Iterator[str]:
    """The global names that it reads, functions inside it too; attributes may have the same names."""
    yield from (step.argval for step in dis.get_instructions(code) if step.opname == "LOAD_GLOBAL")
    yield from (name for inner in code.co_consts if isinstance(inner, CodeType) for name in _globals_of(inner))


def _of_module(model: nn.Module, seen: set[int]) -> Iterator[str]:
    """What a model is made of, but for the values that checkpoints bring."""
    for name, module in model.named_modules():
        yield f"{name} {module.extra_repr()}"
        yield from _texts(type(module), seen)
    state = model.state_dict()
    yield from (f"{name} {tuple(own.shape)} {own.dtype}" for name, own in state.items() if isinstance(own, Tensor))
    yield from _all((own for name, own in model.named_buffers() if name not in state), seen)
