"""Moments of tensors against numpy and Python's own arithmetic."""

from __future__ import annotations

import math
import statistics
from fractions import Fraction

import numpy as np
import pytest
from core_samples import FLOATS, NUMPY, plain_values, random_bits
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ckptswap.kernels import MomentsKernel
from ckptswap.moments import Moments, all_finite, moments_of, non_finite, widen


def raw(array: np.ndarray) -> np.ndarray:
    return array.reshape(-1).view(np.uint8)


def values_of(array: np.ndarray) -> tuple[list[float | int], int, int]:
    """Finite values (of complex ones, both parts), NaN and infinite elements, one by one."""
    found: list[float | int] = []
    nan = infinite = 0
    for each in array.reshape(-1):
        value = (
            complex(each) if array.dtype.kind == "c" else each.item() if array.dtype.kind in "iub" else float(each)
        )
        parts = [value.real, value.imag] if isinstance(value, complex) else [value]
        if any(math.isnan(part) for part in parts):
            nan += 1
        elif any(math.isinf(part) for part in parts):
            infinite += 1
        else:
            found += [int(part) if isinstance(part, bool) else part for part in parts]
    return found, nan, infinite


COMPILED = [dtype for dtype in NUMPY if dtype[0] != "C" and dtype not in ("I64", "U64")]
BOTH = [*(("numpy", dtype) for dtype in NUMPY), *(("compiled", dtype) for dtype in COMPILED)]


def kernel_of(way: str, dtype: str) -> MomentsKernel | None:
    if way == "compiled":
        pytest.importorskip("numba")
    return MomentsKernel(dtype) if way == "compiled" else None


@pytest.mark.parametrize(("way", "dtype"), BOTH)
@settings(max_examples=20)
@given(st.integers(0, 200), st.integers(0, 9999))
@example(4500, 1)
def test_moments_are_those_of_the_finite_values(way: str, dtype: str, size: int, seed: int) -> None:
    array = plain_values(dtype, (size,), seed)
    found = moments_of(raw(array), dtype, kernel_of(way, dtype))
    values, nan, infinite = values_of(array)
    assert (found.count, found.nan, found.inf) == (len(values), nan, infinite)
    if not values:
        assert (found.mean, found.std) == (None, None)
        return
    assert (found.minimum, found.maximum) == (min(values), max(values))
    assert found.mean == pytest.approx(statistics.fmean(values), rel=1e-12, abs=1e-12)
    assert found.std == pytest.approx(float(np.std(np.array(values, np.float64))), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(("way", "dtype"), BOTH)
@given(st.lists(st.integers(0, 60), min_size=1, max_size=5), st.integers(0, 99))
@settings(max_examples=15)
def test_parts_merge_into_the_whole(way: str, dtype: str, sizes: list[int], seed: int) -> None:
    array, kernel = plain_values(dtype, (sum(sizes),), seed), kernel_of(way, dtype)
    whole, merged = moments_of(raw(array), dtype), Moments()
    for start, size in zip(np.cumsum([0, *sizes]), sizes, strict=False):
        merged.add(moments_of(raw(array[start : start + size]), dtype, kernel))
    for name in ("count", "minimum", "maximum", "nan", "inf"):
        assert getattr(merged, name) == getattr(whole, name)
    assert (merged.mean is None) == (whole.mean is None) == (whole.count == 0)
    if whole.count:
        assert merged.mean == pytest.approx(whole.mean, rel=1e-12, abs=1e-12)
        assert merged.std == pytest.approx(whole.std, rel=1e-9, abs=1e-12)


def test_extremes_of_integers_are_exact() -> None:
    found = moments_of(raw(np.array([2**64 - 1, 2**53 + 1], "u8")), "U64")
    assert (found.minimum, found.maximum) == (2**53 + 1, 2**64 - 1)
    found = moments_of(raw(np.array([-(2**63), 2**63 - 1], "i8")), "I64")
    assert (found.minimum, found.maximum) == (-(2**63), 2**63 - 1)


@pytest.mark.parametrize("way", ["numpy", "compiled"])
@pytest.mark.parametrize(("dtype", "mean"), [("F64", 1e9), ("I32", 2**31 - 4), ("U32", 2**32 - 4)])
def test_a_large_mean_does_not_drown_the_deviation(way: str, dtype: str, mean: float) -> None:
    merged, kernel = Moments(), kernel_of(way, dtype)
    for above in (0, 2):
        merged.add(moments_of(raw(np.full(5000, mean + above).astype(NUMPY[dtype])), dtype, kernel))
    assert merged.std == pytest.approx(1.0, rel=1e-12)
    assert (merged.minimum, merged.maximum, merged.total) == (mean, mean + 2, 10_000 * (mean + 1))


@pytest.mark.parametrize("way", ["numpy", "compiled"])
def test_extremes_of_any_bits_are_those_of_the_values(way: str) -> None:
    for dtype in ("F64", "F32", "F16", "BF16", "F8_E5M2"):
        array = random_bits(dtype, (3000,), 1)
        with np.errstate(all="ignore"):
            finite = array.astype(np.float64)[np.isfinite(array.astype(np.float64))]
        found = moments_of(raw(array), dtype, kernel_of(way, dtype))
        assert (found.count, found.minimum, found.maximum) == (finite.size, finite.min(), finite.max())
    nothing = moments_of(raw(np.full(3, np.nan)), "F64", kernel_of(way, "F64"))
    assert (nothing.count, nothing.nan, nothing.mean, nothing.minimum) == (0, 3, None, np.inf)


@given(
    st.integers(-(2**63), 2**63 - 1),
    st.lists(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=9), min_size=1, max_size=4),
    st.sampled_from([1, 10, 2**30, 2**63]),
    st.sampled_from(["I64", "U64"]),
)
def test_integers_of_any_size_have_the_moments_of_exact_arithmetic(
    centre: int, parts: list[list[int]], spread: int, dtype: str
) -> None:
    """Around 2^62 two neighbours are the same double; their deviation is none the less theirs."""
    low, high = (-(2**63), 2**63 - 1) if dtype == "I64" else (0, 2**64 - 1)
    exact = [[min(max(centre % 2**63 + each % spread, low), high) for each in part] for part in parts]
    merged = Moments()
    for part in exact:
        merged.add(moments_of(raw(np.array(part, NUMPY[dtype])), dtype))
    values = [Fraction(each) for part in exact for each in part]
    mean = sum(values) / len(values)
    assert (merged.total, merged.mean) == (sum(values), float(mean))
    variance = sum((each - mean) ** 2 for each in values) / len(values)
    assert merged.std == pytest.approx(math.sqrt(variance), rel=1e-12)


def test_a_complex_value_is_nan_or_infinite_once() -> None:
    array = np.array([complex(math.nan, math.nan), complex(1, math.inf), complex(math.nan, math.inf), 3 + 4j])
    found = moments_of(raw(array), "C128")
    assert (found.nan, found.inf, found.count, found.minimum, found.maximum) == (2, 1, 2, 3.0, 4.0)


@pytest.mark.parametrize("dtype", NUMPY)
def test_widening_keeps_every_value(dtype: str) -> None:
    array = random_bits(dtype, (500,), 3)
    with np.errstate(all="ignore"):
        expected = array if array.dtype.kind in "iub" else array.astype(np.complex128 if dtype[0] == "C" else "f8")
    np.testing.assert_array_equal(widen(raw(array), dtype), expected)


@pytest.mark.parametrize("dtype", FLOATS)
def test_what_is_not_finite_is_counted_and_noticed(dtype: str) -> None:
    for seed in range(20):
        array = random_bits(dtype, (16,), seed)
        _, nan, infinite = values_of(array)
        assert non_finite(raw(array), dtype) == (nan, infinite)
        assert all_finite(raw(array), dtype) == (nan + infinite == 0)
