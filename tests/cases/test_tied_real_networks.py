"""nnU-Net's own network and a tied language model: sweep, transplant, evaluate beside a plain loop that loads with
`load_state_dict` and runs the whole model.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from plain import run_file
from safetensors.torch import load_file, save_file
from sweeping import prepare, ran
from torch import Tensor, nn

import ckptswap as cs
from ckptswap.formats import open_checkpoint
from ckptswap.task import TaskSpec

SOURCE = '''
import torch
from torch import nn


def plain_unet():
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    return PlainConvUNet(1, 2, [2, 3], nn.Conv2d, 3, [1, 2], 2, 2, 2, conv_bias=True, norm_op=nn.InstanceNorm2d,
                         norm_op_kwargs={"affine": True}, nonlin=nn.LeakyReLU)


def residual_unet():
    from dynamic_network_architectures.architectures.unet import ResidualEncoderUNet

    return ResidualEncoderUNet(1, 2, [2, 3], nn.Conv2d, 3, [1, 2], 1, 2, 1, conv_bias=True, norm_op=nn.BatchNorm2d,
                               norm_op_kwargs={}, nonlin=nn.LeakyReLU)


class Logits(nn.Module):
    """A language model that gives a tensor, classes first, as our metrics take them."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, ids):
        return self.model(input_ids=ids, use_cache=False).logits.transpose(1, 2)


def gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel

    ends = {"bos_token_id": 0, "eos_token_id": 0}
    return Logits(GPT2LMHeadModel(GPT2Config(vocab_size=13, n_positions=6, n_embd=8, n_layer=2, n_head=2, **ends)))


def llama():
    """With a mask and plain attention it looks at no values, and can be replayed."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=13, tie_word_embeddings=True, attn_implementation="eager", bos_token_id=0,
                         eos_token_id=0, max_position_embeddings=8, **sizes)
    return Masked(LlamaForCausalLM(config))


class Masked(Logits):
    def forward(self, ids):
        found = self.model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
        return found.logits.transpose(1, 2)


def images():
    draw = torch.Generator().manual_seed(1)
    return [(x, (x[0] > 0.5).long()) for x in torch.rand(10, 1, 8, 8, generator=draw)]


def texts():
    draw = torch.Generator().manual_seed(1)
    return [(ids, ids.roll(-1)) for ids in torch.randint(0, 13, (10, 6), generator=draw)]


def error(output, target):
    """Mean cross-entropy of each sample."""
    return nn.functional.cross_entropy(output, target, reduction="none").flatten(1).mean(1)


error.direction = "min"
'''
DATA = {"plain_unet": "images", "residual_unet": "images", "gpt2": "texts", "llama": "texts"}
HALF = {"plain_unet": "encoder.stages.0", "residual_unet": "decoder.encoder.stages.1", "gpt2": "model.lm_head",
        "llama": "model.model.embed_tokens"}  # fmt: skip
"""A layer whose tensors have other names outside it."""


@pytest.fixture(params=DATA)
def model(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A network whose two checkpoints are in the current folder, as torch and as safetensors files."""
    pytest.importorskip("dynamic_network_architectures" if "unet" in request.param else "transformers")
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(SOURCE, "utf-8")
    for name, seed in (("a", 3), ("b", 4)):
        torch.manual_seed(seed)
        state = built(request.param).state_dict()
        state = {each: value.add_(0.2 * torch.rand(value.shape)) if value.is_floating_point() else value
                 for each, value in state.items()}  # fmt: skip
        torch.save(state, f"{name}.pth")
        save_file({each: value.clone() for each, value in state.items()}, f"{name}.safetensors")
    return request.param


def built(model: str) -> nn.Module:
    return run_file("net.py")[model]().eval()


def spec(model: str) -> TaskSpec:
    return TaskSpec(model=f"net.py:{model}", data=f"net.py:{DATA[model]}", metrics=("net.py:error",), batch_size=4,
                    threads=1)  # fmt: skip


def plain_score(model: str, state: Mapping[str, Tensor]) -> float:
    net, names, scores = built(model), run_file("net.py"), []
    net.load_state_dict(dict(state))
    pairs = names[DATA[model]]()
    with torch.no_grad():
        for at in range(0, len(pairs), 4):
            inputs, targets = (torch.stack(each) for each in zip(*pairs[at : at + 4], strict=True))
            scores += names["error"](net(inputs), targets).double().tolist()
    return sum(scores) / len(scores)


def test_a_sweep_is_the_plain_loop(model: str) -> None:
    """Replayed, also where the library looks at values of the batch (GPT-2's own making of masks)."""
    theirs, ours = (torch.load(f"{name}.pth", weights_only=True) for name in "ab")
    places = {value.data_ptr() for value in built(model).state_dict().values()}
    for suffix in ("pth", "safetensors"):
        donor, recipient = (open_checkpoint(f"{name}.{suffix}") for name in "ab")
        proposal = prepare(donor, recipient, spec(model), by=[("tensor",), ("kind",)], run_dir=suffix)
        result = ran(proposal)
        assert proposal.scorer.how == "auto", proposal.scorer.notes
        assert result.baseline == pytest.approx(plain_score(model, ours), rel=1e-6)
        assert result.donor_score == pytest.approx(plain_score(model, theirs), rel=1e-6)
        tensors = [row for row in result.rows if row.kind is not None and row.layer is not None]
        assert len(tensors) == len(places) < len(ours)
        for row in result.rows:
            state = {name: (theirs if name in row.tensors else ours)[name] for name in ours}
            assert row.score == pytest.approx(plain_score(model, state), rel=1e-6), row.tensors
            assert row.status != "failed"
        assert sum(row.status == "measured" for row in tensors) >= len(tensors) - 10


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_transplant_and_evaluate_are_the_plain_loop(model: str, suffix: str) -> None:
    theirs, ours = (load_file(f"{name}.safetensors") for name in "ab")
    net = built(model).state_dict()
    there = {net[name].data_ptr() for name in net if name.startswith(f"{HALF[model]}.")}
    taken = {name for name in net if net[name].data_ptr() in there}
    assert any(not name.startswith(HALF[model]) for name in taken), "or this says nothing"
    cs.transplant(f"a.{suffix}", f"b.{suffix}", "out.safetensors", layers=HALF[model]).close()
    found = load_file("out.safetensors")
    assert all(torch.equal(found[name], (theirs if name in taken else ours)[name]) for name in ours)
    scored = cs.evaluate("out.safetensors", model=f"net.py:{model}", data=f"net.py:{DATA[model]}", batch_size=4,
                         metric="net.py:error", threads=1)  # fmt: skip
    expected = plain_score(model, {name: (theirs if name in taken else ours)[name] for name in ours})
    assert scored.scores[0]["net.py:error"].estimate == pytest.approx(expected, rel=1e-6)
    assert abs(expected - plain_score(model, ours)) > 1e-4
