"""Dtypes, spelt as safetensors spells them, and their numpy counterparts.

`ml_dtypes`, which knows bfloat16 and the 8-bit floats, is imported only when one is met. The packed 4- and 6-bit
floats have no numpy counterpart: their tensors are compared and copied as bytes.
"""

from math import prod

import numpy as np

NUMPY = {
    "F64": "f8", "F32": "f4", "F16": "f2",
    "I64": "i8", "I32": "i4", "I16": "i2", "I8": "i1",
    "U64": "u8", "U32": "u4", "U16": "u2", "U8": "u1",
    "BOOL": "?", "C64": "c8", "C128": "c16",
}  # fmt: skip
_ML_DTYPES = {
    "BF16": "bfloat16", "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
    "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz",
}  # fmt: skip
_SPELT: dict[object, str] = {
    **{np.dtype(code): spelt for spelt, code in NUMPY.items()},
    **{name: spelt for spelt, name in _ML_DTYPES.items()},
}
_DIMENSIONS_MOST = 64  # numpy's own bound
_NUMEL_MOST = 2**59  # 16 bytes each still fit a signed 64-bit count
_PACKED_BITS = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}
BITS = {
    **{spelt: np.dtype(code).itemsize * 8 for spelt, code in NUMPY.items()},
    **{spelt: 16 if spelt == "BF16" else 8 for spelt in _ML_DTYPES},
    **_PACKED_BITS,
}


def bits(dtype: str) -> int:
    """Bits an element takes on disk.

    >>> bits("F32"), bits("F4")
    (32, 4)
    """
    return BITS[dtype]


def is_packed(dtype: str) -> bool:
    """Whether elements share bytes, so that numpy cannot see them one by one."""
    return dtype in _PACKED_BITS


def is_float(dtype: str) -> bool:
    """Whether values can be interpolated (complex included, packed ones not).

    >>> is_float("BF16"), is_float("I64"), is_float("C64")
    (True, False, True)
    """
    return (dtype[0] in "FC" and not is_packed(dtype)) or dtype == "BF16"


def is_complex(dtype: str) -> bool:
    """Whether elements are pairs of floats.

    >>> is_complex("C64"), is_complex("F32")
    (True, False)
    """
    return dtype[0] == "C"


def part(dtype: str) -> str:
    """The dtype of a complex one's parts; any other itself.

    >>> part("C64"), part("BF16")
    ('F32', 'BF16')
    """
    return {"C64": "F32", "C128": "F64"}.get(dtype, dtype)


def largest(dtype: str) -> float:
    """The largest finite value of a float dtype, or of a complex one's parts.

    >>> largest("F16"), largest("F8_E4M3")
    (65504.0, 448.0)
    """
    own = to_numpy(dtype)
    if dtype in _ML_DTYPES:
        import ml_dtypes

        return float(ml_dtypes.finfo(own).max)
    return float(np.finfo(own).max)


def is_number(dtype: str) -> bool:
    """Whether elements are whole numbers or floats, one by one.

    >>> is_number("I64"), is_number("BF16"), is_number("BOOL"), is_number("C64")
    (True, True, False, False)
    """
    return dtype != "BOOL" and dtype[0] != "C" and not is_packed(dtype)


def to_numpy(dtype: str) -> np.dtype:
    """The numpy dtype whose elements have these bits; packed dtypes give bytes.

    >>> to_numpy("F16")
    dtype('float16')
    """
    if dtype in _ML_DTYPES:
        import ml_dtypes

        return np.dtype(getattr(ml_dtypes, _ML_DTYPES[dtype]))
    return np.dtype("u1" if is_packed(dtype) else NUMPY[dtype])


def rounded(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Doubles as the nearest values of a narrower float dtype, ties to even, rounded once.

    ml_dtypes goes by way of single precision, which rounds a second time: what lies just above the middle of two
    bf16 values is then first rounded onto it. Rounded to odd on the way instead, it stays on its side (Boldo and
    Melquiond 2008).

    >>> rounded(np.array([1 + 2**-8 + 2**-40]), to_numpy("BF16")).item()
    1.0078125
    """
    if dtype.name not in _ML_DTYPES.values():
        return values.astype(dtype)
    with np.errstate(all="ignore"):
        single = values.astype(np.float32)
        back = single.astype(np.float64)
        odd = single.view(np.uint32) - (np.abs(back) > np.abs(values))
        odd |= (back != values) & ~np.isnan(values)
        return odd.view(np.float32).astype(dtype)


def from_numpy(dtype: np.dtype) -> str | None:
    """How safetensors spells a numpy (or ml_dtypes) dtype; None where it has no word for it.

    >>> from_numpy(np.dtype("float32")), from_numpy(np.dtype("U3"))
    ('F32', None)
    """
    return _SPELT.get(dtype.name) or _SPELT.get(dtype.newbyteorder("="))


def shape_fault(shape: tuple[int, ...]) -> str | None:
    """Why no array can have this shape; None where one can.

    >>> shape_fault((2, 3)), shape_fault((2, -3))
    (None, 'a size below zero')
    """
    if any(type(size) is not int for size in shape):
        return "a size that is not an integer"
    if any(size < 0 for size in shape):
        return "a size below zero"
    if len(shape) > _DIMENSIONS_MOST:
        return f"{len(shape)} dimensions"
    return "more elements than can be counted" if prod(filter(None, shape)) > _NUMEL_MOST else None
