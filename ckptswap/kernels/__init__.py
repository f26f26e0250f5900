"""One pass over tensors' bytes by compiled loops, where numba is installed and there is enough to do.

They give the numbers that `ckptswap.rulers` computes in numpy, many times as fast. Complex and packed dtypes have
none.
"""

import functools
from importlib.metadata import version
from importlib.util import find_spec

import numpy as np

from ckptswap import dtypes
from ckptswap.kernels.machine_code import Loop, function, is_kept

WORTH_LOADING = 1 << 26
"""Bytes of one dtype from which on the 35 ms (and 40 MB) that loading takes are well spent."""
WORTH_COMPILING = 1 << 28
"""Bytes from which on a second or two are, for what a machine compiles once."""
_NOT_FINITE = {
    "F64": 0x7FF << 52, "F32": 0x7F800000, "F16": 0x7C00, "BF16": 0x7F80,
    "F8_E5M2": 0x7C, "F8_E4M3": 0x7F, "F8_E8M0": 0xFF,
}  # fmt: skip
"""The bits that are all set exactly in NaN and Inf."""


class Kernel:
    """The loops of one dtype, for chunks of bytes that hold whole values. Any number of threads may share it."""

    def __init__(self, dtype: str, may_compile: bool = True) -> None:
        """Raises `LookupError` where a loop would have to be compiled and may not."""
        unsigned = dtype[0] == "U" or dtype == "BOOL"
        width = dtypes.bits(dtype)
        distance = Loop("distance", dtype, f"uint{width}" if unsigned else f"int{width}", sums=1)
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


def kernel(dtype: str, nbytes: int) -> Kernel | None:
    """The loops for so many bytes of a dtype; None where numpy does as well, or is all there is."""
    if nbytes < WORTH_LOADING or dtypes.is_complex(dtype) or dtypes.is_packed(dtype) or not is_there():
        return None
    return _made(dtype, nbytes >= WORTH_COMPILING)


def is_there() -> bool:
    """Whether what compiles is installed; nothing is imported."""
    return find_spec("numba") is not None


@functools.cache
def _made(dtype: str, may_compile: bool) -> Kernel | None:
    """None whatever is wrong with the compiler or its work, since there is a way without; `made_by` tells."""
    try:
        return Kernel(dtype, may_compile)
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
    return f"compiled by numba {version('numba')}"
