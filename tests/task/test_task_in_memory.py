"""Modules, functions, Datasets and lists go straight into the library's functions, and mean what files mean."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import ckptswap as cs
from ckptswap.errors import CkptswapError, DataError, ModelError, RunError, UsageError
from ckptswap.given import word_of
from ckptswap.task import TaskSpec, load_task
from ckptswap.task.in_memory import InMemory
from ckptswap.task.known_by import _texts

SOURCE = """
import torch
from torch import nn

def net():
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 4))

def data():
    draw = torch.Generator().manual_seed(0)
    return [(torch.rand(1, 4, 4, generator=draw), at % 4, at // 2) for at in range(16)]

def right(output, target):
    return (output.argmax(1) == target).float()

right.direction = "max"
"""
OWN: dict[str, Any] = {"__name__": "own"}
exec(SOURCE, OWN)
NUMBERS = torch.full((2, 3), 4.125)


def pair() -> list[nn.Module]:
    nets = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        nets.append(OWN["net"]())
    return nets


TASK: dict[str, Any] = {"data": OWN["data"](), "metric": [OWN["right"], "loss"], "threads": 1, "by": "kind"}


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[cs.sweep, Path]:  # type: ignore[valid-type]
    folder = tmp_path_factory.mktemp("memory") / "run"
    return cs.sweep(*pair(), run=folder, **TASK), folder


def test_what_is_in_memory_means_what_its_file_means(swept: Any, tmp_path: Path) -> None:
    """The twin of the command, which names files."""
    (tmp_path / "own.py").write_text(SOURCE)
    paths = [cs.save(net, tmp_path / f"{at}.safetensors") for at, net in enumerate(pair())]
    own = f"{tmp_path}/own.py"
    named = {**TASK, "data": f"{own}:data", "metric": [f"{own}:right", "loss"]}
    result = cs.sweep(*paths, model=f"{own}:net", run=tmp_path / "run", **named)
    scores = [
        [(row.kind, row.score, row.drop, row.verdict, row.others) for row in it.rows] for it in (result, swept[0])
    ]
    assert scores[0] == scores[1]
    assert result.groups == swept[0].groups == 8
    assert (result.baseline, result.metric) == (swept[0].baseline, f"{own}:right")
    assert swept[0].metric == "memory:right"


@pytest.mark.parametrize(
    "task",
    [
        {"model": OWN["net"]},
        {"model": pair()[0]},
        {"data": OWN["data"]},
        {"data": TensorDataset(torch.stack([x for x, *_ in TASK["data"]]), torch.arange(16) % 4)},
        {"data": DataLoader([(x, y) for x, y, _ in TASK["data"]], batch_size=8)},
        {"metric": OWN["right"]},
        {"metric": [partial(OWN["right"])], "direction": "max"},
    ],
    ids=["builder", "module", "function", "Dataset", "DataLoader", "metric", "partial"],
)
def test_each_kind_of_thing_is_taken(swept: Any, task: dict[str, Any]) -> None:
    net = pair()[1]
    given = net.state_dict() if "model" in task else net
    scores = cs.evaluate(given, **{"data": TASK["data"], "metric": OWN["right"], "threads": 1} | task).scores
    assert next(iter(scores[0].values())).estimate == pytest.approx(swept[0].baseline, abs=1e-6)


def test_the_modules_stay_as_they_were() -> None:
    net, other = pair()
    before = deepcopy(net.state_dict())
    cs.evaluate([net, other], data=TASK["data"], metric="loss", threads=1)
    assert net.training
    assert all(parameter.requires_grad for parameter in net.parameters())
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_the_same_things_continue_a_run_and_others_do_not(swept: Any) -> None:
    result, folder = swept
    journal = sorted(path.stat().st_size for path in folder.rglob("*journal*") if path.is_file())
    assert cs.sweep(*pair(), run=folder, **TASK) == result
    assert journal == sorted(path.stat().st_size for path in folder.rglob("*journal*") if path.is_file())

    def right(output: Tensor, target: Tensor) -> Tensor:
        return (output.argmax(1) != target).float()

    right.direction = "max"  # type: ignore[attr-defined]
    with pytest.raises(RunError, match="code \\(memory:right changed\\)"):
        cs.sweep(*pair(), run=folder, **TASK | {"metric": [right, "loss"]})
    donor, recipient = pair()
    recipient[2].negative_slope = 0.5  # type: ignore[assignment]  # which neither repr nor outputs know of
    assert cs.sweep(donor, recipient, run=folder, **TASK) == result
    recipient[2] = nn.LeakyReLU(0.5)
    with pytest.raises(RunError, match="code \\(memory:Sequential changed"):
        cs.sweep(donor, recipient, run=folder, **TASK)


def test_select_takes_them_again(swept: Any) -> None:
    donor, recipient = pair()
    task = {"data": TASK["data"], "metric": TASK["metric"]}
    choice = cs.select(swept[1], donor=donor, recipient=recipient, **task)
    assert choice.baseline == swept[0].baseline
    with pytest.raises(RunError, match="<Sequential> stood in the memory of another process: give it again"):
        cs.select(swept[1])
    with pytest.raises(UsageError, match="add --data memory:list"):
        cs.select(swept[1], donor=donor, recipient=recipient, metric=TASK["metric"])


def test_a_plan_holds_names_only(swept: Any) -> None:
    told = json.loads((swept[1] / "plan.json").read_text("utf-8"))["source"]["spec"]["task"]
    assert (told["model"], told["data"]) == ("memory:Sequential", "memory:list")
    with pytest.raises(
        ModelError, match=r"stood in the memory of another process: give it again in Python \(model=…\)"
    ):
        load_task(TaskSpec(**told | {"metrics": ("loss",)}), cs.open(pair()[0]))


WRONG: list[tuple[dict[str, Any], type[CkptswapError], str]] = [
    (
        {"jobs": 2},
        UsageError,
        r"other processes cannot reach .* \(<Sequential>, <Sequential> 1, memory:list, memory:r",
    ),
    ({"data": (NUMBERS, NUMBERS)}, DataError, r"tuple of 2 arrays.*list\(zip\(inputs, targets\)\)"),
    ({"data": 5}, DataError, "memory:int is 5"),
    ({"data": [(x, y, NUMBERS) for x, y, _ in TASK["data"]]}, DataError, r"Tensor of the shape \[2, 3\]"),
    ({"data_args": {"a": 1}}, DataError, "data_args are given for memory:list"),
    ({"model": NUMBERS}, ModelError, r"the model is a Tensor of the shape \[2, 3\]: give an nn.Module"),
    ({"model": OWN["net"], "model_args": {"a": 1}}, ModelError, "unexpected keyword argument 'a'"),
    ({"model": pair()[0], "model_args": {"a": 1}}, ModelError, "which is built already"),
    ({"metric": lambda output, target: output}, CkptswapError, "memory:lambda does not say which way"),
    ({"metric": NUMBERS}, CkptswapError, r"the metric is a Tensor of the shape \[2, 3\]"),
    ({"metric": nn.CrossEntropyLoss(), "direction": "min"}, CkptswapError, r"gave the shape \[\] for 8 samples"),
    ({"limit": NUMBERS}, UsageError, r"limit is a Tensor of the shape \[2, 3\]"),
    ({"normalize": NUMBERS}, UsageError, r"normalize is a Tensor"),
    ({"model_args": NUMBERS}, UsageError, r"model-args is a Tensor"),
    ({"top": NUMBERS}, UsageError, r"top is a Tensor"),
    ({"only": NUMBERS}, UsageError, r"a Tensor of the shape \[2, 3\] selects nothing"),
    ({"run": NUMBERS}, UsageError, r"a Tensor of the shape \[2, 3\] is not a path"),
]


@pytest.mark.parametrize(("task", "error", "words"), WRONG, ids=[f"{at}" for at in range(len(WRONG))])
def test_what_is_wrong_is_one_sentence_without_data(
    task: dict[str, Any], error: type[CkptswapError], words: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=words) as caught:
        cs.sweep(*pair(), **TASK | {"run": tmp_path / "run"} | task)
    assert "4.125" not in str(caught.value)
    assert len(str(caught.value)) < 300
    assert not (tmp_path / "run").exists()


def test_a_model_that_is_built_cannot_be_built_anew(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"init:1 builds the model anew.*model=lambda: …"):
        cs.sweep("init:1", pair()[0], run=tmp_path / "run", **TASK)


def test_a_word_brings_the_thing_and_leaves_it_behind_when_written() -> None:
    word = InMemory.of(NUMBERS)
    assert deepcopy(TaskSpec(model=word)).model.value is NUMBERS  # type: ignore[union-attr]
    assert type(pickle.loads(pickle.dumps(word))) is str
    assert word_of(np.linalg.norm) == "numpy.linalg:norm"
    assert word_of(torch.nn.functional.mse_loss) == "torch.nn.functional:mse_loss"


def counted(by: int) -> Callable[[int], int]:
    def count(number: int) -> int:
        return number + by + LIMIT

    return count


LIMIT = 3


def test_code_is_known_by_what_it_refers_to(monkeypatch: pytest.MonkeyPatch) -> None:
    def known(value: object) -> list[str]:
        return list(_texts(value, set()))

    assert known(counted(1)) == known(counted(1)) != known(counted(2))
    assert known(partial(counted, 1)) != known(partial(counted, 2))
    before = known(counted(1))
    monkeypatch.setitem(globals(), "LIMIT", 4)
    assert known(counted(1)) != before


def test_code_that_refers_to_what_is_not_there_is_known_too() -> None:
    def metric(own: Tensor) -> Tensor:
        return own if own.numel() else later

    assert list(_texts(metric, set()))
    later = NUMBERS
    assert "(2, 3)" in "".join(_texts(metric, set()))
    assert metric(later) is later


@pytest.mark.parametrize(
    ("kept", "other"),
    [
        ([1.0, 5.0], [1.0, 9.0]),
        ({"a": 1}, {"a": 2}),
        (np.ones(2), np.zeros(2)),
        (np.float32(1), np.float32(2)),
        (torch.ones(2, dtype=torch.bfloat16), torch.zeros(2, dtype=torch.bfloat16)),
    ],
)
def test_an_object_is_known_by_the_values_it_holds(kept: object, other: object) -> None:
    """A weight of a class that the first batch lacks shows in no output of that."""

    class Weighted:
        def __init__(self, weights: object) -> None:
            self.weights = weights

        def __call__(self, output: Tensor, target: Tensor) -> Tensor:
            return (output.argmax(1) == target).float()

    first, again, others = (list(_texts(Weighted(own), set())) for own in (kept, deepcopy(kept), other))
    assert first == again != others
