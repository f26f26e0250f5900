"""What people bring that does not fit: each one sentence, what to do, and nothing written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import ckptswap as cs
from ckptswap.errors import CkptswapError

SOURCE = """
import torch
from torch import nn

class Classes(nn.Module):
    def __init__(self, channels=3, classes=3, kind=torch.float32):
        super().__init__()
        self.conv = nn.Conv2d(channels, classes, 3, padding=1).to(kind)

    def forward(self, image):
        return self.conv(image)

class Pooled(Classes):
    def forward(self, image):
        return self.conv(image).mean((2, 3))

class Mixed(Classes):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3).double()

    def forward(self, image):
        return self.norm(self.conv(image))

class Words(nn.Module):
    def __init__(self, vocabulary=5):
        super().__init__()
        self.table, self.head = nn.Embedding(vocabulary, 4), nn.Linear(4, vocabulary)

    def forward(self, input_ids):
        return self.head(self.table(input_ids))

def tokens(shifted=False, high=5):
    g = torch.Generator().manual_seed(0)
    ids = torch.randint(0, high, (20, 9), generator=g)
    return [({"input_ids": row[:-1]}, row[1:] if shifted else row[:-1]) for row in ids]
"""


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Sweeps two checkpoints of a class of the user's file, and gives the sentence of the refusal."""
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(SOURCE)
    namespace: dict[str, type] = {}
    exec(SOURCE, namespace)

    def refusal(model: str, **task: object) -> str:
        for seed in (0, 1):
            torch.manual_seed(seed)
            torch.save(namespace[model]().state_dict(), f"{seed}.pt")
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(CkptswapError) as caught:
            cs.sweep("0.pt", "1.pt", model=f"own.py:{model}", threads=1, **task)
        assert [
            path for path in sorted(tmp_path.rglob("*")) if path not in before and "__pycache__" not in str(path)
        ] == []
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return refusal


TOGETHER = ": check that checkpoint, model and data belong together (`ckptswap evaluate`)"


def refused(sentence: str) -> str:
    """What stands around the reason for which the baseline has no score."""
    return f"the baseline fails, so there is nothing to compare with: 1.pt: {sentence}{TOGETHER}"


def images(folder: str, *masks: np.ndarray, rgb: bool = True) -> None:
    for at, mask in enumerate(masks):
        pixels = np.random.default_rng(at).integers(0, 255, (8, 8, 3), dtype=np.uint8)
        for name, array in (("images", pixels if rgb else pixels[:, :, 0]), ("masks", mask)):
            path = Path(folder, name, f"{at}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.resize(array, (8, 8, *array.shape[2:])).astype(np.uint8)).save(path)


def test_grey_images_into_an_rgb_model(sweep: Callable[..., str]) -> None:
    images("grey", *[np.array([0, 1])] * 8, rgb=False)
    assert sweep("Classes", data="grey") == (
        "the images are grey, and the model takes RGB: --data-args color=rgb reads a folder's so, else give the "
        "model its channels in --model-args (in_channels, in_chans)"
    )


def test_masks_with_more_classes_than_the_model(sweep: Callable[..., str]) -> None:
    images("many", *[np.array([0, 1, 7])] * 8)
    assert sweep("Classes", data="many") == refused(
        "a mask holds the class 7, but the model tells 3 classes apart: pass --ignore 7 to leave such pixels "
        "out, or a model with more classes"
    )


@pytest.mark.parametrize("metric", ["iou", "loss"])
def test_masks_of_grey_values(sweep: Callable[..., str], metric: str) -> None:
    images("soft", *[np.arange(64) * 4 + at for at in range(3)] * 3)
    assert sweep("Classes", data="soft", metric=metric).endswith(
        "if these are grey values and no classes, cut the masks at a threshold first" + TOGETHER
    )


def test_masks_that_count_from_1(sweep: Callable[..., str]) -> None:
    images("ones", *[np.array([1, 2, 3])] * 8)
    assert sweep("Classes", data="ones") == refused(
        "a mask holds the class 3, but the model tells 3 classes apart: they count from 1, and classes from 0: "
        "subtract 1 from them"
    )


@pytest.mark.parametrize("metric", ["iou", "loss"])
def test_masks_of_0_and_255_that_are_no_folders(sweep: Callable[..., str], metric: str) -> None:
    masks = np.resize(np.array([0, 255], np.uint8), (8, 4, 4))
    np.savez("white.npz", images=np.zeros((8, 3, 4, 4), np.float32), masks=masks)
    assert sweep("Classes", data="npz:white.npz", metric=metric).endswith(
        "save masks of 0 and 255 as 0 and 1, or pass --ignore 255 where it marks what is not scored" + TOGETHER
    )


def test_class_labels_by_a_metric_of_masks(sweep: Callable[..., str]) -> None:
    np.savez("labels.npz", x=np.zeros((8, 3, 4, 4), np.float32), y=np.arange(8) % 3)
    assert sweep("Pooled", data="npz:labels.npz") == refused(
        "iou is for masks, and the targets are class labels, one a sample: use accuracy, top1 or loss"
    )


def test_tokens_beyond_the_embedding(sweep: Callable[..., str]) -> None:
    assert sweep("Words", data="own.py:tokens", data_args={"high": 50}, metric="perplexity") == (
        "the inputs hold the token 49, and the model's embedding ends at 4: use the model's own tokenizer, for "
        "text --data-args tokenizer=FOLDER"
    )


def test_labels_that_are_shifted_already(sweep: Callable[..., str]) -> None:
    assert sweep("Words", data="own.py:tokens", data_args={"shifted": True}, metric="perplexity") == refused(
        "the labels are the tokens shifted by one already, and perplexity shifts them itself: give the tokens "
        "themselves as labels, -100 where none is to be scored"
    )


def test_a_model_of_several_dtypes(sweep: Callable[..., str]) -> None:
    images("rgb", *[np.array([0, 1])] * 8)
    assert sweep("Mixed", data="rgb") == (
        "the model's tensors are float32 and float64, with which it cannot compute here: --dtype f32"
    )


def test_a_text_of_one_line(sweep: Callable[..., str]) -> None:
    Path("one.txt").write_text("a b c\n")
    assert sweep("Words", data="text:one.txt", metric="perplexity") == (
        "one.txt is one line, and a line is a document: put each document on a line of its own, or cut it into "
        "pieces: --data-args block=256"
    )


def test_a_baseline_that_is_worse_than_nothing_is_said_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wrong normalization: what was trained on 0…1 gets values around 0."""
    from ckptswap.report.answer import answer

    monkeypatch.chdir(tmp_path)
    x = torch.rand(16, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    np.savez("data.npz", inputs=x.numpy(), masks=(x[:, 0] > 0.5).long().numpy())
    Path("own.py").write_text("from torch import nn\ndef net():\n    return nn.Conv2d(1, 1, 1)\n")
    for name, weight in (("a.pt", 3.0), ("b.pt", 4.0)):
        torch.save({"weight": torch.full((1, 1, 1, 1), weight), "bias": torch.tensor([-weight / 2])}, name)
    task = {"data": "npz:data.npz", "model": "own.py:net", "metric": "loss", "threads": 1}
    right = cs.sweep("a.pt", "b.pt", run="right", **task)
    assert "worse than" not in " ".join(answer(right))
    wrong = cs.sweep("a.pt", "b.pt", run="wrong", normalize="0/0.2", **task)
    assert wrong.trivial is not None
    first = answer(wrong)[0]
    assert first.startswith("loss is ")
    assert "of a prediction that looks at nothing: check normalization, labels and --output" in first
