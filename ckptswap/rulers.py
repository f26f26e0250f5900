"""How far two chunks of bytes are apart: by compiled loops where there are such, else in numpy.

A ruler has buffers that stay in a core's cache and are allocated once; each thread has its own.
"""

import math
from collections.abc import Mapping

import numpy as np

from ckptswap import dtypes
from ckptswap.kernels import Kernel
from ckptswap.moments import Distance, all_finite, float8, inner, non_finite, widen

_PROBE = 4096


class Ruler:
    """Measures how far two chunks are apart, in buffers that are allocated once. One a thread.

    >>> a, b = (np.array(values, np.float32).view(np.uint8) for values in ([1, 2, 3], [1, 2, 5]))
    >>> found = Ruler(12).distance(a, b, "F32")
    >>> found.changed, found.max_abs, round(found.rmse, 6)
    (1, 2.0, 1.154701)
    """

    def __init__(self, capacity: int) -> None:
        """`capacity` is the most bytes that a chunk has."""
        self._capacity = capacity
        self._wide: dict[tuple[int, str], tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
        self._flags = np.empty(capacity, bool)
        self._words = np.empty(capacity, np.uint8)

    def same(self, a: np.ndarray, b: np.ndarray, dtype: str, total: Distance) -> bool:
        """Whether two chunks hold the same bytes. If so they are added: their distance is 0 over all that is
        finite. The norms are only made positive, by as few values as it takes, since nothing but their being so
        matters where all of a tensor is the same."""
        is_same = self._equal(a, b)
        if is_same:
            self._count_same(a, dtype, total)
        return is_same

    def _equal(self, a: np.ndarray, b: np.ndarray) -> bool:
        whole = a.size & ~7
        flags = self._flags[: whole // 8]
        np.equal(a[:whole].view(np.uint64), b[:whole].view(np.uint64), out=flags)
        return bool(flags.all()) and a[whole:].tobytes() == b[whole:].tobytes()

    def _count_same(self, raw: np.ndarray, dtype: str, total: Distance, is_finite: bool = False) -> None:
        if dtypes.is_packed(dtype):
            return
        head = _PROBE if not total.norm_a else 0
        for part in (raw[:head], raw[head:]):
            known = total.norm_a or (dtype != "F8_E8M0" and _is_zero(part))  # which has no zero
            if known and (is_finite or not dtypes.is_float(dtype) or all_finite(part, dtype)):
                total.count += part.size * 8 // dtypes.bits(dtype)
            else:
                total.add(self.distance(part, part, dtype))

    def distance(self, a: np.ndarray, b: np.ndarray, dtype: str) -> Distance:
        """How far two chunks of the same length are apart; `dtype` must not be a packed one."""
        total = Distance()
        total.changed, total.flips = self._differing_bits(a, b, dtype)
        if not dtypes.is_float(dtype):
            _integers(widen(a, dtype), widen(b, dtype), total)
            return total
        x, y, gap = self._doubles(a, b, dtype)
        if not _floats(x, y, gap, total):
            total.nan_a, total.inf_a = non_finite(a, dtype)
            total.nan_b, total.inf_b = non_finite(b, dtype)
            both = np.isfinite(x) & np.isfinite(y)
            _floats(x[both], y[both], gap[: np.count_nonzero(both)], total)
        return total

    def _differing_bits(self, a: np.ndarray, b: np.ndarray, dtype: str) -> tuple[int, int]:
        """How many values differ in any bit, and how many real ones in sign (zeros and NaN left out)."""
        width = dtypes.bits(dtype) // 8
        signed = f"i{min(width, 8)}"
        crossed = np.bitwise_xor(a.view(signed), b.view(signed), out=self._words[: a.size].view(signed))
        if width > 8:
            return int(np.count_nonzero(crossed.reshape(-1, 2).any(axis=1))), 0
        changed = int(np.count_nonzero(crossed))
        if not changed or dtype[0] in "CU" or dtype == "BOOL" or crossed.min() >= 0:
            return changed, 0
        places = crossed < 0
        x, y = (widen(side.view(signed)[places].view(np.uint8), dtype) for side in (a, b))
        return changed, int(np.count_nonzero(((x > 0) & (y < 0)) | ((x < 0) & (y > 0))))

    def _doubles(self, a: np.ndarray, b: np.ndarray, dtype: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Both chunks in double precision, and room for their difference."""
        size = a.size * 8 // dtypes.bits(dtype)
        width, wide = dtypes.bits(dtype), "c16" if dtype[0] == "C" else "f8"
        if (width, wide) not in self._wide:
            room = self._capacity * 8 // width
            self._wide[width, wide] = (np.empty(room, wide), np.empty(room, wide), np.empty(room, wide))
        x, y, gap = (buffer[:size] for buffer in self._wide[width, wide])
        self._widen_into(x, a, dtype)
        self._widen_into(y, b, dtype)
        return x, y, gap

    def _widen_into(self, out: np.ndarray, raw: np.ndarray, dtype: str) -> None:
        with np.errstate(invalid="ignore"):
            if dtype == "BF16" and raw.size % 4 == 0:
                # Two bfloat16 in a word are two float32, once shifted or masked. All low halves come first: the
                # order is the same on both sides, and no sum minds it.
                pairs, words = raw.view("<u4"), self._words[: raw.nbytes].view("<u4")
                np.copyto(out[: pairs.size], np.left_shift(pairs, np.uint32(16), out=words).view("<f4"))
                np.copyto(out[pairs.size :], np.bitwise_and(pairs, np.uint32(0xFFFF0000), out=words).view("<f4"))
            elif dtype == "BF16":
                np.copyto(out, widen(raw, dtype))
            elif dtype.startswith("F8"):
                np.take(float8(dtype), raw, out=out)
            else:
                np.copyto(out, raw.view(dtypes.to_numpy(dtype)))


class CompiledRuler(Ruler):
    """The same by compiled loops, of the dtypes that it is given some for."""

    def __init__(self, capacity: int, kernels: Mapping[str, Kernel]) -> None:
        super().__init__(capacity)
        self._kernels = kernels

    def same(self, a: np.ndarray, b: np.ndarray, dtype: str, total: Distance) -> bool:
        if dtype not in self._kernels:
            return super().same(a, b, dtype, total)
        is_same, is_finite = self._kernels[dtype].agreement(a, b)
        if is_same:
            self._count_same(a, dtype, total, is_finite)
        return is_same

    def distance(self, a: np.ndarray, b: np.ndarray, dtype: str) -> Distance:
        if dtype not in self._kernels:
            return super().distance(a, b, dtype)
        (square, absolute, norm_a, norm_b, product), counts = self._kernels[dtype].distance(a, b)
        count, changed, flips, nan_a, nan_b, inf_a, inf_b, bits = counts
        largest = np.int64(bits).view(np.float64 if dtypes.is_float(dtype) else np.uint64).item()
        sums = (count, changed, square, absolute, largest, norm_a, norm_b, product)
        return Distance(*sums, nan_a, nan_b, inf_a, inf_b, flips)


def _floats(x: np.ndarray, y: np.ndarray, gap: np.ndarray, total: Distance) -> bool:
    """Fill in the sums, and say whether they are finite, as they are when all values are (but for overflow)."""
    total.count = x.size
    with np.errstate(all="ignore"):
        np.subtract(y, x, out=gap)
        total.square, total.norm_a, total.norm_b = inner(gap, gap), inner(x, x), inner(y, y)
        # From the sums that are known where that loses less than 13 digits of a cosine: it saves a pass.
        small, large = sorted((total.norm_a, total.norm_b))
        total.product = (small + large - total.square) / 2 if large <= 1e6 * small else inner(x, y)
        size = np.abs(gap) if gap.dtype.kind == "c" else np.abs(gap, out=gap)
        total.largest, total.absolute = float(size.max(initial=0.0)), float(size.sum())
    return math.isfinite(total.norm_a + total.norm_b)


def _is_zero(raw: np.ndarray) -> bool:
    whole = raw.size & ~7
    return not (whole and raw[:whole].view(np.uint64).max()) and not raw[whole:].any()


def _integers(x: np.ndarray, y: np.ndarray, total: Distance) -> None:
    """|x − y| in unsigned 64 bits is exact for every pair; only sums are rounded."""
    left, right = (side.view(np.uint64) for side in (x, y))
    size = np.where(x > y, left - right, right - left)
    gap, wide_x, wide_y = (side.astype(np.float64) for side in (size, x, y))
    total.count = x.size
    total.largest = int(size.max()) if size.size else 0
    total.absolute, total.square = float(gap.sum()), inner(gap, gap)
    total.norm_a, total.norm_b, total.product = inner(wide_x, wide_x), inner(wide_y, wide_y), inner(wide_x, wide_y)
