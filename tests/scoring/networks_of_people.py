# ruff: noqa: E501
"""The networks that people have, each as its library builds it, tiny; loaded by path, as a user's file would be.

`NETWORKS[name]` gives a model, and `DATA[name]` the kind of input that it takes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

NETWORKS: dict[str, Callable[[], nn.Module]] = {}
DATA: dict[str, str] = {}


def network(data: str, *names: str) -> Callable[[Callable[..., nn.Module]], Callable[..., nn.Module]]:
    """Registers a function of a name, or of nothing, under all of these names."""

    def registered(make: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
        for name in names or (make.__name__,):
            NETWORKS[name] = (lambda name=name: make(name)) if names else make
            DATA[name] = data
        return make

    return registered


def build(name: str) -> nn.Module:
    """A network in eval mode, always with the same values."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return NETWORKS[name]().eval()


# transformers: NAME/ATTENTION -------------------------------------------------------------------------------------

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
WORDS = {"vocab_size": 40, "max_position_embeddings": 40}
ONE = {**SMALL, **WORDS, "num_key_value_heads": 1}
PICTURE = {"image_size": 32, "patch_size": 8}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8}
SPEAKS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
SIDES: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("BertForSequenceClassification", {**SMALL, **WORDS}),
    "roberta": ("RobertaForTokenClassification", {**SMALL, **WORDS}),
    "distilbert": ("DistilBertForSequenceClassification", {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24, **WORDS}),
    "gpt2": ("GPT2LMHeadModel", {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32, "vocab_size": 40}),
    "llama": ("LlamaForCausalLM", ONE),
    "llama-tied": ("LlamaForCausalLM", {**ONE, "tie_word_embeddings": True}),
    "qwen2": ("Qwen2ForCausalLM", ONE),
    "qwen3": ("Qwen3ForCausalLM", {**ONE, "head_dim": 8}),
    "mistral": ("MistralForCausalLM", {**ONE, "sliding_window": 4}),
    "gemma": ("GemmaForCausalLM", {**ONE, "head_dim": 8}),
    "gemma2": ("Gemma2ForCausalLM", {**ONE, "head_dim": 8, "sliding_window": 4}),
    "mixtral": ("MixtralForCausalLM", {**ONE, "num_local_experts": 4}),
    "qwen2-moe": ("Qwen2MoeForCausalLM", {**ONE, **EXPERTS, "shared_expert_intermediate_size": 8}),
    "t5": ("T5ForConditionalGeneration", {"d_model": 16, "num_layers": 2, "num_heads": 2, "d_kv": 8, "d_ff": 24, "vocab_size": 40}),
    "vit": ("ViTForImageClassification", {**SMALL, **PICTURE}),
    "swin": ("SwinForImageClassification", {"image_size": 32, "patch_size": 2, "embed_dim": 8, "depths": [1, 2], "num_heads": [1, 2], "window_size": 4}),
    "convnext": ("ConvNextForImageClassification", {"depths": [1, 1, 1, 1], "hidden_sizes": [4, 8, 8, 8]}),
    "segformer": ("SegformerForSemanticSegmentation", {"depths": [1] * 4, "hidden_sizes": [8] * 4, "num_attention_heads": [1] * 4, "decoder_hidden_size": 8}),
    "clip": ("CLIPModel", {}),
    "clip-vision": ("CLIPVisionModelWithProjection", {**SMALL, **PICTURE, "projection_dim": 8}),
    "whisper": ("WhisperForConditionalGeneration", {
        "d_model": 16, "num_mel_bins": 8, "max_source_positions": 16, "max_target_positions": 32, "vocab_size": 40,
        **{f"{side}_{what}": value for side in ("encoder", "decoder")
           for what, value in (("layers", 1), ("attention_heads", 2), ("ffn_dim", 24))}, **SPEAKS}),
}  # fmt: skip
_IMAGES = ("vit", "swin", "convnext", "segformer", "clip-vision")
_KINDS = {"t5": "translated", "whisper": "heard", "clip": "captioned", **dict.fromkeys(_IMAGES, "pixels")}


def transformer(name: str) -> nn.Module:
    import transformers

    family, _, attention = name.partition("/")
    title, sizes = SIDES[family]
    model_class = getattr(transformers, title)
    if family == "clip":
        sizes = {
            "text_config": {**SMALL, **WORDS, "projection_dim": 8, "eos_token_id": 39},
            "vision_config": {**SMALL, **PICTURE, "projection_dim": 8},
            "projection_dim": 8,
        }
    experts = {"experts_implementation": "batched_mm"} if attention.endswith("-batched") else {}
    config = model_class.config_class(**sizes)
    model = model_class._from_config(config, attn_implementation=attention.removesuffix("-batched"), **experts)
    model.config.use_cache = False
    return model  # type: ignore[no-any-return]


for _family in SIDES:
    for _attention in ("eager", *(["sdpa"] if _family not in ("gemma2", "convnext", "segformer") else [])):
        network(_KINDS.get(_family, "sentences"), f"{_family}/{_attention}")(transformer)
network("sentences", "mixtral/eager-batched", "qwen2-moe/eager-batched")(transformer)


@network("sentences", "lora/bert", "lora/llama", "lora/gpt2")
def peft_model(name: str) -> nn.Module:
    import peft

    base = transformer(f"{name.partition('/')[2]}/sdpa")
    where = {"lora/gpt2": ["c_attn"], "lora/bert": ["query", "value"], "lora/llama": ["q_proj", "v_proj"]}[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by old names
        return peft.get_peft_model(base, peft.LoraConfig(r=2, target_modules=where, init_lora_weights=False))


# vision -----------------------------------------------------------------------------------------------------------

TIMM = ["resnet18", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "convnext_atto", "efficientnet_b0",
        "mobilenetv3_small_050", "regnetx_002", "densenet121", "mixer_s32_224", "deit_tiny_patch16_224",
        "maxvit_pico_rw_256", "pvt_v2_b0", "edgenext_xx_small", "repvgg_a0", "levit_128s", "xcit_nano_12_p16_224",
        "mobilevit_xxs", "beit_base_patch16_224", "eva02_tiny_patch14_224", "coat_lite_tiny", "inception_v3", "hrnet_w18_small"]  # fmt: skip


@network("images", *(f"timm/{name}" for name in TIMM))
def timm_model(name: str) -> nn.Module:
    import timm

    name = name.partition("/")[2]
    for sizes in ({"img_size": 64}, {}):
        try:
            return timm.create_model(name, num_classes=3, **sizes)
        except TypeError:
            pass
    raise ValueError(name)


TORCHVISION = ["resnet18", "vgg11_bn", "mobilenet_v3_small", "efficientnet_b0", "convnext_tiny", "vit_b_32", "swin_t",
               "swin_v2_t", "maxvit_t", "densenet121", "shufflenet_v2_x0_5", "regnet_x_400mf", "googlenet",
               "inception_v3", "squeezenet1_0", "mnasnet0_5"]  # fmt: skip


@network("images", *(f"torchvision/{name}" for name in TORCHVISION))
def torchvision_model(name: str) -> nn.Module:
    import torchvision

    name = name.partition("/")[2]
    sizes = {"image_size": 64} if name.startswith("vit") else {}
    return torchvision.models.get_model(name, weights=None, num_classes=3, **sizes)  # type: ignore[no-any-return]


SEGMENTING = ["fcn_resnet50", "deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large"]


@network("images", *(f"torchvision/{name}" for name in SEGMENTING))
def torchvision_segmentation(name: str) -> nn.Module:
    import torchvision

    name = name.partition("/")[2]
    return torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=3)  # type: ignore[no-any-return]


SMP = ["Unet", "UnetPlusPlus", "MAnet", "Linknet", "FPN", "PSPNet", "PAN", "DeepLabV3", "DeepLabV3Plus", "UPerNet",
       "Segformer", "DPT"]  # fmt: skip


@network("images", *(f"smp/{name}" for name in SMP))
def smp_model(name: str) -> nn.Module:
    import segmentation_models_pytorch as smp

    name = name.partition("/")[2]
    encoder = "tu-vit_tiny_patch16_224" if name == "DPT" else "resnet18"
    more = {"dynamic_img_size": True} if name == "DPT" else {}
    return smp.create_model(name, encoder, encoder_weights=None, classes=3, **more)


@network("grey", "nnunet/plain", "nnunet/residual")
def nnunet(name: str) -> nn.Module:
    from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet

    sizes: dict[str, Any] = {
        "input_channels": 1, "n_stages": 3, "features_per_stage": [4, 8, 8], "conv_op": nn.Conv2d, "kernel_sizes": 3,
        "strides": [1, 2, 2], "num_classes": 2, "n_conv_per_stage_decoder": 1, "conv_bias": True,
        "norm_op": nn.InstanceNorm2d, "norm_op_kwargs": {"affine": True}, "nonlin": nn.LeakyReLU,
        "nonlin_kwargs": {"inplace": True},
    }  # fmt: skip
    if name == "nnunet/plain":
        return PlainConvUNet(n_conv_per_stage=1, **sizes)
    return ResidualEncoderUNet(n_blocks_per_stage=1, **sizes)


# torch ------------------------------------------------------------------------------------------------------------


class Read(nn.Module):
    """Words into vectors, a body, and a head; `mask` says where there are words."""

    def __init__(self, body: nn.Module, width: int = 8) -> None:
        super().__init__()
        self.embed, self.body, self.head = nn.Embedding(40, 8), body, nn.Linear(width, 3)


class Recurrent(Read):
    def forward(self, input_ids: Tensor) -> Tensor:
        return self.head(self.body(self.embed(input_ids))[0])


class Packed(Read):
    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        lengths = attention_mask.sum(1).cpu()
        packed = nn.utils.rnn.pack_padded_sequence(self.embed(input_ids), lengths, True, enforce_sorted=False)
        return self.head(self.body(packed)[1][-1])


class PackedHidden(Read):
    """The same of a layer that has no cells beside its states."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        lengths = attention_mask.sum(1).tolist()
        packed = nn.utils.rnn.pack_padded_sequence(self.embed(input_ids), lengths, True, enforce_sorted=False)
        return self.head(self.body(packed)[1][-1])


class Repadded(Read):
    """Packed, and padded again behind the recurrent layers."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        lengths = attention_mask.sum(1).cpu()
        packed = nn.utils.rnn.pack_padded_sequence(self.embed(input_ids), lengths, True, enforce_sorted=False)
        return self.head(nn.utils.rnn.pad_packed_sequence(self.body(packed)[0], batch_first=True)[0])


class Encoded(Read):
    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.head(self.body(self.embed(input_ids), src_key_padding_mask=attention_mask == 0))


@network("sentences", "LSTM", "GRU", "RNN", "LSTM two ways", "GRU two ways", "LSTM packed", "GRU packed two ways",
         "RNN repadded", "LSTM repadded two ways", "TransformerEncoder")  # fmt: skip
def torch_model(name: str) -> nn.Module:
    if name == "TransformerEncoder":
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        return Encoded(nn.TransformerEncoder(layer, 2))
    form, *how = name.split()
    both = "two" in how
    body = getattr(nn, form)(8, 8, num_layers=2, batch_first=True, bidirectional=both)
    if "packed" in how:
        return (PackedHidden if form == "GRU" else Packed)(body)
    return (Repadded if "repadded" in how else Recurrent)(body, 16 if both else 8)


class Pooled(nn.Module):
    """The mean over the words that are there, taken by a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(40, 8), nn.Linear(8, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        rows = zip(self.embed(input_ids), attention_mask, strict=True)
        return self.head(torch.stack([row[mask.bool()].mean(0) for row, mask in rows]))


class Channels(nn.Module):
    """A linear layer over channels that stand last, as in ConvNeXt: wide enough for a fused sum to round otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 256, 8, 8), nn.Linear(256, 64)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stem(x).permute(0, 2, 3, 1).contiguous())


@network("images", "channels last")
def channels(name: str) -> nn.Module:
    return Channels()


@network("sentences", "masked mean")
def pooled(name: str) -> nn.Module:
    return Pooled()


def small_vision() -> nn.Module:
    norm = nn.BatchNorm2d(4)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), norm, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )


@network("images", "exported", "scripted", "traced")
def archived(name: str) -> nn.Module:
    model, example = small_vision().eval(), torch.zeros(2, 3, 64, 64)
    if name == "exported":
        return Unarchived(torch.export.export(model, (example,)).module())
    return Unarchived(torch.jit.script(model) if name == "scripted" else torch.jit.trace(model, example))


class Unarchived(nn.Module):
    """A module from an archive, which may not be put into eval mode once more."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        module.train = module.eval = lambda *_: module
        for part in module.modules():
            part.training = False
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x)  # type: ignore[no-any-return]


SIZES = {"timm/inception_v3": 96, "torchvision/inception_v3": 96, "smp/PAN": 128, "torchvision/maxvit_t": 224}
"""Of images, where 64 pixels are too few."""

# data -------------------------------------------------------------------------------------------------------------


def samples(network: str, count: int = 6) -> list[Any]:
    """Inputs and targets; of sentences the first two are whole, then two are not, then two are whole again."""
    g = torch.Generator().manual_seed(1)
    kind = DATA[network]
    found = []
    for at in range(count):
        words = torch.randint(3, 39, (8,), generator=g)
        mask = (torch.arange(8) < (8 - at if at in (2, 3) else 8)).long()
        image = torch.rand(3, 224, 224, generator=g)
        size = SIZES.get(network, 64)
        sentence = {"input_ids": words, "attention_mask": mask}
        found.append(({
            "sentences": sentence,
            "translated": {**sentence, "decoder_input_ids": words[:4]},
            "heard": {"input_features": torch.rand(8, 32, generator=g), "decoder_input_ids": words[:4]},
            "pixels": {"pixel_values": image[:, :32, :32]},
            "captioned": {**sentence, "pixel_values": image[:, :32, :32]},
            "images": image[:, :size, :size],
            "grey": image[:1, :32, :32],
        }[kind], torch.tensor(at % 3)))  # fmt: skip
    return found


def size(output: Tensor, target: Tensor) -> Tensor:
    """A metric for all of them: nothing is learnt here."""
    return output.double().flatten(1).square().mean(1)


size.direction = "min"  # type: ignore[attr-defined]
