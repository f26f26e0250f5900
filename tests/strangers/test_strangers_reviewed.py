"""What a review found that the tests had not: private files behind a link, holes, numbers that are no process."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from cli_program import good, run
from safetensors.numpy import save_file

from ckptswap.errors import RunError
from ckptswap.formats import open_checkpoint
from ckptswap.formats.companions import companions
from ckptswap.sweep.run_folder.lock import _process
from ckptswap.sweep.run_folder.plain import read_plain


def sharded(folder: Path) -> Path:
    folder.mkdir(parents=True)
    save_file({"w": np.ones(2)}, folder / "a.safetensors")
    listing = {"metadata": {"total_size": 16}, "weight_map": {"w": "a.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(listing))
    return folder


def cached(tmp_path: Path) -> Path:
    """A folder as Hugging Face's cache has it, with a link to what is called a blob."""
    folder = sharded(tmp_path / "repo/snapshots/abc")
    (folder / "config.json").symlink_to("../../blobs/id")
    return folder


def names(folder: Path) -> tuple[list[str], tuple[str, ...]]:
    with open_checkpoint(folder) as checkpoint:
        found = companions(checkpoint)
    return [str(each.place) for each in found.taken], found.left


def test_a_cache_is_followed_and_a_link_in_its_place_is_not(tmp_path: Path) -> None:
    folder = cached(tmp_path)
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/id").write_text("PRIVATE")
    (tmp_path / "repo/blobs").symlink_to("../secret")
    assert names(folder) == ([], ("config.json",))
    good("convert", folder, f"{tmp_path}/out/")
    assert not (tmp_path / "out/config.json").exists()
    os.unlink(tmp_path / "repo/blobs")
    (tmp_path / "secret").rename(tmp_path / "repo/blobs")
    assert names(folder) == (["config.json"], ())


def test_a_folder_beside_that_is_no_cache_is_not_followed(tmp_path: Path) -> None:
    folder = sharded(tmp_path / "a/b/c")
    (tmp_path / "a/blobs").mkdir()
    (tmp_path / "a/blobs/id").write_text("PRIVATE")
    (folder / "config.json").symlink_to("../../blobs/id")
    assert names(folder) == ([], ("config.json",))


def test_a_link_to_itself_stays_behind(tmp_path: Path) -> None:
    folder = sharded(tmp_path / "model")
    (folder / "loop").symlink_to("loop")
    assert names(folder) == ([], ("loop",))


@pytest.mark.parametrize("name", ["plan.json", "lock", "journal/main.jsonl", "samples.json"])
def test_a_hole_of_twenty_gigabytes_is_not_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.touch()
    os.truncate(path, 20 << 30)
    with pytest.raises(RunError, match="21,474,836,480 bytes"):
        read_plain(path)


def test_what_is_all_there_is_read(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_bytes(bytes(3 << 20))
    assert len(read_plain(tmp_path / "plan.json")) == 3 << 20


@pytest.mark.parametrize("pid", [10**30, -1, 0, 1 << 31])
def test_no_process_has_such_a_number(pid: int) -> None:
    assert _process(pid) is None


def test_threads_have_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_file({"w": np.ones(2)}, "a.safetensors")
    done = run("evaluate", "a.safetensors", "--data", "scans", "--threads", 30_000)
    assert (done.code, done.out) == (2, "")
    assert "1,024 is the most" in done.err
