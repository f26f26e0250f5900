"""Models by name: what every source promises, and what a folder of `save_pretrained` says of itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sweeping import prepare
from torch import Tensor, nn

import ckptswap as cs
from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import MismatchError, ModelError
from ckptswap.executors.pool import worker_spec_of
from ckptswap.formats import open_checkpoint
from ckptswap.records import from_json
from ckptswap.scoring.graph import capture
from ckptswap.sweep.rebuild import portion_of, rebuilt
from ckptswap.sweep.spec import SweepSource
from ckptswap.task.loaded import load_model
from ckptswap.task.models.build import build_model, build_named
from ckptswap.task.models.named import model_of
from ckptswap.task.spec import TaskSpec
from ckptswap.task.weights import check_fit, load_into

ENDS = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
DECODER = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2,
           "num_key_value_heads": 1, "vocab_size": 20, "max_position_embeddings": 16, **ENDS}  # fmt: skip
ENCODER = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2,
           "vocab_size": 20, "max_position_embeddings": 16}  # fmt: skip
VISION = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2,
          "image_size": 16, "patch_size": 8}  # fmt: skip
DISTIL = {"dim": 8, "hidden_dim": 12, "n_layers": 1, "n_heads": 2, "vocab_size": 20, "max_position_embeddings": 16}
T5 = {"vocab_size": 20, "d_model": 8, "d_kv": 4, "d_ff": 12, "num_layers": 1, "num_heads": 2,
      "decoder_start_token_id": 0}  # fmt: skip
WHISPER = {"vocab_size": 20, "d_model": 8, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
           "decoder_attention_heads": 2, "encoder_ffn_dim": 12, "decoder_ffn_dim": 12, "max_source_positions": 8,
           "max_target_positions": 8, "num_mel_bins": 4, "decoder_start_token_id": 1, **ENDS}  # fmt: skip

NAMED: dict[str, tuple[str, dict[str, Any]]] = {
    "timm": ("timm:resnet10t", {"num_classes": 2}),
    "timm vit": ("timm:vit_tiny_patch16_224", {"num_classes": 2, "img_size": 32, "embed_dim": 12, "depth": 1}),
    "torchvision": ("torchvision:shufflenet_v2_x0_5", {"num_classes": 2}),
    "torchvision masks": ("torchvision:lraspp_mobilenet_v3_large", {"num_classes": 2}),
    "gpt2": ("transformers:GPT2LMHeadModel",
             {"vocab_size": 20, "n_positions": 16, "n_embd": 8, "n_layer": 1, "n_head": 2, **ENDS}),
    "llama": ("transformers:LlamaForCausalLM", {**DECODER, "tie_word_embeddings": True}),
    "mixtral": ("transformers:MixtralForCausalLM", {**DECODER, "num_local_experts": 2, "num_experts_per_tok": 1}),
    "bert": ("transformers:BertForSequenceClassification", ENCODER),
    "distilbert": ("transformers:DistilBertForSequenceClassification", DISTIL),
    "t5": ("transformers:T5ForConditionalGeneration", T5),
    "vit": ("transformers:ViTForImageClassification", VISION),
    "clip": ("transformers:CLIPModel",
             {"text_config": {**ENCODER, **ENDS}, "vision_config": VISION, "projection_dim": 4}),
    "whisper": ("transformers:WhisperForConditionalGeneration", WHISPER),
}  # fmt: skip
REPLAYED = [name for name, (spec, _) in NAMED.items()]


def inputs_of(name: str) -> Any:
    """Two samples; where a model reads words, the second has fewer."""
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 20, (2, 6), generator=draw)
    words = {"input_ids": ids, "attention_mask": torch.ones_like(ids).index_fill(1, torch.tensor([5]), 0)}
    pixels = torch.rand(2, 3, 16, 16, generator=draw)
    sounds = torch.rand(2, 4, 16, generator=draw)
    return {
        "t5": {**words, "decoder_input_ids": ids},
        "vit": {"pixel_values": pixels},
        "clip": {**words, "pixel_values": pixels},
        "whisper": {"input_features": sounds, "decoder_input_ids": ids},
    }.get(name, words if NAMED[name][0].startswith("transformers") else torch.rand(2, 3, 32, 32, generator=draw))


def run(model: nn.Module, inputs: Any) -> Any:
    return model(**inputs) if isinstance(inputs, dict) else model(inputs)


def output_of(given: Any) -> Tensor:
    if isinstance(given, Tensor):
        return given
    return next(given[key] for key in ("out", "logits", "logits_per_image") if key in given)


def arrays_of(model: nn.Module) -> dict[str, np.ndarray]:
    return {name: value.numpy().copy() for name, value in model.state_dict().items()}


@pytest.fixture(params=NAMED)
def name(request: pytest.FixtureRequest) -> str:
    pytest.importorskip("transformers")
    return request.param


def test_a_model_by_name_loads_its_own_tensors_and_can_be_replayed(name: str) -> None:
    spec, args = NAMED[name]
    torch.manual_seed(0)
    model = build_model(spec, args)
    assert not any(module.training for module in model.modules())
    held = arrays_of(model)
    torch.manual_seed(1)
    again = build_model(spec, args)
    fit = load_into(again, Checkpoint.from_arrays(held))
    assert not fit.kept
    assert not fit.left
    inputs = inputs_of(name)
    with torch.inference_mode():
        assert torch.equal(output_of(run(again, inputs)), output_of(run(model, inputs)))
    assert capture(model, inputs, output_of).steps


@pytest.mark.parametrize(
    ("spec", "args", "message"),
    [
        ("timm:resnet19", {}, "timm has no model 'resnet19': did you mean 'resnet18'"),
        ("timm:hf-hub:someone/net", {}, "timm has no model"),
        ("timm:local-dir:/tmp", {}, "timm has no model"),
        ("timm:resnet18", {"checkpoint_path": "/x"}, "takes no argument 'checkpoint_path' here"),
        ("timm:resnet18", {"pretrained": True}, "takes no argument 'pretrained' here"),
        ("timm:resnet18", {"nmu_classes": 3}, "unexpected keyword argument 'nmu_classes'"),
        ("torchvision:resnt18", {}, "is not one of its models: did you mean 'resnet18'"),
        ("torchvision:fasterrcnn_resnet50_fpn", {}, "gives no classes and no masks"),
        ("torchvision:resnet18", {"weights": "DEFAULT"}, "takes no argument 'weights' here"),
        ("torchvision:resnet18", {"nmu_classes": 3}, "unexpected keyword argument 'nmu_classes'"),
        ("transformers:BertForSequenceClasification", {}, "did you mean 'BertForSequenceClassification'"),
        ("transformers:pipeline", {}, "transformers has no model 'pipeline'"),
        ("transformers:BertModel", {"model_type": "llama"}, "not of the type 'llama'"),
        ("transformers:BertModel", {"hidden_size": 7, "num_attention_heads": 2}, "transformers:BertModel"),
        ("transformers:BertModel", {"auto_map": {"AutoModel": "net.Evil"}}, "names code of its own"),
        ("transformers:DetrModel", {"backbone": "resnet50"}, "takes a part from elsewhere"),
        ("transformers:CLIPModel", {"vision_config": {"auto_map": {"a": "b"}}}, "names code of its own"),
        ("transformers:LlamaModel", {"quantization_config": {"bits": 4}}, "is of a quantised model"),
        ("transformers:TimmWrapperModel", {"architecture": "hf-hub:a/b"}, "takes a part from elsewhere"),
        ("hf:nowhere", {}, "there is no file nowhere/config.json"),
    ],
)
def test_what_cannot_be_built_by_name_is_said_in_a_sentence(
    spec: str, args: Mapping[str, Any], message: str
) -> None:
    pytest.importorskip("transformers")
    with pytest.raises(ModelError, match=message) as caught:
        build_model(spec, args)
    assert "\n" not in str(caught.value)


def test_attention_from_a_hub_is_never_asked_for() -> None:
    """A configuration may name a kernel on a hub, in any of its parts; the plain one is taken."""
    pytest.importorskip("transformers")
    kernel = {"attn_implementation": "someone/kernel", "_attn_implementation_internal": "someone/kernel"}
    spec, args = NAMED["clip"]
    parts = {key: {**value, **kernel} if isinstance(value, dict) else value for key, value in args.items()}
    model = build_model(spec, {**parts, **kernel})
    assert model.config._attn_implementation == "eager"
    assert model.config.text_config._attn_implementation == "eager"


# Folders ---------------------------------------------------------------------------------------------------------

Save = Callable[..., Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Saves a model of transformers by name, its tensors drawn by a seed, into a folder."""
    transformers = pytest.importorskip("transformers")

    def saved(name: str, folder: str, seed: int = 0, **how: Any) -> Path:
        torch.manual_seed(seed)
        spec, args = NAMED[name]
        model_class = getattr(transformers, spec.partition(":")[2])
        model = model_class(model_class.config_class(**{**args, **how.pop("config", {})}))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape))
        model.to(how.pop("dtype", torch.float32)).save_pretrained(tmp_path / folder, **how)
        return tmp_path / folder

    return saved


@pytest.mark.parametrize("name", [name for name, (spec, _) in NAMED.items() if spec.startswith("transformers")])
def test_a_folder_of_transformers_says_what_it_is(name: str, save: Save) -> None:
    transformers = pytest.importorskip("transformers")
    folder = save(name, "net")
    with open_checkpoint(folder) as checkpoint:
        assert checkpoint.format == "transformers folder"
        assert model_of(checkpoint)[0] == NAMED[name][0]
        loaded = load_model(TaskSpec(), checkpoint)
        assert not loaded.fit.kept
        assert not loaded.fit.left
    model_class = getattr(transformers, NAMED[name][0].partition(":")[2])
    theirs = model_class.from_pretrained(folder, attn_implementation="eager").eval()
    inputs = inputs_of(name)
    with torch.inference_mode():
        ours, expected = (output_of(run(model, inputs)) for model in (loaded.model, theirs))
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


def test_old_and_sharded_folders_say_it_too(save: Save) -> None:
    folder = save("bert", "net")
    sharded = save("bert", "sharded", max_shard_size="2KB")
    assert len(list(sharded.glob("*.safetensors"))) > 1
    with open_checkpoint(folder) as whole, open_checkpoint(sharded) as parts:
        assert model_of(whole) == model_of(parts)
        torch.save({name: torch.from_numpy(whole.read(name)) for name in whole}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with open_checkpoint(folder) as old:
        assert model_of(old)[0] == NAMED["bert"][0]
        assert not load_model(TaskSpec(), old).fit.kept


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_is_built_in_the_precision_of_its_file(dtype: torch.dtype, save: Save) -> None:
    folder = save("llama", "net", dtype=dtype)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "dtype": "float32"}))
    with open_checkpoint(folder) as checkpoint:
        for spec in (TaskSpec(), TaskSpec(model=f"hf:{folder}")):
            assert load_model(spec, checkpoint).model.lm_head.weight.dtype == dtype
        assert load_model(TaskSpec(dtype="f32"), checkpoint).model.lm_head.weight.dtype == torch.float32


def test_code_of_a_folder_is_never_run(save: Save) -> None:
    folder = save("bert", "net")
    config = json.loads((folder / "config.json").read_text())
    (folder / "evil.py").write_text("raise SystemExit('run')")
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "evil.Evil"}}))
    with open_checkpoint(folder) as checkpoint:
        with pytest.raises(ModelError, match="names code of its own"):
            load_model(TaskSpec(), checkpoint)
        assert not load_model(TaskSpec(model=f"hf:{folder}"), checkpoint).fit.kept


@pytest.mark.parametrize(
    "config",
    [
        {"num_hidden_layers": 10**9},
        {"vocab_size": 10**12},
        {"hidden_size": 10**6, "num_attention_heads": 1},
    ],
)
def test_a_configuration_of_more_than_the_file_holds_takes_no_memory(
    config: Mapping[str, Any], save: Save
) -> None:
    folder = save("bert", "net")
    own = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**own, **config}))
    with open_checkpoint(folder) as checkpoint, pytest.raises(ModelError, match="needs more numbers than"):
        build_named(checkpoint, None, {})


def test_a_base_model_under_a_head_is_said_and_loaded_in_part(save: Save) -> None:
    """A base model's names lack the head model's prefix; the head itself is not there."""
    folder = save("bert", "net")
    with open_checkpoint(folder) as checkpoint:
        base = {
            name.removeprefix("bert."): checkpoint.read(name) for name in checkpoint if "classifier" not in name
        }
    model = build_model(*NAMED["bert"])
    with pytest.raises(MismatchError, match=r"missing \(classifier.weight, classifier.bias\).*--partial loads"):
        check_fit(model, Checkpoint.from_arrays(base, path="base"))
    fit = load_into(model, Checkpoint.from_arrays(base, path="base"), partial=True)
    assert fit.missing == ("classifier.weight", "classifier.bias")
    assert fit.said is not None
    assert "taken as transformers loads them" in fit.said


def test_buffers_that_old_files_hold_are_left(save: Save) -> None:
    with open_checkpoint(save("bert", "net")) as checkpoint:
        arrays = {name: checkpoint.read(name) for name in checkpoint}
    arrays["bert.embeddings.position_ids"] = np.arange(16)[None]
    old = {name.replace("LayerNorm.weight", "LayerNorm.gamma"): value for name, value in arrays.items()}
    fit = load_into(build_model(*NAMED["bert"]), Checkpoint.from_arrays(old))
    assert not fit.left
    assert not fit.kept


def test_timm_writes_what_it_is(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model("resnet10t", num_classes=3, in_chans=1).eval()
    model.pretrained_cfg = {**model.pretrained_cfg, "input_size": (1, 32, 32)}
    timm.models.save_for_hf(model, tmp_path / "net", safe_serialization=True)
    with open_checkpoint(tmp_path / "net") as checkpoint:
        assert checkpoint.format == "timm folder"
        loaded = load_model(TaskSpec(), checkpoint)
    image = torch.rand(1, 1, 32, 32)
    with torch.inference_mode():
        assert torch.equal(loaded.model(image), model(image))


# The whole command -----------------------------------------------------------------------------------------------

OWN = """
import torch
from torch.nn.functional import cross_entropy

def texts():
    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(3, 20, (9, 6), generator=draw)
    return [({"input_ids": row, "attention_mask": (row > 4).long()}, row.roll(-1)) for row in ids]

def error(output, target):
    return cross_entropy(output.transpose(1, 2), target, reduction="none").mean(1)

error.direction = "min"
"""


@pytest.mark.parametrize("name", ["llama", "mixtral", "gpt2"])
def test_a_sweep_of_two_folders_is_the_plain_loop(
    name: str, save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under the module's names: experts that a file holds one by one are one tensor in the model."""
    transformers = pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(OWN)
    folders = [save(name, side, seed) for seed, side in enumerate("ab")]
    how: dict[str, Any] = {
        "data": "own.py:texts",
        "metric": "own.py:error",
        "output_key": "logits",
        "batch_size": 4,
    }
    result = cs.sweep(*folders, by="tensor", run="run", engine="replay", threads=1, **how)
    model_class = getattr(transformers, NAMED[name][0].partition(":")[2])
    theirs, ours = (model_class.from_pretrained(folder, attn_implementation="eager").eval() for folder in folders)
    own: dict[str, Any] = {}
    exec(OWN, own)
    pairs = own["texts"]()

    def score(state: Mapping[str, Tensor]) -> float:
        model = model_class(ours.config).eval()
        model.load_state_dict(dict(state))
        inputs = {key: torch.stack([given[key] for given, _ in pairs]) for key in pairs[0][0]}
        with torch.inference_mode():
            return own["error"](model(**inputs).logits, torch.stack([target for _, target in pairs])).mean().item()

    state, donor = ours.state_dict(), theirs.state_dict()
    assert result.baseline == pytest.approx(score(state), rel=1e-5)
    places = {key: value.data_ptr() for key, value in state.items()}
    assert {places[key] for row in result.rows for key in row.tensors} == {*places.values()}
    for row in result.rows:
        assert row.status == "measured", row.reason
        taken = {places[key] for key in row.tensors}  # a file has one name of a tied tensor
        swapped = {key: (donor if places[key] in taken else state)[key] for key in state}
        assert row.score == pytest.approx(score(swapped), rel=1e-5), row.tensors


def with_tokenizer(folder: Path) -> Path:
    """A tokenizer of whole words beside the weights: w3 … w19 are the tokens 3 … 19."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {word: at for at, word in enumerate(["<s>", "</s>", "<pad>", *(f"w{at}" for at in range(3, 20))])}
    own = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    own.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=own, pad_token="<pad>").save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_two_folders_a_text_and_a_metric_are_enough(
    name: str, save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transformers = pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    a, b = (with_tokenizer(save(name, side, seed)) for seed, side in enumerate("ab"))
    texts = [[3 + (7 * line + word) % 17 for word in range(4 + line % 3)] for line in range(9)]
    Path("texts.txt").write_text("".join(" ".join(f"w{token}" for token in text) + "\n" for text in texts))
    result = cs.sweep(a, b, data="text:texts.txt", metric="perplexity", run="run", engine="replay")
    model_class = getattr(transformers, NAMED[name][0].partition(":")[2])
    theirs, model = (model_class.from_pretrained(folder).eval() for folder in (a, b))
    state, donor = ({key: value.clone() for key, value in side.state_dict().items()} for side in (model, theirs))
    places = {key: value.data_ptr() for key, value in model.state_dict().items()}

    def score(taken: set[str]) -> float:
        reached = {places[key] for key in taken}
        model.load_state_dict({key: (donor if places[key] in reached else state)[key] for key in state})
        with torch.inference_mode():
            losses = [
                model(ids, labels=ids).loss.double().item() for ids in map(torch.tensor, ([t] for t in texts))
            ]
        return float(np.exp(np.mean(losses)))

    assert result.baseline == pytest.approx(score(set()), rel=1e-5)
    for row in result.rows:
        assert row.status == "measured", row.reason
        assert row.score == pytest.approx(score({*row.tensors}), rel=1e-5), row.tensors


def test_a_grafted_folder_opens_where_its_recipient_did(save: Save, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    a, b = (save("llama", side, seed) for seed, side in enumerate("ab"))
    cs.transplant(a, b, f"{tmp_path / 'c'}/", layers="model.layers.0").close()
    theirs, ours, both = (transformers.LlamaForCausalLM.from_pretrained(tmp_path / side) for side in "abc")
    assert {*ours.state_dict()} == {*both.state_dict()}
    for name, value in both.state_dict().items():
        assert torch.equal(value, (theirs if ".layers.0." in name else ours).state_dict()[name]), name


@pytest.mark.parametrize("wrapped", ["", "a", "ab"])
def test_a_worker_finds_fused_experts_again(
    wrapped: str, save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a wrapper's name stands before those that transformers knows: it is taken off first."""
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(OWN)
    folders = [save("mixtral", side, seed) for seed, side in enumerate("ab")]
    for folder in (folder for folder in folders if folder.name in wrapped):
        place = folder / "model.safetensors"
        save_file({f"module.{name}": value for name, value in load_file(place).items()}, place)
    donor, recipient = map(open_checkpoint, folders)
    spec = TaskSpec(data="own.py:texts", metrics=("own.py:error",), batch_size=4, threads=1)
    proposal = prepare(donor, recipient, spec, by=[("layer",)], run_dir="run")
    order = worker_spec_of(proposal, [proposal.variants])
    order.write()
    inputs = proposal.task.first_inputs()
    here = {score.variant: score.output for score in proposal.scorer.outputs(0, inputs, proposal.variants)}
    common, [shard] = order.common, order.shards
    with rebuilt(from_json(SweepSource, common), proposal.folder) as scorer:
        there = {score.variant: score.output for score in scorer.outputs(0, inputs, portion_of(shard).variants)}
    assert here.keys() == there.keys()
    assert all(torch.equal(output, there[variant]) for variant, output in here.items())


# Real files that differ from their model by little ---------------------------------------------------------------


def fitted(spec: str, args: Mapping[str, Any], arrays: Mapping[str, np.ndarray], **how: Any) -> Any:
    return load_into(build_model(spec, args), Checkpoint.from_arrays(arrays, path="file.pt"), **how)


def test_an_auxiliary_head_that_the_model_lacks_is_left_out_by_the_flag_that_is_named() -> None:
    """torchvision's own files of segmentation hold one, and its models have none unless asked."""
    spec = "torchvision:deeplabv3_mobilenet_v3_large"
    model = build_model(spec, {"num_classes": 2, "aux_loss": True})
    arrays = arrays_of(model)
    with pytest.raises(MismatchError, match=r"unexpected.*--exclude 'aux_classifier\.\*' makes it fit"):
        fitted(spec, {"num_classes": 2}, arrays)
    fit = fitted(spec, {"num_classes": 2}, arrays, exclude=["aux_classifier.*"])
    assert not fit.kept


def test_another_number_of_classes_is_said_with_the_flag_that_loads_the_rest() -> None:
    spec, args = NAMED["timm"]
    arrays = arrays_of(build_model(spec, {**args, "num_classes": 5}))
    with pytest.raises(MismatchError, match=r"fc\.weight: \[5, 512\] in the file.*--partial loads the"):
        fitted(spec, args, arrays)
    fit = fitted(spec, args, arrays, partial=True)
    assert set(fit.kept) == {"fc.weight", "fc.bias"}


@pytest.mark.parametrize("name", ["llama", "bert", "timm", "gpt2"])
@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model._orig_mod.module.", "net.", "state."])
def test_what_wrappers_and_trainers_write_before_names_is_taken_off(name: str, prefix: str) -> None:
    spec, args = NAMED[name]
    arrays = {prefix + key: value for key, value in arrays_of(build_model(spec, args)).items()}
    fit = fitted(spec, args, arrays)
    assert not fit.kept
    assert not fit.left
    assert fit.said is not None


@pytest.mark.parametrize(("name", "base"), [("llama", "model."), ("gpt2", "transformer."), ("bert", "bert.")])
def test_a_base_models_names_are_found_under_any_head(name: str, base: str) -> None:
    spec, args = NAMED[name]
    own = arrays_of(build_model(spec, args))
    arrays = {key.removeprefix(base): value for key, value in own.items() if key.startswith(base)}
    fit = fitted(spec, args, arrays, partial=True)
    assert set(fit.missing) <= {key for key in own if not key.startswith(base)}
    assert len(fit.loaded) == len(arrays)
