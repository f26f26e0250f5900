"""Bits as doubles, in expressions that a processor's vectors can do: numba knows neither half precision nor less.

Imported only where loops are compiled.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from ckptswap import dtypes

Widen = Callable[[Any], Any]
inlined = njit(inline="always")
_NARROW = {
    "F16": (10, 15, 0x7C00), "F8_E5M2": (2, 15, 0x7C), "F8_E4M3": (3, 7, 0x7F),
    "F8_E5M2FNUZ": (2, 16, None), "F8_E4M3FNUZ": (3, 8, None),
}  # fmt: skip
"""Bits of the mantissa, the exponent's bias, and the first magnitude that is not finite; None where NaN is -0."""


def widening(dtype: str) -> Widen:
    """What makes a double of a float's bits, which are a signed number of its width."""
    if dtype == "F64":
        return inlined(lambda bits: np.int64(bits).view(np.float64))
    if dtype == "F32":
        return inlined(lambda bits: np.float64(np.int32(bits).view(np.float32)))
    if dtype == "BF16":
        high = np.uint32(16)
        return inlined(lambda bits: np.float64(np.uint32(np.uint32(np.uint16(bits)) << high).view(np.float32)))
    return _power_of_two() if dtype == "F8_E8M0" else _narrow(dtypes.bits(dtype), *_NARROW[dtype])


def _power_of_two() -> Widen:
    """E8M0 is an exponent and nothing else."""
    raised, nan = np.uint64(1023 - 127), np.uint64(0x7FF8 << 48)

    @inlined
    def widen(bits):
        exponent = np.uint64(np.uint8(bits))
        power = np.uint64((exponent + raised) << np.uint64(52))
        return np.uint64(nan if exponent == np.uint64(255) else power).view(np.float64)

    return widen


def _narrow(width: int, mantissa: int, bias: int, first_odd: int | None) -> Widen:
    """By way of single precision: the exponent is moved, and a subnormal is normalised by a subtraction."""
    unsigned = np.uint16 if width == 16 else np.uint8
    sign, sign_shift, shift = np.uint32(1 << (width - 1)), np.uint32(32 - width), np.uint32(23 - mantissa)
    smallest_normal, moved = np.uint32(1 << mantissa), np.uint32((127 - bias) << 23)
    implicit = np.uint32((128 - bias) << 23)
    least = implicit.view(np.float32)
    all_ones, is_unsigned_zero = np.uint32(0x7F800000), np.uint32(first_odd is None)
    limit = np.uint32(first_odd or 0)

    @inlined
    def widen(bits):
        whole = np.uint32(unsigned(bits))
        size = np.uint32(whole & (sign - np.uint32(1)))
        raised = np.uint32(size << shift)
        normal = np.uint32(raised + moved)
        subnormal = np.float32(np.uint32(raised + implicit).view(np.float32) - least).view(np.uint32)
        single = normal if size >= smallest_normal else subnormal
        is_odd = whole == sign if is_unsigned_zero else size >= limit
        single = np.uint32(raised | all_ones | is_unsigned_zero) if is_odd else single
        return np.float64(np.uint32(single | np.uint32((whole & sign) << sign_shift)).view(np.float32))

    return widen
