"""`evaluate --explain`: what it says is what a sweep would work on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import ckptswap as cs
from ckptswap.report.explain import explain_json, explain_table
from ckptswap.report.text import Style
from ckptswap.task import TaskSpec, load_task
from ckptswap.task.evaluate import evaluate

NET = "from torch import nn\ndef net(classes=2):\n    return nn.Conv2d(1, classes, 1)\n"


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TaskSpec:
    monkeypatch.chdir(tmp_path)
    x = torch.rand(12, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    np.savez("data.npz", inputs=x.numpy(), masks=(x[:, 0] > 0.5).long().numpy(), groups=np.arange(12) // 2)
    Path("own.py").write_text(NET)
    torch.manual_seed(0)
    torch.save(torch.nn.Conv2d(1, 2, 1).state_dict(), "a.pt")
    return TaskSpec(
        model="own.py:net", data="npz:data.npz", metrics=("iou", "loss", "kl"), threads=1, batch_size=5
    )


def test_it_says_what_a_sweep_would_work_on(spec: TaskSpec) -> None:
    found = cs.explain("a.pt", task=spec, normalize="0.5/0.25")
    assert (found.samples, found.groups, found.parameters, found.dtype) == (12, 6, 4, "float32")
    assert [(look.name, look.shape, look.dtype) for look in (*found.inputs, *found.targets, found.output)] == [
        ("input", (1, 4, 4), "float32"), ("target", (4, 4), "int64"), ("output", (2, 4, 4), "float32")
    ]  # fmt: skip
    x = np.load("data.npz")["inputs"][0]
    assert found.inputs[0].low == pytest.approx((x.min() - 0.5) / 0.25)
    assert found.classes == {0: float((x <= 0.5).mean()), 1: float((x > 0.5).mean())}
    told = spec.merge({"normalize": "0.5/0.25"})
    with cs.open("a.pt") as checkpoint:
        values = evaluate([checkpoint], told).checkpoints[0].values
        task = load_task(told, checkpoint)
        assert {own.name: own.score for own in found.metrics} == values
        assert {own.name: own.trivial for own in found.metrics} == {
            metric.name: task.trivial(metric) for metric in task.metrics
        }


def test_json_and_table_say_first_what_is_worse_than_nothing(spec: TaskSpec) -> None:
    torch.save({"weight": torch.tensor([90.0, -90.0]).reshape(2, 1, 1, 1), "bias": torch.zeros(2)}, "bad.pt")
    document = explain_json(cs.explain("bad.pt", task=spec))
    assert document["below_trivial"] == ["loss"]
    lines = explain_table(document, Style(100)).splitlines()
    assert lines[0].startswith("loss is ")
    assert "of a prediction that looks at nothing" in lines[0]


def test_a_target_that_is_the_input_is_told_once(spec: TaskSpec) -> None:
    found = cs.explain("a.pt", task=spec, target="input", metric="kl")
    assert found.targets == ()
    assert found.classes == {}
