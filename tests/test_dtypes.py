"""Dtypes against numpy, ml_dtypes and safetensors themselves."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load, save

from ckptswap import dtypes
from ckptswap.checkpoint import Checkpoint, Tensor, overlay
from ckptswap.sources import MemorySource

NUMPY = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16,
    "I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8,
    "U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8,
    "BOOL": np.bool_, "C64": np.complex64, "C128": np.complex128,
}  # fmt: skip
WIDE = {
    "BF16": ml_dtypes.bfloat16, "F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E5M2": ml_dtypes.float8_e5m2,
    "F8_E4M3FNUZ": ml_dtypes.float8_e4m3fnuz, "F8_E5M2FNUZ": ml_dtypes.float8_e5m2fnuz,
    "F8_E8M0": ml_dtypes.float8_e8m0fnu,
}  # fmt: skip


@pytest.mark.parametrize(("spelt", "scalar"), [*NUMPY.items(), *WIDE.items()])
def test_each_spelling_and_its_numpy_dtype_find_each_other(spelt: str, scalar: type) -> None:
    dtype = np.dtype(scalar)
    assert dtypes.to_numpy(spelt) == dtype
    assert dtypes.from_numpy(dtype) == spelt
    assert dtypes.bits(spelt) == 8 * dtype.itemsize
    assert spelt in dtypes.BITS
    assert (spelt in dtypes.NUMPY) == (spelt in NUMPY)


@pytest.mark.parametrize("spelt", [name for name in NUMPY if name != "C128"])
def test_safetensors_spells_them_so(spelt: str) -> None:
    raw = save({"w": np.zeros(3, NUMPY[spelt])})
    assert f'"dtype":"{spelt}"'.encode() in raw
    assert load(raw)["w"].dtype == NUMPY[spelt]


def test_big_endian_is_the_same_dtype() -> None:
    assert dtypes.from_numpy(np.dtype(">f4")) == "F32"


@pytest.mark.parametrize("odd", ["U3", "S2", "O", "M8[s]", "f4,f4", "V2"])
def test_what_is_no_number_has_no_spelling(odd: str) -> None:
    assert dtypes.from_numpy(np.dtype(odd)) is None


def test_packed_ones_are_bytes() -> None:
    assert dtypes.to_numpy("F4") == np.dtype("u1")
    assert [spelt for spelt in [*NUMPY, *WIDE, "F4", "F6_E2M3"] if dtypes.is_packed(spelt)] == ["F4", "F6_E2M3"]


def test_what_can_be_interpolated() -> None:
    floats = [spelt for spelt in [*NUMPY, *WIDE, "F4"] if dtypes.is_float(spelt)]
    assert floats == ["F64", "F32", "F16", "C64", "C128", *WIDE]


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 5), (2**40,), (1,) * 64])
def test_shapes_that_can_be(shape: tuple[int, ...]) -> None:
    assert dtypes.shape_fault(shape) is None


@pytest.mark.parametrize(
    "shape", [(-1,), (2**62,), (2**62, 0), (2**30, 2**30), (1,) * 65, (1.0,), (True,), ("a",)]
)
def test_shapes_that_cannot(shape: tuple[int, ...]) -> None:
    assert dtypes.shape_fault(shape)


def nearest(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The bits of the nearest values, ties to the even one, found by looking at all values that the dtype has."""
    width = np.dtype(f"u{dtype.itemsize}")
    codes = np.arange(2 ** (8 * dtype.itemsize - 1)).astype(width)
    known = codes.view(dtype).astype(np.float64)
    codes, known = codes[np.isfinite(known)], known[np.isfinite(known)]
    steps = np.append(known, 2 * known[-1] - known[-2])
    middles = (steps[:-1] + steps[1:]) / 2
    sizes = np.abs(values)
    at = np.searchsorted(middles, sizes, "left")
    tied = (at < middles.size) & (middles[np.minimum(at, middles.size - 1)] == sizes)
    at = np.where(tied & (at % 2 == 1), at + 1, at)
    with np.errstate(all="ignore"):
        outside = np.array([np.inf], np.float32).astype(dtype)
    found = np.append(known, 0.0).astype(dtype)
    found[-1] = outside[0]
    with np.errstate(all="ignore"):
        signed = np.where(np.signbit(values), -(found[at].astype(np.float32)), found[at].astype(np.float32))
        return signed.astype(dtype)


def same_values(found: np.ndarray, wanted: np.ndarray) -> bool:
    """Bits, but for NaN, of which there are many, and the sign of a NaN."""
    a, b = (each.astype(np.float64) for each in (found, wanted))
    return bool(np.all((np.isnan(a) & np.isnan(b)) | ((a == b) & (np.signbit(a) == np.signbit(b)))))


quiet = pytest.mark.filterwarnings("ignore:invalid value")  # of NaN that signal, among all the bits
FP8 = ["F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ"]


@pytest.mark.parametrize("alpha", [0.5, 0.25, 0.1, 1 / 3, 0.999])
@pytest.mark.parametrize("spelt", FP8)
@quiet
def test_all_pairs_of_fp8_values_blend_to_the_nearest(spelt: str, alpha: float) -> None:
    dtype = dtypes.to_numpy(spelt)
    codes = np.arange(256, dtype=np.uint8)
    a, b = (np.ascontiguousarray(each).reshape(-1) for each in np.meshgrid(codes, codes))
    with np.errstate(all="ignore"):
        ours, theirs = (each.view(dtype).astype(np.float64) for each in (a, b))
        mixed = (1 - alpha) * ours + alpha * theirs
    wanted = nearest(mixed, dtype)
    wanted[np.isnan(mixed)] = np.nan
    assert same_values(dtypes.rounded(mixed, dtype), wanted)
    blend = overlay(in_memory(a, spelt), in_memory(b, spelt), ["w"], alpha=alpha).read("w")
    assert same_values(blend[a != b], wanted[a != b])
    assert np.array_equal(blend.view(np.uint8)[a == b], a[a == b])


def in_memory(raw: np.ndarray, spelt: str) -> Checkpoint:
    shape = (raw.nbytes * 8 // dtypes.bits(spelt),)
    source = MemorySource(raw.view(np.uint8).data)
    return Checkpoint([Tensor("w", shape, spelt, source)], path="<memory>", format="memory")


@pytest.mark.parametrize("alpha", [0.5, 0.25, 0.1])
@quiet
def test_bf16_blends_to_the_nearest(alpha: float) -> None:
    """Random bits: values, denormals, Inf and NaN of all sizes; and neighbours, whose middles are ties."""
    random = np.random.default_rng(0)
    a = random.integers(0, 1 << 16, 200_000).astype(np.uint16)
    near = (a + random.integers(-3, 4, a.size)).astype(np.uint16)
    b = np.where(random.random(a.size) < 0.5, near, random.integers(0, 1 << 16, a.size).astype(np.uint16))
    dtype = dtypes.to_numpy("BF16")
    with np.errstate(all="ignore"):
        ours, theirs = (each.view(dtype).astype(np.float64) for each in (a, b))
        mixed = (1 - alpha) * ours + alpha * theirs
    wanted = nearest(mixed, dtype)
    wanted[np.isnan(mixed)] = np.nan
    blend = overlay(in_memory(a, "BF16"), in_memory(b, "BF16"), ["w"], alpha=alpha).read("w")
    assert same_values(blend[a != b], wanted[a != b])


@pytest.mark.parametrize("spelt", ["BF16", *FP8])
@quiet
def test_values_beside_a_middle_are_rounded_once(spelt: str) -> None:
    """Doubles a little above, on and below the middles between all neighbours, and beyond the largest."""
    dtype = dtypes.to_numpy(spelt)
    codes = np.arange(2 ** (8 * dtype.itemsize - 1)).astype(f"u{dtype.itemsize}")
    known = codes.view(dtype).astype(np.float64)
    known = known[np.isfinite(known)]
    middles = (known[:-1] + known[1:]) / 2
    values = np.concatenate([middles * (1 + shift) for shift in (-(2.0**-40), 0, 2.0**-40)])
    values = np.concatenate(
        [values, -values, known[-1] * np.array([1.01, 1.5, 4, 1e10]), [0.0, -0.0, 1e-300, -1e-300]]
    )
    assert same_values(dtypes.rounded(values, dtype), nearest(values, dtype))
    with np.errstate(all="ignore"):
        twice = values.astype(np.float32).astype(dtype)
    assert not same_values(twice, nearest(values, dtype))


@pytest.mark.parametrize("spelt", ["F16", "F32", "F64", "C64"])
def test_what_numpy_rounds_itself_is_left_to_it(spelt: str) -> None:
    values = np.random.default_rng(0).normal(size=100) * 1e-5
    assert (
        dtypes.rounded(values, dtypes.to_numpy(spelt)).tobytes() == values.astype(dtypes.to_numpy(spelt)).tobytes()
    )
