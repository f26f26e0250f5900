"""torch's distributed checkpoints: those it writes, pieces on several ranks, and hostile metadata."""

from __future__ import annotations

import io
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from format_samples import convert

from ckptswap.diff import diff
from ckptswap.errors import CkptswapError, FormatError
from ckptswap.formats import open_checkpoint
from ckptswap.verify import verify

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def room() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch.distributed.checkpoint as found
    return found


def grid(shape: tuple[int, ...], cuts: list[list[int]]) -> list[tuple[tuple[int, int], ...]]:
    corners = np.ndindex(*(len(cut) - 1 for cut in cuts))
    return [tuple((cut[at], cut[at + 1]) for cut, at in zip(cuts, corner, strict=True)) for corner in corners]


def build(
    folder: Path, room: Any, tensors: dict[str, tuple[Any, list]], spoil: Callable[[Any], None] | None = None
) -> Path:
    """A folder as several ranks would write it: every piece in the file of its rank."""
    metadata, storage, files = room.metadata, {}, {}
    described = {}
    for name, (tensor, pieces) in tensors.items():
        chunks = []
        for rank, box in enumerate(pieces):
            begins = torch.Size([a for a, _ in box])
            part = tensor[tuple(slice(a, b) for a, b in box)].clone()
            chunks.append(metadata.ChunkStorageMetadata(begins, part.size()))
            out = files.setdefault(f"__{rank}_0.distcp", io.BytesIO())
            start = out.seek(0, io.SEEK_END)
            raw = io.BytesIO()
            torch.save(part, raw)
            out.write(raw.getvalue())
            index = metadata.MetadataIndex(name, begins)
            storage[index] = room.filesystem._StorageInfo(f"__{rank}_0.distcp", start, len(raw.getvalue()))
        properties = metadata.TensorProperties(dtype=tensor.dtype)
        described[name] = metadata.TensorStorageMetadata(properties, tensor.size(), chunks)
    whole = metadata.Metadata(described, planner_data={name: (name,) for name in tensors}, storage_data=storage)
    if spoil:
        spoil(whole)
    folder.mkdir()
    for name, out in files.items():
        (folder / name).write_bytes(out.getvalue())
    (folder / ".metadata").write_bytes(pickle.dumps(whole))
    return folder


WHOLE = torch.arange(42.0).reshape(6, 7)
ROWS = grid((6, 7), [[0, 2, 4, 6], [0, 7]])
TILES = grid((6, 7), [[0, 1, 5, 6], [0, 3, 7]])


def test_what_torch_writes(room: Any, tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    state = {"model": model.state_dict(), "optim": {"state": {0: {"m": torch.ones(2)}}}, "step": 3}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        room.save(state, checkpoint_id=tmp_path / "d", no_dist=True)
    with open_checkpoint(tmp_path / "d") as found:
        assert found.format == "torch distributed"
        assert set(found) == set(state["model"])
        assert "it also carries optim, which belongs to these tensors" in found.notes
        assert "optim" in found.beside
        for name, tensor in state["model"].items():
            assert found.read(name).tobytes() == tensor.numpy().tobytes()
    assert verify(tmp_path / "d").ok


@pytest.mark.parametrize("pieces", [ROWS, TILES, grid((6, 7), [[0, 6], [0, 7]])], ids=["rows", "tiles", "one"])
def test_pieces_of_several_ranks(pieces: list, room: Any, tmp_path: Path) -> None:
    tensors = {"w": (WHOLE, pieces), "t": (WHOLE.t().bfloat16(), grid((7, 6), [[0, 4, 7], [0, 6]]))}
    with open_checkpoint(build(tmp_path / "d", room, tensors)) as found:
        assert found.read("w").tolist() == WHOLE.tolist()
        assert found.read("t").astype(np.float32).tolist() == WHOLE.t().tolist()
        assert b"".join(part.tobytes() for part in found["w"].chunks(20)) == WHOLE.numpy().tobytes()


@pytest.mark.parametrize("target", ["a.safetensors", "a.pt", "s/"])
def test_any_format_can_be_made_of_them(target: str, room: Any, tmp_path: Path) -> None:
    tensors = {"w": (WHOLE, TILES), "t": (WHOLE.t().bfloat16(), grid((7, 6), [[0, 4, 7], [0, 6]]))}
    folder = build(tmp_path / "d", room, tensors)
    with open_checkpoint(folder) as old, open_checkpoint(convert(folder, f"{tmp_path}/{target}")) as new:
        assert list(new) == list(old)
        assert all(new.read(name).tobytes() == old.read(name).tobytes() for name in old)
        assert {row.status for row in diff(old, new).rows} == {"identical"}


def _storage(whole: Any) -> Any:
    return next(iter(whole.storage_data.values()))


SPOILT: dict[str, tuple[Callable[[Any], None], str]] = {
    "climbs": (lambda whole: setattr(_storage(whole), "relative_path", "../x.distcp"), "not a plain file name"),
    "absolute": (lambda whole: setattr(_storage(whole), "relative_path", "/etc/passwd"), "not a plain file name"),
    "missing": (
        lambda whole: setattr(_storage(whole), "relative_path", "gone.distcp"),
        "'gone.distcp' is not there",
    ),
    "beyond": (lambda whole: setattr(_storage(whole), "length", 10**12), "cut short"),
    "negative": (lambda whole: setattr(_storage(whole), "offset", -1), "cut short"),
    "extension": (lambda whole: setattr(_storage(whole), "transform_descriptors", ["zstd"]), "extension"),
    "nowhere": (lambda whole: whole.storage_data.clear(), "nowhere"),
    "gap": (lambda whole: whole.state_dict_metadata["w"].chunks.pop(), "do not make up"),
    "other size": (
        lambda whole: setattr(whole.state_dict_metadata["w"], "size", torch.Size([6, 8])),
        "do not make up",
    ),
    "other rank": (
        lambda whole: setattr(whole.state_dict_metadata["w"], "size", torch.Size([42])),
        "other dimensions",
    ),
    "no storage": (lambda whole: setattr(whole, "storage_data", None), "no sound 'storage_data'"),
    "another dtype": (
        lambda whole: setattr(whole.state_dict_metadata["w"].properties, "dtype", torch.float64),
        "not F64",
    ),
}


@pytest.mark.parametrize("case", SPOILT)
def test_metadata_that_does_not_fit(case: str, room: Any, tmp_path: Path) -> None:
    spoil, fault = SPOILT[case]
    folder = build(tmp_path / "d", room, {"w": (WHOLE, ROWS)}, spoil)
    with pytest.raises(FormatError, match=fault) as caught, open_checkpoint(folder) as found:
        found.read("w")
    assert str(folder) in str(caught.value)


def test_overlapping_pieces(room: Any, tmp_path: Path) -> None:
    pieces = [((0, 3), (0, 7)), ((2, 6), (0, 7))]
    with pytest.raises(FormatError, match="do not make up"):
        open_checkpoint(build(tmp_path / "d", room, {"w": (WHOLE, pieces)}))


class _Evil:
    def __reduce__(self) -> tuple:
        import os

        return os.system, ("true",)


@pytest.mark.parametrize("content", [pickle.dumps(_Evil()), pickle.dumps({"a": _Evil()}, 0)])
def test_malicious_metadata(content: bytes, tmp_path: Path) -> None:
    (tmp_path / ".metadata").write_bytes(content)
    with pytest.raises(FormatError, match=r"asks for posix\.system"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("content", [b"", b"hello", pickle.dumps({}), pickle.dumps(3)])
def test_metadata_that_is_none(content: bytes, tmp_path: Path) -> None:
    (tmp_path / ".metadata").write_bytes(content)
    with pytest.raises(CkptswapError):
        open_checkpoint(tmp_path)


def test_a_malicious_piece(room: Any, tmp_path: Path) -> None:
    folder = build(tmp_path / "d", room, {"w": (WHOLE, grid((6, 7), [[0, 6], [0, 7]]))})
    raw = io.BytesIO()
    torch.save({"w": _Evil()}, raw)
    size = (folder / "__0_0.distcp").stat().st_size
    evil = raw.getvalue()
    (folder / "__0_0.distcp").write_bytes(evil + bytes(max(0, size - len(evil))))
    with open_checkpoint(folder) as found, pytest.raises(FormatError):
        found.read("w")
    assert not verify(folder).ok


def test_a_flipped_byte_in_a_piece_is_caught_by_verify(room: Any, tmp_path: Path) -> None:
    folder = build(tmp_path / "d", room, {"w": (WHOLE, ROWS)})
    path = folder / "__1_0.distcp"
    raw = path.read_bytes()
    at = raw.index(WHOLE[2:4].numpy().tobytes())
    path.write_bytes(raw[:at] + b"\xff" + raw[at + 1 :])
    assert [finding for finding in verify(folder).findings if "CRC" in finding.text]
