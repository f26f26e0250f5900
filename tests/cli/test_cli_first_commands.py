"""What a newcomer types first, with files as others write them, and what the answer says to type next."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from cli_program import run
from once import once

import ckptswap as cs

BERT = {"bert.encoder.layer.0.attention.self.query.weight": np.ones((4, 4), np.float32)}
LORA = {f"lora_unet_q.lora_{way}.weight": np.ones((2, 2), np.float32) for way in ("down", "up")}
NNUNET = {"encoder.stages.0.0.convs.0.conv.weight": np.ones((2, 1, 3, 3), np.float32)}
CLASSES = """
import lightning as L
class Small: pass
class Data(dict): pass
if True:
    class Net(L.LightningModule): pass
"""


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    def make(root: Path) -> None:
        import timm
        import torch

        for name in ("hf", "other", "nnunet/fold_0"):
            (root / name).mkdir(parents=True)
        for name in ("hf", "other"):
            cs.save(BERT, root / name / "model.safetensors")
            told = {"architectures": ["BertModel"], "model_type": "bert", "vocab_size": 9}
            (root / name / "config.json").write_text(json.dumps(told, indent=2))
        cs.save(LORA, root / "lora.safetensors")
        cs.save(NNUNET, root / "nnunet/fold_0/checkpoint_final.pt")
        torch.save(timm.create_model("test_resnet", num_classes=5).state_dict(), root / "timm.pth")
        (root / "net.py").write_text(CLASSES)
        (root / "empty.py").write_text("def (")

    return once(tmp_path_factory, "newcomer", make)


@pytest.fixture
def here(files: Path) -> Iterator[None]:
    with contextlib.chdir(files):
        yield


PHOTOS = "--data random:3x32x32 --metric kl"


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("show hf/config.json", "name its folder, hf, or the file of weights beside it"),
        ("show nnunet", "name one of nnunet/fold_0/checkpoint_final.pt"),
        ("show bert-base-uncased", "`hf download bert-base-uncased --local-dir bert-base-uncased`"),
        ("diff google/bert-tiny hf", "`hf download google/bert-tiny --local-dir bert-tiny`"),
        ("show hf/model-2", "does not exist: check the path"),
        ("sweep hf other --by kind", "Write `ckptswap sweep --from hf --to other --by kind`"),
        ("transplant hf other", "Write `ckptswap transplant --from hf --to other`"),
        ("transplant hf --kind a", "Missing option '--from'. (see"),
        ("sweep --from hf --to other", "--data random:tokens:32 --metric kl"),
        ("evaluate timm.pth", "--data random:3x224x224 --metric kl"),
        ("evaluate hf/model.safetensors --data random:tokens:4 --metric kl", "give its folder, hf,"),
        (f"evaluate timm.pth --model resnet18 {PHOTOS}", "write timm:resnet18 or torchvision:resnet18"),
        (
            f"evaluate timm.pth --model timm:test_resnet {PHOTOS}",
            "in the model): --model-args num_classes=5 makes it",
        ),
        (f"evaluate lora.safetensors {PHOTOS}", "peft:FOLDER is both"),
        (f"evaluate nnunet/fold_0/checkpoint_final.pt {PHOTOS}", "get_network_from_plans"),
        (f"evaluate timm.pth --model lightning:net.py {PHOTOS}", "write lightning:net.py:Net"),
        (f"evaluate timm.pth --model lightning:empty.py {PHOTOS}", "write lightning:empty.py:CLASS"),
        ("transplant --from lora.safetensors --to hf", "peft:FOLDER is its base with these added"),
        ("transplant --from timm.pth --to hf", "they share no name"),
    ],
)
def test_the_answer_says_what_to_type(here: None, typed: str, said: str) -> None:
    done = run(*typed.split())
    assert (done.code, done.out) == (2, "")
    assert said in done.err
    assert len(done.err.splitlines()) == 1
