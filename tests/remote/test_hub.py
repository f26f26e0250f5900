"""`hf://…` against a server that speaks like the hub, by HF_ENDPOINT."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from far_server import COMMIT, FarServer, hub_files, send, serving, status

import ckptswap as cs
from ckptswap.errors import FileError
from ckptswap.transplant import plan_transplant, transplant

ARRAYS = {f"layer.{at}.weight": np.full((64, 64), at, np.float32) for at in range(8)}
CONFIG = json.dumps({"architectures": ["BertModel"]}).encode()
NET = f"hf://org/net@{COMMIT}"


@pytest.fixture(autouse=True)
def hub(far: FarServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FarServer:
    """A model of one file, and one of shards in a folder."""
    pytest.importorskip("huggingface_hub")
    monkeypatch.setenv("HF_ENDPOINT", far.url)
    monkeypatch.setenv("HF_TOKEN", "hf_sekret")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    raw = cs.save(ARRAYS, tmp_path / "a.safetensors").read_bytes()
    cs.convert(ARRAYS, f"{tmp_path}/shards/", shard_size=50_000)
    files = {"model.safetensors": raw, "config.json": CONFIG}
    files |= {f"deep/{path.name}": path.read_bytes() for path in (tmp_path / "shards").iterdir()}
    far.files |= hub_files("org/net", files)
    return far


def fetched(hub: FarServer) -> list[str]:
    return [asked.path.partition(f"{COMMIT}/")[2] for asked in hub.asked if "/resolve/" in asked.path]


@pytest.mark.parametrize("name", ["hf://org/net", "hf://org/net@main", NET, f"{NET}/"])
def test_a_model_is_its_folder_at_a_commit(hub: FarServer, name: str) -> None:
    with cs.open(name) as checkpoint:
        assert checkpoint.path == NET
        assert checkpoint.format == "transformers folder"
        assert json.loads(checkpoint.metadata["smp.config"]) == json.loads(CONFIG)
        assert len(fetched(hub)) == 2
        assert (checkpoint.read("layer.7.weight") == 7).all()


@pytest.mark.parametrize("name", ["model.safetensors", "deep/model.safetensors.index.json", "deep"])
def test_one_of_its_files_or_folders(hub: FarServer, name: str) -> None:
    with cs.open(f"hf://org/net/{name}") as checkpoint:
        assert checkpoint.path == f"{NET}/{name}"
        assert list(checkpoint) == list(ARRAYS)
        assert (checkpoint.read("layer.7.weight") == 7).all()


def test_what_lies_beside_the_weights_is_fetched_when_it_is_wanted(
    hub: FarServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"model.safetensors": (tmp_path / "a.safetensors").read_bytes(), "config.json": CONFIG}
    hub.files |= hub_files(
        "org/own", files | {"tokenizer.json": b"{}", "pytorch_model.bin": b"old", ".hidden": b""}
    )
    monkeypatch.chdir(tmp_path)
    with cs.open("hf://org/own") as checkpoint:
        assert checkpoint.home
        assert fetched(hub) == ["model.safetensors", "config.json"]
        assert sorted(path.name for path in checkpoint.home.folder.iterdir()) == ["config.json", "tokenizer.json"]
    plan = plan_transplant(cs.open({name: array + 1 for name, array in ARRAYS.items()}), cs.open("hf://org/own"))
    assert str(plan.default_output) == "own+all@memory"
    transplant(plan, "graft")
    assert (cs.open("graft").read("layer.7.weight") == 8).all()
    assert {"config.json", "tokenizer.json"} < {path.name for path in Path("graft").iterdir()}


def test_its_hash_is_that_of_the_file_and_nothing_is_read_for_it(hub: FarServer, tmp_path: Path) -> None:
    with cs.open("hf://org/net/model.safetensors") as checkpoint:
        hub.clear()
        assert checkpoint.sha256() == hashlib.sha256((tmp_path / "a.safetensors").read_bytes()).hexdigest()
        assert hub.asked == []
    with cs.open("hf://org/net/deep") as far, cs.open(tmp_path / "shards") as near:
        assert far.sha256() != near.sha256()  # whose index is small, and known to git alone


def test_the_token_goes_to_the_hub_and_no_further(hub: FarServer) -> None:
    with serving() as other:
        path = f"/org/net/resolve/{COMMIT}/model.safetensors"
        other.files["/blob"] = hub.files[path]
        hub.files[path] = b"moved"
        hub.replies[:] = []
        moved = status(302, Location=f"{other.url}/blob")
        hub.always = lambda handler, content: (moved if content == b"moved" else hub.ranged)(handler, content)
        with cs.open("hf://org/net/model.safetensors") as checkpoint:
            assert (checkpoint.read("layer.7.weight") == 7).all()
        told = [asked for asked in hub.asked if asked.path == path]
        assert [{**asked.headers}.get("Authorization") for asked in told] == ["Bearer hf_sekret"]
        assert len(other.asked) > 1
        assert not any("authorization" in {name.lower() for name in asked.headers} for asked in other.asked)


def test_what_the_hubs_cache_has_is_not_fetched(
    hub: FarServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = tmp_path / "hub/models--org--net/snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").write_bytes((tmp_path / "a.safetensors").read_bytes())
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs/main").write_text(COMMIT)
    with cs.open("hf://org/net") as checkpoint:
        assert (checkpoint.read("layer.7.weight") == 7).all()
        assert fetched(hub) == ["config.json"]
    hub.clear()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in ("hf://org/net", "hf://org/net/model.safetensors"):
        with cs.open(name) as checkpoint:
            assert (checkpoint.read("layer.7.weight") == 7).all()
            assert checkpoint.path == name.replace("hf://org/net", NET)
    with pytest.raises(FileError, match="is not in the hub's cache, and HF_HUB_OFFLINE is set"):
        cs.open("hf://org/other")
    with pytest.raises(FileError, match="names no model of the hub"):
        cs.open("hf://org/..")
    assert hub.asked == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("hf://org/net/modl.safetensors", "has no file 'modl.safetensors': did you mean 'model.safetensors'?"),
        ("hf://org/..", "names no model of the hub"),
        ("hf:org/net", "names no model of the hub"),
        ("hf://net", "names no model of the hub: write hf://ORG/NAME[@REVISION][/FILE]"),
        ("hf://datasets/org/net", "names no model of the hub"),
        ("hf://org/net/config.json", "name its folder, hf://org/net"),
    ],
)
def test_what_is_no_model_is_said(hub: FarServer, name: str, said: str) -> None:
    with pytest.raises(FileError) as caught:
        cs.open(name)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("code", "word", "said"),
    [
        (404, "RevisionNotFound", "hf://org/net does not exist: the model has no such revision: check its name"),
        (
            403,
            "GatedRepo",
            "hf://org/net is refused to you (its owner has to allow it): log in with `hf auth login`",
        ),
        (
            401,
            "RepoNotFound",
            "hf://org/net does not exist, or is not shown to you: check the name; if it is private",
        ),
        (404, "RepoNotFound", "hf://org/net does not exist, or is not shown to you"),
        (500, "", "hf://org/net cannot be had: the hub answers 500: try again later"),
    ],
)
def test_the_hubs_refusals_are_sentences_without_a_token(hub: FarServer, code: int, word: str, said: str) -> None:
    hub.always = lambda handler, content: send(
        handler, code, b"hf_sekret", {"X-Error-Code": word, "X-Error-Message": "hf_sekret"}
    )
    with pytest.raises(FileError) as caught:
        cs.open("hf://org/net")
    assert str(caught.value).startswith(said)
    assert "sekret" not in str(caught.value)


def test_no_hub_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(FileError, match=r"the hub cannot be reached \(ConnectError\): check the network"):
        cs.open("hf://org/net")
