"""Files that torch wrote, read without it: the same values that torch saved, and honest notes."""

from __future__ import annotations

import argparse
import json
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from format_samples import convert

from ckptswap import registry
from ckptswap.errors import FormatError
from ckptswap.formats import open_checkpoint
from ckptswap.wrappers import common_prefix

torch = pytest.importorskip("torch")
BASE = torch.arange(48.0).reshape(2, 4, 6)
STATE = {
    "plain": BASE + 1,
    "parameter": torch.nn.Parameter(torch.ones(3)),
    "transposed": torch.rand(3, 5).t(),
    "channels_last": torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "sliced": torch.arange(100.0)[10:50:3],
    "expanded": torch.rand(3, 1).expand(3, 5),
    "scalar": torch.tensor(3.5),
    "empty": torch.zeros(0, 4),
    "half": torch.rand(3).half(),
    "bf16": torch.rand(3).bfloat16(),
    "fp8": torch.rand(3).to(torch.float8_e4m3fn),
    "u16": torch.ones(3, dtype=torch.uint16),
    "flag": torch.tensor([True, False]),
    "complex": torch.rand(3, dtype=torch.complex64),
    "buffer\n[red]": torch.arange(3),
}
BOTH = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


def save(content: Any, folder: Path, zipped: bool) -> Path:
    path = folder / "a.pt"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


@BOTH
def test_the_values_are_those_that_were_saved(zipped: bool, tmp_path: Path) -> None:
    path = save(STATE, tmp_path, zipped)
    with open_checkpoint(path) as found:
        assert list(found) == list(STATE)
        assert found.notes == ()
        for name, tensor in STATE.items():
            wanted = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
            assert found.read(name).tobytes() == wanted.tobytes(), name
            assert found[name].shape == tuple(tensor.shape)


@BOTH
def test_tied_tensors_are_reported(zipped: bool, tmp_path: Path) -> None:
    weight = torch.rand(4, 4)
    state = {"decoder": weight, "apart": weight.clone(), "encoder": weight, "row": weight[1]}
    with open_checkpoint(save(state, tmp_path, zipped)) as found:
        assert found.ties.same == (("decoder", "encoder"),)
        assert found.ties.together == (("decoder", "encoder", "row"),)
        [note] = found.notes
        assert note.startswith("1 tensor has several names (decoder = encoder)")
    halves = torch.rand(4, 4)
    with open_checkpoint(save({"a": halves[:2], "b": halves[2:]}, tmp_path, zipped)) as found:
        assert found.notes == ()


@BOTH
def test_a_lightning_checkpoint(zipped: bool, tmp_path: Path) -> None:
    content = {
        "pytorch-lightning_version": "2.4.0",
        "epoch": 3,
        "state_dict": {"model.w": torch.ones(2)},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(2)}}}],
        "hyper_parameters": {
            "path": Path("data"),
            "namespace": argparse.Namespace(lr=1),
            "rate": np.float32(3),
            "array": np.arange(3),
            "device": torch.device("cpu"),
            "shape": torch.Size([2]),
        },
    }
    with open_checkpoint(save(content, tmp_path, zipped)) as found:
        assert list(found) == ["model.w"]
        assert found.notes == (
            "a checkpoint of Lightning 2.4.0",
            "the tensors lie under 'state_dict'",
            "it also carries optimizer_states, which belongs to these tensors",
        )


@BOTH
def test_what_training_left_becomes_any_format(zipped: bool, tmp_path: Path) -> None:
    content = {"state_dict": {"model.w": torch.rand(3, 4).t(), "model.n": torch.tensor(3)}, "epoch": 3}
    path = save(content, tmp_path, zipped)
    for target in ("a.safetensors", "a.npz", "again.pt", "s/"):
        with open_checkpoint(convert(path, f"{tmp_path}/{target}")) as found:
            for name, tensor in content["state_dict"].items():
                assert found.read(name).tobytes() == tensor.contiguous().numpy().tobytes()


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict", "net", "whatever"])
def test_the_tensors_are_found_where_scripts_put_them(key: str, tmp_path: Path) -> None:
    content = {key: {"w": torch.ones(2)}, "epoch": 3, "best": torch.tensor(0.5)}
    if key == "whatever":
        del content["best"]
    with open_checkpoint(save(content, tmp_path, True)) as found:
        assert list(found) == ["w"]
        assert found.notes[0] == f"the tensors lie under {key!r}"


def test_two_maps_without_a_known_name_are_not_guessed(tmp_path: Path) -> None:
    path = save({"a": {"w": torch.ones(2)}, "b": {"w": torch.ones(2)}}, tmp_path, True)
    with pytest.raises(FormatError, match=r"name one: .*a\.pt::a or .*a\.pt::b"):
        open_checkpoint(path)


def test_schema_is_not_ema(tmp_path: Path) -> None:
    content = {"model": {"w": torch.ones(2)}, "schema": {"a": 1}, "ema": {"w": torch.ones(2)}}
    with open_checkpoint(save(content, tmp_path, True)) as found:
        assert "it also carries ema, which belongs to these tensors" in found.notes


@pytest.mark.parametrize(
    ("tensor", "why"),
    [
        (torch.eye(3).to_sparse(), "sparse"),
        (torch.zeros(2, dtype=torch.complex64).conj(), "lazy conj view"),
        (torch.empty(2, device="meta"), "meta device"),
    ],
    ids=["sparse", "conj", "meta"],
)
@BOTH
def test_tensors_without_plain_bytes_are_listed(tensor: Any, why: str, zipped: bool, tmp_path: Path) -> None:
    with open_checkpoint(save({"odd": tensor}, tmp_path, zipped)) as found:
        assert why in found.unread["odd"].what
        assert found.unread["odd"].shape == tuple(tensor.shape)


def test_wrappers_prefixes_are_noted(tmp_path: Path) -> None:
    state = {"module._orig_mod.w": torch.ones(2), "module._orig_mod.b": torch.ones(2)}
    with open_checkpoint(save(state, tmp_path, True)) as found:
        assert common_prefix(found) == "module._orig_mod."
        assert found.notes == ("every name begins with 'module._orig_mod.'",)


def test_left_out_is_said(tmp_path: Path) -> None:
    with open_checkpoint(save({"w": torch.ones(2), "_extra_state": None, "n": 3}, tmp_path, True)) as found:
        assert found.notes == ("left out what is not a tensor: _extra_state, n",)


@BOTH
def test_tensors_may_lie_under_a_key_that_is_none(zipped: bool, tmp_path: Path) -> None:
    with open_checkpoint(save({None: {"w": torch.ones(2)}}, tmp_path, zipped)) as found:
        assert found.read("w").tolist() == [1, 1]


def test_what_each_of_several_shards_carries_is_told_once(tmp_path: Path) -> None:
    places = {name: f"{name}.bin" for name in "ab"}
    for name, file in places.items():
        torch.save({"model": {name: torch.ones(2)}, "optimizer": {"step": 1}}, tmp_path / file)
    (tmp_path / "m.index.json").write_text(json.dumps({"weight_map": places}))
    with open_checkpoint(tmp_path) as found:
        assert found.stale == ("optimizer",)


@BOTH
def test_what_is_named_as_it_should_be_asks_no_other_package(
    zipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = EntryPoint("broken", "no_such_package:FORMAT", "ckptswap.formats")
    monkeypatch.setattr(registry, "plugins", lambda group: {"broken": broken})
    with open_checkpoint(save({"w": torch.ones(2)}, tmp_path, zipped)) as found:
        assert list(found) == ["w"]
