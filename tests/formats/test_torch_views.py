"""Views of one storage under several dtypes, which torch itself would not write: read as torch reads them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from format_samples import integer, legacy_bytes, text, torch_bytes
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptswap.entries import Unread
from ckptswap.errors import FormatError
from ckptswap.formats import open_checkpoint
from ckptswap.formats.torch_pickle import DTYPES

torch = pytest.importorskip("torch")

BYTES = 64
DATA = np.random.default_rng(0).integers(0, 2, BYTES, np.uint8).tobytes()  # 0 and 1: bools too
WIDE = {"Double": 8, "Float": 4, "Half": 2, "BFloat16": 2, "Long": 8, "Int": 4, "Short": 2, "Char": 1, "Byte": 1,
        "Bool": 1, "ComplexFloat": 8, "ComplexDouble": 16}  # fmt: skip
TYPED = list(WIDE)
STORAGES = {f"torch\n{name}Storage": width for name, width in WIDE.items()} | {"torch.storage\nUntypedStorage": 1}
WIDTHS = {name: getattr(torch, name).itemsize for name in DTYPES}


def held(kind: str, key: str = "0", view: bytes = b"", nbytes: int = BYTES) -> bytes:
    """A storage by its persistent id."""
    numel = nbytes // STORAGES[kind]
    return b"(" + text("storage") + f"c{kind}\n".encode() + text(key) + text("cpu") + integer(numel) + view + b"tQ"


def numbers(*values: int) -> bytes:
    return b"(" + b"".join(map(integer, values)) + b"t"


def seen(storage: bytes, offset: int, numel: int, dtype: str | None = None, step: int = 1) -> bytes:
    """A tensor of one dimension; with a dtype of its own where there is one."""
    rebuild = b"ctorch._utils\n_rebuild_tensor_v" + (b"3\n" if dtype else b"2\n")
    last = f"ctorch\n{dtype}\n".encode() if dtype else b""
    return rebuild + b"(" + storage + integer(offset) + numbers(numel) + numbers(step) + b"\x89}" + last + b"tR"


def state(tensors: dict[str, bytes]) -> bytes:
    return b"\x80\x02}(" + b"".join(text(name) + value for name, value in tensors.items()) + b"u."


def as_zip(tensors: dict[str, bytes]) -> bytes:
    return torch_bytes(state(tensors), DATA, version=b"3\n")


def as_legacy(tensors: dict[str, bytes], numel: int) -> bytes:
    return legacy_bytes(state(tensors), numel=numel, data=DATA)


def the_same_as_torch(path: Path, content: bytes) -> dict[str, Any]:
    """What torch reads, held against what is read here."""
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = torch.load(path, weights_only=True)
    with open_checkpoint(path) as found:
        assert list(found) == list(wanted)
        for name, tensor in wanted.items():
            assert found[name].dtype == DTYPES[str(tensor.dtype).removeprefix("torch.")], name
            assert found[name].shape == tuple(tensor.shape)
            raw = (
                tensor.clone(memory_format=torch.contiguous_format).reshape(-1).view(torch.uint8).numpy().tobytes()
            )
            assert found.read(name).tobytes() == raw, name
    return wanted


def pairs() -> Iterator[tuple[str, str]]:
    return ((first, second) for first in STORAGES for second in STORAGES)


def test_the_first_mention_of_a_storage_says_its_dtype(tmp_path: Path) -> None:
    """Every pair of element types over one storage, without an offset and with one."""
    for first, second in pairs():
        width = STORAGES[first]
        tensors = {
            "a": seen(held(first), 0, 2), "b": seen(held(second), 0, 2), "c": seen(held(second), 1, 2),
            "d": seen(held(second), 0, 2, step=BYTES // width - 1),
        }  # fmt: skip
        loaded = the_same_as_torch(tmp_path / "a.pt", as_zip(tensors))
        assert len({each.dtype for each in loaded.values()}) == 1


def test_a_storage_without_bytes_says_nothing(tmp_path: Path) -> None:
    """torch keeps none of no bytes: the next mention is again a first one."""
    for first, second in pairs():
        empty = {"a": seen(held(first, "1", nbytes=0), 0, 0), "b": seen(held(second, "1", nbytes=0), 0, 0)}
        content = torch_bytes(state(empty), DATA, version=b"3\n", **{"data/1": b""})
        the_same_as_torch(tmp_path / "a.pt", content)


def test_a_tensor_may_say_its_own_dtype(tmp_path: Path) -> None:
    """Every dtype over every storage, with an offset that counts that dtype's elements."""
    for kind in STORAGES:
        tensors = {name: seen(held(kind), 1, 2, name) for name in WIDTHS}
        the_same_as_torch(tmp_path / "a.pt", as_zip(tensors))


@pytest.mark.parametrize("second", TYPED)
def test_the_same_in_legacy_files(second: str, tmp_path: Path) -> None:
    """There the storage's length in the file counts elements of the first mention's type."""
    for first in TYPED:
        kinds = f"torch\n{first}Storage", f"torch\n{second}Storage"
        tensors = {"a": seen(held(kinds[0], view=b"N"), 0, 2), "b": seen(held(kinds[1], view=b"N"), 1, 2)}
        the_same_as_torch(tmp_path / "a.pt", as_legacy(tensors, BYTES // STORAGES[kinds[0]]))


@pytest.mark.parametrize("second", TYPED)
def test_views_of_a_storage_in_legacy_files(second: str, tmp_path: Path) -> None:
    """A view has a key of its own, and its first mention says what it is; its offset counts its own elements."""
    for first in TYPED:
        kinds = f"torch\n{first}Storage", f"torch\n{second}Storage"
        view = b"(" + text("part") + integer(1) + integer(2) + b"t"
        tensors = {
            "whole": seen(held(kinds[0], view=b"N"), 0, 2),
            "part": seen(held(kinds[1], view=view), 0, 2),
            "again": seen(held(kinds[0], view=view), 1, 1),
        }
        the_same_as_torch(tmp_path / "a.pt", as_legacy(tensors, BYTES // STORAGES[kinds[0]]))


@settings(max_examples=150)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(sorted(STORAGES)),
            st.sampled_from([None, *WIDTHS]),
            st.integers(0, 9), st.integers(0, 9), st.integers(1, 4),
        ),
        min_size=1, max_size=5,
    )
)  # fmt: skip
def test_any_views(tmp_path_factory: pytest.TempPathFactory, views: list[tuple]) -> None:
    """As torch reads them, or refused, where they reach beyond their storage: torch then makes values up."""
    first = STORAGES[views[0][0]]
    tensors, inside = {}, True
    for at, (kind, dtype, offset, numel, step) in enumerate(views):
        width = WIDTHS[dtype] if dtype else first
        inside &= numel == 0 or (offset + (numel - 1) * step + 1) * width <= BYTES
        tensors[str(at)] = seen(held(kind), offset, numel, dtype, step)
    path = tmp_path_factory.mktemp("views") / "a.pt"
    if inside:
        the_same_as_torch(path, as_zip(tensors))
        return
    path.write_bytes(as_zip(tensors))
    with pytest.raises(FormatError, match="beyond its storage"):
        open_checkpoint(path)


def test_quantized_storages_are_not_plain(tmp_path: Path) -> None:
    """torch makes a quantized tensor of them, whose scale nobody knows."""
    content = torch_bytes(state({"w": seen(held("torch\nByteStorage"), 0, 2).replace(b"Byte", b"QUInt8")}), DATA)
    (tmp_path / "a.pt").write_bytes(content)
    with open_checkpoint(tmp_path / "a.pt") as found:
        assert found.unread == {"w": Unread("a tensor of dtype quint8", (2,), "quint8")}


BROKEN: dict[str, Callable[[], bytes]] = {
    "a view outside": lambda: held("torch\nFloatStorage", view=b"(" + text("v") + integer(15) + integer(2) + b"t"),
    "a view of no length": lambda: held("torch\nFloatStorage", view=b"(" + text("v") + integer(1) + b"t"),
    "a key that is no text": lambda: held("torch\nFloatStorage").replace(text("0"), integer(0)),
}


@pytest.mark.parametrize("case", BROKEN)
def test_storages_that_are_none(case: str, tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(as_legacy({"w": seen(BROKEN[case](), 0, 1)}, 16))
    with pytest.raises(FormatError, match="damaged pickle"):
        open_checkpoint(tmp_path / "a.pt")
