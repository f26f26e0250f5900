"""One pass over tensors' bytes by compiled loops, where numba is installed and there is enough to do.

They give the numbers that `ckptswap.rulers` computes in numpy, many times as fast. Complex and packed dtypes have
none.
"""

import functools
from importlib.util import find_spec
from typing import TypeVar

import numpy as np

from ckptswap import dtypes
from ckptswap.kernels.machine_code import Loop, function, is_kept

WORTH_LOADING = 1 << 26
"""Bytes of one dtype from which on the 35 ms (and 40 MB) that loading takes are well spent."""
WORTH_COMPILING = 1 << 28
"""Bytes from which on a second or two are, for what a machine compiles once."""
Made = TypeVar("Made", "Kernel", "MomentsKernel")
_NOT_FINITE = {
    "F64": 0x7FF << 52, "F32": 0x7F800000, "F16": 0x7C00, "BF16": 0x7F80,
    "F8_E5M2": 0x7C, "F8_E4M3": 0x7F, "F8_E8M0": 0xFF,
}  # fmt: skip
"""The bits that are all set exactly in NaN and Inf."""


class Kernel:
    """The loops of one dtype, for chunks of bytes that hold whole values. Any number of threads may share it."""

    def __init__(self, dtype: str, may_compile: bool = True) -> None:
        """Raises `LookupError` where a loop would have to be compiled and may not."""
        width = dtypes.bits(dtype)
        distance = Loop("distance", dtype, _integers(dtype), sums=1)
        agreement = Loop("agreement", f"int{width}", f"int{width}", sizes=3)
        if not may_compile and not (is_kept(distance) and is_kept(agreement)):
            raise LookupError(f"nothing is kept for {dtype}")
        self._bytes = width // 8
        self._distance, self._agreement = function(distance), function(agreement)
        exponent = _NOT_FINITE.get(dtype, 0)
        self._odd = (0xFF, 0x80) if dtype.endswith("FNUZ") else (exponent, exponent or 1)

    def distance(self, a: np.ndarray, b: np.ndarray) -> tuple[list[float], list[int]]:
        """Sums of squared and absolute differences, of both sides' squares and of products; and how many values
        are finite on both sides, differ in bits, differ in sign, are NaN in A and in B, infinite in A and in B;
        last the largest difference, of floats as the bits of a double, of integers as unsigned ones."""
        sums, counts = np.empty(5), np.empty(8, np.int64)
        self._distance(a.ctypes.data, b.ctypes.data, sums.ctypes.data, counts.ctypes.data, a.size // self._bytes)
        return sums.tolist(), counts.tolist()

    def agreement(self, a: np.ndarray, b: np.ndarray) -> tuple[bool, bool]:
        """Whether all bits are the same, and whether all values are finite where they are."""
        found = np.empty(2, np.int64)
        self._agreement(a.ctypes.data, b.ctypes.data, found.ctypes.data, a.size // self._bytes, *self._odd)
        return bool(found[0]), bool(found[1])


class MomentsKernel:
    """The loop of one dtype over a single tensor's chunks."""

    def __init__(self, dtype: str, may_compile: bool = True) -> None:
        """Raises `LookupError` where the loop would have to be compiled and may not."""
        loop = Loop("moments", dtype, _integers(dtype), tensors=1, sums=1)
        if not may_compile and not is_kept(loop):
            raise LookupError(f"nothing is kept for {dtype}")
        self._bytes = dtypes.bits(dtype) // 8
        self._moments = function(loop)

    def moments(self, raw: np.ndarray) -> tuple[list[float], list[int]]:
        """The sum, and the scatter around the mean; and how many values are finite, NaN, and infinite; the
        smallest and the largest, of floats as a double's bits in the order of values; and for integers, whose sum
        is counted from the first on, the same exactly."""
        sums, counts = np.empty(2), np.empty(6, np.int64)
        self._moments(raw.ctypes.data, sums.ctypes.data, counts.ctypes.data, raw.size // self._bytes)
        return sums.tolist(), counts.tolist()


def _integers(dtype: str) -> str:
    """How numba calls the whole numbers as which a loop sees the values."""
    return f"uint{dtypes.bits(dtype)}" if dtype[0] == "U" or dtype == "BOOL" else f"int{dtypes.bits(dtype)}"


def kernel(dtype: str, nbytes: int) -> Kernel | None:
    """The loops over pairs for so many bytes of a dtype; None where numpy does as well, or is all there is."""
    return _made(Kernel, dtype, nbytes >= WORTH_COMPILING) if _is_worth_it(dtype, nbytes) else None


def moments_kernel(dtype: str, nbytes: int) -> MomentsKernel | None:
    """The same over single tensors; whose sum may leave 64 bits has none."""
    is_worth_it = _is_worth_it(dtype, nbytes) and dtype not in ("I64", "U64")
    return _made(MomentsKernel, dtype, nbytes >= WORTH_COMPILING) if is_worth_it else None


def _is_worth_it(dtype: str, nbytes: int) -> bool:
    has_loops = not dtypes.is_complex(dtype) and not dtypes.is_packed(dtype)
    return has_loops and nbytes >= WORTH_LOADING and is_there()


def is_there() -> bool:
    """Whether what compiles is installed; nothing is imported."""
    return find_spec("numba") is not None


@functools.cache
def _made(kind: type[Made], dtype: str, may_compile: bool) -> Made | None:
    """None whatever is wrong with the compiler or its work, since there is a way without; `made_by` tells."""
    try:
        return kind(dtype, may_compile)
    except Exception:
        return None


def made_by() -> str:
    """By what large files are measured here, and where not by compiled loops, why. May compile one."""
    if not is_there():
        return "numpy (numba is not installed)"
    try:
        Kernel("F32")
    except Exception as error:
        return f"numpy (numba fails with {type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]})"
    from importlib.metadata import version  # takes long beside the start of a command

    return f"compiled by numba {version('numba')}"
