"""The loops that numba compiles: one pass over two tensors' bytes, or over one's. Imported only to be compiled.

They work in fixed blocks that stay in a core's first cache. A block of floats is summed as if all in it were
finite, in whatever order fills the processor's vectors, and where the sum says otherwise again, value by value.
`sums` and `counts` are in the order that `ckptswap.kernels` tells.

Whether a value is finite is asked by comparing it: numba's own way subtracts it from itself, which may be taken
for 0 where sums may be rearranged.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import carray

from ckptswap import dtypes
from ckptswap.kernels.widening import Widen, inlined, widening

Loop = Callable[..., Any]
_LARGEST = np.int64(2**63 - 1)
BLOCK = 2048  # values; the count of those that differ fits 16 bits


def distance(dtype: str) -> Loop:
    """How far two tensors are apart."""
    block = _float_block(dtype) if dtypes.is_float(dtype) else _integer_block(dtype)

    def loop(at_a, at_b, at_sums, at_counts, size):
        a, b, sums, counts = carray(at_a, size), carray(at_b, size), carray(at_sums, 5), carray(at_counts, 8)
        sums[:], counts[:] = 0, 0
        for start in range(0, size, BLOCK):
            square, absolute, norm_a, norm_b, product, count, changed, flips = block(
                a[start : start + BLOCK], b[start : start + BLOCK], counts
            )
            sums[0] += square
            sums[1] += absolute
            sums[2] += norm_a
            sums[3] += norm_b
            sums[4] += product
            counts[0] += count
            counts[1] += changed
            counts[2] += flips

    return loop


def _float_block(dtype: str) -> Loop:
    widen, bits = widening(dtype), _differing_bits(dtype)
    finite = _finite_pairs(widen)

    @inlined
    def block(a, b, counts):
        square = absolute = norm_a = norm_b = product = 0.0
        largest = np.int64(0)  # of doubles that are not negative the order is that of their bits
        for at in range(a.size):
            x, y = widen(a[at]), widen(b[at])
            gap = abs(y - x)
            square += gap * gap
            absolute += gap
            norm_a += x * x
            norm_b += y * y
            product += x * y
            largest = max(largest, np.float64(gap).view(np.int64))
        changed, flips = bits(a, b)
        count = a.size
        if not norm_a + norm_b < math.inf:
            square, absolute, norm_a, norm_b, product, largest, count, flips = finite(a, b, counts)
        counts[7] = max(counts[7], largest)
        return square, absolute, norm_a, norm_b, product, count, changed, flips

    return block


def _finite_pairs(widen: Widen) -> Loop:
    """The same value by value, where some are not finite (which it counts), or are too large to be squared."""

    @inlined
    def block(a, b, counts):
        square = absolute = norm_a = norm_b = product = 0.0
        count = flips = largest = np.int64(0)
        for at in range(a.size):
            x, y = widen(a[at]), widen(b[at])
            flips += np.int64((x > 0.0 and y < 0.0) or (x < 0.0 and y > 0.0))
            counts[3] += x != x
            counts[4] += y != y
            counts[5] += abs(x) == math.inf
            counts[6] += abs(y) == math.inf
            if abs(x) < math.inf and abs(y) < math.inf:
                gap = abs(y - x)
                square += gap * gap
                absolute += gap
                norm_a += x * x
                norm_b += y * y
                product += x * y
                count += np.int64(1)
                largest = max(largest, np.float64(gap).view(np.int64))
        return square, absolute, norm_a, norm_b, product, largest, count, flips

    return block


def _differing_bits(dtype: str) -> Loop:
    """How many differ in any bit, and how many in sign, zeros left out; of floats without NaN."""
    width = dtypes.bits(dtype)
    number = getattr(np, f"int{width}")
    counter = np.int16 if width == 8 else number
    # What is left of a number's bits where it is not zero; of integers all.
    size = number((1 << (width - 1)) - 1 if dtypes.is_float(dtype) else -1)
    signs = number(0 if dtype[0] == "U" or dtype in ("BOOL", "F8_E8M0") else -1)

    @inlined
    def bits(a, b):
        changed = flips = counter(0)
        for at in range(a.size):
            x, y = number(a[at]), number(b[at])
            crossed = number(x ^ y)
            is_flip = (number(crossed & signs) < 0) & (number(x & size) != 0) & (number(y & size) != 0)
            changed = counter(changed + counter(crossed != 0))
            flips = counter(flips + counter(is_flip))
        return changed, flips

    return bits


def _integer_block(dtype: str) -> Loop:
    """|a − b| in unsigned 64 bits is exact for every pair; only sums are rounded."""
    bits, is_flag = _differing_bits(dtype), dtype == "BOOL"
    wide = np.uint64 if dtype == "U64" else np.int64

    @inlined
    def block(a, b, counts):
        square = absolute = norm_a = norm_b = product = 0.0
        largest = np.uint64(0)
        for at in range(a.size):
            p, q = wide(a[at] != 0 if is_flag else a[at]), wide(b[at] != 0 if is_flag else b[at])
            exact = np.uint64(np.uint64(p) - np.uint64(q)) if p > q else np.uint64(np.uint64(q) - np.uint64(p))
            x, y, gap = np.float64(p), np.float64(q), np.float64(exact)
            square += gap * gap
            absolute += gap
            norm_a += x * x
            norm_b += y * y
            product += x * y
            largest = max(largest, exact)
        changed, flips = bits(a, b)
        counts[7] = np.int64(max(np.uint64(counts[7]), largest))
        return square, absolute, norm_a, norm_b, product, a.size, changed, flips

    return block


def agreement(width: str) -> Loop:
    """Whether two tensors have the same bits, and if so whether all are finite: `odd` is what NaN and Inf have of
    the bits under `mask`. Ends where they differ."""
    number = getattr(np, width)

    def loop(at_a, at_b, at_counts, size, mask, odd):
        whole_a, whole_b, counts = carray(at_a, size), carray(at_b, size), carray(at_counts, 2)
        looked_at, looked_for = number(mask), number(odd)
        counts[0], counts[1] = 1, 1
        for start in range(0, size, BLOCK):
            a, b = whole_a[start : start + BLOCK], whole_b[start : start + BLOCK]
            differs = is_odd = number(0)
            for at in range(a.size):
                differs = number(differs | (a[at] ^ b[at]))
                is_odd = number(is_odd | number(number(a[at] & looked_at) == looked_for))
            counts[1] &= is_odd == 0
            if differs != 0:
                counts[0] = 0
                return

    return loop


def moments(dtype: str) -> Loop:
    """What one tensor holds: a float's sum, of integers that above the first; and the scatter around the mean."""
    block = _float_moments(dtype) if dtypes.is_float(dtype) else _integer_moments(dtype)

    def loop(at_values, at_sums, at_counts, size):
        values, sums, counts = carray(at_values, size), carray(at_sums, 2), carray(at_counts, 6)
        sums[:], counts[:] = 0, 0
        counts[3], counts[4] = _LARGEST, -_LARGEST
        for start in range(0, size, BLOCK):
            count, total, scatter = block(values[start : start + BLOCK], values[0], counts)
            if count and counts[0]:
                gap = total / count - sums[0] / counts[0]
                sums[1] += gap * gap * count * counts[0] / (count + counts[0])
            sums[0] += total
            sums[1] += scatter
            counts[0] += count

    return loop


def _float_moments(dtype: str) -> Loop:
    widen = widening(dtype)

    @inlined
    def ordered(value):
        """Bits in the order of the values: those below zero are the larger the farther they are from it."""
        bits = np.float64(value).view(np.int64)
        return np.int64(bits ^ ((bits >> np.int64(63)) & _LARGEST))

    @inlined
    def block(values, first, counts):
        total = scatter = 0.0
        low, high = _LARGEST, -_LARGEST
        for at in range(values.size):
            x = widen(values[at])
            total += x
            low, high = min(low, ordered(x)), max(high, ordered(x))
        count = values.size
        if abs(total) < math.inf:
            mean = total / values.size
            for at in range(values.size):
                centred = widen(values[at]) - mean
                scatter += centred * centred
        else:
            count, total, scatter, low, high = finite(values, counts)
        counts[3], counts[4] = min(counts[3], low), max(counts[4], high)
        return count, total, scatter

    @inlined
    def finite(values, counts):
        """The same value by value, where some are not finite, which it counts."""
        total = scatter = 0.0
        count, low, high = 0, _LARGEST, -_LARGEST
        for at in range(values.size):
            x = widen(values[at])
            counts[1] += x != x
            counts[2] += abs(x) == math.inf
            if abs(x) < math.inf:
                count += 1
                total += x
                low, high = min(low, ordered(x)), max(high, ordered(x))
        mean = total / max(count, 1)
        for at in range(values.size):
            x = widen(values[at])
            if abs(x) < math.inf:
                scatter += (x - mean) * (x - mean)
        return count, total, scatter, low, high

    return block


def _integer_moments(dtype: str) -> Loop:
    """Exact up to 32 bits; around the first value, since the scatter of large ones may be small."""
    is_flag = dtype == "BOOL"

    @inlined
    def block(values, first, counts):
        base, total = np.int64(first != 0 if is_flag else first), np.int64(0)
        low, high = _LARGEST, -_LARGEST
        for at in range(values.size):
            value = np.int64(values[at] != 0 if is_flag else values[at])
            total += value - base
            low, high = min(low, value), max(high, value)
        mean, scatter = total / values.size, 0.0
        for at in range(values.size):
            value = np.int64(values[at] != 0 if is_flag else values[at])
            centred = np.float64(value - base) - mean
            scatter += centred * centred
        counts[3], counts[4] = min(counts[3], low), max(counts[4], high)
        counts[5] += total
        return values.size, np.float64(total), scatter

    return block
