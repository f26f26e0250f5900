"""Examples with networks that people have: each trains its pair, and its table is that of a plain loop."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from test_examples import ROOT, shell

Loop = Callable[[Path, set[str]], float]


def language(folder: Path, names: set[str]) -> float:
    """Perplexity by `from_pretrained`, one document at a time, with the model's own loss."""
    from transformers import AutoTokenizer, LlamaForCausalLM

    donor, model = (LlamaForCausalLM.from_pretrained(folder / name).eval() for name in "AB")
    tokenizer, losses = AutoTokenizer.from_pretrained(folder / "B"), []
    with torch.no_grad():
        for name in names:
            model.state_dict()[name].copy_(donor.state_dict()[name])
        for line in (folder / "valid.txt").read_text().splitlines():
            ids = tokenizer(line, return_tensors="pt")["input_ids"]
            losses.append(model(input_ids=ids, labels=ids).loss.item())
    return math.exp(np.mean(losses))


def classes(folder: Path, names: set[str]) -> float:
    """Cross entropy by timm's model, one image at a time."""
    import timm

    donor, state = (load_file(folder / f"{name}.safetensors") for name in "ab")
    model = timm.create_model("test_resnet", num_classes=2).eval()
    model.load_state_dict({name: (donor if name in names else state)[name] for name in state})
    losses = []
    for number, name in enumerate(("columns", "rows")):
        for path in sorted((folder / "lines" / name).iterdir()):
            pixels = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)[None] / 255
            with torch.no_grad():
                output = model((pixels - 0.5) / 0.25).double()
            losses.append(torch.nn.functional.cross_entropy(output, torch.tensor([number])).item())
    return float(np.mean(losses))


def table(folder: Path, run: str) -> Mapping[str, Any]:
    return json.loads(shell(f"ckptswap report {run} --format json", folder))


@pytest.mark.parametrize(("name", "loop"), [("language", language), ("classes", classes)])
def test_the_table_is_that_of_a_plain_loop(tmp_path: Path, name: str, loop: Loop) -> None:
    script = ROOT / "examples" / name / "sweep.sh"
    assert len(script.read_text().splitlines()) < 15
    shell(str(script), tmp_path)
    found = table(tmp_path, name)
    assert found["baseline"] == pytest.approx(loop(tmp_path, set()), rel=1e-5)
    rows = [row for row in found["rows"] if row["status"] == "measured"]
    assert len(rows) >= 2
    for row in rows:
        assert row["score"] == pytest.approx(loop(tmp_path, set(row["tensors"])), rel=1e-5), row["kind"]
    if name == "language":
        assert table(tmp_path, "without-labels")["baseline"] == 0
