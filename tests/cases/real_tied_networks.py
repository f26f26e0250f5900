"""Networks of real packages some of whose tensors have several names, and ways to write them to files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from every_command import Pair
from plain import run_file
from safetensors.torch import save_file, save_model
from torch import Tensor, nn

SOURCE = '''
import torch
from torch import nn

ENDS = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
WORDS = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2,
         "vocab_size": 17, "max_position_embeddings": 8}


class Answers(nn.Module):
    """A network of transformers that gives a score for each word."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, ids):
        how = {"attention_mask": torch.ones_like(ids), "use_cache": False}
        if self.model.config.is_encoder_decoder:
            how["decoder_input_ids"] = ids
        if "use_cache" not in type(self.model).forward.__code__.co_varnames:
            how.pop("use_cache")
        return self.model(input_ids=ids, **how).logits


def t5():
    from transformers import T5Config, T5ForConditionalGeneration

    return Answers(T5ForConditionalGeneration(T5Config(
        vocab_size=17, d_model=8, d_kv=4, d_ff=12, num_layers=1, num_heads=2, decoder_start_token_id=0)))


def bert():
    from transformers import BertConfig, BertForMaskedLM

    return Answers(BertForMaskedLM(BertConfig(**WORDS, attn_implementation="eager")))


def albert():
    """Its layers are run twice with the same weights."""
    from transformers import AlbertConfig, AlbertForMaskedLM

    sizes = {**WORDS, "num_hidden_layers": 2}
    return Answers(AlbertForMaskedLM(AlbertConfig(**sizes, embedding_size=6, attn_implementation="eager")))


def bart():
    from transformers import BartConfig, BartForConditionalGeneration

    sizes = {f"{side}_{what}": value for side in ("encoder", "decoder")
             for what, value in (("layers", 1), ("attention_heads", 2), ("ffn_dim", 12))}
    return Answers(BartForConditionalGeneration(BartConfig(
        vocab_size=17, d_model=8, max_position_embeddings=8, attn_implementation="eager", **sizes, **ENDS)))


class Attention(nn.Module):
    """One attention under two names, and another that has its projection."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(17, 8)
        self.first = nn.MultiheadAttention(8, 2, batch_first=True)
        self.again, self.last = self.first, nn.MultiheadAttention(8, 2, batch_first=True)
        self.last.in_proj_weight = self.first.in_proj_weight
        self.head = nn.Linear(8, 17)

    def forward(self, ids):
        x = self.embed(ids)
        for layer in (self.first, self.again, self.last):
            x = x + layer(x, x, x, need_weights=False)[0]
        return self.head(x)


class WordModel(nn.Module):
    """PyTorch's own word_language_model example with --tied."""

    def __init__(self):
        super().__init__()
        self.encoder, self.rnn = nn.Embedding(17, 6), nn.LSTM(6, 6, 2, batch_first=True)
        self.decoder = nn.Linear(6, 17)
        self.decoder.weight = self.encoder.weight

    def forward(self, ids):
        return self.decoder(self.rnn(self.encoder(ids))[0])


class Transposed(nn.Module):
    """A decoder whose weight is a view of the encoder's: its transpose."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(17, 5), nn.Linear(5, 17)
        self.decoder.weight = nn.Parameter(self.encoder.weight.detach().T)

    def forward(self, ids):
        return self.decoder(torch.tanh(self.encoder(nn.functional.one_hot(ids, 17).float())))


class Same(nn.Module):
    """A parametrisation that gives another layer's weight."""

    def __init__(self, source):
        super().__init__()
        self.source = source

    def forward(self, _):
        return self.source.weight


class Parametrised(nn.Module):
    """A head that is the embedding by a parametrisation, which registers the embedding again."""

    def __init__(self):
        super().__init__()
        self.embed, self.mid = nn.Embedding(17, 6), nn.utils.parametrizations.spectral_norm(nn.Linear(6, 6))
        self.head = nn.Linear(6, 17, bias=False)
        nn.utils.parametrize.register_parametrization(self.head, "weight", Same(self.embed))

    def forward(self, ids):
        return self.head(torch.tanh(self.mid(self.embed(ids))))


class Staged(nn.Module):
    """timm's network beside a list of its stages, which is what runs."""

    def __init__(self):
        import timm

        super().__init__()
        self.backbone = timm.create_model("resnet10t", num_classes=0, in_chans=1, stem_width=4,
                                          channels=(4, 4, 4, 4))
        self.stages = nn.ModuleList([getattr(self.backbone, f"layer{at}") for at in (1, 2)])
        self.stem = nn.Sequential(self.backbone.conv1, self.backbone.bn1, self.backbone.act1)
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, x):
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return self.head(x)


class Segmenter(nn.Module):
    """smp's network as a LightningModule often keeps it: the encoder by a name of its own, too."""

    def __init__(self):
        import segmentation_models_pytorch as smp

        super().__init__()
        self.net = smp.Unet("resnet18", encoder_depth=3, decoder_channels=(4, 4, 4), encoder_weights=None,
                            in_channels=1, classes=2)
        self.backbone, self.heads = self.net.encoder, nn.ModuleDict({"mask": self.net.segmentation_head})

    def forward(self, x):
        return self.heads["mask"](self.net.decoder(self.backbone(x)))


def attention():
    return Attention()


def word_model():
    return WordModel()


def transposed():
    return Transposed()


def parametrised():
    return Parametrised()


def staged():
    return Staged()


def segmenter():
    return Segmenter()


def texts():
    ids = torch.randint(3, 17, (9, 6), generator=torch.Generator().manual_seed(1))
    return [(row, row.roll(-1)) for row in ids]


def images():
    draw = torch.Generator().manual_seed(1)
    return [(x, torch.rand(1, generator=draw)) for x in torch.rand(9, 1, 16, 16, generator=draw)]


def error(output, target):
    """Of words the cross entropy, of images how far their mean is off."""
    if output.shape[:2] == target.shape:
        return nn.functional.cross_entropy(output.transpose(1, 2), target, reduction="none").mean(1)
    return (torch.sigmoid(output.flatten(1)).mean(1) - target.flatten()).square() + output.flatten(1).std(1)


error.direction = "min"
'''
IMAGES = ("staged", "segmenter")
NEEDS = {"t5": "transformers", "bert": "transformers", "albert": "transformers", "bart": "transformers",
         "staged": "timm", "segmenter": "segmentation_models_pytorch"}  # fmt: skip
BATCH = 5
Write = Callable[[nn.Module, str], None]


def built(model: str) -> nn.Module:
    network: nn.Module = run_file("net.py")[model]()
    return network.eval()


def filled(model: str, seed: int) -> nn.Module:
    """The network with no value that it begins with."""
    torch.manual_seed(seed)
    network = built(model)
    with torch.no_grad():
        for value in dict.fromkeys((*network.parameters(), *network.buffers())):
            value.add_(torch.rand(value.shape) / 4 if value.is_floating_point() else 0)
    return network


def score_of(model: str) -> Callable[[nn.Module], float]:
    """The mean over samples, the whole network run on every batch."""
    names = run_file("net.py")
    samples = names["images" if model in IMAGES else "texts"]()

    def score(network: nn.Module) -> float:
        scores: list[float] = []
        for at in range(0, len(samples), BATCH):
            inputs, targets = (torch.stack(part) for part in zip(*samples[at : at + BATCH], strict=True))
            scores += names["error"](network(inputs), targets).double().tolist()
        return sum(scores) / len(scores)

    return score


def pair_of(model: str, write: Write, suffix: str) -> Pair:
    """Files of two networks of `net.py`, which is written to the current folder."""
    Path("net.py").write_text(SOURCE, "utf-8")
    states: dict[str, dict[str, Tensor]] = {}
    for name, seed in (("a", 5), ("b", 6)):
        network = filled(model, seed)
        write(network, f"{name}{suffix}")
        states[name] = {key: value.clone() for key, value in network.state_dict().items()}
    data = "net.py:images" if model in IMAGES else "net.py:texts"
    task = ("--model", f"net.py:{model}", "--data", data, "--metric", "net.py:error", "--batch-size", BATCH,
            "--threads", 1)  # fmt: skip
    return Pair(
        f"a{suffix}",
        f"b{suffix}",
        states["b"],
        states["a"],
        lambda: built(model),
        score_of(model),
        task,
    )


def as_pickle(network: nn.Module, path: str) -> None:
    torch.save(network.state_dict(), path)


def apart(network: nn.Module, path: str) -> None:
    """Every name with bytes of its own, as a script writes that knows of no ties."""
    contiguous = torch.contiguous_format
    save_file({name: value.clone(memory_format=contiguous) for name, value in network.state_dict().items()}, path)


def one_name(network: nn.Module, path: str) -> None:
    """safetensors' own way: one name of each tensor."""
    save_model(network, path)


def first_name(network: nn.Module, path: str) -> None:
    """The same for what safetensors cannot look at: a transposed view."""
    first: dict[int, str] = {}
    state = network.state_dict()
    for name, value in state.items():
        first.setdefault(value.untyped_storage().data_ptr(), name)
    save_file({name: state[name].clone() for name in first.values()}, path)
