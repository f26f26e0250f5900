"""Streaming numbers over a tensor's bytes: what one tensor holds, and how far two are apart.

Everything is computed chunk by chunk in buffers that stay in a core's cache. Floats are summed in double
precision, integers are subtracted exactly. Parts are merged in the order of the data, so that the result does not
depend on how many threads did the work.
"""

import functools
import math
from dataclasses import dataclass, fields

import numpy as np

from ckptswap import dtypes
from ckptswap.errors import non_finite_words

_EXPONENT = {
    "F64": (8, 0x7FF0000000000000), "F32": (4, 0x7F800000), "F16": (2, 0x7C00),
    "C128": (8, 0x7FF0000000000000), "C64": (4, 0x7F800000), "BF16": (2, 0x7F80),
}  # fmt: skip
"""Bytes a real number takes, and its bits that are all set exactly in NaN and Inf."""
_PROBE = 4096
_ROW = 8192


@dataclass
class Moments:
    """Sums over the `count` finite values of one tensor; `nan` and `inf` count the others.

    A complex value is NaN or infinite when a part is; the parts of a finite one count as two values. Integers have
    an exact `total`.

    >>> moments = moments_of(np.array([1.0, 3.0, np.nan]).view(np.uint8), "F64")
    >>> moments.count, moments.mean, moments.std, moments.nan
    (2, 2.0, 1.0, 1)
    """

    count: int = 0
    total: float | int = 0
    scatter: float = 0.0
    minimum: float | int = math.inf
    maximum: float | int = -math.inf
    nan: int = 0
    inf: int = 0

    @property
    def mean(self) -> float | None:
        return self.total / self.count if self.count else None

    @property
    def std(self) -> float | None:
        """The population's standard deviation; None where there is nothing finite."""
        return math.sqrt(self.scatter / self.count) if self.count else None

    def add(self, other: "Moments") -> None:
        """Merge two parts (Chan, Golub and LeVeque 1979: means first, so that nothing cancels)."""
        if self.count and other.count:
            gap = self._gap(other)
            self.scatter += gap * gap * self.count * other.count / (self.count + other.count)
        self.scatter += other.scatter
        self.count += other.count
        self.total += other.total
        self.minimum = min(self.minimum, other.minimum)
        self.maximum = max(self.maximum, other.maximum)
        self.nan += other.nan
        self.inf += other.inf

    def _gap(self, other: "Moments") -> float:
        """Between the means; of integers as one exact fraction, since theirs may be alike in all 53 bits."""
        if isinstance(self.total, int) and isinstance(other.total, int):
            return (other.total * self.count - self.total * other.count) / (self.count * other.count)
        return other.total / other.count - self.total / self.count


@dataclass(slots=True)
class Distance:
    """Sums over the pairs of values of two tensors, of which `count` are finite on both sides.

    `changed` counts values whose bits differ, `flips` those whose signs do (neither being zero). A number is None
    where it is over nothing, or where squares leave the range of double precision (values beyond about 1e±154).
    """

    count: int = 0
    changed: int = 0
    square: float = 0.0
    absolute: float = 0.0
    largest: float | int = 0
    norm_a: float = 0.0
    norm_b: float = 0.0
    product: float = 0.0
    nan_a: int = 0
    nan_b: int = 0
    inf_a: int = 0
    inf_b: int = 0
    flips: int = 0

    def add(self, other: "Distance") -> None:
        """Merge two parts."""
        largest = max(self.largest, other.largest)
        for number in fields(self):
            setattr(self, number.name, getattr(self, number.name) + getattr(other, number.name))
        self.largest = largest

    @property
    def rmse(self) -> float | None:
        return math.sqrt(self.square / self.count) if self.count and self._is_square_sound else None

    @property
    def mean_abs(self) -> float | None:
        return self.absolute / self.count if self.count and self.absolute < math.inf else None

    @property
    def max_abs(self) -> float | int | None:
        return self.largest if self.count and self.largest < math.inf else None

    @property
    def rel_l2(self) -> float | None:
        """The distance relative to A; None where A is nothing but zeros."""
        sound = self._is_square_sound and 0 < self.norm_a < math.inf
        return math.sqrt(self.square / self.norm_a) if sound else None

    @property
    def cosine(self) -> float | None:
        """None where either side is nothing but zeros."""
        if not (0 < self.norm_a < math.inf and 0 < self.norm_b < math.inf and math.isfinite(self.product)):
            return None
        if self.norm_a == self.norm_b:
            return max(-1.0, min(1.0, self.product / self.norm_a))
        return max(-1.0, min(1.0, self.product / math.sqrt(self.norm_a) / math.sqrt(self.norm_b)))

    @property
    def non_finite(self) -> str | None:
        """What no distance tells of, by side; None where all values are finite.

        >>> Distance(nan_b=1, inf_b=2).non_finite, Distance(inf_a=3, inf_b=3).non_finite, Distance().non_finite
        ('b 1 NaN, 2 Inf', 'both 3 Inf', None)
        """
        return non_finite_words({"a": (self.nan_a, self.inf_a), "b": (self.nan_b, self.inf_b)})

    @property
    def is_beyond(self) -> bool:
        """Whether the two are farther apart than doubles can tell in squares."""
        return math.inf in (self.square, self.largest)

    @property
    def _is_square_sound(self) -> bool:
        """Whether the squares neither overflowed nor vanished."""
        return self.square < math.inf and (self.square > 0 or not self.largest)


def widen(raw: np.ndarray, dtype: str) -> np.ndarray:
    """Bytes as values that can be computed with: float64, complex128, or 64-bit integers.

    >>> widen(np.array([1, 2], "u1"), "U8")
    array([1, 2])
    """
    if dtype == "BF16":
        with np.errstate(invalid="ignore"):
            return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    if dtype.startswith("F8"):
        return _float8(dtype)[raw]
    values = raw.view(dtypes.to_numpy(dtype))
    if dtypes.is_float(dtype):
        with np.errstate(invalid="ignore"):
            return values.astype(np.complex128 if dtype[0] == "C" else np.float64)
    return values if dtype in ("I64", "U64") else values.astype(np.int64)


@functools.cache
def _float8(dtype: str) -> np.ndarray:
    """All 256 values of an 8-bit float: looking them up beats converting them."""
    return np.arange(256, dtype=np.uint8).view(dtypes.to_numpy(dtype)).astype(np.float64)


def non_finite(raw: np.ndarray, dtype: str) -> tuple[int, int]:
    """How many values are NaN, and how many infinite."""
    if not dtypes.is_float(dtype):
        return 0, 0
    values = widen(raw, dtype)
    nan = int(np.count_nonzero(np.isnan(values)))
    return nan, int(np.count_nonzero(~np.isfinite(values))) - nan


def all_finite(raw: np.ndarray, dtype: str) -> bool:
    """Whether a chunk of floats holds neither NaN nor Inf: their exponents are all ones."""
    if dtype not in _EXPONENT:
        return bool(np.isfinite(widen(raw, dtype)).all())
    width, mask = _EXPONENT[dtype]
    if not raw.size:
        return True
    # As signed integers, positive NaN and Inf are the largest; as unsigned ones, the negative are.
    largest, most_negative = raw.view(f"i{width}").max(), raw.view(f"u{width}").max()
    return int(largest) < mask and int(most_negative) < mask + (1 << (8 * width - 1))


def moments_of(raw: np.ndarray, dtype: str) -> Moments:
    """The moments of one chunk."""
    values = widen(raw, dtype)
    nan = inf = 0
    if values.dtype.kind in "fc":
        finite = np.isfinite(values)
        if not finite.all():
            nan = int(np.count_nonzero(np.isnan(values)))
            inf = values.size - nan - int(np.count_nonzero(finite))
            values = values[finite]
        values = values.view(np.float64)
    if not values.size:
        return Moments(nan=nan, inf=inf)
    low, high = values.min().item(), values.max().item()
    total, scatter = _float_sums(values) if values.dtype.kind == "f" else _integer_sums(values, low)
    return Moments(values.size, total, scatter, low, high, nan, inf)


def _float_sums(values: np.ndarray) -> tuple[float, float]:
    with np.errstate(over="ignore", invalid="ignore"):
        total = float(values.sum())
        centred = values - total / values.size
        return total, _dot(centred, centred)


def _integer_sums(values: np.ndarray, low: int) -> tuple[int, float]:
    """The sum, exact, and the scatter, of distances from the smallest: they fit unsigned 64 bits, and are small
    where the values are large but close. Summed by halves, up to 2^32 of them cannot overflow."""
    above = values.view(np.uint64) - np.uint64(low % 2**64)
    halves = (int((above >> np.uint64(32)).sum()), int((above & np.uint64(2**32 - 1)).sum()))
    total = (halves[0] << 32) + halves[1]
    centred = above.astype(np.float64) - total / values.size
    return low * values.size + total, _dot(centred, centred)


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

    def equal(self, a: np.ndarray, b: np.ndarray) -> bool:
        """Whether two chunks hold the same bytes."""
        whole = a.size & ~7
        flags = self._flags[: whole // 8]
        np.equal(a[:whole].view(np.uint64), b[:whole].view(np.uint64), out=flags)
        return bool(flags.all()) and a[whole:].tobytes() == b[whole:].tobytes()

    def count_same(self, raw: np.ndarray, dtype: str, same: Distance) -> None:
        """Add a chunk that is equal on both sides: its distance is 0 over all that is finite. The norms are only
        made positive, by as few values as it takes, since nothing but their being so matters here."""
        if dtypes.is_packed(dtype):
            return
        head = _PROBE if not same.norm_a else 0
        for part in (raw[:head], raw[head:]):
            known = same.norm_a or (dtype != "F8_E8M0" and _is_zero(part))  # which has no zero
            if known and (not dtypes.is_float(dtype) or all_finite(part, dtype)):
                same.count += part.size * 8 // dtypes.bits(dtype)
            else:
                same.add(self.distance(part, part, dtype))

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
                np.take(_float8(dtype), raw, out=out)
            else:
                np.copyto(out, raw.view(dtypes.to_numpy(dtype)))


def _floats(x: np.ndarray, y: np.ndarray, gap: np.ndarray, total: Distance) -> bool:
    """Fill in the sums, and say whether they are finite, as they are when all values are (but for overflow)."""
    total.count = x.size
    with np.errstate(all="ignore"):
        np.subtract(y, x, out=gap)
        total.square, total.norm_a, total.norm_b = _dot(gap, gap), _dot(x, x), _dot(y, y)
        # From the sums that are known where that loses less than 13 digits of a cosine: it saves a pass.
        small, large = sorted((total.norm_a, total.norm_b))
        total.product = (small + large - total.square) / 2 if large <= 1e6 * small else _dot(x, y)
        size = np.abs(gap) if gap.dtype.kind == "c" else np.abs(gap, out=gap)
        total.largest, total.absolute = float(size.max(initial=0.0)), float(size.sum())
    return math.isfinite(total.norm_a + total.norm_b)


def _dot(x: np.ndarray, y: np.ndarray) -> float:
    """Re ⟨x, y⟩ in rows short enough that BLAS stays on this thread."""
    whole = x.size // _ROW * _ROW
    rows = np.vecdot(x[:whole].reshape(-1, _ROW), y[:whole].reshape(-1, _ROW)).sum() if whole else 0.0
    return float((rows + np.vdot(x[whole:], y[whole:])).real)


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
    total.absolute, total.square = float(gap.sum()), _dot(gap, gap)
    total.norm_a, total.norm_b, total.product = _dot(wide_x, wide_x), _dot(wide_y, wide_y), _dot(wide_x, wide_y)
