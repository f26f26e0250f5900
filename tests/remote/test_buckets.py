"""`s3://…` against a server that speaks like S3, by AWS_ENDPOINT_URL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch.distributed.checkpoint
from far_server import FarServer, bucket_files, read_folder, serving, status

import ckptswap as cs
from ckptswap.errors import FileError, FormatError
from ckptswap.watching import unwatched

ARRAYS = {f"layer.{at}.weight": np.full((64, 64), at, np.float32) for at in range(4)}


@pytest.fixture(scope="module")
def far() -> Iterator[FarServer]:
    """One for all, since making a client of S3 takes long."""
    with serving() as server:
        pytest.importorskip("s3fs").S3FileSystem.clear_instance_cache()
        yield server


@pytest.fixture(autouse=True)
def bucket(far: FarServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FarServer:
    far.clear()
    far.always = None
    told = {"ENDPOINT_URL": far.url, "ACCESS_KEY_ID": "me", "SECRET_ACCESS_KEY": "sekret",
            "DEFAULT_REGION": "us-east-1", "EC2_METADATA_DISABLED": "true", "CONFIG_FILE": "/none",
            "SHARED_CREDENTIALS_FILE": "/none"}  # fmt: skip
    for name, value in told.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    raw = cs.save(ARRAYS, tmp_path / "a.safetensors").read_bytes()
    far.files |= bucket_files("nets", {"a.safetensors": raw, "hf/model.safetensors": raw, "hf/config.json": b"{}"})
    return far


def test_a_file_is_read_by_ranges_at_a_signed_address(bucket: FarServer) -> None:
    with cs.open("s3://nets/a.safetensors") as checkpoint:
        assert checkpoint.path == "s3://nets/a.safetensors"
        assert len(bucket.asked) == 1
        assert (checkpoint.read("layer.3.weight") == 3).all()
        assert checkpoint.sha256().startswith("s3://nets/a.safetensors ")
    assert all("X-Amz-Signature=" in asked.path and "sekret" not in asked.path for asked in bucket.asked)


@pytest.mark.parametrize("name", ["s3://nets/hf", "s3://nets/hf/"])
def test_a_folder_is_listed(bucket: FarServer, name: str) -> None:
    with cs.open(name) as checkpoint:
        assert checkpoint.path == "s3://nets/hf"
        assert checkpoint.format == "smp folder"
        assert (checkpoint.read("layer.3.weight") == 3).all()


@pytest.mark.filterwarnings("ignore:torch.distributed is:UserWarning")
def test_a_folder_of_torch_distributed(bucket: FarServer, tmp_path: Path) -> None:
    state = {name: torch.from_numpy(array) for name, array in ARRAYS.items()}
    torch.distributed.checkpoint.save(state, checkpoint_id=tmp_path / "dcp", no_dist=True)
    files = read_folder(tmp_path / "dcp")
    bucket.files |= bucket_files("runs", {f"dcp/{name}": raw for name, raw in files.items()})
    with cs.open("s3://runs/dcp") as checkpoint:
        assert {name: checkpoint.read(name)[0, 0] for name in checkpoint} == dict(
            zip(ARRAYS, range(4), strict=True)
        )
    [name] = [name for name in files if name.endswith(".distcp")]
    damaged = files[name].replace(np.full(9, 3, np.float32).tobytes(), bytes(36), 1)
    bucket.files |= bucket_files("runs", {f"dcp/{name}": raw for name, raw in (files | {name: damaged}).items()})
    with cs.open("s3://runs/dcp") as checkpoint:
        assert not list(checkpoint.damage(unwatched))  # nothing is read for it beforehand
        with pytest.raises(FormatError, match="its CRC is wrong"):
            checkpoint.read("layer.3.weight")


def test_a_stranger_reads_what_is_public(bucket: FarServer, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("s3fs").S3FileSystem.clear_instance_cache()
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with cs.open("s3://nets/a.safetensors") as checkpoint:
        assert (checkpoint.read("layer.3.weight") == 3).all()
    assert all("?" not in asked.path for asked in bucket.asked)
    pytest.importorskip("s3fs").S3FileSystem.clear_instance_cache()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("s3://nets/b.safetensors", "s3://nets/b.safetensors does not exist (404): did you mean 'a.safetensors'?"),
        ("s3://nets/no/", "s3://nets/no does not exist, or has no files"),
        ("s3://nets", "s3://nets is a folder, and not of a form that we read: name one of a.safetensors"),
        ("s3:nets/a.safetensors", "names no bucket"),
        ("s3://", "names no bucket: write s3://BUCKET/PATH"),
    ],
)
def test_what_is_not_there_is_said(bucket: FarServer, name: str, said: str) -> None:
    with pytest.raises(FileError) as caught:
        cs.open(name)
    assert said in str(caught.value)


def test_what_is_refused_says_how_to_say_who_one_is(bucket: FarServer) -> None:
    bucket.always = status(403)
    with pytest.raises(FileError, match="say who you are as for the `aws` program") as caught:
        cs.open("s3://nets/a.safetensors")
    assert "sekret" not in str(caught.value)
