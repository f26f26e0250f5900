"""Kinds and blocks of networks that people have, held against what their modules are: classes, places, sizes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import timm
import torch
import torchvision
import transformers as hf
from torch import nn
from torch.nn.utils import parametrizations
from transformers.pytorch_utils import Conv1D

from ckptswap.checkpoint import Checkpoint
from ckptswap.naming import blocks_of, classify, coarse
from ckptswap.selection import Selection

LABELS = 7
TINY: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
}
TEXT: dict[str, Any] = {**TINY, "vocab_size": 60, "num_labels": LABELS}
GROUPED = {**TEXT, "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0}
PICTURE: dict[str, Any] = {"image_size": 32, "patch_size": 8, "num_labels": LABELS}
SWIN: dict[str, Any] = {
    "image_size": 32,
    "patch_size": 2,
    "num_labels": LABELS,
    "embed_dim": 16,
    "depths": [2, 1],
    "num_heads": [2, 4],
    "window_size": 4,
}
CLIP: dict[str, Any] = {
    "text_config": {**TINY, "vocab_size": 60},
    "vision_config": {**TINY, "image_size": 32, "patch_size": 8},
}
WHISPER: dict[str, Any] = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "vocab_size": 60,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 80, "decoder_ffn_dim": 80, "pad_token_id": 0,
}  # fmt: skip
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 80, "num_layers": 2, "num_heads": 4, "vocab_size": 60}


def text_encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(32, 4, 80, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    return nn.ModuleDict({"embedding": nn.Embedding(60, 32), "encoder": encoder})


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**GROUPED)),
    "qwen2": lambda: hf.Qwen2ForCausalLM(hf.Qwen2Config(**GROUPED)),
    "mistral": lambda: hf.MistralForCausalLM(hf.MistralConfig(**GROUPED)),
    "gemma2": lambda: hf.Gemma2ForCausalLM(hf.Gemma2Config(**GROUPED)),
    "phi3": lambda: hf.Phi3ForCausalLM(hf.Phi3Config(**GROUPED)),
    "gpt2": lambda: hf.GPT2LMHeadModel(hf.GPT2Config(n_embd=32, n_layer=3, n_head=4, vocab_size=60)),
    "neox": lambda: hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(**TEXT)),
    "opt": lambda: hf.OPTForCausalLM(
        hf.OPTConfig(hidden_size=32, ffn_dim=80, num_hidden_layers=2, num_attention_heads=4, vocab_size=60,
                     word_embed_proj_dim=32)),
    "bert": lambda: hf.BertForSequenceClassification(hf.BertConfig(**TEXT)),
    "bert-lm": lambda: hf.BertForMaskedLM(hf.BertConfig(**TEXT)),
    "roberta": lambda: hf.RobertaForSequenceClassification(hf.RobertaConfig(**TEXT)),
    "distilbert": lambda: hf.DistilBertForSequenceClassification(
        hf.DistilBertConfig(dim=32, hidden_dim=80, n_layers=3, n_heads=4, vocab_size=60, num_labels=LABELS)),
    "modernbert": lambda: hf.ModernBertForSequenceClassification(hf.ModernBertConfig(**TEXT, pad_token_id=0)),
    "t5": lambda: hf.T5ForConditionalGeneration(hf.T5Config(**T5)),
    "flan-t5": lambda: hf.T5ForConditionalGeneration(hf.T5Config(**T5, feed_forward_proj="gated-gelu")),
    "bart": lambda: hf.BartForConditionalGeneration(hf.BartConfig(**WHISPER)),
    "whisper": lambda: hf.WhisperForConditionalGeneration(hf.WhisperConfig(**WHISPER)),
    "vit": lambda: hf.ViTForImageClassification(hf.ViTConfig(**TINY, **PICTURE)),
    "dinov2": lambda: hf.Dinov2ForImageClassification(hf.Dinov2Config(**TINY, **PICTURE)),
    "swin": lambda: hf.SwinForImageClassification(hf.SwinConfig(**SWIN)),
    "convnext": lambda: hf.ConvNextForImageClassification(
        hf.ConvNextConfig(depths=[1, 2, 1, 1], hidden_sizes=[8, 16, 32, 64], num_labels=LABELS)),
    "clip": lambda: hf.CLIPModel(hf.CLIPConfig(**CLIP)),
    "timm-vit": lambda: timm.create_model("vit_tiny_patch16_224", num_classes=LABELS),
    "timm-swin": lambda: timm.create_model("swin_tiny_patch4_window7_224", num_classes=LABELS),
    "timm-convnext": lambda: timm.create_model("convnext_atto", num_classes=LABELS),
    "torchvision-vit": lambda: torchvision.models.vit_b_16(num_classes=LABELS),
    "torchvision-swin": lambda: torchvision.models.swin_t(num_classes=LABELS),
    "torch": text_encoder,
}  # fmt: skip


def built(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.device("meta"):
        return make()


def places(model: nn.Module) -> dict[str, tuple[str, str]]:
    return classify({name: tuple(tensor.shape) for name, tensor in model.state_dict().items()})


def above(model: nn.Module, layer: str) -> Iterator[nn.Module]:
    """The modules that a layer stands in, from the inmost on."""
    while layer:
        layer = layer.rpartition(".")[0]
        yield model.get_submodule(layer)


def sizes(module: nn.Module) -> tuple[int, int]:
    """What a linear layer takes and gives; GPT-2's hold their weights transposed."""
    if isinstance(module, Conv1D):
        return int(module.nx), int(module.nf)
    return int(module.in_features), int(module.out_features)  # type: ignore[arg-type]


def family_of(module: nn.Module) -> str | None:
    """What a module's class says of its weights."""
    classes = (
        (nn.Embedding, "embedding"),
        (nn.modules.batchnorm._BatchNorm, "bn"),
        (nn.modules.conv._ConvNd, "conv"),
        ((nn.Linear, Conv1D), "linear"),
    )
    known = next((family for form, family in classes if isinstance(module, form)), None)  # type: ignore[arg-type]
    return known or ("norm" if re.search("Norm|RMS", type(module).__name__) else None)


@pytest.mark.parametrize("name", NETWORKS)
def test_kinds_are_what_the_classes_are(name: str) -> None:
    model = built(NETWORKS[name])
    for tensor, (layer, kind) in places(model).items():
        role = tensor.rpartition(".")[2]
        if role in ("weight", "bias") and (family := family_of(model.get_submodule(layer))):
            assert coarse(kind) == f"{family}.{role}", tensor


def is_attention(module: nn.Module) -> bool:
    return re.search("Attention$|^MultiheadAttention", type(module).__name__) is not None


@pytest.mark.parametrize("name", NETWORKS)
def test_linear_layers_are_told_by_what_they_are_for(name: str) -> None:
    """What stands in an attention module is attention's: the first letter of its name tells which, and what gives
    twice as much or more is a fused one. Else what widens in a block is on an MLP's way up, what narrows down.
    """
    model = built(NETWORKS[name])
    blocks = block_classes(model)
    heads = {id(model.get_output_embeddings())} if hasattr(model, "get_output_embeddings") else set()
    for tensor, (layer, kind) in places(model).items():
        module = model.get_submodule(layer)
        if not tensor.endswith(".weight") or family_of(module) != "linear":
            continue
        taken, given = sizes(module)
        own = layer.rpartition(".")[2]
        if any(map(is_attention, above(model, layer))):
            expected = "qkv" if given >= 2 * taken else own[0] if own[0] in "qkv" else "o"
            assert kind == f"attn.{expected}.weight" or own in ("qkv_proj", "Wqkv"), tensor
        elif id(module) in heads or given == LABELS:
            assert kind == "head.weight" or name == "torchvision-swin", tensor
        elif layer_block(layer, blocks) and given != taken and "reduction" not in own:
            assert kind.startswith(("mlp.up.", "mlp.gate") if given > taken else "mlp.down."), tensor


def block_classes(model: nn.Module) -> set[str]:
    """The members of lists whose class is called a layer or a block."""
    return {
        layer
        for layer, module in model.named_modules()
        if re.search("(?<!Conv)(Layer|Block|BlockV2)$", type(module).__name__)
        and isinstance(next(above(model, layer)), nn.ModuleList | nn.Sequential)
    }


def layer_block(layer: str, blocks: set[str]) -> str | None:
    while layer and layer not in blocks:
        layer = layer.rpartition(".")[0]
    return layer or None


@pytest.mark.parametrize("name", [*NETWORKS, "resnet18", "densenet"])
def test_blocks_are_the_members_of_lists_of_blocks(name: str) -> None:
    more = {"resnet18": torchvision.models.resnet18, "densenet": torchvision.models.densenet121}
    model = built({**NETWORKS, **more}[name])
    shapes = {tensor: tuple(value.shape) for tensor, value in model.state_dict().items()}
    found = blocks_of({tensor: layer for tensor, (layer, _) in places(model).items()}, shapes)
    blocks = block_classes(model)
    if name == "densenet":  # whose lists are modules of their own
        blocks = {layer for layer, module in model.named_modules() if type(module).__name__ == "_DenseLayer"}
    assert blocks
    assert found == {layer: layer_block(layer, blocks) for layer in found}


def test_mixtures_of_experts() -> None:
    config = hf.MixtralConfig(**GROUPED, num_local_experts=2)
    model = built(lambda: hf.MixtralForCausalLM(config))
    kinds = {kind for tensor, (_, kind) in places(model).items() if "layers.1." in tensor and "attn" not in tensor}
    assert kinds == {"mlp.router.weight", "mlp.gate_up.weight", "mlp.down.weight", "norm.weight"}
    in_file = [f"model.layers.{at}.block_sparse_moe.experts.{expert}.w{way}.weight"
               for at in (0, 1) for expert in (0, 1) for way in (1, 2, 3)]  # fmt: skip
    classified = classify(dict.fromkeys([*in_file, "model.layers.0.block_sparse_moe.gate.weight"], (8, 8)))
    assert [kind for _, kind in classified.values()] == [
        *["mlp.gate.weight", "mlp.down.weight", "mlp.up.weight"] * 4, "mlp.router.weight"]  # fmt: skip
    found = blocks_of({name: layer for name, (layer, _) in classified.items()}, dict.fromkeys(classified, (8, 8)))
    assert set(found.values()) == {"model.layers.0", "model.layers.1"}


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing")
def test_adapters() -> None:
    peft = pytest.importorskip("peft")
    model = hf.LlamaForCausalLM(hf.LlamaConfig(**GROUPED))
    adapted = peft.get_peft_model(
        model, peft.LoraConfig(r=2, target_modules=["q_proj", "down_proj", "embed_tokens"])
    )
    kinds = {name.split("layers.1.")[-1]: kind for name, (_, kind) in places(adapted).items()}
    assert kinds["self_attn.q_proj.base_layer.weight"] == "attn.q.weight"
    assert kinds["self_attn.q_proj.lora_A.default.weight"] == "lora.a"
    assert kinds["mlp.down_proj.lora_B.default.weight"] == "lora.b"
    assert kinds["mlp.down_proj.base_layer.weight"] == "mlp.down.weight"
    embedding = "base_model.model.model.embed_tokens"
    assert kinds[f"{embedding}.lora_embedding_A.default"] == "lora.a"
    assert kinds[f"{embedding}.base_layer.weight"] == "embedding.weight"


class Net(nn.Module):
    """Unlike things whose shapes are alike."""

    def __init__(self) -> None:
        super().__init__()
        self.prelu = nn.PReLU(4)
        self.bilinear = nn.Bilinear(3, 4, 5)
        self.tok = nn.Embedding(5, 4)
        with pytest.warns(FutureWarning, match="weight_norm"):
            self.wn = nn.utils.weight_norm(nn.Conv2d(4, 4, 3))
        self.sn = nn.utils.spectral_norm(nn.Conv2d(4, 4, 3))


def kinds_of(model: nn.Module) -> dict[str, str]:
    return {name: kind for name, (_, kind) in places(model).items()}


def test_unlike_things_have_unlike_kinds() -> None:
    assert kinds_of(Net()) == {
        "prelu.weight": "prelu.weight", "bilinear.weight": "bilinear.weight", "bilinear.bias": "bilinear.bias",
        "tok.weight": "embedding.weight", "wn.bias": "conv.bias", "wn.weight_g": "conv.weight_g",
        "wn.weight_v": "conv.weight_v", "sn.bias": "conv.bias", "sn.weight_orig": "conv.weight_orig",
        "sn.weight_u": "conv.spectral_u", "sn.weight_v": "conv.spectral_v",
    }  # fmt: skip


def sequence() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.PReLU(4), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.PReLU(4))


def test_slopes_behind_convolutions_and_batch_norms() -> None:
    kinds = kinds_of(sequence())
    assert (kinds["1.weight"], kinds["4.weight"], kinds["3.weight"]) == (
        "prelu.weight",
        "prelu.weight",
        "bn.weight",
    )


@pytest.mark.parametrize(
    ("make", "kinds"),
    [
        (lambda: nn.ModuleDict({f"prelu{at}": nn.PReLU(10 * at) for at in (1, 2, 3)}), {"prelu.weight"}),
        (lambda: nn.ModuleDict({"act": nn.PReLU(8), "norm": nn.RMSNorm(8)}), {"prelu.weight", "norm.weight"}),
        (lambda: nn.Sequential(nn.Linear(4, 8), nn.PReLU()), {"linear.weight", "linear.bias", "prelu.weight"}),
        (lambda: nn.ModuleDict({"a": parametrizations.weight_norm(nn.Linear(3, 4)),
                                "b": parametrizations.spectral_norm(nn.Linear(3, 4))}),
         {"linear.bias", "linear.weight_g", "linear.weight_v", "linear.weight_orig", "linear.spectral_u",
          "linear.spectral_v"}),
        (lambda: nn.ModuleDict({"attn_norm": nn.LayerNorm(8, bias=False), "token": nn.Embedding(5, 8)}),
         {"norm.weight", "embedding.weight"}),
    ],
)  # fmt: skip
def test_relatives_of_unlike_things(make: Callable[[], nn.Module], kinds: set[str]) -> None:
    assert set(kinds_of(make()).values()) == kinds


def test_old_selections_still_take_what_they_took() -> None:
    attention = nn.MultiheadAttention(4, 2).state_dict()
    checkpoint = Checkpoint.from_arrays(
        {**{f"attn.{name}": value for name, value in attention.items()}, **Net().state_dict()}
    )

    def picked(*kind: str) -> set[str]:
        return {entry.name for entry in Selection.parse(kind=kind).pick(checkpoint)}

    assert picked("attention.in_proj_weight") == {"attn.in_proj_weight"}
    assert picked("linear.weight") == {"attn.in_proj_weight", "attn.out_proj.weight"}
    assert picked("linear.*") == picked("attn.*")
    assert picked("conv.weight_v") == {"wn.weight_v", "sn.weight_v"}
    assert picked("norm.weight") == {"prelu.weight"}
    assert "attn.out_proj.weight" in {
        entry.name for entry in Selection.parse(only=["=linear.weight"]).pick(checkpoint)
    }
