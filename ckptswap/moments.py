"""Streaming numbers over a tensor's bytes: what one tensor holds, and sums of how far two are apart.

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
from ckptswap.kernels import MomentsKernel

_EXPONENT = {
    "F64": (8, 0x7FF0000000000000), "F32": (4, 0x7F800000), "F16": (2, 0x7C00),
    "C128": (8, 0x7FF0000000000000), "C64": (4, 0x7F800000), "BF16": (2, 0x7F80),
}  # fmt: skip
"""Bytes a real number takes, and its bits that are all set exactly in NaN and Inf."""
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
        return float8(dtype)[raw]
    values = raw.view(dtypes.to_numpy(dtype))
    if dtypes.is_float(dtype):
        with np.errstate(invalid="ignore"):
            return values.astype(np.complex128 if dtype[0] == "C" else np.float64)
    return values if dtype in ("I64", "U64") else values.astype(np.int64)


@functools.cache
def float8(dtype: str) -> np.ndarray:
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


def moments_of(raw: np.ndarray, dtype: str, kernel: MomentsKernel | None = None) -> Moments:
    """The moments of one chunk, by a compiled loop of that dtype where there is one."""
    if kernel is not None and raw.size:
        return _compiled_moments(raw, dtype, kernel)
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


def _compiled_moments(raw: np.ndarray, dtype: str, kernel: MomentsKernel) -> Moments:
    (total, scatter), (count, nan, inf, *extremes, above_first) = kernel.moments(raw)
    if not count:
        return Moments(nan=nan, inf=inf)
    if dtypes.is_float(dtype):
        order = np.array(extremes)
        low, high = (order ^ (order >> 63 & np.int64(2**63 - 1))).view(np.float64).tolist()
        return Moments(count, total, scatter, low, high, nan, inf)
    first = widen(raw[: dtypes.bits(dtype) // 8], dtype).item()
    return Moments(count, above_first + count * first, scatter, *extremes)


def _float_sums(values: np.ndarray) -> tuple[float, float]:
    with np.errstate(over="ignore", invalid="ignore"):
        total = float(values.sum())
        centred = values - total / values.size
        return total, inner(centred, centred)


def _integer_sums(values: np.ndarray, low: int) -> tuple[int, float]:
    """The sum, exact, and the scatter, of distances from the smallest: they fit unsigned 64 bits, and are small
    where the values are large but close. Summed by halves, up to 2^32 of them cannot overflow."""
    above = values.view(np.uint64) - np.uint64(low % 2**64)
    halves = (int((above >> np.uint64(32)).sum()), int((above & np.uint64(2**32 - 1)).sum()))
    total = (halves[0] << 32) + halves[1]
    centred = above.astype(np.float64) - total / values.size
    return low * values.size + total, inner(centred, centred)


def inner(x: np.ndarray, y: np.ndarray) -> float:
    """Re ⟨x, y⟩ of doubles or their complex pairs, in rows short enough that BLAS stays on this thread."""
    x, y = x.view(np.float64), y.view(np.float64)
    whole = x.size // _ROW * _ROW
    rows = np.vecdot(x[:whole].reshape(-1, _ROW), y[:whole].reshape(-1, _ROW)).sum() if whole else 0.0
    return float(rows + np.vdot(x[whole:], y[whole:]))
