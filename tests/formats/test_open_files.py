"""A checkpoint of more shards than a process may open files, and what is no plain file."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from ckptswap.checkpoint import Checkpoint
from ckptswap.diff import diff
from ckptswap.errors import CkptswapError, FileError
from ckptswap.formats import open_checkpoint, write_checkpoint
from ckptswap.storage import LocalFile
from ckptswap.transplant import plan_transplant, transplant

FEW, MANY = 100, 130
"""Files that may be open, and shards of a checkpoint."""


@pytest.fixture
def few_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (FEW, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def sharded(folder: Path, value: float) -> Path:
    arrays = {f"t{at}": np.full(4, value + at) for at in range(MANY)}
    return write_checkpoint(Checkpoint.from_arrays(arrays), f"{folder}/", shard_size=32)


def test_more_shards_than_open_files(tmp_path: Path, few_files: None) -> None:
    with open_checkpoint(sharded(tmp_path / "a", 0)) as a, open_checkpoint(sharded(tmp_path / "b", 1)) as b:
        assert len(list((tmp_path / "a").glob("*.safetensors"))) == MANY
        assert all(row.changed == 4 for row in diff(a, b).rows)
        made = transplant(plan_transplant(a, b), tmp_path / "c")
        with ThreadPoolExecutor(8) as pool:  # a file that is being read is not closed under its reader
            values = list(pool.map(lambda name: a.read(name)[0], [*a] * 3))
        assert values == [float(at) for at in range(MANY)] * 3
    with open_checkpoint(made) as found:
        assert [found.read(f"t{at}")[3] for at in range(MANY)] == list(range(MANY))


def test_a_file_that_is_opened_again_must_be_the_same(tmp_path: Path, few_files: None) -> None:
    with open_checkpoint(sharded(tmp_path / "a", 0)) as a:
        for name in a:
            a.read(name)  # so that the first shards are no longer open
        first = sorted((tmp_path / "a").glob("*.safetensors"))[0]
        content = first.read_bytes()
        first.unlink()
        (tmp_path / "in the way").write_bytes(b"")  # takes the number that is free now
        first.write_bytes(content)
        with pytest.raises(FileError, match="changed while it was being read"):
            a.read("t0")


def test_a_closed_file_is_not_opened_again(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    file = LocalFile(tmp_path / "a")
    assert file.pread(9, 1) == b"bc"
    file.close()
    with pytest.raises(FileError, match="was it closed"):
        file.pread(1, 0)


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(path))


@pytest.mark.parametrize("make", [pipe, device, listening])
@pytest.mark.parametrize(
    "name",
    ["a.safetensors", "a.pt", "model.safetensors.index.json", "folder/.metadata", "folder/model.safetensors",
     "folder/config.json", "folder/model.safetensors.index.json"],
)  # fmt: skip
def test_a_pipe_a_device_and_a_socket_are_refused_at_once(
    make: object, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    make(tmp_path / name)  # type: ignore[operator]
    with pytest.raises(CkptswapError, match=r"neither a file nor a folder|not of a form that we read"):
        open_checkpoint(tmp_path / ("folder" if name.startswith("folder") else name))
