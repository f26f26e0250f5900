"""Tensors of every dtype, NaN payloads included, and checkpoints of them, for the tests of the core."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import ml_dtypes
import numpy as np
from hypothesis import strategies as st

from ckptswap.checkpoint import Checkpoint, Tensor
from ckptswap.sources import MemorySource

NUMPY = {
    **{spelt: np.dtype(code) for spelt, code in {
        "F64": "f8", "F32": "f4", "F16": "f2", "I64": "i8", "I32": "i4", "I16": "i2", "I8": "i1",
        "U64": "u8", "U32": "u4", "U16": "u2", "U8": "u1", "BOOL": "?", "C64": "c8", "C128": "c16"}.items()},
    **{spelt: np.dtype(code) for spelt, code in {
        "BF16": ml_dtypes.bfloat16, "F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E5M2": ml_dtypes.float8_e5m2,
        "F8_E4M3FNUZ": ml_dtypes.float8_e4m3fnuz, "F8_E5M2FNUZ": ml_dtypes.float8_e5m2fnuz,
        "F8_E8M0": ml_dtypes.float8_e8m0fnu}.items()},
}  # fmt: skip
STORED = [spelt for spelt in NUMPY if spelt != "C128"]
"""What safetensors can hold of them."""
FLOATS = [spelt for spelt in NUMPY if spelt[0] in "FC" or spelt == "BF16"]
NAMES = [
    "stem.weight", "stem.bias", "layer2.0.bn.weight", "layer2.0.bn.running_mean", "layer10.0.bn.weight",
    "layer10.0.bn.bias", "head.weight", "scale", "", "a,b", "=literal", "new\nline", "\x1b[31mred.bias",
    "[red].weight", "../up.weight", "x*.weight", "ü.weight", "a b.c", "--only", "n" + "9" * 5000,
]  # fmt: skip
SPECIAL = [0.0, -0.0, 1.0, -1.0, np.nan, np.inf, -np.inf, 1e-30, -3.5, 240.0]


def random_bits(spelt: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Any bits: NaN payloads, signalling ones too, infinities, subnormals."""
    dtype = NUMPY[spelt]
    count = int(np.prod(shape, dtype=int)) * dtype.itemsize
    raw = np.random.default_rng(seed).integers(0, 2 if spelt == "BOOL" else 256, count, dtype=np.uint8)
    return raw.view(dtype).reshape(shape)


def plain_values(spelt: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Values of ordinary size, with some special ones strewn in."""
    random = np.random.default_rng(seed)
    values = random.normal(0, 3, shape)
    chosen = random.random(shape) < 0.2
    values = np.where(chosen, random.choice(SPECIAL, shape), values)
    if spelt in FLOATS:
        parts = values + 1j * random.normal(0, 3, shape) if spelt[0] == "C" else values
        with np.errstate(all="ignore"):
            return np.asarray(parts).astype(NUMPY[spelt])
    return random_bits(spelt, shape, seed)


shapes = st.lists(st.integers(0, 4), max_size=3).map(tuple)
tensors = st.builds(
    lambda make, *rest: make(*rest),
    st.sampled_from([random_bits, plain_values]), st.sampled_from(list(NUMPY)), shapes, st.integers(0, 1000),
)  # fmt: skip
stored_tensors = st.builds(random_bits, st.sampled_from(STORED), shapes, st.integers(0, 1000))


def changed_bits(array: np.ndarray, seed: int, share: float = 0.3) -> np.ndarray:
    """The same with a share of its bytes drawn anew."""
    random = np.random.default_rng(seed)
    raw = array.reshape(-1).view(np.uint8).copy()
    hit = random.random(raw.size) < share
    if array.dtype == bool:
        raw[hit] ^= 1
    else:
        raw[hit] = random.integers(0, 256, int(hit.sum()))
    return raw.view(array.dtype).reshape(array.shape)


@st.composite
def fitting_pairs(draw: st.DrawFn, names: list[str] = NAMES, tensors: st.SearchStrategy[np.ndarray] = tensors):
    """(recipient, donor) arrays of equal names, shapes and dtypes: equal, partly changed, or wholly other."""
    ours = draw(st.dictionaries(st.sampled_from(names), tensors, min_size=1, max_size=6))
    shares = {name: draw(st.sampled_from([0.0, 0.2, 1.0])) for name in ours}
    theirs = {name: changed_bits(array, at, shares[name]) for at, (name, array) in enumerate(ours.items())}
    return ours, theirs


@st.composite
def pairs(draw: st.DrawFn):
    """Two checkpoints' arrays where tensors may be missing on a side, or of another shape or dtype."""
    ours, theirs = draw(fitting_pairs())
    dropped = draw(st.sets(st.sampled_from(list(ours)), max_size=2))
    extra = draw(st.dictionaries(st.sampled_from(NAMES), tensors, max_size=3))
    kept = {name: array for name, array in theirs.items() if name not in dropped}
    return ours, (kept | extra) or theirs


def bytes_of(array: np.ndarray) -> tuple[str, tuple[int, ...], bytes]:
    """All that makes a tensor what it is."""
    return array.dtype.name, array.shape, array.tobytes()


def contents(checkpoint: Checkpoint) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Names and everything that they stand for."""
    return {name: bytes_of(checkpoint.read(name)) for name in checkpoint}


def packed(name: str, dtype: str, shape: tuple[int, ...], raw: bytes) -> Checkpoint:
    """A checkpoint of one tensor whose elements share bytes."""
    return Checkpoint(
        [Tensor(name, shape, dtype, MemorySource(memoryview(raw)))], path="<packed>", format="memory"
    )


def write_safetensors(path: Path, arrays: dict[str, np.ndarray], metadata: dict[str, str] | None = None) -> Path:
    """A file as the format's specification says, written by hand, without the code under test."""
    spelling = {dtype: spelt for spelt, dtype in NUMPY.items()}
    header: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    data = b""
    for name, array in arrays.items():
        ends = [len(data), len(data) + array.nbytes]
        header[name] = {"dtype": spelling[array.dtype], "shape": list(array.shape), "data_offsets": ends}
        data += array.tobytes()
    raw = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data)
    return path
