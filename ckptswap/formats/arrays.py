"""Numpy's arrays in a pickle as tensors: a shape, a dtype and bytes, none of which has to be built to be read.

Model zoos keep their weights so (detectron2's `.pkl`), and torch the tensors of devices without storages of its.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from ckptswap import dtypes
from ckptswap.errors import FormatError
from ckptswap.formats.inert import Inert
from ckptswap.formats.strided import contiguous
from ckptswap.formats.torch_pickle import (
    FROM_BUFFER,
    FROM_DEVICE,
    RECONSTRUCTED,
    Locate,
    Storage,
    Stretch,
    View,
    are_counts,
    dtype_of,
)
from ckptswap.storage import MemoryFile

_DTYPES: Mapping[str, str] = {
    "f8": "F64", "f4": "F32", "f2": "F16", "i8": "I64", "i4": "I32", "i2": "I16", "i1": "I8",
    "u8": "U64", "u4": "U32", "u2": "U16", "u1": "U8", "b1": "BOOL", "c8": "C64", "c16": "C128",
}  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Held(Storage):
    """A storage whose bytes the pickle itself holds."""

    raw: bytes | bytearray = b""


def with_held(locate: Locate) -> Locate:
    """The same, which also finds the bytes that the pickle holds."""

    def located(storage: Storage) -> Stretch:
        if isinstance(storage, Held):
            return Stretch(MemoryFile(memoryview(storage.raw)), 0, len(storage.raw))
        return locate(storage)

    return located


def no_storages(storage: Storage) -> Stretch:
    """Where storages lie in a file that has none. Raises `FormatError`."""
    raise FormatError("it is damaged", remedy=f"storage {storage.key} is not in it")


def device_tensor(value: Any) -> View | None:
    """The tensor of a device that torch pickles as an array; None for all else."""
    if not isinstance(value, Inert) or value.name not in FROM_DEVICE or len(value.held) < 2:
        return None
    held, wanted = value.held[0], dtype_of(value.held[1])
    view = held if isinstance(held, View) else array(held)
    if view is None or wanted is None or wanted == view.dtype:
        return view if wanted else None
    if not isinstance(view.storage, Held):  # torch itself never writes a tensor of another dtype there
        return None
    numbers = np.frombuffer(view.storage.raw, dtypes.to_numpy(view.dtype))
    raw = numbers.astype(dtypes.to_numpy(wanted)).tobytes()  # bfloat16 travels as F32, and fits again
    return View(Held(view.storage.key, wanted, numbers.size, raw=raw), 0, view.shape, view.strides, wanted)


def array(value: Any) -> View | None:
    """An array's numbers as a tensor; None for what is not an array, or not one of numbers.

    >>> import io, pickle
    >>> from ckptswap.formats.pickles import read_pickle
    >>> raw = pickle.dumps(np.ones((2, 3), "f4"))
    >>> view = array(read_pickle(io.BytesIO(raw), {}, where="a.pkl", unknown=True))
    >>> view.shape, view.dtype
    ((2, 3), 'F32')
    """
    if not isinstance(value, Inert):  # nearly all of a pickle's values
        return None
    shape, dtype, is_fortran, raw = _described(value)
    name, order = _spelt(dtype)
    raw = bytes_of(raw)
    if not isinstance(shape, tuple) or not are_counts(shape) or dtypes.shape_fault(shape) or name not in _DTYPES:
        return None
    if raw is None or len(raw) != prod(shape) * int(name[1:]):
        return None
    if order == ">":
        raw = np.frombuffer(raw, f">{name}").astype(f"<{name}").tobytes()
    steps = contiguous(shape[::-1], 1)[::-1] if is_fortran else contiguous(shape, 1)
    spelt = _DTYPES[name]
    return View(Held(f"array {id(value)}", spelt, prod(shape), raw=raw), 0, shape, tuple(steps), spelt)


def _described(value: Inert) -> tuple[Any, Any, bool, Any]:
    """Shape, dtype, whether columns come first, and bytes; None each where it is not an array."""
    if value.name in RECONSTRUCTED and isinstance(value.state, tuple) and len(value.state) == 5:
        _, shape, dtype, is_fortran, raw = value.state
        return shape, dtype, is_fortran is True, raw
    if value.name in FROM_BUFFER and len(value.held) == 4:
        raw, dtype, shape, order = value.held
        return shape, dtype, order == "F", raw
    return None, None, False, None


def _spelt(dtype: Any) -> tuple[str, Any]:
    """A dtype's letter and width, and the order of its bytes."""
    if not isinstance(dtype, Inert) or dtype.name != "numpy.dtype" or not dtype.held:
        return "", None
    order = dtype.state[1] if isinstance(dtype.state, tuple) and len(dtype.state) > 1 else "<"
    return (dtype.held[0], order) if isinstance(dtype.held[0], str) else ("", None)


def bytes_of(raw: Any) -> bytes | bytearray | None:
    """Bytes as a pickle has them; before protocol 3 they are spelt as text."""
    if isinstance(raw, Inert) and raw.name == "_codecs.encode" and [*raw.held[1:]] == ["latin1"]:
        [raw, _] = raw.held
    if isinstance(raw, Inert) and raw.name == "builtins.bytearray" and raw.held:
        [raw, *_] = raw.held
    if isinstance(raw, Inert) and raw.name == "builtins.bytes" and not raw.held:
        return b""  # as protocol 2 spells it
    if isinstance(raw, str):
        try:
            return raw.encode("latin-1")
        except UnicodeEncodeError:
            return None
    return raw if isinstance(raw, bytes | bytearray) else None
