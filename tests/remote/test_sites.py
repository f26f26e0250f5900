"""`https://…` as a checkpoint: a header costs few requests, and values are fetched where they are used."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from far_server import FarServer, Sparse, status

import ckptswap as cs
from ckptswap.errors import CkptswapError, FileError, FormatError
from ckptswap.fingerprint import fingerprint

ARRAYS = {f"layer.{at}.weight": np.full((128, 128), at, np.float32) for at in range(40)}
LARGE = sum(array.nbytes for array in ARRAYS.values())


def saved(suffix: str, folder: Path) -> bytes:
    return cs.save(ARRAYS, folder / f"a{suffix}").read_bytes()


def legacy(suffix: str, folder: Path) -> bytes:
    state = {name: torch.from_numpy(array) for name, array in ARRAYS.items()}
    torch.save(state, file := io.BytesIO(), _use_new_zipfile_serialization=False)
    return file.getvalue()


@pytest.mark.parametrize(
    ("make", "suffix", "requests"),
    [(saved, ".safetensors", 1), (saved, ".pt", 2), (saved, ".npz", 50), (legacy, ".pth", 50)],
    ids=["safetensors", "torch", "npz", "torch legacy"],
)
def test_a_header_costs_few_requests(
    far: FarServer, tmp_path: Path, make: Callable[[str, Path], bytes], suffix: str, requests: int
) -> None:
    far.files[f"/a{suffix}"] = make(suffix, tmp_path)
    with cs.open(f"{far.url}/a{suffix}") as checkpoint:
        assert list(checkpoint) == list(ARRAYS)
        assert len(far.asked) <= requests
        if requests < 3:
            assert far.sent < 200_000 < LARGE
        for name, array in ARRAYS.items():
            assert (checkpoint.read(name) == array).all()
        assert far.sent < 1.2 * LARGE


def test_a_transplant_fetches_what_it_takes(far: FarServer, tmp_path: Path) -> None:
    for suffix in (".safetensors", ".pt"):
        far.files[f"/a{suffix}"] = saved(suffix, tmp_path)
        own = cs.save({name: array + 1 for name, array in ARRAYS.items()}, tmp_path / f"own{suffix}")
        far.clear()
        out = cs.transplant(f"{far.url}/a{suffix}", own, tmp_path / f"out{suffix}", only="layer.7.weight")
        assert far.sent < 400_000 < LARGE
        assert (out.read("layer.7.weight") == 7).all()
        assert (out.read("layer.8.weight") == 9).all()
        told = json.loads(out.metadata["ckptswap.transplant"])["donor"]
        assert told.keys() == {"path", "version"}
        assert told["path"] == f"{far.url}/a{suffix}"


def test_a_record_is_held_against_its_checksum_as_it_is_read(far: FarServer, tmp_path: Path) -> None:
    raw = bytearray(saved(".pt", tmp_path))
    raw[raw.index(np.full(64, 7, np.float32).tobytes()) + 40] ^= 1
    far.files["/a.pt"] = bytes(raw)
    with cs.open(f"{far.url}/a.pt") as checkpoint:
        assert (checkpoint.read("layer.8.weight") == 8).all()
        with pytest.raises(FormatError, match="its CRC is wrong"):
            checkpoint.read("layer.7.weight")
    assert not cs.verify(f"{far.url}/a.pt").ok
    with pytest.raises(FormatError, match="its CRC is wrong"):
        cs.convert(f"{far.url}/a.pt", tmp_path / "b.npz")
    assert not (tmp_path / "b.npz").exists()


def test_a_local_header_that_contradicts_is_found_out(far: FarServer, tmp_path: Path) -> None:
    raw = saved(".pt", tmp_path)
    at = raw.index(b"archive/data/7")
    far.files["/a.pt"] = raw[:at] + b"archive/data/9" + raw[at + 14 :]
    with cs.open(f"{far.url}/a.pt") as checkpoint, pytest.raises(FormatError, match="disagree about"):
        checkpoint.read("layer.7.weight")


def test_a_key_and_the_shards_beside_an_index(far: FarServer, tmp_path: Path) -> None:
    torch.save({"g_ema": {"w": torch.ones(3)}, "g": {"w": torch.zeros(3)}}, tmp_path / "gan.pt")
    far.files["/gan.pt"] = (tmp_path / "gan.pt").read_bytes()
    with cs.open(f"{far.url}/gan.pt::g_ema") as checkpoint:
        assert checkpoint.read("w").tolist() == [1, 1, 1]
        assert checkpoint.path == f"{far.url}/gan.pt::g_ema"
    cs.convert(ARRAYS, f"{tmp_path}/shards/", shard_size=LARGE // 3)
    names = sorted(path.name for path in (tmp_path / "shards").iterdir())
    far.files |= {f"/deep/{name}": (tmp_path / "shards" / name).read_bytes() for name in names}
    with cs.open(f"{far.url}/deep/model.safetensors.index.json") as checkpoint:
        assert len(checkpoint) == len(ARRAYS)
        assert checkpoint.format == "sharded safetensors"
        assert (checkpoint.read("layer.39.weight") == 39).all()
    far.files |= {f"/deep/a net%{name}": (tmp_path / "shards" / name).read_bytes() for name in names}
    index = far.files["/deep/a net%model.safetensors.index.json"]
    assert isinstance(index, bytes)
    far.files["/deep/a net%model.safetensors.index.json"] = index.replace(b': "model-', b': "a net%model-')
    with cs.open(f"{far.url}/deep/a%20net%25model.safetensors.index.json") as checkpoint:
        assert (checkpoint.read("layer.39.weight") == 39).all()
    del far.files["/deep/model-00002-of-00004.safetensors"]
    with pytest.raises(
        FormatError, match=r"lists the shard 'model-00002-of-00004.safetensors', which is not there"
    ):
        cs.open(f"{far.url}/deep/model.safetensors.index.json")


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("{url}/deep/", "is a folder, which a web server does not list"),
        ("{url}", "is a folder, which a web server does not list"),
        (
            "{url}/page",
            "is a web page, beginning '<!doctype html>sign in': is this the address of the file itself?",
        ),
        ("{url}/no.pt", "does not exist (404): check the address"),
        ("ftp://ann:sekret@host/a.pt", "nothing is read from ftp: name a path, https://…, hf://… or s3://…"),
        ("https://", "names no server: write https://HOST/PATH"),
        ("https://[::1/a.pt", "an address is given that no web server has"),
        ("https://huggingface.co/org/net", "is a page about a model: write hf://org/net"),
        ("https://huggingface.co/org/net/blob/main/a/b.pt", "write hf://org/net@main/a/b.pt"),
        (
            "{url}/a.pt?hidden=0123456789ab",
            "is kept nowhere, since it may be secret: name the whole address again",
        ),
    ],
)
def test_what_is_no_file_is_said(far: FarServer, address: str, said: str) -> None:
    far.files["/page"] = b"<!doctype html>sign in"
    with pytest.raises(FileError) as caught:
        cs.open(address.format(url=far.url))
    assert said in str(caught.value)


def test_secrets_are_sent_and_never_said(far: FarServer, tmp_path: Path) -> None:
    far.files["/a.npz"] = far.files["/my a.npz"] = saved(".npz", tmp_path)
    host = far.url.removeprefix("http://")
    for address in (
        f"{far.url}/my a.npz?sig=sekret",
        f"{far.url}/a.npz?sig=sekret",
        f"http://ann:sekret@{host}/a.npz?sig=sekret",
    ):
        with cs.open(address) as checkpoint:
            said = f"{checkpoint} {checkpoint.path} {checkpoint.sha256()} {checkpoint.sources[0].name}"
            assert "sekret" not in said
            assert "hidden=" in said
            with cs.open(checkpoint.path) as again:  # this process knows what stands behind it
                assert again.sha256() == checkpoint.sha256()
        missing = address.replace("a.npz", "b.npz")
        with pytest.raises(CkptswapError) as caught:
            cs.open(missing)
        assert "sekret" not in str(caught.value)
    assert all(asked.path.endswith("?sig=sekret") for asked in far.asked)
    assert far.asked[-1].headers["Authorization"].startswith("Basic ")
    assert "sekret" not in str(cs.diff(f"{far.url}/a.npz?sig=sekret", ARRAYS))
    assert "sekret" not in cs.verify(f"{far.url}/a.npz?sig=sekret").path


def test_a_version_stands_for_a_hash(far: FarServer, tmp_path: Path) -> None:
    far.files["/a.npz"] = raw = saved(".npz", tmp_path)
    with cs.open(f"{far.url}/a.npz") as checkpoint:
        sent = far.sent
        assert checkpoint.sha256().startswith(f"{far.url}/a.npz ")
        assert len(fingerprint(checkpoint)["version"]) <= 64
        assert far.sent == sent
        before = checkpoint.sha256()
    cs.save({name: array + 1 for name, array in ARRAYS.items()}, tmp_path / "a.npz", force=True)
    far.files["/a.npz"] = (tmp_path / "a.npz").read_bytes()
    with cs.open(f"{far.url}/a.npz") as checkpoint:
        assert checkpoint.sha256() != before
    far.files["/a.npz"] = raw
    far.etag = False  # then its bytes alone tell
    with cs.open(f"{far.url}/a.npz") as checkpoint:
        assert len(checkpoint.sha256()) == 64
        assert fingerprint(checkpoint) == {"version": "the server names none"}


@pytest.mark.parametrize(
    "where", ["https://host/b.npz", "http://host/b.npz", "s3://bucket/b.npz", "hf://org/b/", "s3://b/x/"]
)
def test_nothing_is_written_elsewhere(tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = (
        f"nothing is written to {where.partition(':')[0]}: name a place on this machine, and upload it from there"
    )
    for work in (
        lambda: cs.save(ARRAYS, where),
        lambda: cs.convert(ARRAYS, where),
        lambda: cs.transplant(ARRAYS, ARRAYS, where),
    ):
        with pytest.raises(CkptswapError) as caught:
            work()
        assert str(caught.value) == said
    assert list(tmp_path.iterdir()) == []


def test_what_is_refused_of_one_is_not_looked_for(far: FarServer) -> None:
    far.files["/a.safetensors"] = Sparse((1 << 40).to_bytes(8, "little") + b"{", 1 << 30)
    with pytest.raises(FormatError, match="its header is said to take"):
        cs.open(f"{far.url}/a.safetensors")
    assert far.sent < 1 << 20
    far.always = status(401)
    with pytest.raises(FileError, match="put the user and password into"):
        cs.open(f"{far.url}/a.safetensors")
