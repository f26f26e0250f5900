"""Formats that are read and not written: the names, shapes, dtypes and values that their own libraries give."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from format_samples import write, zip_bytes

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import DependencyError, UsageError
from ckptswap.formats import open_checkpoint, write_checkpoint
from ckptswap.verify import verify


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
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
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


@pytest.fixture(scope="module")
def hdf5_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, np.ndarray]]:
    """Weights in one piece, in packed chunks, of a foreign byte order, of odd shapes; behind a user's block."""
    h5py = pytest.importorskip("h5py")
    path = tmp_path_factory.mktemp("hdf5") / "m.weights.h5"
    random = np.random.default_rng(0)
    wanted = {f"layers.dense.vars.{at}": random.normal(size=(3, at)).astype("f4") for at in (0, 1, 2, 10)}
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in wanted.items():
            file[name.replace(".", "/")] = array
        file["optimizer/vars/0"] = np.zeros(3)
        wanted["packed"] = random.integers(0, 9, (70, 30, 5))
        file.create_dataset("packed", data=wanted["packed"], chunks=(8, 7, 5), compression="gzip", shuffle=True)
        wanted["turned"] = random.normal(size=(6, 7))
        file["turned"] = wanted["turned"].astype(">f8")
        wanted |= {"unwritten": np.full((2, 3), 7, "f4"), "z": np.float16(2.5), "zz": np.array([True, False])}
        file.create_dataset("unwritten", (2, 3), "f4", fillvalue=7)
        file["z"], file["zz"] = wanted["z"], wanted["zz"]
        file["text"] = "words"
        file.attrs["backend"] = "torch"
    return path, wanted


def test_hdf5_gives_what_was_written(hdf5_file: tuple[Path, dict[str, np.ndarray]]) -> None:
    path, wanted = hdf5_file
    with open_checkpoint(path) as found:
        equal(found, wanted)
        assert (found.format, dict(found.metadata), found.stale) == ("hdf5", {"backend": "torch"}, ("optimizer",))
        assert list(found.unread) == ["text"]


def test_keras_2_s_order_and_names_and_bfloat16(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    import ml_dtypes

    layers = ["stem", "block", "z"]
    wanted = {f"{layer}.{layer}.kernel": np.full((2, 2), at, "f4") for at, layer in enumerate(layers)}
    wanted["z.z.scale"] = np.arange(5).astype(ml_dtypes.bfloat16)
    with h5py.File(tmp_path / "m.h5", "w") as file:
        for name, array in wanted.items():
            file[f"model_weights/{name.replace('.', '/')}:0"] = array
        file["model_weights"].attrs["layer_names"] = [layer.encode() for layer in layers]
        file["model_weights/z/z/scale:0"].attrs["dtype"] = "bfloat16"
        file["optimizer_weights/iteration"] = 3
    with open_checkpoint(tmp_path / "m.h5") as found:
        equal(found, wanted)
        assert found.beside == ("optimizer_weights",)


def test_an_archive_of_keras_gives_its_weights(
    hdf5_file: tuple[Path, dict[str, np.ndarray]], tmp_path: Path
) -> None:
    path, wanted = hdf5_file
    members = {"metadata.json": b'{"keras_version": "3.15"}', "config.json": b"{}"}
    content = zip_bytes({**members, "model.weights.h5": path.read_bytes()})
    with open_checkpoint(write(tmp_path / "m.keras", content)) as found:
        equal(found, wanted)
        assert (found.format, dict(found.metadata)) == ("keras", {"keras_version": "3.15", "backend": "torch"})
        assert found.path == str(tmp_path / "m.keras")
    assert [finding.place for finding in verify(tmp_path / "m.keras").findings] == ["text"]
    at = content.index(wanted["layers.dense.vars.10"].tobytes())
    flipped = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
    findings = verify(write(tmp_path / "bad.keras", flipped)).findings
    assert [finding.text for finding in findings if "CRC" in finding.text]


@pytest.mark.parametrize("name", ["a.gguf", "a.h5", "a.keras", "a.onnx", "a.pt2"])
def test_they_are_not_written(name: str, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"is of a format that is read and not written: end it with one of \.safetensors"
    ):
        write_checkpoint(Checkpoint.from_arrays({"w": np.zeros(1)}), tmp_path / name)


def test_onnx_gives_what_its_library_gives(tmp_path: Path) -> None:
    """Raw and one by one, of every dtype; then all of it in a file beside."""
    onnx = pytest.importorskip("onnx")
    random = np.random.default_rng(0)
    wanted = {
        f"raw.{dtype}": random.integers(0, 2, (3, 4)).astype(dtype) for dtype in ("f4", "f2", "f8", "i8", "?")
    }
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in wanted.items()]
    for name in ("FLOAT", "DOUBLE", "INT32", "INT64", "UINT64", "UINT32", "INT8", "BOOL", "FLOAT16", "COMPLEX64"):
        kind = onnx.TensorProto.DataType.Value(name)
        wanted[f"listed.{name}"] = np.array([1, 0, 3]).astype(onnx.helper.tensor_dtype_to_np_dtype(kind))
        if name.startswith("INT"):
            wanted[f"listed.{name}"][1] = -2
        tensors.append(onnx.helper.make_tensor(f"listed.{name}", kind, (3,), wanted[f"listed.{name}"].tolist()))
    wanted["scalar"] = np.array(2.5, "f4")
    tensors.append(onnx.numpy_helper.from_array(wanted["scalar"], "scalar"))
    texts = onnx.helper.make_tensor("text", onnx.TensorProto.STRING, (1,), [b"a"])
    model = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], [*tensors, texts]))
    onnx.save(model, tmp_path / "a.onnx")
    onnx.save(model, tmp_path / "b.onnx", save_as_external_data=True, size_threshold=0, location="b.data")
    for name, files in {"a.onnx": 1, "b.onnx": 2}.items():
        with open_checkpoint(tmp_path / name) as found:
            equal(found, wanted)
            assert (found.format, list(found.unread), len(found.files)) == ("onnx", ["text"], files)


def test_onnx_gives_what_nodes_hold(tmp_path: Path) -> None:
    """Constants, and the graphs of branches: silero's published networks hold all their weights so."""
    onnx = pytest.importorskip("onnx")
    helper, values = onnx.helper, {name: np.full(2, at, "f4") for at, name in enumerate("abcdef")}
    held = {name: onnx.numpy_helper.from_array(array, "ignored") for name, array in values.items()}

    def constant(name: str, value: str) -> object:
        return helper.make_node("Constant", [], [name], value=held[value])

    def branch(value: str) -> object:
        inner = onnx.numpy_helper.from_array(values[value], "w")
        return helper.make_graph([constant("k", value)], "branch", [], [], [inner])

    choice = helper.make_node("If", ["c"], ["out"], then_branch=branch("b"), else_branch=branch("c"))
    shaped = helper.make_node("ConstantOfShape", ["s"], ["filled"], value=held["d"])
    sparse = helper.make_sparse_tensor(
        onnx.numpy_helper.from_array(values["e"]), onnx.numpy_helper.from_array(np.arange(2)), [9]
    )
    spread = helper.make_node("Constant", [], ["thin"], sparse_value=sparse)
    opset = [helper.make_opsetid("", 20)]
    function = helper.make_function("own", "f", [], ["k"], [constant("inside", "e"), constant("a", "f")], opset)
    graph = helper.make_graph([constant("a", "a"), choice, shaped, spread], "g", [], [])
    onnx.save(helper.make_model(graph, functions=[function]), tmp_path / "a.onnx")
    wanted = {"a": "a", "k": "c", "w": "c", "out.then_branch.k": "b", "out.then_branch.w": "b",
              "filled.value": "d", "inside": "e", "function.a": "f"}  # fmt: skip
    assert [attribute.name for attribute in choice.attribute] == ["else_branch", "then_branch"]
    with open_checkpoint(tmp_path / "a.onnx") as found:
        equal(found, {name: values[value] for name, value in wanted.items()})
        assert [str(left) for left in found.unread.values()] == ["a sparse tensor"]


def test_torch_export_gives_the_state_dict(tmp_path: Path) -> None:
    import torch

    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Conv2d(4, 2, 1)).eval()
    torch.export.save(torch.export.export(net, (torch.zeros(1, 3, 8, 8),)), tmp_path / "e.pt2")
    wanted = {name: values.numpy() for name, values in net.state_dict().items()}
    with open_checkpoint(tmp_path / "e.pt2") as found:
        equal(found, {name: wanted[name] for name in found})
        assert sorted(found) == sorted(wanted)
    assert verify(tmp_path / "e.pt2").ok


@pytest.mark.parametrize("name", ["serialized_state_dict.pt", "serialized_state_dict.json"])
def test_torch_export_of_old(name: str, tmp_path: Path) -> None:
    """As torch 2.1 to 2.7 wrote it: the state dict inside is a file of torch."""
    import torch

    state = {"c.weight": torch.arange(12.0).reshape(3, 4).T, "c.bias": torch.ones(4)}
    torch.save(state, tmp_path / "s.pt")
    inside = (tmp_path / "s.pt").read_bytes()
    path = write(tmp_path / "old", zip_bytes({"serialized_exported_program.json": b"{}", name: inside}))
    with open_checkpoint(path) as found:
        equal(found, {name: values.numpy() for name, values in state.items()}, part=1)
        assert (found.format, found.path) == ("torch.export", str(path))
    assert verify(path).ok
    damaged = path.read_bytes().replace(state["c.bias"].numpy().tobytes(), bytes(16))
    assert not verify(write(tmp_path / "damaged", damaged)).ok
