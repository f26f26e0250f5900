"""`--map-preset`: GGUF as transformers' own reader gives it; Keras's weights where torch's layers want them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ckptswap as cs
from ckptswap.errors import DependencyError, FormatError, MismatchError, UsageError
from ckptswap.formats import open_checkpoint, write_checkpoint
from ckptswap.formats.hdf5 import LAYERS
from ckptswap.presets import preset_matched

SIZES = {"vocab_size": 16, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
         "num_attention_heads": 4, "num_key_value_heads": 2}  # fmt: skip
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", SIZES | {"attention_bias": True}),
    "qwen2": ("Qwen2ForCausalLM", SIZES),
    "gemma2": ("Gemma2ForCausalLM", SIZES | {"head_dim": 4}),
    "gpt2": ("GPT2LMHeadModel", {"vocab_size": 16, "n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 8,
                                 "bos_token_id": 0, "eos_token_id": 0}),
    "bloom": ("BloomForCausalLM", {"vocab_size": 16, "hidden_size": 16, "n_layer": 2, "n_head": 4}),
    "mamba": ("MambaForCausalLM", {"vocab_size": 16, "hidden_size": 16, "num_hidden_layers": 2, "state_size": 4}),
}  # fmt: skip
TURNED = ("attn_qkv.weight", "attn_output.weight", "ffn_up.weight", "ffn_down.weight")


def network(architecture: str) -> Any:
    transformers = pytest.importorskip("transformers")
    name, args = NETWORKS[architecture]
    return getattr(transformers, name)(getattr(transformers, name).config_class(**args))


def gguf_file(architecture: str, net: Any, path: Path) -> Path:
    """A file with random values of the shapes that a conversion gives."""
    gguf = pytest.importorskip("gguf")
    number = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    table, random = gguf.get_tensor_name_map(number, 2), np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(2)
    writer.add_head_count(4)
    if "num_key_value_heads" in NETWORKS[architecture][1]:
        writer.add_head_count_kv(2)
    writer.add_embedding_length(16)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([f"t{at}" for at in range(16)])
    for name, tensor in net.state_dict().items():
        spellings = (name, name.partition(".")[2])
        own = next(
            filter(None, (table.get_name(each, try_suffixes=(".weight", ".bias")) for each in spellings)), None
        )
        if own is not None:
            values = -np.abs(random.normal(size=tensor.shape).astype("f4"))
            is_turned = architecture == "gpt2" and own.endswith(TURNED)
            values = values.T if is_turned else values[:, 0] if "conv1d.weight" in own else values
            writer.add_tensor(own, np.ascontiguousarray(values))
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        write()
    writer.close()
    return path


@pytest.mark.parametrize("architecture", NETWORKS)
def test_gguf_is_what_transformers_makes_of_it(architecture: str, tmp_path: Path) -> None:
    """Names, shapes and values; llama's permuted rows, gpt2's turned matrices, the norms of gemma among them."""
    net = network(architecture)
    path = gguf_file(architecture, net, tmp_path / "m.gguf")
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    wanted = load_gguf_checkpoint(path, return_tensors=True, model_to_load=net)["tensors"]
    with open_checkpoint(path) as file:
        [found, _], [told] = preset_matched("hf-gguf", [file, cs.open(net)])
        assert sorted(found) == sorted(wanted)
        for name, tensor in wanted.items():
            assert np.array_equal(found.read(name), tensor.numpy()), name
        assert f"{len(found)} of {len(found)} tensors" in told
        assert ("put back from llama.cpp's layout" in told) == (architecture != "qwen2")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`m.gguf`, `hf.safetensors` with transformers' names and other values, `same.safetensors` with the file's."""
    folder = tmp_path_factory.mktemp("llama")
    net = network("llama")
    gguf_file("llama", net, folder / "m.gguf")
    cs.save(net, folder / "hf.safetensors")
    cs.transplant(folder / "m.gguf", folder / "hf.safetensors", folder / "same.safetensors", map_preset="hf-gguf")
    return folder


def test_both_ways_and_in_pieces(llama: Path) -> None:
    gguf, same = llama / "m.gguf", llama / "same.safetensors"
    assert not cs.diff(gguf, same, map_preset="hf-gguf").differs
    assert not cs.diff(same, gguf, map_preset="hf-gguf").differs
    with open_checkpoint(gguf) as file:
        [found, reference], _ = preset_matched("hf-gguf", [file, cs.open(same)])
        for name in ("model.layers.1.self_attn.k_proj.weight", "model.layers.0.self_attn.q_proj.bias"):
            assert b"".join(part.tobytes() for part in found[name].chunks(12)) == reference.read(name).tobytes()


def test_only_what_is_taken_changes(llama: Path) -> None:
    hf = llama / "hf.safetensors"
    variant = cs.transplant(llama / "m.gguf", hf, kind="attn.q.weight", map_preset="hf-gguf")
    changed = {row.name for row in cs.diff(variant, hf).rows if row.status == "changed"}
    assert changed == {f"model.layers.{at}.self_attn.q_proj.weight" for at in (0, 1)}


def test_presets_used_wrong(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gguf, hf = llama / "m.gguf", llama / "hf.safetensors"
    with pytest.raises(UsageError, match="there is no preset 'gguf-hf' of names: use hf-gguf or keras-torch"):
        cs.diff(hf, gguf, map_preset="gguf-hf")
    for one, two in ((hf, hf), (gguf, gguf)):
        with pytest.raises(UsageError, match="two sorts of files"):
            cs.diff(one, two, map_preset="hf-gguf")
    with pytest.raises(MismatchError, match="tables"):
        cs.diff({"w": np.ones(2)}, gguf, map_preset="hf-gguf")
    for facts in (
        {},
        {"general.architecture": "llama"},
        {"general.architecture": "nobody", "nobody.block_count": "2"},
    ):
        with open_checkpoint(gguf) as file, pytest.raises(FormatError, match="how many blocks"):
            preset_matched("hf-gguf", [file.holding((), metadata=facts), cs.open(hf)])
    facts = {"general.architecture": "llama", "llama.block_count": "2"}
    for heads, message in (({}, "how many heads"), ({"llama.attention.head_count": "7"}, "not fit its name")):
        with open_checkpoint(gguf) as file, pytest.raises(FormatError, match=message):
            preset_matched("hf-gguf", [file.holding((), metadata=facts | heads), cs.open(hf)])
    with open_checkpoint(gguf) as file:
        monkeypatch.setitem(sys.modules, "gguf", None)
        with pytest.raises(DependencyError, match="gguf is not installed"):
            preset_matched("hf-gguf", [file, cs.open(hf)])


def keras_file(path: Path, groups: dict[str, np.ndarray], layers: dict[str, str] | None = None) -> Path:
    """HDF5 as Keras 3 writes it (`…/vars/0`, layers' names as attributes), or as Keras 2 did."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        for name, array in groups.items():
            file[name] = array
        for name, layer in (layers or {}).items():
            file.require_group(f"{name}/vars").attrs["name"] = layer
    return path


def filled(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype("f4")


CONV, DENSE, EACH, BIAS = filled(3, 2, 5, 4), filled(6, 7), filled(3, 3, 4, 2), filled(4)
GRU, CELL, TWO = filled(4, 9), filled(3, 9), filled(2, 9)


def reset_first(rows: np.ndarray) -> np.ndarray:
    return np.concatenate([rows[3:6], rows[:3], rows[6:]])


WANTED = {
    "stem.weight": CONV.transpose(3, 2, 0, 1), "stem.bias": BIAS, "each.weight": EACH.reshape(3, 3, 8).T.reshape(
        8, 3, 3).swapaxes(1, 2)[:, None], "each.bias": filled(8),
    "bn.weight": filled(4), "bn.bias": filled(4) + 1, "bn.running_mean": filled(4) + 2,
    "bn.running_var": filled(4) + 3,
    "head.fc.weight": DENSE.T, "head.fc.bias": filled(7), "gru.weight_ih_l0": reset_first(GRU.T),
    "gru.weight_hh_l0": reset_first(CELL.T), "gru.bias_ih_l0": reset_first(TWO[0]),
    "gru.bias_hh_l0": reset_first(TWO[1]),
}  # fmt: skip
BN = [filled(4) + at for at in range(4)]
KERAS_3 = (
    {
        "layers/conv2d/vars/0": CONV, "layers/conv2d/vars/1": BIAS, "layers/depthwise_conv2d_1/vars/0": EACH,
        "layers/depthwise_conv2d_1/vars/1": filled(8),
        **{f"layers/batch_normalization/vars/{at}": part for at, part in enumerate(BN)},
        "layers/functional_1/layers/dense/vars/0": DENSE, "layers/functional_1/layers/dense/vars/1": filled(7),
        **{f"layers/gru/cell/vars/{at}": part for at, part in enumerate((GRU, CELL, TWO))},
    },
    {"layers/conv2d": "stem", "layers/depthwise_conv2d_1": "each", "layers/batch_normalization": "bn",
     "layers/functional_1": "head", "layers/functional_1/layers/dense": "fc", "layers/gru": "gru",
     "layers/gru/cell": "gru_cell"},
)  # fmt: skip
KERAS_2 = {
    "stem/stem/kernel:0": CONV, "stem/stem/bias:0": BIAS, "each/each/depthwise_kernel:0": EACH,
    "each/each/bias:0": filled(8), "bn/bn/gamma:0": BN[0], "bn/bn/beta:0": BN[1], "bn/bn/moving_mean:0": BN[2],
    "bn/bn/moving_variance:0": BN[3], "head/fc/kernel:0": DENSE, "head/fc/bias:0": filled(7),
    "gru/gru/gru_cell/kernel:0": GRU, "gru/gru/gru_cell/recurrent_kernel:0": CELL, "gru/gru/gru_cell/bias:0": TWO,
}  # fmt: skip


@pytest.mark.parametrize("of_keras_3", [True, False])
def test_keras_as_torch_has_it(of_keras_3: bool, tmp_path: Path) -> None:
    """Both of Keras's ways to write a file, against the layout that Keras 3.15 and torch compute the same with."""
    path = keras_file(tmp_path / "a.weights.h5", *(KERAS_3 if of_keras_3 else (KERAS_2,)))
    torch_file = write_checkpoint(cs.open(WANTED), tmp_path / "b.safetensors")
    found = cs.diff(path, torch_file, map_preset="keras-torch")
    assert {row.name for row in found.rows if row.status == "identical"} == WANTED.keys()
    assert {row.status for row in found.rows} <= {"identical", "only_a"}
    with open_checkpoint(path) as file:
        assert (LAYERS in file.metadata) == of_keras_3
        [renamed, _], [told] = preset_matched("keras-torch", [file, cs.open(torch_file)])
        assert renamed["stem.weight"].kind == "conv.weight"
        assert "turned round, (in, out) to (out, in)" in told


def test_a_kernel_is_turned_as_the_other_side_has_it(tmp_path: Path) -> None:
    """Without a bias, and by a name alone, each channel for itself and a convolution are told by torch's shape;
    a dense kernel of three axes, as in attention, is none of them."""
    kernel, attention = filled(3, 3, 4, 1), filled(8, 2, 4)
    path = keras_file(tmp_path / "a.h5", {"c/kernel": kernel, "q/kernel": attention, "q/bias": filled(2, 4)})
    for shape, wanted in {
        (4, 1, 3, 3): kernel.transpose(2, 3, 0, 1),
        (1, 4, 3, 3): kernel.transpose(3, 2, 0, 1),
    }.items():
        with open_checkpoint(path) as file:
            [found, _], _ = preset_matched("keras-torch", [file, cs.open({"c.weight": np.zeros(shape, "f4")})])
            assert np.array_equal(found.read("c.weight"), wanted)
            assert np.array_equal(found.read("q.weight"), attention)


def test_recurrent_layers_that_torch_has_not_keep_their_names(tmp_path: Path) -> None:
    """Such as ConvLSTM2D; and a file whose kernels fit nothing is refused."""
    convolved = {"r/kernel": filled(3, 3, 2, 16), "r/recurrent_kernel": filled(3, 3, 4, 16), "d/kernel": DENSE}
    path = keras_file(tmp_path / "a.h5", convolved)
    with open_checkpoint(path) as file:
        [found, _], _ = preset_matched("keras-torch", [file, cs.open({"d.weight": DENSE.T})])
        assert set(found) == {"r.kernel", "r.recurrent_kernel", "d.weight"}
    path = keras_file(tmp_path / "b.h5", {"r/kernel": filled(4, 8), "r/recurrent_kernel": CELL})
    with open_checkpoint(path) as file, pytest.raises(FormatError, match=r"r\.kernel of .*b\.h5 is \[4, 8\]"):
        preset_matched("keras-torch", [file, cs.open({"d.weight": DENSE.T})])


def test_a_sweep_takes_it_and_select_says_it_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names alone would not turn the kernel round, so that the command to copy has the preset."""
    torch = pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    net = torch.nn.Sequential(torch.nn.Linear(3, 3))
    cs.save(net, "r.safetensors")
    kernel = net[0].weight.detach().numpy().T + np.float32(1e-6)
    keras_file(Path("d.h5"), {"0/kernel": kernel, "0/bias": net[0].bias.detach().numpy()})
    samples = [(torch.full((3,), float(at)), torch.zeros(3)) for at in range(8)]
    table = cs.sweep("d.h5", "r.safetensors", model=net, data=samples, metric="mse", tolerance=1.0, run="run",
                     by="kind", map_preset="keras-torch")  # fmt: skip
    assert {row.kind: round(row.rmse, 7) for row in table.rows} == {"linear.weight": 1e-06, "linear.bias": 0}
    choice = cs.select("run", donor="d.h5", recipient="r.safetensors", model=net, data=samples)
    assert choice.maps == (("--map-preset", "keras-torch"),)
