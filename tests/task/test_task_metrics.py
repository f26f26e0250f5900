from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ckptswap.errors import MetricError, UsageError
from ckptswap.task.metrics import Metric, counts, load_metrics, metric_names
from ckptswap.task.metrics.counts import Truth, first_greatest
from ckptswap.task.spec import TaskSpec

OVERLAPS = [f"{name}{ending}" for ending in ("", ":pooled") for name in ("iou", "dice", "accuracy")]


def metric(name: str, **spec: object) -> Metric:
    return load_metrics(TaskSpec(metrics=(name,)).merge(spec))[0]


def sample(
    seed: int, channels: int, n: int = 5, side: int = 6, ignore: int | None = None
) -> tuple[Tensor, Tensor]:
    """Random logits and masks; the first image's truth is all background, the second's prediction too."""
    rng = np.random.default_rng(seed)
    output = rng.normal(size=(n, channels, side, side)).astype(np.float32)
    target = rng.integers(0, max(channels, 2), (n, side, side))
    target[0] = 0
    output[1] = -1 if channels == 1 else np.eye(channels, dtype=np.float32)[0][:, None, None]
    if ignore is not None:
        target[rng.random(target.shape) < 0.3] = ignore
    return torch.from_numpy(output), torch.from_numpy(target)


def plain_image(name: str, output: np.ndarray, target: np.ndarray, ignore: int | None) -> float:
    """One image's score by loops over pixels and classes."""
    pairs = []
    for y in range(target.shape[0]):
        for x in range(target.shape[1]):
            if target[y, x] == ignore:
                continue
            pixel = output[:, y, x].tolist()
            guess = int(pixel[0] > 0) if len(pixel) == 1 else pixel.index(max(pixel))
            pairs.append((guess, int(target[y, x])))
    if name == "accuracy":
        return sum(guess == true for guess, true in pairs) / len(pairs)
    scores = []
    for each in [1] if output.shape[0] == 1 else range(output.shape[0]):
        tp = sum(guess == true == each for guess, true in pairs)
        fp = sum(guess == each != true for guess, true in pairs)
        fn = sum(true == each != guess for guess, true in pairs)
        if tp + fp + fn:
            scores.append(tp / (tp + fp + fn) if name == "iou" else 2 * tp / (2 * tp + fp + fn))
    return sum(scores) / len(scores) if scores else 1.0


@pytest.mark.parametrize("name", ["iou", "dice", "accuracy"])
@pytest.mark.parametrize("channels", [1, 2, 4])
@pytest.mark.parametrize("ignore", [None, 255, 0])
def test_each_image_as_in_a_plain_loop(name: str, channels: int, ignore: int | None) -> None:
    output, target = sample(1, channels, ignore=255 if ignore == 255 else None)
    if ignore == 0:
        target[0] = 1
    found = metric(name, ignore=ignore).per_sample(output, target)
    expected = [plain_image(name, a, b, ignore) for a, b in zip(output.numpy(), target.numpy(), strict=True)]
    assert found.shape == (5, 1)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-14)
    assert metric(name, ignore=ignore).value(found) == pytest.approx(np.mean(expected), rel=1e-14)


@pytest.mark.parametrize("ignore", [None, 255])
def test_counts_are_those_of_smp(ignore: int | None) -> None:
    output, target = sample(2, 4, ignore=ignore)
    stats = smp.metrics.get_stats(output.argmax(1), target, mode="multiclass", num_classes=4, ignore_index=ignore)
    np.testing.assert_array_equal(
        Truth(target, ignore).counts(output), np.stack([each.numpy() for each in stats], -1)
    )
    output, target = sample(3, 1)
    stats = smp.metrics.get_stats((output > 0).long(), target[:, None], mode="binary")
    np.testing.assert_array_equal(Truth(target).counts(output), np.stack([each.numpy() for each in stats], -1))


@pytest.mark.parametrize(
    ("name", "function"),
    [("iou", smp.metrics.iou_score), ("dice", smp.metrics.f1_score), ("accuracy", smp.metrics.accuracy)],
)
def test_one_channel_as_smp_does_it(name: str, function: Callable[..., Tensor]) -> None:
    output, target = sample(4, 1)
    stats = smp.metrics.get_stats((output > 0).long(), target[:, None], mode="binary")
    for asked, reduction in ((name, "micro-imagewise"), (f"{name}:pooled", "micro")):
        ours = metric(asked)
        assert ours.value(ours.per_sample(output, target)) == pytest.approx(
            function(*stats, reduction=reduction).item()
        )


@pytest.mark.parametrize("name", ["iou", "dice", "accuracy"])
@pytest.mark.parametrize("channels", [1, 3])
def test_pooled_scores_the_set_as_one_image(name: str, channels: int) -> None:
    output, target = sample(5, channels)
    pooled = metric(f"{name}:pooled")
    tall = torch.cat(list(output), dim=1), torch.cat(list(target))
    expected = plain_image(name, tall[0].numpy(), tall[1].numpy(), None)
    assert pooled.value(pooled.per_sample(output, target)) == pytest.approx(expected, rel=1e-14)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    channels=st.sampled_from([1, 2, 3]),
    cuts=st.lists(st.integers(1, 6), max_size=4, unique=True),
)
def test_the_batch_size_changes_nothing(seed: int, channels: int, cuts: list[int]) -> None:
    output, target = sample(seed, channels, n=7)
    edges = [0, *sorted(cuts), 7]
    for name in metric_names():
        if name in ("torchmetrics", "top5"):  # the one wants a name behind it, the other more classes
            continue
        ours = metric(name)
        is_of_values = name in ("mse", "psnr") or not ours.needs_labels
        pairs = (output, output.roll(1, 0)) if is_of_values else (output, target)
        whole = ours.per_sample(*pairs)
        parts = [ours.per_sample(pairs[0][a:b], pairs[1][a:b]) for a, b in pairwise(edges)]
        assert np.concatenate(parts).tobytes() == whole.tobytes()


def test_large_images_keep_their_bits_whatever_the_batch() -> None:
    generator = torch.Generator().manual_seed(0)
    output, target = (torch.rand(4, 1, 200, 200, generator=generator) for _ in range(2))
    ours = metric("mse")
    whole = ours.per_sample(output, target)
    alone = [ours.per_sample(output[at : at + 1], target[at : at + 1]) for at in range(4)]
    assert np.concatenate(alone).tobytes() == whole.tobytes()


def test_reduce_takes_any_leading_shape() -> None:
    output, target = sample(6, 3)
    for name in OVERLAPS:
        ours = metric(name)
        statistics = ours.per_sample(output, target)
        sums = np.stack([statistics[:2].sum(0), statistics.sum(0)])[None]
        found = ours.reduce(sums, np.array([[2.0, 5.0]]))
        np.testing.assert_allclose(found, [[ours.value(statistics[:2]), ours.value(statistics)]], rtol=1e-14)


def test_targets_are_looked_at_once_for_many_outputs() -> None:
    """Whatever an output has: one channel or several, its own dtype, another layout."""
    target = sample(9, 1, ignore=255)[1]
    outputs = [sample(seed, channels)[0] for seed, channels in ((1, 1), (2, 3), (3, 1), (4, 3))]
    outputs += [outputs[0].bfloat16(), outputs[1].half(), outputs[1].contiguous(memory_format=torch.channels_last)]
    for name in OVERLAPS:
        against = metric(name, ignore=255).against(target)
        for output in outputs:
            alone = metric(name, ignore=255).per_sample(output, target)
            assert against(output).tobytes() == alone.tobytes()
    against = metric("mse").against(outputs[0])
    for output in (outputs[2], outputs[0].double(), outputs[2]):
        assert against(output).tobytes() == metric("mse").per_sample(output, outputs[0]).tobytes()
    assert against(outputs[0].double()).tolist() == [[0.0]] * 5  # no output was written to


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    channels=st.sampled_from([2, 3, 21, 255, 256, 300]),
    dtype=st.sampled_from([np.float32, np.float64, np.int64]),
    special=st.lists(st.sampled_from([math.nan, math.inf, -math.inf, -0.0, 0.0, 9.0]), max_size=3),
)
def test_the_first_of_the_greatest_is_that_of_torch(seed: int, channels: int, dtype: type, special: list) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(-3, 3, (channels, 7)).astype(dtype)
    if dtype is not np.int64:
        for value in special:
            scores[rng.integers(0, channels, 4), rng.integers(0, 7, 4)] = value
    assert first_greatest(scores).tolist() == torch.from_numpy(scores).argmax(0).tolist()


def test_nothing_to_find_and_nothing_found_scores_1() -> None:
    output, target = torch.full((1, 1, 2, 2), -1.0), torch.zeros(1, 2, 2, dtype=torch.long)
    for name in OVERLAPS:
        assert metric(name).value(metric(name).per_sample(output, target)) == 1
    output[0, 0, 0, 0] = 1
    assert metric("iou").per_sample(output, target)[0, 0] == 0


def test_a_class_that_is_neither_there_nor_found_is_left_out() -> None:
    output = torch.zeros(1, 3, 1, 4)
    output[0, 0] = 1  # all background
    target = torch.tensor([[[0, 0, 1, 1]]])
    assert metric("iou").per_sample(output, target)[0, 0] == (0.5 + 0) / 2


def test_probabilities_are_cut_at_a_half() -> None:
    output = torch.tensor([[[[0.4, 0.6]]]])
    target = torch.tensor([[[0, 1]]])
    assert metric("accuracy").per_sample(output, target)[0, 0] == 0.5
    assert metric("accuracy", output="probability").per_sample(output, target)[0, 0] == 1


def test_shapes_that_fit() -> None:
    output, target = sample(7, 1)
    expected = metric("dice").per_sample(output, target)
    for a, b in [
        (output, target[:, None]),
        (output[:, 0], target),
        (output, target.to(torch.uint8)),
        (output, target.float()),
    ]:
        np.testing.assert_array_equal(metric("dice").per_sample(a, b), expected)
    labels = metric("accuracy").per_sample(torch.tensor([[0.0, 1.0], [2.0, 1.0]]), torch.tensor([1, 1]))
    assert labels.tolist() == [[1.0], [0.0]]
    volume = metric("iou").per_sample(torch.ones(1, 1, 2, 3, 4), torch.ones(1, 2, 3, 4).long())
    assert volume.tolist() == [[1.0]]


@pytest.mark.parametrize(
    ("output", "target", "message"),
    [
        (torch.zeros(2, 1, 4, 4), torch.zeros(2, 8, 8).long(), r"4\], the target \[2, 8, 8\]: resample"),
        (torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4), "class ids"),
        (torch.zeros(2, 3, 4, 4), torch.full((2, 4, 4), 3), "class 3, but the model tells 3 classes apart"),
        (torch.zeros(2, 1, 4, 4), torch.full((2, 4, 4), 255), "holds the class 255.*--ignore"),
        (torch.zeros(2, 1, 4, 4), torch.full((2, 4, 4), -1), "holds the class -1"),
        (torch.zeros(2, 1, 4, 4), torch.full((2, 4, 4), 0.5), "fractions"),
    ],
)  # fmt: skip
def test_shapes_and_classes_that_do_not_fit(output: Tensor, target: Tensor, message: str) -> None:
    with pytest.raises(MetricError, match=message):
        metric("iou").per_sample(output, target)


def test_an_image_of_ignored_pixels_only() -> None:
    with pytest.raises(MetricError, match="no pixel but ignored"):
        metric("iou", ignore=9).per_sample(torch.zeros(1, 1, 2, 2), torch.full((1, 2, 2), 9))
    with pytest.raises(MetricError, match="no pixel but ignored"):
        metric("mse", ignore=9).per_sample(torch.zeros(1, 1, 2, 2), torch.full((1, 2, 2), 9))


def test_mse_and_psnr_as_in_plain_numpy() -> None:
    rng = np.random.default_rng(8)
    a, b = (rng.random((3, 2, 5, 5)).astype(np.float32) for _ in range(2))
    mse = [np.mean((x.astype(float) - y.astype(float)) ** 2) for x, y in zip(a, b, strict=True)]
    found = metric("mse").per_sample(torch.from_numpy(a), torch.from_numpy(b))
    np.testing.assert_allclose(found[:, 0], mse, rtol=1e-13)
    found = metric("psnr").per_sample(torch.from_numpy(a), torch.from_numpy(b))
    np.testing.assert_allclose(found[:, 0], [20 * math.log10(1 / math.sqrt(each)) for each in mse], rtol=1e-13)
    assert (metric("mse").direction, metric("psnr").direction) == ("min", "max")
    same = torch.from_numpy(a)
    assert metric("psnr").per_sample(same, same).tolist() == [[100.0]] * 3


def test_mse_against_masks_leaves_the_ignored_out() -> None:
    output, target = torch.tensor([[[[1.0, 5.0]]]]), torch.tensor([[[0, 9]]])
    assert metric("mse", ignore=9).per_sample(output, target).tolist() == [[1.0]]
    with pytest.raises(MetricError, match="same shape"):
        metric("mse").per_sample(torch.zeros(1, 3, 2, 2), torch.zeros(1, 2, 2))


def test_mse_of_nan_is_nan() -> None:
    output = torch.tensor([[[[float("nan")]]], [[[1.0]]]])
    for name in ("mse", "psnr"):
        found = metric(name).per_sample(output, torch.zeros(2, 1, 1, 1))
        assert np.isnan(found[:, 0]).tolist() == [True, False]


OWN = """
def loss(output, target): return (output - target).abs().flatten(1).mean(1)
loss.direction = "min"
def listed(output, target): return [1.0] * len(output)
def scalar(output, target): return 0.5
def matrix(output, target): return output
def text(output, target): return "good"
def greedy(output, target): target.fill_(7); return [1.0] * len(output)
def broken(output, target): return output @ target.view(1, 1, 999)
"""


@pytest.fixture
def own(tmp_path: Path) -> str:
    path = tmp_path / "score.py"
    path.write_text(OWN)
    return str(path)


def test_a_users_own_metric(own: str) -> None:
    a, b = torch.rand(3, 1, 2, 2), torch.rand(3, 1, 2, 2)
    loss = metric(f"{own}:loss")
    assert loss.direction == "min"
    np.testing.assert_allclose(
        loss.per_sample(a, b)[:, 0], np.abs(a.numpy() - b.numpy()).mean((1, 2, 3)), rtol=1e-6
    )
    assert metric(f"{own}:loss", direction="max").direction == "max"
    assert metric(f"{own}:listed", direction="max").per_sample(a, b).shape == (3, 1)


def test_a_users_metric_may_write_to_its_target(own: str) -> None:
    target = torch.zeros(3, 1, 2, 2)
    metric(f"{own}:greedy", direction="max").per_sample(torch.zeros(3, 1, 2, 2), target)
    assert not target.any()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("scalar", r"gave the shape \[\] for 3 samples: return one value a sample"),
        ("matrix", r"gave the shape \[3, 1, 2, 2\]"),
        ("text", "gave a str"),
        ("broken", r"score\.py:\d+: RuntimeError"),
    ],
)
def test_a_users_metric_that_fails(own: str, name: str, message: str) -> None:
    ours = metric(f"{own}:{name}", direction="max")
    with pytest.raises(MetricError, match=message):
        ours.per_sample(torch.zeros(3, 1, 2, 2), torch.zeros(3, 1, 2, 2))


def test_metrics_that_do_not_exist_or_need_more(own: str) -> None:
    for name, message in [
        ("dize", "did you mean 'dice'"),
        ("mse:pooled", "no metric 'mse:pooled'"),
        ("iou:", "no metric 'iou:'"),
        ("zzz", "use one of iou, dice"),
        (f"{own}:listed", "does not say which way is better: pass --direction"),
    ]:
        with pytest.raises(MetricError, match=message):
            metric(name)
    with pytest.raises(UsageError, match="direction of its own"):
        metric("iou", direction="min")
    with pytest.raises(MetricError, match="use mse"):
        metric("psnr", target="input", normalize="0.5/0.5")


@pytest.mark.parametrize("ignore", [None, 2])
def test_samples_are_counted_together_as_one_by_one(monkeypatch: pytest.MonkeyPatch, ignore: int | None) -> None:
    """However many the cache holds; a NaN among them is found where torch finds it."""
    random = torch.Generator().manual_seed(0)
    output = torch.randn(5, 3, 4, 2, generator=random)
    output[3, 1, 0, 0] = float("nan")
    target = torch.randint(0, 3, (5, 4, 2), generator=random)
    alone = torch.cat([
        torch.from_numpy(Truth(target[at : at + 1], ignore).counts(output[at : at + 1])) for at in range(5)
    ])  # fmt: skip
    for together in (1, 2 * 24, 1 << 14):
        monkeypatch.setattr(counts, "TOGETHER", together)
        assert Truth(target, ignore).counts(output).tolist() == alone.tolist()
    assert alone.sum() == (target.numel() if ignore is None else (target != ignore).sum()) * 3
