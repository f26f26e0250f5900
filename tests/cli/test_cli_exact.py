"""A sweep's rows against an independent plain loop: load the files, copy tensors, run all. No difference."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli_program import SWAP, draw_scans, good, train_pair
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

BATCH, THREADS = 4, 1


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def read(kind: str) -> Tensor:
    """All PNG files of `scans/images` or `scans/masks`, in order, scaled to 0…1."""
    files = sorted(Path("scans", kind).iterdir())
    return torch.stack([torch.from_numpy(np.array(Image.open(each))) for each in files]).float() / 255


@torch.no_grad()
def plain_scores(model: nn.Module, state: dict[str, Tensor], images: Tensor, masks: Tensor) -> dict[str, float]:
    """IoU (the mean over images) and MSE of a state dict, by the textbook."""
    model.load_state_dict(state)
    model.eval()
    ious, errors = [], []
    for image, mask in zip(images.split(BATCH), masks.split(BATCH), strict=True):
        output = model(image[:, None])[:, 0]
        for guess, truth in zip(output, mask, strict=True):
            both, either = ((guess > 0) & (truth > 0)).sum(), ((guess > 0) | (truth > 0)).sum()
            ious.append((both.double() / either).item() if either else 1.0)
            errors.append(((guess.double() - truth.double()) ** 2).mean().item())
    return {"iou": float(np.mean(ious)), "mse": float(np.mean(errors))}


def compare(model: nn.Module, flags: list[str], least: int) -> None:
    """Sweep the pair in the current folder, and hold every measured row against the loop."""
    task = ["--data", "scans", "--batch-size", str(BATCH), "--threads", str(THREADS), "--metric", "mse,iou"]
    good("sweep", *SWAP, *task, *flags, "--run", "exact")
    donor, recipient = load_file("reconstruct.safetensors"), load_file("segment.safetensors")
    images, masks = read("images"), read("masks")
    tables: dict[str, Any] = {
        metric: good("report", "exact", "--metric", metric, "--format", "json").json for metric in ("mse", "iou")
    }
    with one_thread():
        baseline, other = (plain_scores(model, state, images, masks) for state in (recipient, donor))
        for metric, table in tables.items():
            assert table["baseline"] == baseline[metric]
            assert table["donor_score"] == other[metric]
        rows = {tuple(row["tensors"]): row for row in tables["mse"]["rows"] if row["status"] == "measured"}
        pooled = {tuple(row["tensors"]): row for row in tables["iou"]["rows"]}
        assert len(rows) >= least
        found = {
            names: plain_scores(model, {**recipient, **{name: donor[name] for name in names}}, images, masks)
            for names in rows
        }
    assert max(abs(rows[names]["score"] - scores["mse"]) for names, scores in found.items()) == 0
    assert max(abs(pooled[names]["score"] - scores["iou"]) for names, scores in found.items()) == 0
    assert len({scores["mse"] for scores in found.values()}) > 1, "the variants must differ, or this says nothing"


def test_lab_unet(work: Path) -> None:
    from ckptswap.lab.networks import UNet

    compare(UNet(in_channels=1, classes=1, width=2, depth=1), ["--by", "layer,kind", "--by", "kind"], least=46)


@pytest.mark.parametrize(
    ("name", "more", "patterns"),
    [
        ("Unet", {"decoder_channels": [16, 8, 8, 4, 4]}, "encoder.layer1.0.*,encoder.bn1.*,*head*"),
        ("PSPNet", {"psp_out_channels": 16}, "encoder.layer1.0.*,decoder.conv.*,*head*"),
    ],
)
def test_smp(tmp_path: Path, name: str, more: dict[str, Any], patterns: str) -> None:
    import segmentation_models_pytorch as smp

    with contextlib.chdir(tmp_path):
        draw_scans(Path("scans"), side=64, count=8)
        args = "encoder_name=resnet18," + ",".join(f"{key}={value}" for key, value in more.items())
        train_pair(f"smp:{name}", args.replace(" ", ""), "scans", 6)
        model = getattr(smp, name)(encoder_name="resnet18", encoder_weights=None, in_channels=1, classes=1, **more)
        compare(model, ["--only", patterns], least=9)
