from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import MismatchError, ModelError, UsageError
from ckptswap.statistics import Interval
from ckptswap.task.comparison import compare
from ckptswap.task.evaluate import evaluate
from ckptswap.task.models.build import build_model
from ckptswap.task.spec import TaskSpec
from ckptswap.task.task import load_task


def trained(model: str, seed: int, *, says: bool = True, **args: int) -> Checkpoint:
    torch.manual_seed(seed)
    arrays = {name: each.numpy() for name, each in build_model(model, args).state_dict().items()}
    said = {"ckptswap.model": model, "ckptswap.model_args": json.dumps(args)} if says else {}
    return Checkpoint.from_arrays(arrays, metadata=said, path=f"{model}-{seed}")


@pytest.fixture
def spec(scans: Path) -> TaskSpec:
    return TaskSpec(data=str(scans), metrics=("iou", "accuracy:pooled"), threads=1, group=r"(s\d+)_")


def test_each_is_put_in_its_own_model_and_scored_on_the_same_data(spec: TaskSpec) -> None:
    checkpoints = [trained("lab:unet", 1, width=2, depth=1), trained("lab:pspnet", 2, width=4)]
    found = evaluate(checkpoints, spec)
    assert [each.model for each in found.checkpoints] == ["lab:unet", "lab:pspnet"]
    assert [each.path for each in found.checkpoints] == ["lab:unet-1", "lab:pspnet-2"]
    assert (found.samples, found.groups.tolist()) == (5, [0, 0, 1, 1, 1])
    assert [metric.name for metric in found.metrics] == ["iou", "accuracy:pooled"]
    for checkpoint, scored in zip(checkpoints, found.checkpoints, strict=True):
        task = load_task(spec, checkpoint)
        assert found.data == task.data.fingerprint()
        for metric in task.metrics:
            alone = task.measure().statistics[metric.name]
            assert scored.measured.statistics[metric.name].tobytes() == alone.tobytes()
            assert scored.values[metric.name] == metric.value(alone)


def test_the_specs_model_is_for_all_and_without_one_each_says_its_own(spec: TaskSpec) -> None:
    silent = trained("lab:unet", 1, says=False, width=2, depth=1)
    same, other = trained("lab:unet", 1, width=2, depth=1), trained("lab:pspnet", 2, width=4)
    with pytest.raises(ModelError, match="lab:unet-1 does not say"):
        evaluate([other, silent], spec)
    assert [each.model for each in evaluate([same, other], spec).checkpoints] == ["lab:unet", "lab:pspnet"]
    spec = spec.merge({"model": "lab:unet", "model-args": "width=2,depth=1"})
    first, second = evaluate([silent, same], spec).checkpoints
    assert first.values == second.values
    with pytest.raises(MismatchError, match="lab:pspnet-2 does not fit the model"):
        evaluate([silent, other], spec)


def test_progress_counts_samples_over_all_checkpoints(spec: TaskSpec) -> None:
    calls: list[tuple[int, int | None]] = []
    checkpoints = [trained("lab:unet", seed, width=2, depth=1) for seed in (1, 2)]
    evaluate(checkpoints, spec.merge({"batch-size": 3}), lambda done, total: calls.append((done, total)))
    assert calls == [(3, 10), (5, 10), (8, 10), (10, 10)]


def test_outputs_that_are_not_finite_are_counted(spec: TaskSpec) -> None:
    broken = trained("lab:unet", 1, width=2, depth=1)
    arrays = {name: broken.read(name) for name in broken}
    arrays["head.bias"] = np.full(1, np.nan, np.float32)
    (scored,) = evaluate([Checkpoint.from_arrays(arrays, metadata=broken.metadata)], spec).checkpoints
    assert scored.measured.nonfinite == 5 * 16 * 16


def test_what_is_held_against_itself_has_no_interval(spec: TaskSpec) -> None:
    """Its 0 is so by construction; the first draft gave an interval from NaN to infinity."""
    pair = [trained("lab:unet", seed, width=2, depth=1) for seed in (1, 2)]
    of_outputs = TaskSpec(data="random:1x16x16", metrics=("output-mse", "agreement"), threads=1)
    compared = compare(evaluate(pair, of_outputs))
    first, second = compared.scores
    assert first == {"output-mse": Interval(0.0, None, None), "agreement": Interval(1.0, None, None)}
    assert all(own and own.low is not None and own.low < own.estimate for own in second.values())
    assert compared.warnings == ()


def test_the_one_that_does_not_fit_is_named(spec: TaskSpec) -> None:
    said = {"ckptswap.model": "lab:unet", "ckptswap.model_args": '{"width": 2, "depth": 1}'}
    wrong = Checkpoint.from_arrays({"w": np.ones(1)}, metadata=said, path="wrong.safetensors")
    with pytest.raises(MismatchError, match=r"wrong\.safetensors does not fit the model"):
        evaluate([trained("lab:unet", 1, width=2, depth=1), wrong], spec)
    with pytest.raises(UsageError, match="nothing to evaluate"):
        evaluate([], spec)
