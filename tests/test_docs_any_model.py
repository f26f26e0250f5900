"""Every line of the tables of docs/howto/any-model.md runs, in the folder that its example leaves."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from PIL import Image
from torch import nn

from ckptswap.cli.main import main
from examples import ANY_MODEL, EXAMPLES, any_model, commands

PAGE = (Path(__file__).parents[1] / "docs/howto/any-model.md").read_text("utf-8")
SCRIPTS = {script.stem: script for script in ANY_MODEL}


class Line(NamedTuple):
    """What is typed, and the example in whose folder."""

    typed: str
    example: str


LINES = [Line(*cells) for cells in re.findall(r"^\| .* \| `(.+)` \| (\w+) \|$", PAGE, re.MULTILINE)]
EVALUATED = {
    "smp_folder": "late",
    "timm_classifier": "late.pt --model timm:test_resnet --model-args num_classes=3",
    "torchvision_masks": "late.pt --model torchvision:lraspp_mobilenet_v3_large --model-args num_classes=4",
    "hf_classifier": "late",
    "hf_decoder": "late",
    "exported_archive": "late.pt --model export:net.pt2",
    "own_file": "late.pt --model own_file.py:network",
}
"""What is evaluated where a line has only flags of data and metrics."""


def more_for_timm() -> None:
    """Folders for the Hub, and a classifier of transformers'."""
    import timm
    from timm.models import save_for_hf
    from transformers import ViTConfig, ViTForImageClassification

    for number, name in enumerate(("early", "late")):
        network = timm.create_model("test_resnet", num_classes=3)
        network.load_state_dict(torch.load(f"{name}.pt", weights_only=True))
        save_for_hf(network, f"hub-{name}", model_args={"num_classes": 3}, safe_serialization=True)
        torch.manual_seed(number)
        sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        config = ViTConfig(**sizes, image_size=32, patch_size=16, num_labels=3)
        ViTForImageClassification(config).save_pretrained(f"vit-{name}")
    Path("pictures").mkdir()
    for place in Path("shapes").rglob("*.png"):
        shutil.copy(place, "pictures")


def more_for_masks() -> None:
    """Cityscapes' folders, of the same pictures."""
    for place in Path("voc/JPEGImages").iterdir():
        frame = f"val/bochum/bochum_{int(place.stem):06}_000000"
        for folder in ("leftImg8bit", "gtFine"):
            (Path("cityscapes") / folder / frame).parent.mkdir(parents=True, exist_ok=True)
        Image.open(place).save(f"cityscapes/leftImg8bit/{frame}_leftImg8bit.png")
        mask = Image.open(f"voc/SegmentationClass/{place.stem}.png")
        mask.save(f"cityscapes/gtFine/{frame}_gtFine_labelTrainIds.png")


def more_for_smp() -> None:
    """The pictures in grey, and three of each patient."""
    shutil.copytree("shapes/masks", "grey/masks")
    Path("grey/images").mkdir()
    for place in Path("shapes/images").iterdir():
        Image.open(place).convert("L").save(f"grey/images/{place.name}")
    for place in Path("shapes").rglob("*.png"):
        patient = Path("patients", place.parent.name, f"patient{int(place.stem) // 3}_{place.stem}_mask.png")
        patient.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(place, patient if place.parent.name == "masks" else str(patient).replace("_mask", ""))


def more_for_texts() -> None:
    from datasets import load_dataset

    load_dataset("json", data_files="reviews.jsonl", split="train", cache_dir="cache").save_to_disk("reviews")


def more_for_decoder() -> None:
    Path("book.txt").write_text(Path("sentences.txt").read_text().replace("\n", " "))


def more_for_archive() -> None:
    """The same network as a script."""
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 1),
    )  # fmt: skip
    torch.jit.script(network.eval()).save("net.pt")


MORE: dict[str, Callable[[], None]] = {
    "timm_classifier": more_for_timm, "torchvision_masks": more_for_masks, "smp_folder": more_for_smp,
    "hf_classifier": more_for_texts, "hf_decoder": more_for_decoder, "exported_archive": more_for_archive,
}  # fmt: skip
"""What lines speak of and the example does not leave."""


@pytest.fixture(params=SCRIPTS)
def example(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path,
            monkeypatch: pytest.MonkeyPatch) -> str:  # fmt: skip
    """The name of an example; the current folder is a copy of what it left, and of more."""
    name = request.param
    folder = any_model(tmp_path_factory, SCRIPTS[name]) / "runs" / name
    monkeypatch.chdir(shutil.copytree(folder, tmp_path / "work"))
    shutil.copy(EXAMPLES / "any-model" / f"{name}.py", ".")
    MORE.get(name, lambda: None)()
    return name


@pytest.mark.filterwarnings("ignore")
def test_every_line_runs(
    example: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one process, so that libraries are imported once; what the example's own script ran has run."""
    own = commands(SCRIPTS[example])[0].removesuffix(" --run sweep")
    lines = [line.typed for line in LINES if line.example == example]
    assert own in lines
    for number, line in enumerate(line for line in lines if line != own):
        is_whole = line.startswith("ckptswap ")
        typed = f"{line} --by kind --limit 8 --run {number}" if is_whole else (
            f"ckptswap evaluate {EVALUATED[example]} {line}")  # fmt: skip
        monkeypatch.setattr("sys.argv", shlex.split(typed))
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        assert ended.value.code == 0, f"{typed}\n{out}\n{err}"
        assert "nan" not in out


def test_the_page_has_every_example_and_only_such() -> None:
    typed = PAGE.partition("## An adapter")[0]
    rows = [row for row in typed.splitlines() if row.startswith("| ") and "you type" not in row]
    assert len(rows) == len(LINES) > 40, "a row is not read"
    assert {line.example for line in LINES} == set(SCRIPTS)
