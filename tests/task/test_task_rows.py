"""loss, perplexity, top-k, token accuracy; kl, agreement, output-mse; one class; torchmetrics: against plain
torch."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import DataError, MetricError, UsageError
from ckptswap.task import Metric, TaskSpec, load_task
from ckptswap.task.data import load_data
from ckptswap.task.evaluate import evaluate
from ckptswap.task.metrics import load_metrics, recorded_metric

T, V = 6, 9


def metric(name: str, **how: Any) -> Metric:
    [loaded] = load_metrics(TaskSpec(metrics=(name,), **how))
    return loaded


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def words(samples: int = 5) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
    """Inputs, labels and outputs of a language model: right padding, -100 there."""
    ids = torch.randint(0, V, (samples, T), generator=draw())
    mask = (torch.arange(T)[None] < T - torch.arange(samples)[:, None] % 3).long()
    labels = torch.where(mask == 1, ids, -100)
    return {"input_ids": ids, "attention_mask": mask}, labels, torch.randn(samples, T, V, generator=draw(1))


def scored(name: str, inputs: Any, targets: Any, given: torch.Tensor, **how: Any) -> np.ndarray:
    own = metric(name, **how)
    return own.against(own.truth(inputs, targets, lambda: given))(given)


# Language models ------------------------------------------------------------------------------------------------


def foretold(labels: torch.Tensor, output: torch.Tensor) -> list[torch.Tensor]:
    """Of each document the losses of its tokens."""
    pairs = zip(labels, output.double(), strict=True)
    return [functional.cross_entropy(row[:-1][own[1:] != -100], own[1:][own[1:] != -100], reduction="none")
            for own, row in pairs]  # fmt: skip


def test_labels_that_repeat_the_tokens_are_shifted() -> None:
    inputs, labels, output = words()
    losses = foretold(labels, output)
    expected = [own.mean().item() for own in losses]
    np.testing.assert_allclose(scored("loss", inputs, labels, output)[:, 0], expected, rtol=1e-12)
    perplexity, pooled = metric("perplexity"), metric("perplexity:pooled")
    statistics = scored("perplexity", inputs, labels, output)
    assert perplexity.value(statistics) == pytest.approx(math.exp(np.mean(expected)))
    every = torch.cat(losses)
    value = pooled.value(scored("perplexity:pooled", inputs, labels, output))
    assert value == pytest.approx(every.mean().exp().item())
    assert (perplexity.is_mean, perplexity.direction) == (False, "min")


def test_the_models_own_loss_of_one_document_is_loss() -> None:
    from transformers.loss.loss_utils import ForCausalLMLoss

    inputs, labels, output = words()
    ours = scored("loss", inputs, labels, output)[:, 0]
    for at, value in enumerate(ours):
        theirs = ForCausalLMLoss(output[at : at + 1], labels[at : at + 1], V)
        assert value == pytest.approx(theirs.item(), rel=1e-6)


def test_padding_does_not_count_even_where_its_labels_are_tokens() -> None:
    inputs, labels, output = words()
    for name in ("loss", "token-accuracy", "top5"):
        whole = scored(name, inputs, inputs["input_ids"], output)
        assert whole.tobytes() == scored(name, inputs, labels, output).tobytes()


def test_token_accuracy_is_of_the_next_token() -> None:
    inputs, labels, _ = words()
    right = functional.one_hot(inputs["input_ids"].roll(-1, 1), V).float()
    assert scored("token-accuracy", inputs, labels, right).tolist() == [[1.0]] * 5
    own = functional.one_hot(inputs["input_ids"], V).float()
    assert (scored("token-accuracy", inputs, labels, own) < 1).all()


def test_labels_of_other_tokens_are_held_against_their_own_place() -> None:
    """A masked language model: few labels, of tokens that are masked in the input."""
    inputs, _, output = words()
    labels = torch.full((5, T), -100)
    labels[:, 1], labels[:, 3] = 4, 7
    inputs["input_ids"][:, 1] = inputs["input_ids"][:, 3] = 0
    inputs["attention_mask"] = torch.ones_like(labels)
    expected = [functional.cross_entropy(row[[1, 3]].double(), torch.tensor([4, 7])).item() for row in output]
    np.testing.assert_allclose(scored("loss", inputs, labels, output)[:, 0], expected, rtol=1e-12)


@pytest.mark.parametrize("name", ["loss", "perplexity", "token-accuracy"])
@pytest.mark.parametrize("last", [-100, 3])
def test_labels_that_are_shifted_already_are_refused(name: str, last: int) -> None:
    inputs, _, output = words()
    inputs.pop("attention_mask")
    labels = inputs["input_ids"].roll(-1, 1)
    labels[:, -1] = last
    with pytest.raises(
        MetricError, match=f"shifted by one already, and {name} shifts them itself: give the tokens"
    ):
        scored(name, inputs, labels, output)


def test_a_square_of_tokens_and_classes_goes_by_tokens() -> None:
    ids = torch.randint(0, T, (4, T), generator=draw())
    output = torch.randn(4, T, T, generator=draw(1))
    expected = [
        functional.cross_entropy(row[:-1].double(), own[1:]).item() for own, row in zip(ids, output, strict=True)
    ]
    np.testing.assert_allclose(scored("loss", ids, ids, output)[:, 0], expected, rtol=1e-12)


# Classes of images and pixels -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["loss", "top1", "top5", "kl", "agreement", "output-mse"])
@pytest.mark.parametrize("shape", [(7,), (7, 4, 3), (1, 4, 3)])
def test_no_batch_size_shows(name: str, shape: tuple[int, ...]) -> None:
    shape = (6, *shape[1:]) if name == "top5" else shape  # of fewer classes it is refused
    output = torch.randn(5, *shape, generator=draw())
    targets = torch.randint(0, max(shape[0], 2), (5, *shape[1:]), generator=draw(1))
    own, other = metric(name), torch.randn(5, *shape, generator=draw(2))

    def part(a: int, b: int) -> np.ndarray:
        return own.against(own.truth(output[a:b], targets[a:b], lambda: other[a:b]))(output[a:b])

    whole = part(0, 5)
    assert whole.shape == (5, 1)
    for cuts in ([0, 2, 5], [0, 1, 2, 3, 4, 5]):
        assert np.concatenate([part(a, b) for a, b in pairwise(cuts)]).tobytes() == whole.tobytes()


def test_loss_is_torchs_cross_entropy() -> None:
    output = torch.randn(3, 5, 4, 4, generator=draw())
    masks = torch.randint(0, 5, (3, 4, 4), generator=draw(1))
    masks[:, 0] = 255
    expected = [functional.cross_entropy(row.double()[None], own[None], ignore_index=255).item()
                for row, own in zip(output, masks, strict=True)]  # fmt: skip
    np.testing.assert_allclose(scored("loss", (), masks, output, ignore=255)[:, 0], expected, rtol=1e-12)
    shares = scored("loss", (), masks, output.softmax(1), ignore=255, output="probability")
    np.testing.assert_allclose(shares[:, 0], expected, rtol=1e-5)
    binary = functional.binary_cross_entropy_with_logits(output[:, :1].double(), (masks[:, None] == 1).double(),
                                                         reduction="none").flatten(1).mean(1)  # fmt: skip
    ours = scored("loss", (), (masks == 1).long()[:, None], output[:, :1])
    np.testing.assert_allclose(ours[:, 0], binary.numpy(), rtol=1e-12)


def test_loss_of_values_is_the_squared_error() -> None:
    output, target = torch.randn(3, 1, generator=draw()), torch.randn(3, generator=draw(1))
    expected = (output[:, 0].double() - target.double()).square().numpy()
    np.testing.assert_allclose(scored("loss", (), target, output)[:, 0], expected, rtol=1e-12)
    with pytest.raises(
        MetricError, match="perplexity is for classes, and the targets are values: use loss or mse"
    ):
        scored("perplexity", (), target, output)


def test_top_k_counts_equal_scores_from_the_lowest_class() -> None:
    output = torch.tensor([[0.0, 3.0, 1.0, 2.0, -1.0, -2.0, 9.0]] * 7)
    labels = torch.arange(7)
    assert scored("top1", (), labels, output)[:, 0].tolist() == [0, 0, 0, 0, 0, 0, 1]
    assert scored("top5", (), labels, output)[:, 0].tolist() == [1, 1, 1, 1, 0, 0, 1]
    same = torch.zeros(7, 7)
    assert scored("top5", (), labels, same)[:, 0].tolist() == [1] * 5 + [0] * 2
    one = torch.tensor([[0.5], [-0.5]])
    assert scored("top1", (), torch.tensor([1, 1]), one)[:, 0].tolist() == [1, 0]


@pytest.mark.parametrize("classes", [1, 2, 5])
def test_top5_of_so_few_classes_is_refused(classes: int) -> None:
    with pytest.raises(MetricError, match=f"top5 of {max(classes, 2)} classes is always 1: use top1, or loss"):
        scored("top5", (), torch.tensor([0, 1]), torch.zeros(2, classes))
    assert scored("top5", (), torch.tensor([5]), torch.zeros(1, 6)).tolist() == [[0.0]]


@pytest.mark.parametrize("kind", [torch.uint8, torch.int16, torch.uint16])
@pytest.mark.parametrize("name", ["loss", "top1", "top5", "accuracy", "torchmetrics:Accuracy"])
def test_class_labels_of_few_bits(name: str, kind: torch.dtype) -> None:
    """In eight bits 156 is -100, torch's own word for what is not scored."""
    ids, output = torch.arange(200), torch.rand(200, 200, generator=draw())
    expected = scored(name, (), ids, output)
    np.testing.assert_array_equal(scored(name, (), ids.to(kind), output), expected)
    np.testing.assert_array_equal(scored(name, (), ids.to(kind), output, ignore=-1), expected)


@pytest.mark.parametrize("name", ["iou", "dice:2", "loss", "perplexity:pooled", "top1", "mse"])
def test_masks_of_few_bits(name: str) -> None:
    masks = torch.randint(0, 3, (4, 5, 5), generator=draw(1))
    masks[:, 0] = 255
    output = torch.rand(4, *(() if name == "mse" else (3,)), 5, 5, generator=draw())
    expected = scored(name, (), masks, output, ignore=255)
    np.testing.assert_array_equal(scored(name, (), masks.to(torch.uint8), output, ignore=255), expected)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("ppl", "perplexity"), ("cross_entropy", "loss"), ("CrossEntropy", "loss"), ("acc", "accuracy"),
        ("mIoU", "iou"), ("IoU", "iou"), ("Dice", "dice"), ("f1_score", "dice"), ("top-1", "top1"),
        ("kl_div", "kl"), ("ious", "iou"), ("token_accuracy", "token-accuracy"),
        ("mae", "torchmetrics:MeanAbsoluteError"),
        ("F1Score", "torchmetrics:F1Score"), ("rmse", "mse"),
    ],
)  # fmt: skip
def test_what_others_call_a_metric(name: str, meant: str) -> None:
    with pytest.raises(MetricError, match=f"there is no metric '{name}': did you mean '{meant}'"):
        metric(name)


@pytest.mark.parametrize(("classes", "fault"), [(3, r"hold the class 5, but the model tells 3 .*--ignore"),
                                                (1, r"hold the class 5, but the model tells 2")])  # fmt: skip
def test_a_class_that_the_model_does_not_tell(classes: int, fault: str) -> None:
    with pytest.raises(MetricError, match=fault):
        scored("loss", (), torch.tensor([0, 5]), torch.zeros(2, classes))


@pytest.mark.parametrize("name", ["iou", "dice", "iou:pooled"])
def test_an_overlap_of_class_labels_is_refused(name: str) -> None:
    with pytest.raises(MetricError, match=f"{name} is for masks, and the targets are class labels.*use accuracy"):
        scored(name, (), torch.tensor([0, 1]), torch.zeros(2, 3))


def test_one_classs_iou_is_pooled_over_the_set() -> None:
    output = torch.randn(4, 3, 5, 5, generator=draw())
    masks = torch.randint(0, 3, (4, 5, 5), generator=draw(1))
    guess = output.argmax(1)
    for name in (0, 1, 2):
        own = metric(f"iou:{name}")
        both, either = ((guess == name) & (masks == name)).sum(), ((guess == name) | (masks == name)).sum()
        assert own.value(scored(f"iou:{name}", (), masks, output)) == pytest.approx((both / either).item())
        assert recorded_metric(f"dice:{name}").fits(4)
    with pytest.raises(MetricError, match="iou:3: the model tells 3 classes apart: name a class below 3"):
        scored("iou:3", (), masks, output)
    with pytest.raises(MetricError, match="only class 1 is scored: use iou:1"):
        scored("iou:0", (), masks.clamp_max(1), output[:, :1])
    with pytest.raises(MetricError, match="there is no metric 'accuracy:1'"):
        metric("accuracy:1")


# Without labels -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("size", [(), (3, 2)])
def test_what_needs_no_labels_is_held_against_the_recipients_outputs(channels: int, size: tuple[int, ...]) -> None:
    own, other = (torch.randn(3, channels, *size, generator=draw(seed)) for seed in (0, 1))

    def against(name: str, output: torch.Tensor) -> np.ndarray:
        loaded = metric(name)
        return loaded.against(loaded.truth(torch.zeros(3, 1), None, lambda: own))(output)[:, 0]

    a, b = own.double(), other.double()
    if channels == 1:
        p, q = (torch.distributions.Bernoulli(logits=part) for part in (a, b))
        expected, classes = torch.distributions.kl_divergence(p, q), (a > 0, b > 0)
    else:
        p, q = (torch.distributions.Categorical(logits=part.movedim(1, -1)) for part in (a, b))
        expected, classes = torch.distributions.kl_divergence(p, q), (a.argmax(1), b.argmax(1))
    np.testing.assert_allclose(against("kl", other), expected.reshape(3, -1).mean(1).numpy(), rtol=1e-9)
    same = (classes[0] == classes[1]).reshape(3, -1).double().mean(1)
    np.testing.assert_allclose(against("agreement", other), same.numpy())
    np.testing.assert_allclose(against("output-mse", other), (a - b).square().reshape(3, -1).mean(1).numpy())
    assert [against(name, own).tolist() for name in ("kl", "agreement", "output-mse")] == [
        [0] * 3,
        [1] * 3,
        [0] * 3,
    ]


def test_padding_is_no_position() -> None:
    inputs, _, output = words()
    other = torch.where(
        inputs["attention_mask"][:, :, None] == 1, output, output + torch.randn(V, generator=draw(3))
    )
    for name, perfect in (("kl", 0), ("agreement", 1), ("output-mse", 0)):
        own = metric(name)
        against = own.against(own.truth(inputs, None, lambda: output))
        assert against(other)[:, 0].tolist() == [perfect] * 5


SOURCE = """
import torch
from torch import nn

def net(classes=3, same=False):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(4, classes)
        def forward(self, x):
            y = self.head(x)
            return y * 0 if same else y
    return Net()

def inputs(samples=21, labels=False):
    g = torch.Generator().manual_seed(5)
    x = torch.randn(samples, 4, generator=g)
    return [(row, at % 3) for at, row in enumerate(x)] if labels else list(x)
"""


@pytest.fixture
def own(tmp_path: Path) -> TaskSpec:
    path = tmp_path / "own.py"
    path.write_text(SOURCE)
    metrics = ("kl", "agreement", "output-mse")
    return TaskSpec(model=f"{path}:net", data=f"{path}:inputs", metrics=metrics, threads=1, batch_size=4)


def linear(seed: int) -> Checkpoint:
    g = draw(seed)
    weights = {"head.weight": torch.randn(3, 4, generator=g), "head.bias": torch.randn(3, generator=g)}
    return Checkpoint.from_arrays({name: value.numpy() for name, value in weights.items()}, path=f"{seed}.npz")


def test_inputs_alone_are_enough_without_labels(own: TaskSpec) -> None:
    evaluation = evaluate([linear(0), linear(1)], own)
    first, second = evaluation.checkpoints
    assert first.values == {"kl": 0, "agreement": 1, "output-mse": 0}
    x = torch.cat([batch.inputs for batch in load_data(own).batches()]).double()
    a, b = (
        functional.linear(
            x, *(torch.from_numpy(side.read(f"head.{part}")).double() for part in ("weight", "bias"))
        )
        for side in (linear(0), linear(1))
    )
    assert second.values["output-mse"] == pytest.approx((a - b).square().mean().item(), rel=1e-5)
    kl = functional.kl_div(b.log_softmax(1), a.log_softmax(1), log_target=True, reduction="none").sum(1).mean()
    assert second.values["kl"] == pytest.approx(kl.item(), rel=1e-5)
    assert second.values["agreement"] == (a.argmax(1) == b.argmax(1)).double().mean().item()
    assert evaluation.notes == (
        "kl, agreement, output-mse: outputs are held against those of 0.npz, whose own score is perfect by this",
    )
    with pytest.raises(DataError, match="must be \\(input, target\\)"):
        load_data(replace(own, metrics=("kl", "loss")))


def test_labels_that_are_there_are_not_looked_at(own: TaskSpec) -> None:
    with_labels = evaluate([linear(0), linear(1)], replace(own, data_args={"labels": True}))
    assert with_labels.checkpoints[1].values == evaluate([linear(0), linear(1)], own).checkpoints[1].values


def test_trivial_without_labels_is_what_the_recipient_says_on_the_whole(own: TaskSpec) -> None:
    task = load_task(own, linear(0))
    outputs = torch.cat([task.forward(batch.inputs) for batch in task.batches()]).double()
    kl, agreement, error = (task.trivial(known) for known in task.metrics)
    p = outputs.softmax(1)
    assert kl == pytest.approx((p * (p.log() - p.mean(0).log())).sum(1).mean().item())
    assert agreement == pytest.approx(outputs.argmax(1).bincount().max().item() / 21)
    assert error == pytest.approx((outputs - outputs.mean(0)).square().mean().item())
    assert {task.trivial(known) for known in replace(task, spec=replace(own, batch_size=7)).metrics} == {
        kl, agreement, error
    }  # fmt: skip


def test_trivial_of_labels_is_how_frequent_they_are(own: TaskSpec) -> None:
    spec = replace(
        own, data_args={"labels": True}, metrics=("loss", "perplexity", "perplexity:pooled", "top1", "top5")
    )
    task = load_task(replace(spec, limit=20), linear(0))
    shares = np.array([7, 7, 6]) / 20
    entropy = -(shares * np.log(shares)).sum()
    expected = [entropy, math.exp(entropy), math.exp(entropy), 7 / 20, 1]
    assert [task.trivial(known) for known in task.metrics] == pytest.approx(expected)
    one = load_task(replace(spec, limit="first:1"), linear(0))
    assert f"{one.trivial(one.metrics[0]):g}" == "0", "the entropy of one class alone is not −0"


# Others' metrics ------------------------------------------------------------------------------------------------


LIBRARY_CLASSES = {
    "Accuracy": "mean", "HammingDistance": "mean", "F1Score": "set", "F1Score:average=macro": "set",
    "JaccardIndex": "set", "CohenKappa": "set", "AUROC": "set", "AUROC:thresholds=7": "set",
    "CalibrationError:n_bins=5": "set", "MulticlassPrecision": "set", "BinaryF1Score": "set",
}  # fmt: skip
LIBRARY_VALUES = {
    "MeanAbsoluteError": "mean", "R2Score": "set", "SpearmanCorrCoef": "set", "PearsonCorrCoef": "set",
    "CosineSimilarity": "set", "StructuralSimilarityIndexMeasure:data_range=1.0": "mean",
    "PeakSignalNoiseRatio:data_range=1.0": "set",
}  # fmt: skip


def whole_by_library(name: str, channels: int, output: torch.Tensor, target: torch.Tensor) -> float:
    """The library's own number, of all of the data at once."""
    import torchmetrics
    from torchmetrics import classification

    word, *args = name.split(":")
    given = dict(part.split("=") for part in args)
    how: dict[str, Any] = {key: value if value.isalpha() else float(value) for key, value in given.items()}
    how |= {key: int(value) for key, value in how.items() if key in ("thresholds", "n_bins")}
    if hasattr(torchmetrics, word) and channels:
        how["task"] = "binary" if channels == 1 else "multiclass"
    if channels > 1:
        how["num_classes"] = channels
    made = getattr(torchmetrics, word, None) or getattr(classification, word)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(made(**how)(output, target))


CLASSES_OF_SIZE = [
    (name, channels, size)
    for name, channels, size in product(LIBRARY_CLASSES, (1, 4), ((), (5, 3)))
    if not name.startswith("Multiclass" if channels == 1 else "Binary")
    and not (size and name.startswith(("AUROC", "Calibration")))  # which keep all outputs, or are of labels alone
] + [("AUROC:thresholds=7", 4, (5, 3))]


@pytest.mark.parametrize(("name", "channels", "size"), CLASSES_OF_SIZE)
def test_classes_by_torchmetrics_are_its_own_number(name: str, channels: int, size: tuple[int, ...]) -> None:
    way = LIBRARY_CLASSES[name]
    output = torch.randn(40, channels, *size, generator=draw())
    target = torch.randint(0, max(channels, 2), (40, *size), generator=draw(1))
    own = metric(f"torchmetrics:{name}")
    assert (own.is_mean, own.is_of_set) == (way == "mean", way == "set")
    parts = [scored(own.name, (), target[a:b], output[a:b]) for a, b in ((0, 3), (3, 40))]
    shares = output.double().sigmoid()[:, 0] if channels == 1 else output.double().softmax(1)
    expected = whole_by_library(name, channels, shares, target)
    assert own.value(np.concatenate(parts)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", ["F1Score", "JaccardIndex", "AUROC:thresholds=7"])
def test_samples_of_one_scored_position_beside_others(name: str) -> None:
    target = torch.randint(0, 4, (9, 6), generator=draw(1))
    for at, scored_ones in enumerate((6, 1, 3, 1, 5, 2, 4, 1, 6)):
        target[at, scored_ones:] = -100
    output, counted = torch.randn(9, 4, 6, generator=draw()), target != -100
    parts = [scored(f"torchmetrics:{name}", (), target[a:b], output[a:b]) for a, b in ((0, 1), (1, 2), (2, 9))]
    expected = whole_by_library(name, 4, output.double().softmax(1).movedim(1, -1)[counted], target[counted])
    assert metric(f"torchmetrics:{name}").value(np.concatenate(parts)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("name", "way"), LIBRARY_VALUES.items())
def test_values_by_torchmetrics_are_its_own_number(name: str, way: str) -> None:
    size = (4,) if name == "CosineSimilarity" else (1, 16, 16) if "data_range" in name else ()
    output, target = (torch.rand(20, *size, generator=draw(seed)) for seed in (0, 1))
    own = metric(f"torchmetrics:{name}", direction="max")
    assert (own.is_mean, own.is_of_set) == (way == "mean", way == "set")
    expected = whole_by_library(name, 0, output, target)
    assert own.value(scored(own.name, (), target, output, direction="max")) == pytest.approx(expected, rel=1e-5)


def test_what_the_library_says_of_a_metric() -> None:
    said = {
        "F1Score": ("max", (0, 1)), "CalibrationError": ("min", (0, 1)),
        "MeanSquaredError": ("min", (0, math.inf)), "R2Score": ("max", (-math.inf, 1)),
        "BinaryAUROC": ("max", (0, 1)),
    }  # fmt: skip
    for name, expected in said.items():
        own = metric(f"torchmetrics:{name}")
        assert (own.direction, own.bounds) == expected
    assert metric("torchmetrics:R2Score").note.startswith("torchmetrics:R2Score: one value for the whole set")
    assert metric("torchmetrics:Accuracy").note == (
        "torchmetrics:Accuracy: the mean over samples of each one's own value"
    )


def test_a_set_without_a_value_has_none() -> None:
    own = metric("torchmetrics:PearsonCorrCoef", direction="max")
    statistics = scored(own.name, (), torch.rand(9), torch.zeros(9), direction="max")
    assert math.isnan(own.value(statistics))
    assert math.isnan(own.value(statistics[:1]))
    forged = metric("torchmetrics:JaccardIndex")  # of a stranger's journal: so many classes take all memory
    for head in (1e9, -1e9, 1e300, 7.0, -7.0):
        assert math.isnan(forged.value(np.array([[head, 1.0, 1.0]])))


def test_outputs_that_are_too_many_to_keep() -> None:
    masks, output = torch.zeros(2, 9, 9, dtype=torch.int64), torch.randn(2, 3, 9, 9, generator=draw())
    with pytest.raises(MetricError, match=r"AUROC keeps all outputs, which are too many of masks.*thresholds=20"):
        scored("torchmetrics:AUROC", (), masks, output)
    with pytest.raises(MetricError, match="keeps 20,001 numbers of each sample: 16,384 are the most"):
        scored("torchmetrics:R2Score", (), torch.rand(2, 10_000), torch.rand(2, 10_000))
    with pytest.raises(MetricError, match=r"wants all of them as images at once.*data_range=1\.0"):
        scored("torchmetrics:StructuralSimilarityIndexMeasure", (), *torch.rand(2, 2, 1, 16, 16))


@pytest.mark.parametrize(
    ("name", "how", "fault"),
    [
        ("torchmetrics:F1Scoer", {}, "no metric 'F1Scoer': did you mean 'F1Score'"),
        ("torchmetrics:Metric", {}, "no metric 'Metric'"),
        ("torchmetrics", {}, "no metric ''"),
        ("torchmetrics:F1Score:beta", {}, "'beta' in 'beta' is not an argument"),
        ("torchmetrics:F1Score:nonsense=1", {}, "F1Score:nonsense=1 cannot be made"),
        ("torchmetrics:MultiScaleStructuralSimilarityIndexMeasure", {}, "gives no value for a sample alone"),
        ("torchmetrics:PearsonCorrCoef", {}, "does not say which way is better: pass --direction"),
    ],
)
def test_torchmetrics_that_cannot_be_used(name: str, how: dict[str, Any], fault: str) -> None:
    is_of_classes = "F1" in name
    targets = torch.tensor([0, 1]) if is_of_classes else torch.rand(2, 1, 16, 16)
    with pytest.raises((MetricError, UsageError), match=fault):
        scored(name, (), targets, torch.randn(2, 3) if is_of_classes else torch.rand(2, 1, 16, 16), **how)


def test_a_missing_library_is_named_with_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from ckptswap.errors import DependencyError

    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    with pytest.raises(DependencyError, match=r"torchmetrics is not installed: pip install"):
        metric("torchmetrics:F1Score")
