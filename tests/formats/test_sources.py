"""One way to bytes: every format opens from memory as from the disk, and a command opens each file once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp
from format_samples import filled

from ckptswap.checkpoint import Checkpoint, checked_bytes, refuse_damaged
from ckptswap.errors import FormatError
from ckptswap.formats import open_checkpoint, open_in, write_checkpoint
from ckptswap.storage import LocalFolder, MemoryFile, MemoryFolder

ARRAYS = {"a.weight": filled("F32", (3, 4), 0), "a.bias": filled("F32", (3,), 1), "n": filled("I64", (), 2)}


def tensors() -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array.copy()) for name, array in ARRAYS.items()}


def written(folder: Path, name: str) -> None:
    write_checkpoint(Checkpoint.from_arrays(ARRAYS, metadata={"k": "v"}), f"{folder}/{name}", shard_size=60)


def old(folder: Path) -> None:
    torch.save({"state_dict": tensors(), "epoch": 3}, folder / "c.pth", _use_new_zipfile_serialization=False)


def transposed(folder: Path) -> None:
    torch.save({"w": torch.arange(6.0).reshape(2, 3).t(), "optimizer": {"lr": 1}}, folder / "c.pt")


def distributed(folder: Path) -> None:
    dcp.save({"model": tensors()}, checkpoint_id=str(folder), no_dist=True)


def saved(folder: Path) -> None:
    written(folder, "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"a": 1}))


MADE: dict[str, tuple[Callable[[Path], None], str | None]] = {
    "safetensors": (lambda folder: written(folder, "c.safetensors"), "c.safetensors"),
    "torch": (lambda folder: written(folder, "c.pt"), "c.pt"),
    "torch, views": (transposed, "c.pt"),
    "torch legacy": (old, "c.pth"),
    "npz": (lambda folder: written(folder, "c.npz"), "c.npz"),
    "npz, deflated": (lambda folder: np.savez_compressed(folder / "c.npz", **ARRAYS), "c.npz"),
    "an index": (lambda folder: written(folder, "c.safetensors.index.json"), "c.safetensors.index.json"),
    "a folder of shards": (lambda folder: written(folder, "c.safetensors.index.json"), None),
    "a folder of save_pretrained": (saved, None),
    "torch distributed": (distributed, None),
}


def content_of(folder: Path) -> MemoryFolder:
    return MemoryFolder({path.name: path.read_bytes() for path in folder.iterdir()}, str(folder))


def read_all(folder: MemoryFolder, name: str | None) -> None:
    with open_in(folder, name) as checkpoint:
        for tensor in checkpoint:
            checkpoint.read(tensor)


def told(checkpoint: Checkpoint) -> tuple:
    """All that a checkpoint says, and its bytes."""
    values = {name: (entry.shape, entry.dtype, entry.layer, entry.kind, checkpoint.read(name).tobytes())
              for name, entry in checkpoint.items()}  # fmt: skip
    about = (checkpoint.path, checkpoint.format, checkpoint.metadata, checkpoint.notes, checkpoint.unread)
    rest = (checkpoint.ties, checkpoint.beside, checkpoint.stale, checkpoint.renames, checkpoint.sha256())
    refuse_damaged(checkpoint)
    return list(values), values, about, rest, checked_bytes(checkpoint)


@pytest.mark.parametrize("made", MADE)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_a_format_opens_from_memory_as_from_the_disk(made: str, tmp_path: Path) -> None:
    make, name = MADE[made]
    make(tmp_path)
    with open_in(content_of(tmp_path), name) as memory, open_checkpoint(tmp_path / (name or "")) as disk:
        assert told(memory) == told(disk)
        assert len(disk) > 0
        assert (memory.files, memory.home) == ((), None)
    with open_in(LocalFolder(tmp_path), name) as same:
        assert told(same)[1] != {}


@pytest.mark.parametrize("made", MADE)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_a_cut_file_in_memory_is_refused(made: str, tmp_path: Path) -> None:
    make, name = MADE[made]
    make(tmp_path)
    content = dict(content_of(tmp_path).content)
    largest = max(content, key=lambda other: len(content[other]))
    content[largest] = content[largest][: len(content[largest]) // 2]
    with pytest.raises(FormatError):
        read_all(MemoryFolder(content), name)


def test_memory_ends_where_it_ends() -> None:
    file = MemoryFile(b"abc", "a")
    assert (file.pread(9, 1), file.pread(9, 5)) == (b"bc", b"")
    with pytest.raises(FormatError, match="a ended at byte 3"):
        file.pread_into(memoryview(bytearray(2)), 2)


SPY = """
import sys
opened = []
sys.addaudithook(lambda event, given: opened.append(given[0]) if event == "open" else None)
from ckptswap.cli.main import main
try:
    main()
finally:
    with open("opened", "w") as file:
        file.write("\\n".join(str(path) for path in opened if isinstance(path, str)))
"""


def opens(folder: Path, *words: str) -> list[str]:
    """The files in the folder that a command opens to read, by the names that it opens them by."""
    done = subprocess.run(
        [sys.executable, "-c", SPY, *words], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    paths = [
        os.path.relpath(os.path.join(folder, line), folder) for line in (folder / "opened").read_text().split()
    ]
    return sorted(path for path in paths if path.split("/")[0] in ("a", "b"))


@pytest.mark.parametrize("name", ["c.safetensors", "c.pt", "c.npz", "c.safetensors.index.json"])
def test_each_file_is_opened_once(name: str, tmp_path: Path) -> None:
    for side, value in (("a", 1), ("b", 2)):
        (tmp_path / side).mkdir()
        arrays = {key: (array + value).astype(array.dtype) for key, array in ARRAYS.items()}
        write_checkpoint(Checkpoint.from_arrays(arrays), f"{tmp_path}/{side}/{name}", shard_size=60)
    files = {side: sorted(f"{side}/{path.name}" for path in (tmp_path / side).iterdir()) for side in "ab"}
    assert opens(tmp_path, "show", f"a/{name}", "--stats") == files["a"]
    assert opens(tmp_path, "diff", f"a/{name}", f"b/{name}") == files["a"] + files["b"]
    made = "made/" if name.endswith(".json") else f"made{Path(name).suffix}"
    graft = ("transplant", "--from", f"a/{name}", "--to", f"b/{name}", "--only", "a.bias", "-o", made)
    assert opens(tmp_path, *graft) == files["a"] + files["b"]
