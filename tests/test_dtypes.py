"""Dtypes against numpy, ml_dtypes and safetensors themselves."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load, save

from ckptswap import dtypes

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
    assert dtypes.known(spelt)
    assert dtypes.is_plain(spelt) == (spelt in NUMPY)


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
