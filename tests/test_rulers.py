"""The contract of both rulers, in numpy and compiled, against sums of longer floats and exact integers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from core_samples import NUMPY, changed_bits, plain_values, random_bits
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ckptswap import dtypes
from ckptswap.kernels import Kernel
from ckptswap.moments import Distance
from ckptswap.rulers import CompiledRuler, Ruler

MAKERS = ("numpy", "compiled")
COMPILED = [dtype for dtype in NUMPY if not dtypes.is_complex(dtype)]
BOTH = [(maker, dtype) for maker in MAKERS for dtype in (NUMPY if maker == "numpy" else COMPILED)]
COUNTS = ("count", "changed", "flips", "nan_a", "nan_b", "inf_a", "inf_b", "largest")
SUMS = ("square", "absolute", "norm_a", "norm_b")


def ruler(maker: str, dtype: str, capacity: int = 1 << 17) -> Ruler:
    if maker == "numpy":
        return Ruler(capacity)
    pytest.importorskip("numba")
    return CompiledRuler(capacity, {dtype: Kernel(dtype)})


def subnormal(dtype: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Small magnitudes of both signs: of floats the smallest there are, and zeros."""
    if dtype == "BOOL":
        return random_bits(dtype, shape, seed)
    random, width = np.random.default_rng(seed), dtypes.bits(dtypes.part(dtype)) // 8
    parts = (*shape, NUMPY[dtype].itemsize // width)
    words = random.integers(0, 5, parts, dtype=f"u{width}")
    words |= random.integers(0, 2, parts).astype(words.dtype) << np.array(8 * width - 1, words.dtype)
    return words.view(NUMPY[dtype]).reshape(shape)


VALUES = {"bits": random_bits, "plain": plain_values, "tiny": subnormal}


def offset(array: np.ndarray, by: int) -> np.ndarray:
    """Its bytes at an address that no value would have by itself."""
    room = np.empty(array.nbytes + 64, np.uint8)
    start = -room.ctypes.data % 64 + by
    room[start : start + array.nbytes] = array.reshape(-1).view(np.uint8)
    return room[start : start + array.nbytes]


def doubles(array: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)


def oracle(a: np.ndarray, b: np.ndarray, dtype: str) -> Distance:
    """The definition, in longer floats, or in Python's integers."""
    x, y = doubles(a), doubles(b)
    good = np.isfinite(x) & np.isfinite(y)
    rows = (side.view(np.uint8).reshape(side.size, -1) for side in (a, b))
    changed = int(np.not_equal(*rows).any(axis=1).sum()) if a.size else 0
    signed = a.dtype.kind != "c"
    flips = int((((x > 0) & (y < 0)) | ((x < 0) & (y > 0))).sum()) if signed else 0
    nan_a, nan_b = (int(np.isnan(side).sum()) for side in (x, y))
    inf_a, inf_b = (int((~np.isfinite(side)).sum()) for side in (x, y))
    with np.errstate(all="ignore"):
        gap = np.abs(y[good] - x[good])
        if not dtypes.is_float(dtype):
            exact = [abs(int(q) - int(p)) for p, q in zip(a.tolist(), b.tolist(), strict=True)]
            gap, largest = np.array(exact, np.float64), max(exact, default=0)
        else:
            largest = float(gap.max(initial=0.0))
        square, absolute = (float(np.sum(np.longdouble(gap) ** power)) for power in (2, 1))
        norm_a, norm_b = (float(np.sum(np.abs(np.clongdouble(side[good])) ** 2)) for side in (x, y))
        product = float(np.sum((np.clongdouble(x[good]) * np.conj(np.clongdouble(y[good]))).real))
    sums = (square, absolute, largest, norm_a, norm_b, product)
    return Distance(int(good.sum()), changed, *sums, nan_a, nan_b, inf_a - nan_a, inf_b - nan_b, flips)


def check(found: Distance, wanted: Distance) -> None:
    for name in COUNTS:
        assert getattr(found, name) == pytest.approx(
            getattr(wanted, name), rel=1e-15 if name == "largest" else 0
        ), name
    for name in SUMS:
        assert getattr(found, name) == pytest.approx(getattr(wanted, name), rel=1e-12, abs=1e-306), name
    size = math.sqrt(wanted.norm_a) * math.sqrt(wanted.norm_b)
    if math.isfinite(size):
        assert found.product == pytest.approx(wanted.product, rel=1e-12, abs=1e-12 * size + 1e-306)
    else:
        assert found.cosine is None


@pytest.mark.parametrize(("maker", "dtype"), BOTH)
@settings(max_examples=12)
@given(
    st.sampled_from(list(VALUES)),
    st.integers(0, 5000),
    st.integers(0, 9999),
    st.sampled_from([0.0, 0.1, 1.0]),
    st.integers(0, 9),
)
@example("plain", 4096, 1, 1.0, 0)
@example("bits", 2049, 2, 1.0, 3)
@example("tiny", 2047, 3, 1.0, 1)
def test_distances_are_those_of_the_definition(
    maker: str, dtype: str, values: str, size: int, seed: int, share: float, by: int
) -> None:
    a = VALUES[values](dtype, (size,), seed)
    b = changed_bits(a, seed, share)
    # numpy looks at odd addresses through copies that a chunk of a file never needs.
    by = by if maker == "compiled" else 0
    check(ruler(maker, dtype).distance(offset(a, by), offset(b, by), dtype), oracle(a, b, dtype))


@pytest.mark.parametrize(("maker", "dtype"), BOTH)
@settings(max_examples=12)
@given(st.integers(0, 3000), st.integers(0, 3000), st.sampled_from(list(VALUES)), st.integers(0, 99))
def test_equal_chunks_count_as_a_distance_would(
    maker: str, dtype: str, zeros: int, size: int, values: str, seed: int
):
    array = np.concatenate([np.zeros(zeros, NUMPY[dtype]), VALUES[values](dtype, (size,), seed)])
    raw = offset(array, 0)
    held, same = ruler(maker, dtype), Distance()
    assert held.same(raw, raw.copy(), dtype, same)
    whole = held.distance(raw, raw, dtype)
    for name in ("count", "changed", "nan_a", "nan_b", "inf_a", "inf_b", "rmse", "max_abs", "rel_l2", "flips"):
        assert getattr(same, name) == getattr(whole, name), name
    assert same.cosine == pytest.approx(whole.cosine)


@pytest.mark.parametrize(("maker", "dtype"), BOTH)
def test_one_bit_makes_two_chunks_differ(maker: str, dtype: str) -> None:
    array = offset(plain_values(dtype, (5000,), 1), 0)
    held = ruler(maker, dtype)
    for at in (0, array.size // 2, array.size - 1):
        other, total = array.copy(), Distance()
        other[at] ^= 1
        assert not held.same(array, other, dtype, total)
        assert total == Distance()


@pytest.mark.parametrize("dtype", COMPILED)
def test_sums_of_blocks_do_not_depend_on_where_a_chunk_ends(dtype: str) -> None:
    """Cut at blocks, the parts add up to the very bits of the whole where each is a block."""
    a = plain_values(dtype, (8192,), 5)
    b = changed_bits(a, 5, 1.0)
    held, parts = ruler("compiled", dtype), Distance()
    step = 2048 * a.itemsize
    x, y = offset(a, 0), offset(b, 0)
    for start in range(0, x.size, step):
        parts.add(held.distance(x[start : start + step], y[start : start + step], dtype))
    whole = held.distance(x, y, dtype)
    assert repr(parts) == repr(whole)
