"""Adapters: the folder as a map of its own, and `peft:ADAPTER` beside what peft's own merging gives."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ckptswap as cs
from ckptswap.errors import CkptswapError
from ckptswap.formats import open_checkpoint
from ckptswap.hints import names_apart
from ckptswap.task.models.named import model_of
from ckptswap.task.weights import load_into

transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

ENDS = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
LLAMA = transformers.LlamaConfig(vocab_size=20, hidden_size=8, intermediate_size=12, num_hidden_layers=2,
                                 num_attention_heads=2, num_key_value_heads=1, **ENDS)  # fmt: skip
GPT2 = transformers.GPT2Config(vocab_size=20, n_positions=8, n_embd=8, n_layer=1, n_head=2, **ENDS)
BERT = transformers.BertConfig(vocab_size=20, hidden_size=8, intermediate_size=12, num_hidden_layers=1,
                               num_attention_heads=2, max_position_embeddings=8)  # fmt: skip
VIT = transformers.ViTConfig(hidden_size=8, intermediate_size=12, num_hidden_layers=1, num_attention_heads=2,
                             image_size=16, patch_size=8)  # fmt: skip
DINO = transformers.Dinov2Config(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, image_size=16,
                                 patch_size=8, use_swiglu_ffn=True)  # fmt: skip
ADAPTERS: dict[str, tuple[Any, Any, Mapping[str, Any]]] = {
    "plain": (transformers.LlamaForCausalLM, LLAMA, {"target_modules": ["q_proj", "down_proj"]}),
    "patterns": (
        transformers.LlamaForCausalLM,
        LLAMA,
        {"target_modules": ["q_proj", "v_proj"], "use_rslora": True,
         "rank_pattern": {"layers.0.self_attn.q_proj": 1},
         "alpha_pattern": {"v_proj": 3, r"layers\.1.*q_proj": 5}},
    ),
    "embedding": (transformers.LlamaForCausalLM, LLAMA, {"target_modules": ["embed_tokens", "q_proj"]}),
    "transposed": (transformers.GPT2LMHeadModel, GPT2, {"target_modules": ["c_attn", "c_proj"], "bias": "all"}),
    "head": (transformers.BertForSequenceClassification, BERT,
             {"target_modules": ["query"], "modules_to_save": ["classifier"]}),
    "convolution": (transformers.ViTForImageClassification, VIT, {"target_modules": ["projection"]}),
    "other names": (transformers.ViTForImageClassification, VIT,
                    {"target_modules": ["q_proj", "o_proj", "fc1"], "modules_to_save": ["classifier"]}),
    "other names, split": (transformers.Dinov2ForImageClassification, DINO,
                           {"target_modules": ["v_proj", "gate_proj"], "bias": "all"}),
}  # fmt: skip
Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Saves a base as BASE and an adapter on it, drawn by a seed, as the folder that is returned."""

    def made(
        name: str, folder: str = "adapter", seed: int = 1, dtype: torch.dtype = torch.float32, **more: Any
    ) -> Path:
        model_class, config, how = ADAPTERS[name]
        torch.manual_seed(0)
        model_class(config).to(dtype).save_pretrained(tmp_path / "base")
        model = peft.get_peft_model(
            model_class.from_pretrained(tmp_path / "base"),
            peft.LoraConfig(**{"r": 2, "lora_alpha": 8, **how}),
        )
        torch.manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.normal_(std=0.3)
        model.save_pretrained(tmp_path / folder)
        return tmp_path / folder

    return made


def merged(name: str, adapter: Path) -> dict[str, torch.Tensor]:
    """What peft makes of it."""
    base = ADAPTERS[name][0].from_pretrained(adapter.parent / "base")
    return peft.PeftModel.from_pretrained(base, adapter).merge_and_unload().state_dict()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ADAPTERS)
def test_a_merged_checkpoint_is_what_peft_merges(name: str, make: Make) -> None:
    adapter = make(name)
    expected = merged(name, adapter)
    with open_checkpoint(f"peft:{adapter}") as ours, open_checkpoint(adapter.parent / "base") as base:
        kept = {tensor for tensor in base if "weights_in" not in tensor}  # of which transformers makes two
        assert {*ours} >= kept
        changed = [tensor for tensor in kept if not np.array_equal(ours.read(tensor), base.read(tensor))]
        assert changed
        for tensor in (tensor for tensor in ours if tensor in expected):  # transformers names some otherwise
            torch.testing.assert_close(torch.from_numpy(ours.read(tensor)), expected[tensor], rtol=1e-6, atol=1e-6)
            parts = np.concatenate([part.copy() for part in ours[tensor].chunks(64)])
            assert parts.tobytes() == ours.read(tensor).tobytes(), "chunks are the same whatever their size"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name in ADAPTERS if name.startswith("other names")])
def test_names_that_transformers_changes_are_found(name: str, make: Make) -> None:
    """The adapter's names are those of the network's modules; the file of the base has older ones, which stay."""
    adapter = make(name)
    model, expected = ADAPTERS[name][0](ADAPTERS[name][1]), merged(name, adapter)
    with open_checkpoint(f"peft:{adapter}") as ours, open_checkpoint(adapter.parent / "base") as base:
        assert any("attention.attention.query" in tensor for tensor in {*ours} & {*base})
        assert ours.path == f"peft:{adapter}"
        load_into(model, ours)
    for tensor, value in model.state_dict().items():
        torch.testing.assert_close(value, expected[tensor], rtol=1e-6, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_a_base_in_another_precision_is_rounded_once(make: Make) -> None:
    adapter = make("plain", dtype=torch.bfloat16)
    with open_checkpoint(f"peft:{adapter}") as ours:
        name = "model.layers.0.self_attn.q_proj.weight"
        assert ours[name].dtype == "BF16"
        close = torch.from_numpy(ours.read(name).astype(np.float32))
    torch.testing.assert_close(close, merged("plain", adapter)[name].float(), rtol=1e-2, atol=1e-2)


@pytest.mark.filterwarnings("ignore")
def test_every_command_takes_adapters_and_what_they_make(make: Make, tmp_path: Path) -> None:
    one, two = make("plain", "one", 1), make("plain", "two", 2)
    with open_checkpoint(one) as adapter:
        assert adapter.format == "peft adapter"
        assert all(".lora_" in name for name in adapter)
    assert cs.diff(one, two).summary["changed"] == len(list(open_checkpoint(one)))
    cs.transplant(one, two, tmp_path / "three/", only="*q_proj*").close()
    assert (tmp_path / "three" / "adapter_config.json").is_file()
    with open_checkpoint(f"peft:{tmp_path / 'three'}") as three, open_checkpoint(f"peft:{one}") as first:
        name = "model.layers.0.self_attn.q_proj.weight"
        assert np.array_equal(three.read(name), first.read(name))
    difference = cs.diff(f"peft:{one}", one.parent / "base")
    assert difference.summary["changed"] == 4
    cs.transplant(f"peft:{one}", one.parent / "base", tmp_path / "out.safetensors", only="*q_proj*").close()
    assert cs.diff(tmp_path / "out.safetensors", f"peft:{one}").summary["changed"] == 2


@pytest.mark.filterwarnings("ignore")
def test_the_base_may_lie_elsewhere(make: Make, tmp_path: Path) -> None:
    adapter = make("plain")
    config = adapter / "adapter_config.json"
    told = json.loads(config.read_text())
    config.write_text(json.dumps({**told, "base_model_name_or_path": "someone/net"}))
    with pytest.raises(CkptswapError, match=r"names the base 'someone/net', which is not here: write peft:BASE\+"):
        open_checkpoint(f"peft:{adapter}")
    with open_checkpoint(f"peft:{tmp_path / 'base'}+{adapter}") as ours:
        assert len(ours)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"use_dora": True}, r"more than low-rank products \(use_dora\)"),
        ({"peft_type": "PREFIX_TUNING"}, r"more than low-rank products \(of type PREFIX_TUNING\)"),
        ({"init_lora_weights": "pissa_niter_16"}, "begun by pissa"),
        ({"lora_bias": True}, "lora_bias"),
        ({"lora_alpha": "much"}, "has lora_alpha 'much'"),
        ({"lora_alpha": True}, "has lora_alpha True"),
        ({"alpha_pattern": {"q_proj": None}}, "has an alpha of None"),
        ({"alpha_pattern": {"(a+)+b": 1}}, "could take for ever"),
        ({"base_model_name_or_path": None}, "names the base ''"),
        ({"base_model_name_or_path": ["x"]}, "has base_model_name_or_path"),
    ],
)
def test_what_is_no_low_rank_product_is_refused(change: Mapping[str, Any], message: str, make: Make) -> None:
    adapter = make("plain")
    config = adapter / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **change}))
    with pytest.raises(CkptswapError, match=message):
        open_checkpoint(f"peft:{adapter}")


@pytest.mark.filterwarnings("ignore")
def test_an_adapter_alone_in_a_networks_place_says_what_to_write(make: Make, tmp_path: Path) -> None:
    adapter = make("plain")
    with open_checkpoint(adapter) as alone, open_checkpoint(tmp_path / "base") as base:
        with pytest.raises(CkptswapError, match=f"is an adapter alone: peft:{adapter} is its base with"):
            model_of(alone)
        for pair in ((alone, base), (base, alone)):
            assert str(names_apart(*pair)).endswith(f"peft:{adapter} is its base with the adapter added")


@pytest.mark.filterwarnings("ignore")
def test_another_base_is_refused(make: Make, tmp_path: Path) -> None:
    adapter = make("plain")
    with pytest.raises(CkptswapError, match=r"is not an adapter: name a folder with adapter_config\.json"):
        open_checkpoint(f"peft:{tmp_path / 'base'}")
    make("transposed", "other")
    with pytest.raises(CkptswapError, match=r"lacks what .* adds to"):
        open_checkpoint(f"peft:{tmp_path / 'base'}+{adapter}")
    wide = transformers.LlamaConfig(**{**LLAMA.to_dict(), "hidden_size": 16, "head_dim": 8})
    transformers.LlamaForCausalLM(wide).save_pretrained(tmp_path / "wide")
    with pytest.raises(
        CkptswapError, match=r"is \[16, 12\] in .*wide, and its factors are \[2, 12\] and \[8, 2\]"
    ):
        open_checkpoint(f"peft:{tmp_path / 'wide'}+{adapter}")
