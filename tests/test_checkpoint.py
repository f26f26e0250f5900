"""Checkpoints in memory, overlays and blends."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from core_samples import FLOATS, NUMPY, bytes_of, packed, plain_values, random_bits, tensors
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptswap import dtypes, entries
from ckptswap.checkpoint import Checkpoint, Tensor, overlay, sha256_of
from ckptswap.errors import FileError, FormatError, MismatchError
from ckptswap.formats import open_checkpoint, write_checkpoint
from ckptswap.naming import classify
from ckptswap.sources import CHUNK, PAGE, BlendSource, MemorySource, page_aligned
from ckptswap.storage import LocalFile, MemoryFile


def one(array: np.ndarray) -> Checkpoint:
    return Checkpoint.from_arrays({"w": array})


@given(tensors)
def test_an_array_comes_back_bit_for_bit(array: np.ndarray) -> None:
    checkpoint = one(array)
    assert bytes_of(checkpoint.read("w")) == bytes_of(array)
    entry = checkpoint["w"]
    assert (entry.shape, entry.numel, entry.nbytes) == (array.shape, array.size, array.nbytes)
    assert NUMPY[entry.dtype] == array.dtype
    assert checkpoint.nbytes == array.nbytes
    assert b"".join(chunk.tobytes() for chunk in entry.chunks(16)) == array.tobytes()


def test_what_is_read_is_fresh_and_writable() -> None:
    array = np.ones((2, 3), np.float32)
    array.flags.writeable = False
    checkpoint = one(array)
    checkpoint.read("w")[:] = 7
    assert checkpoint.read("w").tolist() == array.tolist()
    assert checkpoint.read("w").flags.c_contiguous


@pytest.mark.parametrize(
    "view", [lambda x: x.T, lambda x: x[::2], lambda x: x[:, ::-1], lambda x: x.transpose(1, 0)]
)
def test_views_are_laid_out_in_their_order(view) -> None:
    array = view(np.arange(12, dtype=np.int16).reshape(3, 4))
    assert one(array).read("w").tolist() == array.tolist()


def test_torch_tensors_that_are_not_contiguous() -> None:
    tensor = torch.arange(24).reshape(2, 3, 4).permute(2, 0, 1)[1:]
    assert one(tensor.numpy()).read("w").tolist() == tensor.tolist()


def test_big_endian_arrays_keep_their_values() -> None:
    assert one(np.array([1.5, 2.0], ">f8")).read("w").tolist() == [1.5, 2.0]


@pytest.mark.parametrize("array", [np.array(["a"]), np.array([object()]), np.array(["2020"], "M8[Y]")])
def test_what_is_no_number_is_refused(array: np.ndarray) -> None:
    with pytest.raises(FormatError, match="tensor 'w' has the dtype"):
        one(array)


def test_packed_tensors_are_their_bytes() -> None:
    checkpoint = packed("w", "F6_E2M3", (4,), b"abc")
    assert (checkpoint["w"].nbytes, checkpoint["w"].numel) == (3, 4)
    assert checkpoint.read("w").tobytes() == b"abc"


def test_large_tensors_come_in_chunks_of_their_order() -> None:
    array = np.random.default_rng(0).integers(0, 256, 2 * CHUNK + 5, dtype=np.uint8)
    sizes = [chunk.size for chunk in one(array)["w"].chunks()]
    assert sizes == [CHUNK, CHUNK, 5]
    assert hashlib.sha256(array).digest() == _digest(one(array)["w"].chunks())


def _digest(chunks) -> bytes:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.digest()


def test_it_is_an_ordered_mapping_that_equals_only_itself() -> None:
    a, b = (Checkpoint.from_arrays({"z": np.zeros(1), "a": np.zeros(1)}) for _ in range(2))
    assert (list(a), len(a), "z" in a, "q" in a) == (["z", "a"], 2, True, False)
    assert a != b
    assert len({a, b}) == 2
    assert repr(a) == "<Checkpoint '<memory>' (memory, 2 tensors)>"


def test_a_misspelt_name_is_answered_with_a_near_one() -> None:
    with pytest.raises(MismatchError, match=r"no tensor 'wieght': did you mean 'weight'\?"):
        Checkpoint.from_arrays({"weight": np.zeros(1)}).read("wieght")


def test_closing_closes_the_sources() -> None:
    class Told(MemoryFile):
        closed = 0

        def close(self) -> None:
            self.closed += 1

    source = Told(b"")
    with Checkpoint([], path="p", format="f", sources=[source]) as checkpoint:
        assert not source.closed
    assert source.closed == 1
    assert checkpoint.sources == (source,)


def test_the_hash_of_one_file_is_sha256sum_s(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    checkpoint = Checkpoint([], path=str(path), format="f", sources=[LocalFile(path)])
    assert checkpoint.sha256() == sha256_of(path) == hashlib.sha256(b"abc").hexdigest()


def test_the_hash_of_a_folder_is_that_of_sha256sum_s_lines(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("b", "a", "odd\udcff")]
    for path in paths:
        path.write_bytes(path.name.encode("utf-8", "surrogateescape"))
    lines = b"".join(
        hashlib.sha256(raw).hexdigest().encode() + b"  " + raw + b"\n" for raw in (b"a", b"b", b"odd\xff")
    )
    checkpoint = Checkpoint([], path=str(tmp_path), format="f", sources=map(LocalFile, paths))
    assert checkpoint.sha256() == hashlib.sha256(lines).hexdigest()


def test_the_hash_of_arrays_is_that_of_all_they_are() -> None:
    base = np.arange(4, dtype=np.int32)
    variants = [{"w": base}, {"v": base}, {"w": base.view("u4")}, {"w": base.reshape(2, 2)}, {"w": base + 1}]
    assert len({Checkpoint.from_arrays(arrays).sha256() for arrays in variants}) == len(variants)
    assert one(base).sha256() == one(base.copy()).sha256()


def test_a_file_that_went_away_has_no_hash(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="gone does not exist"):
        sha256_of(tmp_path / "gone")


def test_an_overlay_is_lazy_and_keeps_the_order() -> None:
    class Unreadable:
        def read_into(self, buffer: memoryview, offset: int) -> None:
            raise AssertionError("values were read")

    donor = Checkpoint([Tensor("b", (1,), "F64", Unreadable())], path="d", format="f")
    recipient = Checkpoint.from_arrays({"b": np.zeros(1), "a": np.ones(1)}, metadata={"k": "v"}, path="r")
    variant = overlay(recipient, donor, ["b"])
    assert (list(variant), variant.path, variant.metadata) == (["b", "a"], "r", {"k": "v"})
    assert variant.read("a").tolist() == [1.0]


@pytest.mark.parametrize(
    ("donor", "said"),
    [
        ({"w": np.zeros(3)}, r"'w' is F64 \[3\] in the donor but F64 \[2\]"),
        ({"w": np.zeros(2, "f4")}, r"'w' is F32 \[2\] in the donor but F64 \[2\]"),
        ({"v": np.zeros(2)}, "no tensor 'w'"),
    ],
)
def test_an_overlay_refuses_what_does_not_fit(donor: dict[str, np.ndarray], said: str) -> None:
    with pytest.raises(MismatchError, match=said):
        overlay(one(np.zeros(2)), Checkpoint.from_arrays(donor), ["w"])


@pytest.mark.parametrize("dtype", FLOATS)
@settings(max_examples=20)
@given(st.integers(0, 99), st.floats(0.01, 0.99))
def test_a_blend_is_numpy_s(dtype: str, seed: int, alpha: float) -> None:
    """Rounded once; `test_dtypes` holds the rounding itself against all values that a dtype has."""
    a, b = plain_values(dtype, (40,), seed), plain_values(dtype, (40,), seed + 1)
    parts = {"C64": "f4", "C128": "f8"}.get(dtype, a.dtype)
    x, y = a.view(parts), b.view(parts)
    with np.errstate(all="ignore"):
        mixed = dtypes.rounded((1 - alpha) * x.astype("f8") + alpha * y.astype("f8"), np.dtype(parts))
    width = x.dtype.itemsize
    same = [x.tobytes()[at : at + width] == y.tobytes()[at : at + width] for at in range(0, x.nbytes, width)]
    expected = np.where(same, x, mixed).astype(parts)
    found = overlay(one(a), one(b), ["w"], alpha=alpha).read("w").view(parts)
    np.testing.assert_array_equal(found.astype("f8"), expected.astype("f8"))
    assert [bool(part) for part in np.isfinite(found.astype("f8"))] == [
        bool(part) for part in np.isfinite(x.astype("f8")) & np.isfinite(y.astype("f8"))
    ]


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_blend_with_oneself_keeps_every_bit(dtype: str) -> None:
    array = random_bits(dtype, (500,), 1)
    assert overlay(one(array), one(array.copy()), ["w"], alpha=0.3).read("w").tobytes() == array.tobytes()


@pytest.mark.parametrize("dtype", [name for name in NUMPY if name not in FLOATS])
def test_what_cannot_be_mixed_stays_the_recipient_s(dtype: str) -> None:
    a, b = random_bits(dtype, (20,), 1), random_bits(dtype, (20,), 2)
    assert overlay(one(a), one(b), ["w"], alpha=0.5).read("w").tobytes() == a.tobytes()
    assert overlay(one(a), one(b), ["w"], alpha=1).read("w").tobytes() == b.tobytes()


def test_a_blend_can_be_read_from_anywhere() -> None:
    a, b = np.arange(100.0), np.arange(100.0)[::-1].copy()
    source = BlendSource(*(MemorySource(side.view("u1").data) for side in (a, b)), "F64", 0.25)
    buffer = np.empty(10)
    source.read_into(buffer.view("u1").data, 30 * 8)
    assert buffer.tolist() == (0.75 * a + 0.25 * b)[30:40].tolist()


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 1 << 20])
def test_buffers_begin_at_a_page(size: int) -> None:
    buffer = page_aligned(size)
    assert buffer.nbytes == size
    assert buffer.__array_interface__["data"][0] % PAGE == 0 or not size
    buffer[:] = 1
    assert buffer.sum() == size


def test_a_second_checkpoint_of_the_same_names_takes_over_what_they_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    """And its own order, shapes and dtypes: only what is wholly alike is not told anew."""
    told: list[int] = []
    monkeypatch.setattr(entries, "classify", lambda shapes: told.append(len(shapes)) or classify(shapes))
    shapes = {"h.0.fc.weight": (2, 2), "h.0.fc.bias": (2,), "h.1.fc.weight": (2, 2)}
    first = Checkpoint.from_arrays({name: np.zeros(shape) for name, shape in shapes.items()})
    second = Checkpoint.from_arrays({name: np.ones(shape, np.float32) for name, shape in shapes.items()})
    assert told == [3]
    assert [(entry.layer, entry.kind, entry.block) for entry in first.values()] == [
        (entry.layer, entry.kind, entry.block) for entry in second.values()
    ]
    assert {entry.dtype for entry in second.values()} == {"F32"}
    assert second.read("h.0.fc.bias").tolist() == [1, 1]
    other = Checkpoint.from_arrays({name: np.zeros((2, *shape, 2)) for name, shape in shapes.items()})
    backwards = Checkpoint.from_arrays({name: np.zeros(shapes[name]) for name in reversed(shapes)})
    assert told == [3, 3, 3]
    assert other["h.0.fc.weight"].kind == "conv.weight" != first["h.0.fc.weight"].kind
    assert list(backwards) == list(reversed(shapes))


def test_many_tensors_of_a_file_have_one_text_for_what_is_alike(tmp_path: Path) -> None:
    named = {f"h.{at}.fc.weight": np.zeros((2, 3), np.float32) for at in range(3)}
    path = write_checkpoint(Checkpoint.from_arrays(named), tmp_path / "a.safetensors")
    with open_checkpoint(path) as a, open_checkpoint(path) as b:
        every = [*a.values(), *b.values()]
        assert len({(id(entry.shape), id(entry.dtype), id(entry.kind)) for entry in every[:3]}) == 1
        assert len({id(entry.layer) for entry in every}) == len({id(entry.name) for entry in every}) == 3
