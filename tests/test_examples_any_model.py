"""The scripts of `examples/any-model` run, and their tables are a plain loop's: the library's own network,
copied tensors, `load_state_dict`, whole passes, and the metric by hand.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from plain import run_file
from torch import Tensor, nn

from examples import ANY_MODEL, EXAMPLES, any_model, commands

State = dict[str, Tensor]
BATCH = 8
FILES = EXAMPLES / "any-model"


class Case(NamedTuple):
    """A network without its weights, the tensors of donor and recipient under its names, the samples as (inputs,
    target), and from outputs and targets of a batch a number for each sample."""

    network: Callable[[], nn.Module]
    donor: State
    recipient: State
    samples: list[tuple[Any, Any]]
    measure: Callable[[Any, Any], Tensor]
    overall: Callable[[float], float] = float


def picture(place: Path) -> Tensor:
    return torch.from_numpy(np.asarray(Image.open(place)).transpose(2, 0, 1).astype(np.float32) / 255)


def mask(place: Path) -> Tensor:
    return torch.from_numpy(np.asarray(Image.open(place)).astype(np.int64))


def by_number(folder: str) -> list[Path]:
    return sorted(Path(folder).iterdir(), key=lambda place: int(place.stem))


def pairs(images: str, masks: str) -> list[tuple[Tensor, Tensor]]:
    return [(picture(a), mask(b)) for a, b in zip(by_number(images), by_number(masks), strict=True)]


def classes() -> list[tuple[Tensor, Tensor]]:
    """`shapes/CLASS/*.png`: classes are numbered as their names are sorted."""
    return [(picture(place), torch.tensor(number)) for number, folder in enumerate(sorted(os.listdir("shapes")))
            for place in by_number(f"shapes/{folder}")]  # fmt: skip


def states(*places: str, key: str | None = None) -> list[State]:
    files = [torch.load(place, weights_only=True) for place in places]
    return [file if key is None else file[key] for file in files]


def right(output: Tensor, label: Tensor) -> Tensor:
    return (output.argmax(1) == label).double()


def top1_of_logits(output: Any, label: Tensor) -> Tensor:
    return right(output.logits, label)


def overlap(output: Tensor, truth: Tensor, *, doubled: bool) -> Tensor:
    """IoU or dice of each image, the mean over the classes that it has or is said to have; 255 does not count."""
    scores = []
    for given, wanted in zip(output.argmax(1), truth, strict=True):
        given, wanted, ratios = given[wanted != 255], wanted[wanted != 255], []
        for number in range(output.shape[1]):
            both = int(((given == number) & (wanted == number)).sum())
            total = int((given == number).sum()) + int((wanted == number).sum())
            if total:
                ratios.append(2 * both / total if doubled else both / (total - both))
        scores.append(sum(ratios) / len(ratios))
    return torch.tensor(scores, dtype=torch.float64)


def foreground(output: Tensor, truth: Tensor) -> Tensor:
    """IoU of each image above a cut at 0; masks are 0 and 255."""
    given, wanted = output[:, 0] > 0, truth == 255
    both, either = ((given & wanted).flatten(1).sum(1), (given | wanted).flatten(1).sum(1))
    return torch.where(either > 0, both.double() / either.clamp_min(1), torch.ones(len(given)).double())


def next_token(output: Any, ids: Tensor) -> Tensor:
    """Of each document the mean cross entropy of its tokens but the first, in nats."""
    chances = output.logits[:, :-1].double().log_softmax(2).gather(2, ids[:, 1:, None])[..., 0]
    kept = ids[:, 1:] != 0
    return -(chances * kept).sum(1) / kept.sum(1)


def documents(folder: str, texts: list[str]) -> list[Tensor]:
    from transformers import AutoTokenizer

    return list(AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")["input_ids"])


def language_model(donor: nn.Module, recipient: nn.Module, folder: str, text: str) -> Case:
    ids = documents(folder, Path(text).read_text().splitlines())
    samples = [({"input_ids": own, "attention_mask": (own != 0).long()}, own) for own in ids]
    network = partial(type(recipient), recipient.config)
    return Case(network, donor.state_dict(), recipient.state_dict(), samples, next_token, math.exp)


def smp_folder() -> Case:
    import segmentation_models_pytorch as smp

    early, late = (smp.from_pretrained(folder) for folder in ("early", "late"))
    network = partial(smp.Unet, "tu-resnet10t", encoder_weights=None, encoder_depth=2,
                      decoder_channels=(16, 8))  # fmt: skip
    samples = pairs("shapes/images", "shapes/masks")
    return Case(network, early.state_dict(), late.state_dict(), samples, foreground)


def timm_classifier() -> Case:
    import timm

    network = partial(timm.create_model, "test_resnet", num_classes=3)
    return Case(network, *states("early.pt", "late.pt"), classes(), right)


def torchvision_masks() -> Case:
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large

    network = partial(lraspp_mobilenet_v3_large, weights=None, weights_backbone=None, num_classes=4)
    samples = pairs("voc/JPEGImages", "voc/SegmentationClass")
    return Case(network, *states("early.pt", "late.pt"), samples,
                lambda output, truth: overlap(output["out"], truth, doubled=False))  # fmt: skip


def hf_classifier() -> Case:
    from transformers import BertForSequenceClassification

    early, late = (BertForSequenceClassification.from_pretrained(folder) for folder in ("early", "late"))
    lines = [json.loads(line) for line in Path("reviews.jsonl").read_text().splitlines()]
    ids = documents("late", [line["text"] for line in lines])
    samples = [({"input_ids": own, "attention_mask": (own != 0).long()}, torch.tensor(line["label"]))
               for own, line in zip(ids, lines, strict=True)]  # fmt: skip
    network = partial(BertForSequenceClassification, late.config)
    return Case(
        network, early.state_dict(), late.state_dict(), samples, lambda given, label: right(given.logits, label)
    )


def hf_decoder() -> Case:
    from transformers import LlamaForCausalLM

    return language_model(*map(LlamaForCausalLM.from_pretrained, ("early", "late")), "late", "sentences.txt")


def peft_adapter() -> Case:
    from peft import PeftModel
    from transformers import LlamaForCausalLM

    adapted = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained("base"), "adapter").merge_and_unload()
    return language_model(LlamaForCausalLM.from_pretrained("base"), adapted, "base", "questions.txt")


def lightning_file() -> Case:
    def network() -> nn.Module:
        width = 12
        return nn.Sequential(
            nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU(),
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * width, 3),
        )  # fmt: skip

    files = states("step10.ckpt", "step40.ckpt", key="state_dict")
    bare = [{name.removeprefix("network."): value for name, value in file.items()} for file in files]
    return Case(network, *bare, classes(), right)


def nnunet_network() -> Case:
    network = run_file(FILES / "nnunet_network.py")["network"]
    samples = pairs("shapes/images", "shapes/masks")
    return Case(network, *states("early.pth", "late.pth", key="network_weights"), samples,
                partial(overlap, doubled=True))  # fmt: skip


def exported_archive() -> Case:
    def network() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 1),
        )  # fmt: skip

    with np.load("shapes.npz") as arrays:
        images, masks = arrays["images"], arrays["masks"]
    images = images.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
    samples = list(zip(torch.from_numpy(images), torch.from_numpy(masks.astype(np.int64)), strict=True))
    return Case(network, *states("early.pt", "late.pt"), samples, partial(overlap, doubled=True))


def own_file() -> Case:
    own = run_file(FILES / "own_file.py")
    return Case(own["network"], *states("early.pt", "late.pt"), own["weeks"](),
                lambda output, target: (output.double() - target.double()).square().mean(1))  # fmt: skip


CASES: Mapping[str, Callable[[], Case]] = {
    case.__name__: case for case in (smp_folder, timm_classifier, torchvision_masks, hf_classifier, hf_decoder,
                                     peft_adapter, lightning_file, nnunet_network, exported_archive, own_file)
}  # fmt: skip


@contextmanager
def all_cores() -> Iterator[None]:
    """As the command has it: the last bits of an output depend on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def score(case: Case, network: nn.Module, state: State) -> float:
    """The mean over samples, in batches of eight."""
    network.load_state_dict(state)
    network.eval()
    scores: list[float] = []
    with torch.no_grad():
        for start in range(0, len(case.samples), BATCH):
            inputs, targets = zip(*case.samples[start : start + BATCH], strict=True)
            if isinstance(inputs[0], dict):
                output = network(**{name: torch.stack([own[name] for own in inputs]) for name in inputs[0]})
            else:
                output = network(torch.stack(inputs))
            scores += case.measure(output, torch.stack(targets)).tolist()
    return case.overall(sum(scores) / len(scores))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("script", ANY_MODEL, ids=lambda script: script.stem)
def test_the_table_of_an_example_is_the_plain_loops(
    script: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = any_model(tmp_path_factory, script)
    monkeypatch.chdir(folder / "runs" / script.stem)
    table, case = json.loads(Path("rows.json").read_text()), CASES[script.stem]()
    told = (folder / "stderr").read_text()
    assert "in full" not in told, f"nothing was replayed: {told}"
    with all_cores():
        network = case.network()
        places = {name: value.data_ptr() for name, value in network.state_dict().items()}
        assert table["baseline"] == pytest.approx(score(case, network, case.recipient), rel=1e-6)
        assert table["donor_score"] == pytest.approx(score(case, network, case.donor), rel=1e-6)
        for row in table["rows"]:
            taken = {places[name.removeprefix("network.")] for name in row["tensors"]}
            state = {name: (case.donor if places[name] in taken else case.recipient)[name] for name in places}
            assert row["score"] == pytest.approx(score(case, network, state), rel=1e-6), row
    assert {row["status"] for row in table["rows"]} <= {"measured", "identical", "no-effect"}
    assert max(row["drop"] for row in table["rows"]) > table["tolerance"], "or there is nothing to see"


def test_every_example_has_a_case() -> None:
    assert [script.stem for script in ANY_MODEL] == sorted(CASES)


@pytest.mark.parametrize("script", ANY_MODEL, ids=lambda script: script.stem)
def test_an_example_is_short(script: Path) -> None:
    assert len(script.read_text().splitlines()) < 15
    [sweep, report] = commands(script)
    assert report.startswith("ckptswap report sweep ")
    flags = set(re.findall(r" --([a-z-]+)", sweep))
    if script.stem.startswith(("hf", "peft")):
        assert len(flags - {"from", "to", "data", "metric"}) <= 1
