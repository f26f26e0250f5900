from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import DataError, MetricError, MismatchError, ModelError, UsageError
from ckptswap.task import Task, TaskSpec, load_task
from ckptswap.task.data import Batch, load_data
from ckptswap.task.data.folder import FolderSamples
from ckptswap.task.metrics import Metric
from ckptswap.task.models.build import build_model
from ckptswap.task.outputs import extent
from ckptswap.task.task import Measured, Score

NET = """
import torch
from collections import namedtuple
from torch import nn

Pair = namedtuple("Pair", "out given")

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
            "named": lambda: Pair(y, x), "flat": lambda: y[:, 0],
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


@pytest.mark.parametrize(
    ("gives", "key"),
    [("dict", "out"), ("dict", None), ("tuple", "1"), ("named", "out"), ("named", "0"), ("named", None)],
)
def test_one_output_is_picked(spec: TaskSpec, gives: str, key: str | None) -> None:
    expected = value(load_task(spec, checkpoint()))
    assert value(load_task(replace(spec, model_args={"gives": gives}, output_key=key), checkpoint())) == expected


@pytest.mark.parametrize(
    ("gives", "key", "message"),
    [
        ("tuple", None, "several outputs: pass --output-key, one of 0, 1"),
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
    with pytest.raises(ModelError, match=r"are RGB, and the model takes grey.*color=grey.*in_channels") as caught:
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


# One batch at a time --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gives", ["tensor", "sigmoid", "flat"])
def test_a_scorer_gives_the_statistics_of_a_whole_pass(spec: TaskSpec, gives: str) -> None:
    task = load_task(
        replace(spec, model_args={"gives": gives}, metrics=("iou", "dice:pooled", "mse")), checkpoint()
    )
    measured = task.measure()
    with task.pinned():
        for batch in task.batches():
            score = task.scored_against(batch)(task.forward(batch.inputs))
            assert (score.nonfinite, score.fault, score.one_channel) == (0, None, True)
            for name, values in measured.statistics.items():
                assert score.statistics[name].tobytes() == values[batch.places].tobytes()


def test_targets_are_looked_at_once_however_many_outputs_there_are(spec: TaskSpec) -> None:
    looked: list[int] = []

    @dataclass(frozen=True)
    class Counting(Metric):
        def against(self, target: torch.Tensor) -> Callable[[torch.Tensor], np.ndarray]:
            looked.append(len(target))
            return lambda output: np.zeros((len(output), 1))

    task = load_task(spec, checkpoint())
    task.metrics = (Counting("a", "max"), Counting("b", "min"))
    batch = next(task.batches())
    score = task.scored_against(batch)
    output = task.forward(batch.inputs)
    assert [list(score(output).statistics) for _ in range(3)] == [["a", "b"]] * 3
    assert looked == [2, 2]


def test_what_a_score_says_of_its_output(spec: TaskSpec) -> None:
    inf, nan = float("inf"), float("nan")
    batch = Batch(torch.zeros(2, 1, 2, 2), torch.zeros(2, 2, 2, dtype=torch.long), np.arange(2))
    score = load_task(replace(spec, metrics=("iou",)), checkpoint()).scored_against(batch)
    output = torch.tensor([[1.0, -2.0], [0.5, 3.0]]).expand(2, 1, 2, 2).clone()
    found = score(output)
    assert (found.nonfinite, found.low, found.high, found.fault) == (0, -2.0, 3.0, None)
    output[1, 0, 0] = torch.tensor([nan, inf])
    found = score(output)
    assert (found.nonfinite, found.low, found.high) == (2, -2.0, 3.0)
    assert found.fault == "2 of the model's outputs are NaN or infinite"
    assert np.isfinite(found.statistics["iou"]).all(), "thresholds hide it"
    found = score(torch.full((2, 1, 2, 2), nan))
    assert (found.nonfinite, found.low, found.high) == (8, None, None)
    assert not score(torch.zeros(2, 3, 2, 2)).one_channel


def test_a_metric_that_is_not_finite_is_a_fault() -> None:
    statistics = {"fine": np.zeros((3, 1)), "own": np.array([[0.0], [np.nan], [np.inf]])}
    for found in (Score(statistics, 0, 0.0, 1.0, True), Measured(statistics, 0)):
        assert found.fault == "the metric own is NaN or infinite for 2 of 3 samples"
    assert Measured(statistics, 5).fault == "5 of the model's outputs are NaN or infinite"
    assert Score({"fine": np.zeros((3, 1))}, 0, 0.0, 1.0, True).fault is None


def test_a_batch_is_prepared_as_a_copy_in_the_models_dtype(spec: TaskSpec) -> None:
    task = load_task(spec, checkpoint())
    inputs = torch.rand(2, 1, 4, 4)
    for dtype in (torch.float32, torch.float64):
        task.model.to(dtype)
        found = task.prepared(inputs)
        assert found.dtype == dtype
        assert torch.equal(found.float(), inputs)
        assert found.data_ptr() != inputs.data_ptr(), "the model may write to it"
    whole = torch.arange(6).view(2, 3)
    assert task.prepared(whole).dtype == torch.int64, "indices stay whole numbers"
    assert task.prepared(whole).data_ptr() != whole.data_ptr()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (torch.float16, torch.float32), (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32), (torch.float64, torch.float64),
    ],
)  # fmt: skip
def test_an_output_is_picked_in_single_precision_at_least(spec: TaskSpec, given, expected) -> None:
    task = load_task(spec, checkpoint())
    output = torch.tensor([[0.5, -2.0]], dtype=given)
    found = task.pick(output)
    assert found.dtype == expected
    assert found.tolist() == output.tolist()
    picky = load_task(replace(spec, model_args={"gives": "dict"}, output_key="out"), checkpoint())
    assert picky.pick({"out": output, "aux": 2}).dtype == expected
    with pytest.raises(ModelError, match="no output 'out': pass --output-key, one of other"):
        picky.pick({"other": output})


@pytest.mark.parametrize("memory", [0, 2 << 30])
def test_the_first_inputs_are_those_of_the_first_batch(spec: TaskSpec, memory: int) -> None:
    task = load_task(spec, checkpoint(), data=load_data(replace(spec, threads=4), memory=memory))
    first = next(task.batches())
    assert torch.equal(task.first_inputs(), first.inputs)
    assert len(first) == 2
    assert not any(each.name.startswith("ckptswap-read") for each in threading.enumerate())


FEW = """
from pathlib import Path
import torch

class Items:
    def __len__(self): return 9
    def __getitem__(self, at):
        with open(Path(__file__).parent / "log", "a") as log: log.write(f"{at} ")
        return torch.full((1, 4, 4), float(at)), torch.zeros(4, 4, dtype=torch.long)

def items(): return Items()
"""


def test_the_first_inputs_cost_one_batch(spec: TaskSpec, tmp_path: Path) -> None:
    (tmp_path / "few.py").write_text(FEW)
    few = replace(spec, data=f"{tmp_path / 'few.py'}:items")
    task = load_task(few, checkpoint(), data=load_data(few, memory=0))
    log = tmp_path / "log"
    before = log.read_text().split()
    inputs = task.first_inputs()
    after = log.read_text().split()[len(before) :]
    assert len(inputs) == 2
    assert sorted(map(int, after)) == sorted(task.data.places[0].tolist())


@pytest.mark.parametrize(
    ("output", "low", "high", "one_channel", "metrics", "word"),
    [
        ("logits", 0.0, 1.0, True, ("iou",), "--output probability"),
        ("logits", 0.2, 0.4, True, ("mse", "dice"), "--output probability"),
        ("logits", -0.1, 0.9, True, ("iou",), None),
        ("logits", 0.1, 1.1, True, ("iou",), None),
        ("logits", 0.0, 1.0, False, ("iou",), None),
        ("logits", 0.0, 1.0, True, ("mse",), None),
        ("logits", None, None, True, ("iou",), None),
        ("probability", -0.1, 0.9, True, ("iou",), "leave --output out"),
        ("probability", 0.0, 1.1, True, ("iou",), "leave --output out"),
        ("probability", 0.0, 1.0, True, ("iou",), None),
        ("probability", -3.0, 3.0, False, ("iou",), None),
        ("probability", None, None, True, ("iou",), None),
    ],
)
def test_what_the_range_of_outputs_says(spec: TaskSpec, output, low, high, one_channel, metrics, word) -> None:
    task = load_task(replace(spec, output=output, metrics=metrics), checkpoint())
    found = task.range_warnings(low, high, one_channel=one_channel)
    assert len(found) == (word is not None)
    assert all(word in each for each in found)
