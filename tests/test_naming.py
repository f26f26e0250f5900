"""Layers and kinds of the names that real modules give their tensors."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
import torchvision
from core_samples import NAMES
from hypothesis import given
from hypothesis import strategies as st
from test_linear import calls
from torch import nn
from torch.nn.utils import parametrizations

from ckptswap import naming, roles
from ckptswap.checkpoint import Checkpoint
from ckptswap.entries import NAME_MOST
from ckptswap.naming import ALIASES, classify, natural_key, split_name


def kinds(module: nn.Module) -> dict[str, str]:
    """Kinds of a module's tensors, by the names they have when it is called 'm'."""
    found = classify({f"m.{name}": tuple(tensor.shape) for name, tensor in module.state_dict().items()})
    return {name.removeprefix("m."): kind for name, (_, kind) in found.items()}


def old_weight_norm(module: nn.Module, name: str = "weight") -> nn.Module:
    with pytest.warns(FutureWarning, match="weight_norm"):
        return nn.utils.weight_norm(module, name)


AFFINE = ("weight", "bias")
MODULES: list[tuple[Callable[[], nn.Module], dict[str, str]]] = [
    *((make, {role: f"conv.{role}" for role in AFFINE}) for make in (
        lambda: nn.Conv1d(2, 3, 3), lambda: nn.Conv2d(2, 3, 3), lambda: nn.Conv3d(2, 3, 3),
        lambda: nn.ConvTranspose1d(2, 3, 3), lambda: nn.ConvTranspose2d(2, 3, 3),
        lambda: nn.ConvTranspose3d(2, 3, 3))),
    (lambda: nn.Conv2d(2, 3, 1, bias=False), {"weight": "conv.weight"}),
    (lambda: nn.Linear(2, 3), {role: f"linear.{role}" for role in AFFINE}),
    *((make, {role: f"norm.{role}" for role in AFFINE}) for make in (
        lambda: nn.LayerNorm(4), lambda: nn.LayerNorm((3, 4)), lambda: nn.LayerNorm((2, 3, 4)),
        lambda: nn.GroupNorm(2, 4), lambda: nn.InstanceNorm2d(4, affine=True))),
    *((make, {role: f"bn.{role}" for role in (*AFFINE, "running_mean", "running_var", "num_batches_tracked")})
      for make in (lambda: nn.BatchNorm1d(4), lambda: nn.BatchNorm2d(4), lambda: nn.SyncBatchNorm(4))),
    (lambda: nn.BatchNorm2d(4, affine=False),
     {role: f"bn.{role}" for role in ("running_mean", "running_var", "num_batches_tracked")}),
    (lambda: nn.BatchNorm2d(4, track_running_stats=False), {role: f"norm.{role}" for role in AFFINE}),
    (lambda: nn.PReLU(), {"weight": "prelu.weight"}),
    (lambda: nn.RMSNorm(4), {"weight": "norm.weight"}),
    (lambda: old_weight_norm(nn.Conv2d(2, 3, 3)),
     {"bias": "conv.bias", "weight_g": "conv.weight_g", "weight_v": "conv.weight_v"}),
    (lambda: old_weight_norm(nn.Linear(2, 3)),
     {"bias": "linear.bias", "weight_g": "linear.weight_g", "weight_v": "linear.weight_v"}),
    (lambda: parametrizations.weight_norm(nn.Conv1d(2, 3, 3)),
     {"bias": "conv.bias", "parametrizations.weight.original0": "conv.weight_g",
      "parametrizations.weight.original1": "conv.weight_v"}),
    (lambda: nn.utils.spectral_norm(nn.Conv2d(2, 3, 3)),
     {"bias": "conv.bias", "weight_orig": "conv.weight_orig", "weight_u": "conv.spectral_u",
      "weight_v": "conv.spectral_v"}),
    (lambda: parametrizations.spectral_norm(nn.Linear(2, 3)),
     {"bias": "linear.bias", "parametrizations.weight.original": "linear.weight_orig",
      "parametrizations.weight.0._u": "linear.spectral_u", "parametrizations.weight.0._v": "linear.spectral_v"}),
    (lambda: nn.LSTM(2, 3, 2, bidirectional=True, proj_size=2),
     {f"{role}_l{at}{way}": f"rnn.{role}" for role in ("weight_ih", "weight_hh", "weight_hr", "bias_ih", "bias_hh")
      for at in (0, 1) for way in ("", "_reverse")}),
    *((make, {f"{role}{end}": f"rnn.{role}" for role in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")})
      for make, end in (
          (lambda: nn.GRU(2, 3), "_l0"), (lambda: nn.RNN(2, 3), "_l0"), (lambda: nn.LSTMCell(2, 3), ""))),
    (lambda: old_weight_norm(nn.GRU(2, 3, bias=False), "weight_hh_l0"),
     {"weight_ih_l0": "rnn.weight_ih", "weight_hh_l0_g": "rnn.weight_hh_g", "weight_hh_l0_v": "rnn.weight_hh_v"}),
    (lambda: nn.MultiheadAttention(4, 2),
     {"in_proj_weight": "attn.qkv.weight", "in_proj_bias": "attn.qkv.bias",
      "out_proj.weight": "attn.o.weight", "out_proj.bias": "attn.o.bias"}),
    (lambda: nn.MultiheadAttention(4, 2, kdim=3, vdim=5, add_bias_kv=True, bias=False),
     {**{f"{part}_proj_weight": f"attn.{part}.weight" for part in "qkv"}, "bias_k": "attn.bias_k",
      "bias_v": "attn.bias_v", "out_proj.weight": "attn.o.weight"}),
]  # fmt: skip


@pytest.mark.parametrize(("make", "expected"), MODULES)
def test_kinds_of_torch_modules(make: Callable[[], nn.Module], expected: dict[str, str]) -> None:
    assert kinds(make()) == expected


@pytest.mark.parametrize(
    "name", ["emb", "embed", "tok_embeddings", "embed_tokens", "wte", "wpe", "Embedding", "emb2"]
)
def test_an_embedding_is_told_by_its_name(name: str) -> None:
    assert classify({f"net.{name}.weight": (10, 4)})[f"net.{name}.weight"] == (f"net.{name}", "embedding.weight")


@pytest.mark.parametrize("name", ["fc", "member", "embedder_out", "time_embed"])
def test_a_linear_layer_is_none(name: str) -> None:
    shapes = {f"{name}.weight": (10, 4), f"{name}.bias": (10,)}
    assert classify(shapes)[f"{name}.weight"][1] == "linear.weight"


def by_module(model: nn.Module) -> Iterator[tuple[str, tuple[str, str]]]:
    """What the modules' classes say of each tensor."""
    families = {nn.modules.batchnorm._BatchNorm: "bn", nn.modules.conv._ConvNd: "conv", nn.Linear: "linear"}
    for layer, module in model.named_modules():
        family = next((word for kind, word in families.items() if isinstance(module, kind)), None)
        own = {**dict(module.named_parameters(recurse=False)), **dict(module.named_buffers(recurse=False))}
        for role in own:
            yield f"{layer}.{role}", (layer, f"{family}.{role}")


@pytest.mark.parametrize(
    "make",
    [
        torchvision.models.resnet18,
        lambda: smp.Unet("resnet18", encoder_weights=None),
        lambda: smp.PSPNet("vgg11_bn", encoder_weights=None),
    ],
    ids=["resnet18", "unet", "pspnet"],
)
def test_names_alone_tell_what_the_classes_tell(make: Callable[[], nn.Module]) -> None:
    with torch.device("meta"):
        model = make()
    found = classify({name: tuple(tensor.shape) for name, tensor in model.state_dict().items()})
    assert found == dict(by_module(model))


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("scale", ("", "scale")), ("", ("", "")), ("a.", ("a", "")), (".a", ("", "a")),
        ("parametrizations.weight.original0", ("", "weight_g")),
        ("n\nl.parametrizations.weight.0._u", ("n\nl", "weight_u")),
        ("rnn.parametrizations.weight_hh_l0.original1", ("rnn", "weight_hh_l0_v")),
        ("c.parametrizations.weight.0.base", ("c.parametrizations.weight.0", "base")),
    ],
)  # fmt: skip
def test_names_are_split(name: str, place: tuple[str, str]) -> None:
    assert split_name(name) == place


@pytest.mark.parametrize(
    ("shapes", "kind"),
    [
        ({"m.pos_embed": (1, 5, 4)}, "other.pos_embed"), ({"m.weight": ()}, "other.weight"),
        ({"m.weight": (1,) * 6}, "other.weight"), ({"m.bias": (3,)}, "other.bias"),
        ({"m.weight_mask": (3, 3), "m.weight_orig": (3, 3)}, "other.weight_mask"),
    ],
)  # fmt: skip
def test_what_says_nothing_is_other(shapes: dict[str, tuple[int, ...]], kind: str) -> None:
    assert next(iter(classify(shapes).values())) == ("m", kind)


@given(st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=8), st.lists(st.integers(0, 4)).map(tuple)))
def test_any_name_has_a_place(shapes: dict[str, tuple[int, ...]]) -> None:
    found = classify(shapes)
    assert list(found) == list(shapes)
    assert all("." in kind for _, kind in found.values())


def test_aliases() -> None:
    assert ALIASES["bn.stats"] == ("bn.running_mean", "bn.running_var")
    assert set(ALIASES) == {"bn.stats", "bn.affine"}


def test_numbers_count_as_numbers() -> None:
    names = ["a", "a1", "a1b", "a2", "a10", "a10.b2", "a10.b10", "a" + "9" * 5000, "a1" + "0" * 5000, "b"]
    shuffled = names[1::2] + names[::2]
    assert sorted(shuffled, key=natural_key) == names


@given(st.integers(0, 10**30), st.integers(0, 10**30))
def test_any_two_numbers_are_in_order(a: int, b: int) -> None:
    assert (natural_key(f"layer{a}.w") < natural_key(f"layer{b}.w")) == (a < b)


@given(st.text("a01.²٣", max_size=6), st.text("a01.²٣", max_size=6))
def test_the_order_is_total(a: str, b: str) -> None:
    assert (natural_key(a) == natural_key(b)) == (a == b)
    assert (natural_key(a) < natural_key(b)) != (natural_key(b) <= natural_key(a))


class Counted:
    """A pattern of ours, so that `sys.setprofile` sees each use of it."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self.fullmatch = lambda *where: pattern.fullmatch(*where)


ODD_NETWORKS: dict[str, Callable[[int], list[str]]] = {
    "one module of many tensors": lambda count: ["weight", *(f"x{at}" for at in range(count))],
    "an MLP of many numbers": lambda count: ["h.attn.q.weight", *(f"h.mlp.{at}.weight" for at in range(count))],
    "many MLPs": lambda count: ["h.attn.q.weight", *(f"h.mlp_{at}.0.weight" for at in range(count))],
    "rows in rows": lambda count: [f"x{at}.{'a.1.' * (count // 4)}fc.weight" for at in range(4)],
}


@pytest.mark.parametrize("network", ODD_NETWORKS)
def test_work_grows_with_the_tensors_whatever_they_are_called(
    network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for room, names in (
        (naming, ("_MARKS", "_QUANTISED")),
        (roles, ("ATTENTION", "MLP")),
    ):
        for name in names:
            monkeypatch.setattr(room, name, Counted(getattr(room, name)))
    few, many = (dict.fromkeys(ODD_NETWORKS[network](count), (4, 4)) for count in (40, 400))
    counts = [calls(lambda shapes=shapes: placed(shapes)) for shapes in (few, many)]
    assert counts[1] < 12 * counts[0]


@pytest.mark.parametrize("role", ["weight_{}-", "weight_{}", "lora_{}", "weight.quant_state.{}-"])
def test_a_role_is_read_once_however_often_its_words_are_said(role: str) -> None:
    def seconds(times: int) -> float:
        name = f"a.{role.format('scale' * times)}"
        begin = time.process_time()
        placed({"a.qweight": (4, 4), name: (4, 4)})
        return time.process_time() - begin

    few, many = (min(seconds(times) for _ in range(3)) for times in (200, 2000))
    assert many < 40 * few  # a square would take a hundred times as long


@pytest.mark.parametrize(
    "part", ["default.", "base_layer.", "a.1.", "parametrizations.", "attn.", "weight.", "9."]
)
def test_a_name_may_be_as_long_as_names_may_be(part: str) -> None:
    name = f"{part * ((NAME_MOST - 6) // len(part))}weight"
    assert Checkpoint.from_arrays({name: np.zeros((2, 2))})[name].numel == 4


def placed(shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Everything that names tell."""
    naming.blocks_of({name: layer for name, (layer, _) in classify(shapes).items()}, shapes)
    naming.quantised(shapes)
