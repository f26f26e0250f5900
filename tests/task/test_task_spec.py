from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest

from ckptswap.cores import usable_cores
from ckptswap.errors import FileError, UsageError
from ckptswap.task.spec import _READERS, TaskSpec, parse_args


def test_defaults_are_what_the_contract_says() -> None:
    spec = TaskSpec()
    assert (spec.metrics, spec.target, spec.batch_size, spec.device) == (("iou",), "masks", 8, "cpu")
    assert (spec.output, spec.threads) == ("logits", usable_cores())
    assert (spec.model, spec.data, spec.limit, spec.ignore) == (None, None, None, None)


def test_every_field_can_be_said_but_exclude_which_is_a_selections_flag() -> None:
    assert [*_READERS, "exclude", "walk", "screen_samples"] == [each.name for each in fields(TaskSpec)]


def test_what_of_a_file_need_not_fit_decides_no_score_by_itself() -> None:
    spec = TaskSpec().merge({"partial": True})
    assert spec.partial
    assert replace(spec, exclude=("a.*",)).as_dict() == TaskSpec().as_dict()
    with pytest.raises(UsageError, match="partial is 1: it must be true or false"):
        spec.merge({"partial": 1})


def test_toml_has_the_flags_as_keys_and_flags_win(tmp_path: Path) -> None:
    path = tmp_path / "task.toml"
    path.write_text(
        'model = "smp:Unet"\nmodel-args = {classes = 2, encoder_name = "resnet18"}\n'
        'metric = ["iou", "dice:pooled"]\nbatch-size = 3\nignore = 255\ndata-args = "part=train"\noutput-key = 0\n'
    )
    spec = TaskSpec.from_toml(path)
    assert spec.model_args == {"classes": 2, "encoder_name": "resnet18"}
    assert (spec.metrics, spec.batch_size, spec.ignore) == (("iou", "dice:pooled"), 3, 255)
    assert (spec.data_args, spec.output_key) == ({"part": "train"}, "0")
    merged = spec.merge({"batch_size": 5, "metric": None, "model-args": ["classes=4"], "data_args": []})
    assert (merged.batch_size, merged.metrics) == (5, spec.metrics)
    assert merged.model_args == {"classes": 4, "encoder_name": "resnet18"}
    assert merged.data_args == spec.data_args


def test_arguments_belong_to_their_model() -> None:
    spec = TaskSpec(model="smp:Unet", model_args={"encoder_name": "resnet18"})
    assert spec.merge({"model": "lab:unet"}).model_args == {}
    assert spec.merge({"model": "smp:Unet"}).model_args == {"encoder_name": "resnet18"}
    assert spec.merge({"model": "lab:unet", "model-args": "width=4"}).model_args == {"width": 4}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("classes=1", {"classes": 1}),
        ("a=none,b=None,c=null", {"a": None, "b": None, "c": None}),
        ("a=true,b=True,c=false", {"a": True, "b": True, "c": False}),
        ("a=1e-3,b=-2.5", {"a": 0.001, "b": -2.5}),
        ("a=[1,[2,3]],b={\"x\":1,\"y\":2}", {"a": [1, [2, 3]], "b": {"x": 1, "y": 2}}),
        ('a="x,y",b=z', {"a": "x,y", "b": "z"}),
        ("path=a=b.txt", {"path": "a=b.txt"}),
        ("a=NaN", {"a": "NaN"}),
        ("a=", {"a": ""}),
    ],
)  # fmt: skip
def test_arguments_are_read_as_json_where_they_can_be(text: str, expected: dict[str, object]) -> None:
    assert parse_args(text) == expected


@pytest.mark.parametrize("text", ["classes", "=1", "a=1,", "a=1,,b=2", "a=1,a=2", "a b=1"])
def test_bad_arguments(text: str) -> None:
    with pytest.raises(UsageError):
        parse_args(text)


def test_an_unknown_key_is_met_with_a_near_one(tmp_path: Path) -> None:
    path = tmp_path / "task.toml"
    path.write_text("batch-sise = 3\n")
    with pytest.raises(UsageError, match=r"task\.toml.*'batch-sise': did you mean 'batch-size'"):
        TaskSpec.from_toml(path)


@pytest.mark.parametrize(
    "flags",
    [
        {"batch-size": 0},
        {"batch-size": "8"},
        {"batch-size": True},
        {"threads": -1},
        {"limit": 1.5},
        {"target": "mask"},
        {"output": "sigmoid"},
        {"direction": "up"},
        {"metric": "iou,,dice"},
        {"metric": "iou,iou"},
        {"metric": 3},
        {"ignore": "x"},
        {"model": 7},
        {"model": " "},
        {"model-args": 7},
        {"data-args": {"when": object()}},
        {"data-args": {"x": float("nan")}},
    ],
)
def test_values_that_make_no_sense(flags: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        TaskSpec().merge(flags)


def test_toml_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"none\.toml"):
        TaskSpec.from_toml(tmp_path / "none.toml")
    with pytest.raises(FileError):
        TaskSpec.from_toml(tmp_path)
    for at, content in enumerate([b"model = ", b"\xff\xfe"]):
        path = tmp_path / f"{at}.toml"
        path.write_bytes(content)
        with pytest.raises(UsageError, match="not a TOML"):
            TaskSpec.from_toml(path)


def test_the_dict_is_json_and_merges_to_the_same_spec() -> None:
    spec = TaskSpec().merge({"model": "a.py:f", "model-args": "x=[1,2]", "metric": "iou,mse", "ignore": 0})
    assert TaskSpec().merge(json.loads(json.dumps(spec.as_dict()))) == spec


def test_a_spec_needs_no_torch() -> None:
    code = "import sys, ckptswap.task; ckptswap.task.TaskSpec(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
