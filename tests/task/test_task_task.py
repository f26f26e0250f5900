from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import DataError, MetricError, MismatchError, ModelError, UsageError
from ckptswap.task import Task, TaskSpec, load_task
from ckptswap.task.data import load_data
from ckptswap.task.folder import FolderSamples
from ckptswap.task.models import build_model
from ckptswap.task.task import extent

NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, gives="tensor"):
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1)
        self.gives = gives
    def forward(self, x):
        y = self.conv(x)
        return {
            "tensor": lambda: y, "none": lambda: None,
            "dict": lambda: {"out": y, "aux": 2}, "tuple": lambda: (x, y),
            "half": lambda: y[..., ::2, ::2], "one": lambda: y[:1].mean(), "sigmoid": lambda: y.sigmoid(),
            "nan": lambda: y * float("nan"), "three": lambda: y.repeat(1, 3, 1, 1),
        }[self.gives]()

class Unfit(Net):
    def forward(self, x): raise KeyError("boom")

class Batchy(Net):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(1, track_running_stats=False, affine=False)

def zero(output, target): return -output.abs().flatten(1).sum(1)
zero.direction = "max"
"""
WEIGHTS = {"conv.weight": np.ones((1, 1, 1, 1), np.float32), "conv.bias": np.full(1, -0.55, np.float32)}


@pytest.fixture
def net(tmp_path: Path) -> str:
    path = tmp_path / "net.py"
    path.write_text(NET)
    return f"{path}:Net"


@pytest.fixture
def spec(net: str, scans: Path) -> TaskSpec:
    return TaskSpec(model=net, data=str(scans), metrics=("iou", "dice:pooled"), batch_size=2, threads=1)


def checkpoint(bias: float = -0.55, **metadata: str) -> Checkpoint:
    arrays = {**WEIGHTS, "conv.bias": np.full(1, bias, np.float32)}
    return Checkpoint.from_arrays(arrays, metadata=metadata, path="a.safetensors")


def value(task: Task, name: str = "iou") -> float:
    metric = next(each for each in task.metrics if each.name == name)
    return metric.value(task.measure().statistics[name])


def test_a_pass_gives_what_a_plain_loop_gives(spec: TaskSpec) -> None:
    task = load_task(spec, checkpoint())
    measured = task.measure()
    scores = []
    samples = FolderSamples(str(spec.data))
    for at in range(len(samples)):
        image, mask, _ = samples[at]
        guess, true = image[0].numpy() > 0.55, mask.numpy() == 1
        scores.append((guess & true).sum() / (guess | true).sum())
    np.testing.assert_allclose(measured.statistics["iou"][:, 0], scores)
    assert measured.statistics["dice:pooled"].shape == (5, 4)
    assert (measured.nonfinite, task.samples, task.groups.tolist()) == (0, 5, list(range(5)))
    assert 0.5 < min(scores) < max(scores) <= 1


def test_the_same_pass_gives_the_same_bits_at_any_batch_size(spec: TaskSpec) -> None:
    passes = [load_task(replace(spec, batch_size=size), checkpoint()).measure() for size in (1, 2, 5, 5)]
    for name in spec.metrics:
        assert len({each.statistics[name].tobytes() for each in passes}) == 1


def test_another_checkpoint_is_loaded_and_a_bad_one_changes_nothing(spec: TaskSpec) -> None:
    task = load_task(spec, checkpoint())
    before = value(task)
    task.load(checkpoint(bias=9))
    assert value(task) != before
    task.load(checkpoint())
    with pytest.raises(MismatchError, match="1 unexpected"):
        task.load(Checkpoint.from_arrays({**WEIGHTS, "conv.bias": np.ones(1), "extra": np.ones(1)}))
    assert value(task) == before


def test_the_checkpoint_says_what_it_is(scans: Path) -> None:
    model = build_model("lab:unet", {"width": 2, "depth": 1})
    arrays = {name: each.numpy() for name, each in model.state_dict().items()}
    said = {
        "ckptswap.model": "lab:unet",
        "ckptswap.model_args": '{"width": 2, "depth": 1}',
        "ckptswap.task": '{"name": "reconstruct", "target": "input"}',
    }
    spec = TaskSpec(data=str(scans), threads=1, target="input", metrics=("mse", "psnr"))
    task = load_task(spec, Checkpoint.from_arrays(arrays, metadata=said, path="auto.safetensors"))
    assert (task.spec.model, task.spec.model_args) == ("lab:unet", {"width": 2, "depth": 1})
    assert task.measure().warnings == ()
    masks = load_task(
        replace(spec, target="masks", metrics=("iou",)), Checkpoint.from_arrays(arrays, metadata=said, path="auto")
    )
    assert "auto was trained to give input, and is scored against masks" in masks.measure().warnings


def test_model_arguments_need_a_model(spec: TaskSpec) -> None:
    with pytest.raises(UsageError, match="without --model"):
        load_task(replace(spec, model=None, model_args={"gives": "dict"}), checkpoint())
    with pytest.raises(ModelError, match="does not say what model it is"):
        load_task(replace(spec, model=None), checkpoint())


@pytest.mark.parametrize(("gives", "key"), [("dict", "out"), ("tuple", "1")])
def test_one_output_is_picked(spec: TaskSpec, gives: str, key: str) -> None:
    expected = value(load_task(spec, checkpoint()))
    assert value(load_task(replace(spec, model_args={"gives": gives}, output_key=key), checkpoint())) == expected


@pytest.mark.parametrize(
    ("gives", "key", "message"),
    [
        ("dict", None, "several outputs: pass --output-key, one of out, aux"),
        ("dict", "uot", "no output 'uot': pass --output-key, one of out, aux"),
        ("dict", "aux", "output 'aux' of the model is a int"),
        ("tuple", "2", "one of 0, 1"),
        ("tensor", "out", "leave --output-key out"),
        ("none", None, "gives NoneType"),
        ("one", None, r"gives \[\] for 2 samples"),
    ],
)
def test_outputs_that_cannot_be_used(spec: TaskSpec, gives: str, key: str | None, message: str) -> None:
    task = load_task(replace(spec, model_args={"gives": gives}, output_key=key), checkpoint())
    with pytest.raises(ModelError, match=message):
        task.measure()


def test_an_output_of_another_size(spec: TaskSpec) -> None:
    task = load_task(replace(spec, model_args={"gives": "half"}), checkpoint())
    with pytest.raises(MetricError, match=r"output is \[2, 1, 8, 8\], the target \[2, 16, 16\]"):
        task.measure()


def test_images_of_other_channels_than_the_model_takes(spec: TaskSpec, write_folder) -> None:
    files = {"images/a.png": np.zeros((4, 4, 3), np.uint8), "masks/a.png": np.zeros((4, 4), np.uint8)}
    task = load_task(replace(spec, data=str(write_folder(files, "rgb"))), checkpoint())
    with pytest.raises(ModelError, match=r"on input \[1, 3, 4, 4\].*got 3 channels.*in_channels") as caught:
        task.measure()
    assert "\n" not in str(caught.value)


def test_a_model_that_raises_is_blamed_by_line(spec: TaskSpec) -> None:
    task = load_task(replace(spec, model=str(spec.model).replace(":Net", ":Unfit")), checkpoint())
    with pytest.raises(ModelError, match=r"net\.py:\d+: KeyError: 'boom'"):
        task.measure()


def test_outputs_that_are_not_finite_are_counted(spec: TaskSpec) -> None:
    task = load_task(replace(spec, model_args={"gives": "nan"}), checkpoint())
    measured = task.measure()
    assert measured.nonfinite == 5 * 16 * 16
    assert np.isfinite(measured.statistics["iou"]).all()  # the threshold hides it


def test_probabilities_and_logits_that_are_mistaken(spec: TaskSpec) -> None:
    sigmoid = replace(spec, model_args={"gives": "sigmoid"})
    (warning,) = load_task(sigmoid, checkpoint()).measure().warnings
    assert "--output probability" in warning
    assert load_task(replace(sigmoid, output="probability"), checkpoint()).measure().warnings == ()
    (warning,) = load_task(replace(spec, output="probability"), checkpoint()).measure().warnings
    assert "leave --output out" in warning
    three = replace(spec, model_args={"gives": "three"}, metrics=("accuracy",))
    assert load_task(three, checkpoint(bias=0)).measure().warnings == ()


def test_a_norm_that_depends_on_the_batch_is_told(spec: TaskSpec) -> None:
    task = load_task(replace(spec, model=str(spec.model).replace(":Net", ":Batchy")), checkpoint())
    assert "depend on the batch size" in task.measure().warnings[0]


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_a_trivial_score_does_not_depend_on_the_batches(spec: TaskSpec, size: int) -> None:
    spec = replace(spec, metrics=("iou", "mse"))
    expected = load_task(replace(spec, batch_size=8), checkpoint())
    task = load_task(replace(spec, batch_size=size), checkpoint())
    assert [task.trivial(each) for each in task.metrics] == [expected.trivial(each) for each in expected.metrics]


CHANGING = """
import torch
from net import Net

class Counting(Net):
    def __init__(self, way="add"):
        super().__init__()
        self.register_buffer("seen", torch.zeros(1))
        self.register_buffer("grid", None, persistent=False)
        self.way, self.calls = way, 0
    def forward(self, x):
        self.calls += 1
        if self.way == "add": self.seen += 1
        if self.way == "later" and self.calls > 2: self.seen.fill_(self.calls)
        if self.way == "index": self.seen[0] = 3
        if self.way == "data": self.seen.data.add_(1)
        if self.way == "replace": self.seen = self.seen + 1
        if self.way == "delete": del self.seen
        if self.way == "weight": self.conv.weight.mul_(0.9)
        if self.way == "input": x -= 1; x = x + 1
        if self.way == "cache" and self.grid is None: self.grid = torch.ones(1)
        return self.conv(x)
"""


@pytest.fixture
def changing(tmp_path: Path, spec: TaskSpec, monkeypatch: pytest.MonkeyPatch) -> TaskSpec:
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "changing.py"
    path.write_text(CHANGING)
    return replace(spec, model=f"{path}:Counting")


def counting() -> Checkpoint:
    return Checkpoint.from_arrays({**WEIGHTS, "seen": np.zeros(1, np.float32)})


@pytest.mark.parametrize(
    ("way", "name"),
    [
        ("add", "seen"), ("index", "seen"), ("later", "seen"), ("data", "seen"), ("replace", "seen"),
        ("delete", "seen"), ("weight", "conv.weight"),
    ],
)  # fmt: skip
def test_a_model_that_changes_itself_is_refused(changing: TaskSpec, way: str, name: str) -> None:
    task = load_task(replace(changing, model_args={"way": way}), counting())
    with pytest.raises(ModelError, match=rf"changes its own '{name}' when it runs, .*if self\.training"):
        task.measure()


@pytest.mark.parametrize("way", ["none", "input", "cache"])
def test_a_model_that_leaves_itself_alone_is_not(changing: TaskSpec, way: str) -> None:
    task = load_task(replace(changing, model_args={"way": way}), counting())
    first = task.measure().statistics["iou"]
    task.load(Checkpoint.from_arrays({**WEIGHTS, "conv.bias": np.ones(1), "seen": np.ones(1)}))
    assert not np.array_equal(task.measure().statistics["iou"], first)
    task.load(counting())
    assert np.array_equal(task.measure().statistics["iou"], first)


def test_a_scripted_model_is_watched_too(changing: TaskSpec) -> None:
    class Adds(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.seen += 1
            return x

    task = load_task(changing, counting())
    task.model = torch.jit.script(Adds())
    with pytest.raises(ModelError, match="changes its own 'seen'"):
        task.measure()


def test_the_input_as_target_is_not_what_the_model_makes_of_it(changing: TaskSpec) -> None:
    spec = replace(changing, target="input", metrics=("mse",))
    scores = [
        load_task(replace(spec, model_args={"way": way}), counting()).measure().statistics["mse"]
        for way in ("none", "input")
    ]
    np.testing.assert_allclose(*scores, rtol=1e-5)


def test_an_interrupted_pass_leaves_no_thread(spec: TaskSpec) -> None:
    task = load_task(spec, checkpoint(), data=load_data(replace(spec, threads=4), memory=0))

    def stop(done: int, total: int | None) -> None:
        assert any(each.name.startswith("ckptswap-read") for each in threading.enumerate())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as held:
        task.measure(stop)
    assert held.tb is not None  # with all its frames
    assert not any(each.name.startswith("ckptswap-read") for each in threading.enumerate())


def test_threads_are_pinned_and_given_back(spec: TaskSpec) -> None:
    before = torch.get_num_threads()
    task = load_task(replace(spec, threads=before + 1), checkpoint())
    with task.pinned():
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_the_model_decides_the_precision(spec: TaskSpec) -> None:
    task = load_task(spec, checkpoint())
    task.model.double()
    assert task.forward(next(task.batches()).inputs).dtype == torch.float64


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "nonsense:1"])
def test_devices_that_are_not_there(spec: TaskSpec, device: str) -> None:
    with pytest.raises(UsageError, match=f"device '{device}' cannot be used") as caught:
        load_task(replace(spec, device=device), checkpoint())
    assert "\n" not in str(caught.value)


def test_trivial_overlap_is_the_best_constant_class(spec: TaskSpec) -> None:
    task = load_task(replace(spec, metrics=("iou", "accuracy", "dice:pooled")), checkpoint())
    masks = np.concatenate([batch.targets.numpy() for batch in task.batches()])
    share = masks.mean(axis=(1, 2))
    iou, accuracy, pooled = (task.trivial(metric) for metric in task.metrics)
    assert iou == pytest.approx(share.mean())
    assert accuracy == pytest.approx(max(share.mean(), 1 - share.mean()))
    assert pooled == pytest.approx(2 * masks.sum() / (masks.sum() + masks.size))


def test_trivial_with_several_channels(spec: TaskSpec) -> None:
    task = load_task(replace(spec, metrics=("iou",), model_args={"gives": "three"}), checkpoint())
    masks = np.concatenate([batch.targets.numpy() for batch in task.batches()])
    background = (1 - masks.mean(axis=(1, 2))).mean() / 2  # the foreground is there and scores 0
    foreground = masks.mean(axis=(1, 2)).mean() / 2
    assert task.trivial(task.metrics[0]) == pytest.approx(max(background, foreground))


def test_trivial_distance_is_the_mean_of_all_targets(spec: TaskSpec) -> None:
    task = load_task(replace(spec, target="input", metrics=("mse",)), checkpoint())
    images = np.concatenate([batch.inputs.numpy() for batch in task.batches()]).astype(float)
    assert task.trivial(task.metrics[0]) == pytest.approx(images.var())


def test_trivial_of_a_callable_is_zeros(spec: TaskSpec) -> None:
    task = load_task(replace(spec, metrics=(str(spec.model).replace(":Net", ":zero"),)), checkpoint())
    assert task.trivial(task.metrics[0]) == 0
    assert task.metrics[0].value(task.measure().statistics[task.metrics[0].name]) < -1


def test_identity_is_all_that_decides_a_score(spec: TaskSpec, scans: Path) -> None:
    before = load_task(spec, checkpoint()).identity()
    assert before == load_task(spec, checkpoint(bias=3)).identity()
    assert list(before["code"]) == [spec.model]
    path = Path(str(spec.model).removesuffix(":Net"))
    path.write_text(path.read_text() + "\n# another\n")
    assert load_task(spec, checkpoint()).identity()["code"] != before["code"]
    (scans / "masks" / "s1_a.png").write_bytes((scans / "masks" / "s1_b.png").read_bytes())
    assert load_task(spec, checkpoint()).identity()["data"] != before["data"]


def test_what_is_wrong_with_the_model_is_said_before_data_is_read(spec: TaskSpec) -> None:
    with pytest.raises(MismatchError):
        load_task(replace(spec, data="nowhere"), Checkpoint.from_arrays({}))
    with pytest.raises(DataError):
        load_task(replace(spec, data="nowhere"), checkpoint())


def test_extent_of_outputs() -> None:
    inf, nan = float("inf"), float("nan")
    assert extent(torch.tensor([1.0, 2.0])) == (0, 1.0, 2.0)
    assert extent(torch.tensor([1.0, -inf, 2.0])) == (1, 1.0, 2.0)
    assert extent(torch.tensor([nan, inf])) == (2, inf, -inf)
    assert extent(torch.zeros(0)) == (0, inf, -inf)
