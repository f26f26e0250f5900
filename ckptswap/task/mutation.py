"""Whether a model changes its own parameters or buffers when it runs: scores would depend on what ran before."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from typing import Any

import xxhash
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from ckptswap.errors import ModelError
from ckptswap.task.arrays import bytes_of

Slot = tuple[str, Mapping[str, Any], str]
"""Full name, and the module's own table with the key in it."""


_NOTHING = object()


class Watch:
    """Looks at a model's tensors before and after it runs.

    torch counts the writes to each tensor, so that a look costs a comparison of small numbers. What `.data` hides
    from that count is looked for once, at the first run, by hashing all values.
    """

    def __init__(self, model: nn.Module) -> None:
        self._slots: list[Slot] = [
            (f"{path}.{key}" if path else key, table, key)
            for path, module in model.named_modules()
            for table in (module._parameters, module._buffers)
            for key, value in table.items()
            if value is not None
        ]
        self._model, self._hashed = model, False
        self._made: list[tuple[str, dict[str, Any], str, Any]] = []

    @property
    def made(self) -> list[str]:
        """What the model made of tensors when it first ran, and keeps beside its own, by full names."""
        return [name for name, *_ in self._made]

    @contextmanager
    def forgotten(self) -> Iterator[None]:
        """The model as if it had never run; what it keeps comes back."""
        kept = [(table, key, table[key]) for _, table, key, _ in self._made if key in table]
        try:
            for _, table, key, before in self._made:
                if before is _NOTHING:
                    table.pop(key, None)
                else:
                    table[key] = _copy(before)
            yield
        finally:
            for table, key, value in kept:
                table[key] = value

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Raises `ModelError` when what runs in here writes to a tensor of the model, or replaces one.

        >>> import torch
        >>> model = nn.BatchNorm1d(2).train()
        >>> with Watch(model).unchanged():
        ...     output = model(torch.ones(4, 2))
        Traceback (most recent call last):
        ...
        ckptswap.errors.ModelError: the model changes its own ...
        """
        tensors = self._tensors()
        writes = [tensor._version for tensor in tensors]
        hashes = [] if self._hashed else [_hash(tensor) for tensor in tensors]
        beside = {} if self._hashed else {name: _copy(table[key]) for name, (table, key) in self._beside().items()}
        yield
        self._compare(list(map(id, tensors)), list(map(id, self._tensors())))
        self._compare(writes, [tensor._version for tensor in tensors])
        if not self._hashed:
            self._compare(hashes, [_hash(tensor) for tensor in tensors])
            self._made = [
                (name, table, key, beside.get(name, _NOTHING))
                for name, (table, key) in self._beside().items()
                if (now := _tensors_in(table[key])) and now != _tensors_in(beside.get(name))
            ]
            self._hashed = True

    def _beside(self) -> dict[str, tuple[dict[str, Any], str]]:
        """Where modules keep what are not their modules or parameters, by full names."""
        return {
            f"{path}.{key}" if path else key: (table, key)
            for path, module in self._model.named_modules()
            for table in (vars(module), module._buffers)
            if isinstance(table, dict)  # a scripted module's is not
            for key in table
            if key not in ("_parameters", "_buffers", "_modules")
        }

    def _tensors(self) -> list[Any]:
        """What is in each slot now, None in one that is gone; a scripted module's table has no `get`."""
        return [table[key] if key in table else None for _, table, key in self._slots]  # noqa: SIM401

    def _compare(self, before: Sequence[object], after: Sequence[object]) -> None:
        if before != after:
            pairs = zip(self._slots, before, after, strict=True)
            raise _changed(next(name for (name, _, _), old, new in pairs if old != new))


def _copy(value: Any) -> Any:
    return copy(value) if type(value) in (list, dict) else value


def _tensors_in(value: Any) -> list[int]:
    """Which tensors an attribute holds."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else [value]
    return [id(part) for part in parts if isinstance(part, Tensor)]


def _hash(tensor: Any) -> bytes:
    if is_traceable_wrapper_subclass(tensor):  # a library's quantised weight, made of plain tensors
        return b"".join(_hash(getattr(tensor, part)) for part in tensor.__tensor_flatten__()[0])
    return xxhash.xxh3_128_digest(bytes_of(tensor).data)


def _changed(name: str) -> ModelError:
    return ModelError(
        f"the model changes its own {name!r} when it runs, so that a score would depend on what ran before",
        remedy="let forward leave it alone in eval mode (`if self.training:`), or change a copy",
    )
