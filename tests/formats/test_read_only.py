"""Formats that are read and not written: the names, shapes, dtypes and values that their own libraries give."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import DependencyError, UsageError
from ckptswap.formats import open_checkpoint, write_checkpoint


def equal(found: Checkpoint, wanted: dict[str, np.ndarray], part: int = 52) -> None:
    """All at once, in parts that begin anywhere, and from the middle."""
    assert list(found) == list(wanted)
    for name, array in wanted.items():
        read = found.read(name)
        assert (read.shape, read.dtype) == (array.shape, array.dtype), name
        assert read.tobytes() == array.tobytes(), name
        step = part * array.dtype.itemsize
        assert b"".join(each.tobytes() for each in found[name].chunks(step)) == array.tobytes(), name


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every type that the library can quantise or store, an embedding of several thousand blocks among them."""
    gguf = pytest.importorskip("gguf")
    path = tmp_path_factory.mktemp("gguf") / "m.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_head_count(4)
    writer.add_token_list([f"word {at}" for at in range(500)])
    writer.add_array("nested", [1.5, 2.5])
    random = np.random.default_rng(0)
    kinds = gguf.GGMLQuantizationType
    for name in ("BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "TQ1_0", "TQ2_0"):
        values = gguf.quants.quantize(random.normal(size=(6, 256)).astype(np.float32), kinds[name])
        writer.add_tensor(f"blk.0.{name}.weight", values, raw_dtype=kinds[name])
    embedding = gguf.quants.quantize(random.normal(size=(150, 1024)).astype(np.float32), kinds.Q8_0)
    writer.add_tensor("blk.0.attn_q.weight", embedding, raw_dtype=kinds.Q8_0)
    for dtype in ("f4", "f2", "f8", "i1", "i2", "i4", "i8"):
        writer.add_tensor(f"plain.{dtype}", random.integers(0, 9, (2, 3, 4)).astype(dtype))
    raw = random.integers(0, 256, (4, gguf.GGML_QUANT_SIZES[kinds.Q6_K][1]), np.uint8)
    writer.add_tensor("blk.0.Q6_K.weight", raw, raw_dtype=kinds.Q6_K)
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        write()
    writer.close()
    return path


def test_gguf_gives_what_its_library_gives(gguf_file: Path) -> None:
    import gguf
    import ml_dtypes

    wanted = {}
    for tensor in gguf.GGUFReader(gguf_file).tensors:
        plain = tensor.data if tensor.data.dtype != np.uint8 else None
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type) if plain is None else plain
        wanted[tensor.name] = values.astype(ml_dtypes.bfloat16) if "BF16" in tensor.name else values
    with open_checkpoint(gguf_file) as found:
        equal(found, wanted)
        assert found.format == "gguf"
        assert found.metadata["llama.attention.head_count"] == "4"
        quantised, order = found.notes
    assert quantised.startswith("9 tensors are quantised (Q8_0 2, Q4_0 1")
    assert "attn_q and attn_k" in order


def test_a_quantised_gguf_without_the_library_says_what_to_install(
    gguf_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(DependencyError, match="gguf is not installed: pip install"):
        open_checkpoint(gguf_file)


@pytest.mark.parametrize("name", ["a.gguf"])
def test_they_are_not_written(name: str, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"is of a format that is read and not written: end it with one of \.safetensors"
    ):
        write_checkpoint(Checkpoint.from_arrays({"w": np.zeros(1)}), tmp_path / name)
