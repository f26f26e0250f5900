"""A file with several networks is as many checkpoints: `FILE::KEY` names one, wherever a command takes one.

Relatives of the report's four: keys with dots in them, networks in a list, a list of tensors, a file whose own
name has `::`, averages that only a nested map holds, an optimizer beside, a folder of DCP.
"""

from __future__ import annotations

import json
import shlex
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_program import good, run, validate

import ckptswap as cs
from ckptswap.errors import FormatError, RunError
from ckptswap.formats.keys import LOOKED_AT, maps
from ckptswap.formats.opening import absolute, split_key

torch = pytest.importorskip("torch")
NET = """from torch import nn
def net():
    return nn.Linear(3, 2)
"""


def state(seed: float) -> dict[str, Any]:
    return {"weight": torch.full((2, 3), float(seed)), "bias": torch.full((2,), float(seed))}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report's files and their relatives. Write nothing to it."""
    folder = tmp_path_factory.mktemp("several")
    adam = {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": []}
    for name, content in {
        "gan_100.pt": {"g": state(0), "d": state(1), "g_ema": state(2), "ada_aug_p": 0.1},
        "gan_200.pt": {"g": state(10), "d": state(11), "g_ema": state(12), "ada_aug_p": 0.1},
        "dino.pth": {"student": state(0), "teacher": state(1), "epoch": 3, "args": {}},
        "timm.pth.tar": {"state_dict": state(0), "state_dict_ema": state(1)},
        "two_deep.pt": {"checkpoint": {"state_dict": state(0)}, "epoch": 1},
        # relatives
        "dots.pt": {"a.b": {"c": state(3)}, "a": {"b": state(4), "b.c": state(5)}},
        "list.pt": {"nets": [state(6), state(7)], "shadow_params": [torch.ones(2), torch.ones(3)]},
        "deep_ema.pt": {"trainer": {"net": {"sd": state(8)}, "ema": {"sd": state(9)}}, "optimizer": adam},
        "we::ird.pt": state(1),
        "plain.pt": state(2),
    }.items():
        torch.save(content, folder / name)
    torch.save({"g": state(0), "d": state(1)}, folder / "old.pt", _use_new_zipfile_serialization=False)
    np.savez(folder / "a.npz", w=np.ones(2))
    (folder / "net.py").write_text(NET)
    return folder


@pytest.fixture(autouse=True)
def here(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made)


@pytest.mark.parametrize(
    ("path", "value"),
    {
        "gan_100.pt::g": 0, "gan_100.pt::g_ema": 2, "dino.pth::teacher": 1, "timm.pth.tar": 0,
        "timm.pth.tar::state_dict_ema": 1, "two_deep.pt": 0, "two_deep.pt::checkpoint.state_dict": 0,
        "two_deep.pt::checkpoint": 0, "dots.pt::a.b.c": 3, "dots.pt::a.b": 3, "list.pt::nets.1": 7,
        "deep_ema.pt": 8, "deep_ema.pt::trainer": 8, "deep_ema.pt::trainer.ema.sd": 9,
        "deep_ema.pt::trainer.ema": 9, "we::ird.pt": 1, "old.pt::d": 1,
    }.items(),
)  # fmt: skip
def test_each_map_is_a_checkpoint(path: str, value: int) -> None:
    with cs.open(path) as found:
        assert found.path == path
        assert found.read("bias").tolist() == [value, value]
    assert good("show", path, "--format", "json").json["path"] == path


def test_a_list_of_tensors_is_named_by_numbers() -> None:
    assert {name: entry.shape for name, entry in cs.open("list.pt::shadow_params").items()} == {
        "0": (2,),
        "1": (3,),
    }


@pytest.mark.parametrize(
    ("path", "said"),
    {
        "gan_100.pt": "name one: gan_100.pt::g or gan_100.pt::d or gan_100.pt::g_ema",
        "dino.pth": "name one: dino.pth::student or dino.pth::teacher",
        "dots.pt": "name one: dots.pt::a.b.c or dots.pt::a.b",
        "gan_100.pt::": "names no key: name one: gan_100.pt::g",
        "gan_100.pt::g_emma": "did you mean 'g_ema'?",
        "gan_100.pt::nets": "it has the keys 'g', 'd', 'g_ema', 'ada_aug_p'",
        "gan_100.pt::g.": "'g' has the keys 'g.weight', 'g.bias'",
        "gan_100.pt::ada_aug_p": "is 0.1, not a map of tensors: name one: gan_100.pt::g",
        "gan_100.pt::ada_aug_p.x": "'ada_aug_p' is 0.1, in which there is nothing",
        "gan_100.pt::g.bias": "is a single tensor: name what holds it: gan_100.pt::g",
        "plain.pt::bias": "is a single tensor: name what holds it: plain.pt",
        "list.pt::nets.2": "did you mean 'nets.1' or 'nets.0'?",
        "a.npz::w": "a.npz holds one map of tensors (npz)",
        "nowhere.pt::g": "nowhere.pt does not exist",
        ".::g": ". is a folder",
    }.items(),
)  # fmt: skip
def test_what_leads_nowhere_is_told(path: str, said: str) -> None:
    done = run("show", path)
    assert (done.code, done.out) == (2, "")
    assert said in done.err
    assert len(done.err.splitlines()) == 1


def test_diff_of_two_maps_of_one_file() -> None:
    done = good("diff", "timm.pth.tar::state_dict", "timm.pth.tar::state_dict_ema", "--format", "json")
    validate("diff", done.json)
    assert [done.json[side]["path"] for side in "ab"] == [
        "timm.pth.tar::state_dict",
        "timm.pth.tar::state_dict_ema",
    ]
    assert {row["rmse"] for row in done.json["rows"]} == {1.0}
    assert cs.diff("gan_100.pt::g", "gan_200.pt::g").summary["changed"] == 2
    assert run("diff", "gan_100.pt::g", "gan_100.pt::g", "--exit-code").code == 0


def test_the_other_maps_are_told() -> None:
    assert "other maps of tensors: ::state_dict_ema" in good("show", "timm.pth.tar").err
    assert "other maps" not in good("show", "timm.pth.tar::state_dict").err


def test_a_map_receives_and_the_rest_of_its_file_stays(tmp_path: Path) -> None:
    out = tmp_path / "out.pt"
    done = good("transplant", "--from", "gan_200.pt::g", "--to", "gan_100.pt::g_ema", "--only", "bias", "-o", out)
    assert done.out == f"{out}\n"
    content = torch.load(out, weights_only=True)
    assert {key: value["bias"][0].item() for key, value in content.items() if key != "ada_aug_p"} == {
        "g": 0, "d": 1, "g_ema": 10,
    }  # fmt: skip
    assert (content["ada_aug_p"], content["g_ema"]["weight"][0, 0].item()) == (0.1, 2)
    with cs.transplant("gan_200.pt::g", "gan_100.pt::g_ema", tmp_path / "b.pt", only="bias") as variant:
        assert (variant.path, variant.read("bias")[0]) == (f"{tmp_path}/b.pt::g_ema", 10)


def test_a_default_name_is_one_for_a_shell(tmp_path: Path, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    [name] = good(
        "transplant", "--from", f"{made}/list.pt::nets.0", "--to", f"{made}/gan_100.pt::g_ema", "--only", "bias"
    ).out.splitlines()
    assert name == "gan_100-g_ema+bias@list-nets.0.safetensors" == shlex.quote(name)
    with cs.open(name) as written:
        origin = json.loads(written.metadata["ckptswap.transplant"])
    assert origin["recipient"]["path"] == f"{made}/gan_100.pt::g_ema"
    assert origin["donor"]["path"] == f"{made}/list.pt::nets.0"


def test_a_map_can_be_converted_and_verified(tmp_path: Path) -> None:
    good("convert", "dino.pth::teacher", tmp_path / "t.safetensors")
    assert cs.open(tmp_path / "t.safetensors").read("bias").tolist() == [1, 1]
    assert good("verify", "dino.pth::teacher").out.startswith("dino.pth::teacher: sound (torch, 2 tensors")


def test_maps_of_one_file_are_scored(tmp_path: Path, made: Path) -> None:
    task = {"model": f"{made}/net.py:net", "data": "random:3", "metric": "output-mse", "limit": 8}
    donor, recipient = "gan_100.pt::g", "gan_100.pt::d"
    result = cs.sweep(donor, recipient, run=tmp_path / "run", engine="full", **task)
    assert {row.status for row in result.rows} == {"measured"}
    assert cs.evaluate([donor, recipient], **task).paths == (donor, recipient)
    plan = (tmp_path / "run" / "plan.json").read_text()
    assert f"{made}/{donor}" in plan
    assert f"{made}/{recipient}" in plan
    with pytest.raises(RunError, match="maps"):  # the file's hash is the same
        cs.sweep("gan_100.pt::g_ema", recipient, run=tmp_path / "run", engine="full", **task)


def test_a_distributed_folder_has_keys_too(tmp_path: Path) -> None:
    import torch.distributed.checkpoint as room

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        room.save({"g": state(1), "d": state(2)}, checkpoint_id=tmp_path / "dcp", no_dist=True)
    assert cs.open(f"{tmp_path}/dcp::d").read("bias").tolist() == [2, 2]
    with pytest.raises(FormatError, match=r"dcp::g or .*dcp::d"):
        cs.open(tmp_path / "dcp")


def test_a_path_and_its_key(made: Path) -> None:
    assert split_key("we::ird.pt") == ("we::ird.pt", None)
    assert split_key("we::ird.pt::x::y") == ("we::ird.pt", "x::y")
    assert split_key("none.pt::x::y") == ("none.pt", "x::y")
    assert absolute("gan_100.pt::a/../b") == f"{made}/gan_100.pt::a/../b"


def test_many_tensors_hide_no_other_map() -> None:
    content = {"g": dict.fromkeys(map(str, range(LOOKED_AT)), 1.0), "d": {"w": 1.0}, "n": {"deep": {"w": 1.0}}}
    assert list(maps(content, lambda value: type(value) is float)) == ["g", "d"]
