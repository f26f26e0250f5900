"""Every format gives elsewhere what it gives here: names, shapes, metadata, bytes, and what is not read."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from far_server import FarServer, read_folder

import ckptswap as cs
from ckptswap.checkpoint import Checkpoint
from ckptswap.formats.archive import add_bytes

ARRAYS = {
    "layer.weight": np.arange(20_000, dtype=np.float32).reshape(100, 200),
    "layer.bias": np.ones(200, np.float32),
}


def of_numpy(folder: Path) -> str:
    np.savez_compressed(folder / "a.npz", **ARRAYS)
    return "a.npz"


def of_torch(folder: Path) -> str:
    state = {name: torch.from_numpy(array) for name, array in ARRAYS.items()}
    torch.save({"model": state, "epoch": 3, "turned": state["layer.weight"].T}, folder / "a.pt")
    return "a.pt"


def of_old_torch(folder: Path) -> str:
    state = {name: torch.from_numpy(array) for name, array in ARRAYS.items()}
    torch.save(state, folder / "a.pth", _use_new_zipfile_serialization=False)
    return "a.pth"


def of_hdf5(folder: Path) -> str:
    h5py = pytest.importorskip("h5py")
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset("layer/weight", data=ARRAYS["layer.weight"], chunks=(10, 10), compression="gzip")
        file.create_dataset("layer/bias", data=ARRAYS["layer.bias"])
    return "a.h5"


def of_keras(folder: Path) -> str:
    of_hdf5(folder)
    with zipfile.ZipFile(folder / "a.keras", "w") as archive:
        archive.write(folder / "a.h5", "model.weights.h5")
    return "a.keras"


def of_gguf(folder: Path) -> str:
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(folder / "a.gguf", "llama")
    for name, array in ARRAYS.items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return "a.gguf"


def of_onnx(folder: Path) -> str:
    onnx = pytest.importorskip("onnx")
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in ARRAYS.items()]
    model = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], tensors))
    onnx.save(model, folder / "a.onnx", save_as_external_data=True, location="a.data", size_threshold=100)
    return "a.onnx"


def of_former_export(folder: Path) -> str:
    """As torch 2.2 to 2.7 wrote them, beside a local header that is longer than the directory tells."""
    of_torch(folder)
    with zipfile.ZipFile(folder / "a.pt2", "w") as archive:
        add_bytes(archive, "serialized_state_dict.pt", (folder / "a.pt").read_bytes())
    return "a.pt2"


def of_script(folder: Path) -> str:
    torch.jit.script(torch.nn.Linear(20, 10)).save(folder / "script.pt")
    return "script.pt"


def of_pickle(folder: Path) -> str:
    import pickle

    (folder / "a.pkl").write_bytes(pickle.dumps(ARRAYS))
    return "a.pkl"


def seen(checkpoint: Checkpoint) -> tuple[object, ...]:
    rows = [
        (name, entry.shape, entry.dtype, checkpoint.read(name).tobytes()) for name, entry in checkpoint.items()
    ]
    parts = [b"".join(part.tobytes() for part in entry.chunks(4096)) for entry in checkpoint.values()]
    return rows, parts, checkpoint.format, dict(checkpoint.metadata), dict(checkpoint.unread), checkpoint.beside


@pytest.mark.parametrize(
    "make",
    [
        of_numpy,
        of_torch,
        of_old_torch,
        of_hdf5,
        of_keras,
        of_gguf,
        of_onnx,
        of_former_export,
        of_script,
        of_pickle,
    ],
    ids=lambda make: make.__name__.removeprefix("of_"),
)
def test_a_format_is_the_same_elsewhere(far: FarServer, tmp_path: Path, make: Callable[[Path], str]) -> None:
    name = make(tmp_path)
    far.files |= {f"/{path}": raw for path, raw in read_folder(tmp_path).items()}
    with cs.open(tmp_path / name) as here, cs.open(f"{far.url}/{name}") as there:
        assert seen(there) == seen(here)
        assert len(far.asked) < 12
        assert len({(asked.path, asked.range) for asked in far.asked}) == len(far.asked)
