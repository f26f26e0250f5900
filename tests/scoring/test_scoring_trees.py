"""Inputs and targets of several tensors, from the data to a sweep's scores: equal in all bits to a plain loop."""

from __future__ import annotations

from collections import UserDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from plain import plain_outputs
from sweeping import prepare, ran, sweep

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import DataError, MetricError, UsageError
from ckptswap.formats import open_checkpoint
from ckptswap.scoring.recalibration import fingerprint, load_calibration
from ckptswap.scoring.variant import RECIPIENT, Calibration
from ckptswap.sweep.run_folder.folder import RunFolder
from ckptswap.task import TaskSpec, load_task
from ckptswap.task.data import load_data
from ckptswap.task.metrics import load_metrics
from ckptswap.task.tree import tree_of

SOURCE = """
import torch
from torch import nn


class Masked(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.norm, self.two = nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.Conv2d(3, 1, 1)

    def forward(self, image, mask):
        return self.two(torch.relu(self.norm(self.one(torch.cat([image, mask.to(image)[:, None]], 1)))))


class Named(Masked):
    def forward(self, image, mask, *, scale):
        return super().forward(image, mask) * scale[:, None, None, None]


def bert():
    from transformers import BertConfig, BertForSequenceClassification

    sizes = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24)
    return BertForSequenceClassification(BertConfig(vocab_size=40, max_position_embeddings=16, **sizes))


def llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24)
    config = LlamaConfig(vocab_size=40, max_position_embeddings=16, attn_implementation="eager", **sizes)
    config.use_cache = False
    return LlamaForCausalLM(config)


def draw():
    return torch.Generator().manual_seed(0)


def pairs(samples=11):
    g = draw()
    return [((torch.rand(1, 8, 8, generator=g), torch.rand(8, 8, generator=g) > 0.5),
             torch.rand(1, 8, 8, generator=g)) for _ in range(samples)]


def named(samples=11, names=("mask", "scale", "image", "file"), target=None):
    found = []
    for at, ((image, mask), truth) in enumerate(pairs(samples)):
        whole = {"image": image, "mask": mask, "scale": 1.0 + at, "file": f"{at}.png"}
        found.append(({name: whole[name] for name in names}, target or {"truth": truth, "name": f"t{at}"}))
    return found


def batches(samples=11):
    for start in range(0, samples, 4):
        part = pairs(samples)[start : start + 4]
        images, masks = (torch.stack([item[0][at] for item in part]) for at in (0, 1))
        yield [images, masks], torch.stack([item[1] for item in part])


def tokens(samples=11, square=False):
    g, found = draw(), []
    for at in range(samples):
        mask = (torch.arange(8) < 8 - at % 3).long()
        words = {"input_ids": torch.randint(0, 40, (8,), generator=g), "attention_mask": mask}
        if square:
            words["attention_mask"] = mask.bool().expand(1, 8, 8)
        found.append((words, at % 2))
    return found


def squares(samples=11):
    return tokens(samples, square=True)


def error(output, target):
    truth = target["truth"] if isinstance(target, dict) else target
    if isinstance(target, dict):
        assert target["name"][0][0] == "t"
    return (output - truth).double().square().mean(dim=(1, 2, 3))


def surprise(output, target):
    last = output.double().reshape(len(output), -1, output.shape[-1])[:, -1]
    return -last.log_softmax(-1).gather(1, target[:, None])[:, 0]


class Whole(Named):
    def forward(self, batch):
        return super().forward(batch["image"], batch["mask"], scale=batch["scale"])


def alone(samples=11):
    whole = []
    for at, ((image, mask), truth) in enumerate(pairs(samples)):
        inputs = {"image": image, "mask": mask, "scale": torch.tensor(1.0 + at)}
        whole.append({**inputs, "labels": truth, "index": at, "file": f"{at}.png"})
    return whole


def alone_batches(samples=11):
    from torch.utils.data import DataLoader

    return DataLoader(alone(samples), batch_size=4)


error.direction = surprise.direction = "min"
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "trees.py"
    path.write_text(SOURCE)
    return path


def task_of(own: Path, model: str, data: str, metric: str, **more: Any) -> TaskSpec:
    return TaskSpec(
        model=f"{own}:{model}", data=f"{own}:{data}", metrics=(f"{own}:{metric}",), batch_size=4, threads=1, **more
    )


def saved(own: Path, model: str, seed: int) -> Checkpoint:
    namespace: dict[str, Any] = {}
    exec(own.read_text(), namespace)
    torch.manual_seed(seed)
    state = namespace[model]().state_dict()
    path = own.with_name(f"{model}{seed}.pt")
    torch.save({name: value + 0.05 * torch.randn_like(value) if value.is_floating_point() else value
                for name, value in state.items()}, path)  # fmt: skip
    return open_checkpoint(path)


@pytest.mark.parametrize(
    ("model", "data", "metric", "key"),
    [
        ("Masked", "pairs", "error", None),
        ("Masked", "batches", "error", None),
        ("Named", "named", "error", None),
        ("Named", "alone", "error", None),
        ("Whole", "alone_batches", "error", None),
        ("bert", "squares", "surprise", "logits"),
        ("bert", "tokens", "surprise", "logits"),
        ("llama", "tokens", "surprise", "logits"),
    ],
)
def test_a_sweep_by_replay_equals_the_plain_loop_bit_for_bit(own: Path, model, data, metric, key) -> None:
    spec = task_of(own, model, data, metric, output_key=key)
    donor, recipient = saved(own, model, 1), saved(own, model, 0)
    proposal = prepare(
        donor, recipient, spec, by=[("kind",), ("layer",)], run_dir=own.with_name("run"), engine="replay"
    )
    ran(proposal, tolerance=0.1)
    blocks = RunFolder(own.with_name("run")).read_blocks(proposal.conditions)
    task = load_task(spec, recipient)
    targets = [batch.targets for batch in task.batches()]
    pick = (lambda found: found.logits) if key else (lambda found: found)
    variants = [RECIPIENT, *proposal.variants]
    assert len(variants) > 8
    for variant in variants:
        outputs = plain_outputs(task, donor, recipient, variant.names, pick)
        for number, (output, target) in enumerate(zip(outputs, targets, strict=True)):
            block = blocks[variant.id, number]
            assert block.engine == ("full" if variant == RECIPIENT else "replay")
            expected = load_metrics(spec)[0].per_sample(output, target)
            assert block.statistics[spec.metrics[0]].tobytes() == expected.tobytes(), variant.names
    assert proposal.scorer.notes == []


def test_a_dict_alone_holds_its_labels_and_names_that_no_argument_has_are_left_out(own: Path) -> None:
    spec = task_of(own, "Named", "alone", "error")
    task, pairs = (
        load_task(spec, saved(own, "Named", 0)),
        load_task(replace(spec, data=f"{own}:named"), saved(own, "Named", 0)),
    )
    assert task.warnings == ("the model has no argument index, which is left out of what it is given",)
    assert pairs.warnings == ()
    batch, other = next(task.batches()), next(pairs.batches())
    assert set(batch.inputs) == {"image", "mask", "scale", "index"}
    assert torch.equal(batch.targets, other.targets["truth"])
    assert torch.equal(task.forward(batch.inputs), pairs.forward(other.inputs))


def test_control_flow_on_a_padding_mask_is_replayed_with_guards(own: Path) -> None:
    """transformers' encoders look whether anything is masked, which each batch is asked again."""
    spec = task_of(own, "bert", "tokens", "surprise", output_key="logits")
    proposal = prepare(
        saved(own, "bert", 1), saved(own, "bert", 0), spec, by=[("kind",)], run_dir="unused", engine="replay"
    )
    assert proposal.scorer.notes == []
    answers = {tuple(replay.graph.guards.values()) for replay in proposal.scorer._replays.values()}
    assert answers == {("False",), ("True",)}, "whether all words are there"


# Data -----------------------------------------------------------------------------------------------------------


def data_of(own: Path, data: str = "named", **args: Any) -> Any:
    return load_data(replace(task_of(own, "Named", data, "error"), data_args=args))


def test_the_order_of_a_dicts_keys_changes_no_hash(own: Path) -> None:
    names = ["mask", "scale", "image", "file"]
    assert data_of(own, names=names).fingerprint() == data_of(own, names=names[::-1]).fingerprint()
    assert data_of(own, names=names).fingerprint() != data_of(own, names=names[:3]).fingerprint()


def test_what_is_plain_stays_with_the_data(own: Path) -> None:
    inputs = next(data_of(own).batches()).inputs
    assert {name: tuple(part.shape) for name, part in inputs.items()} == {
        "image": (4, 1, 8, 8), "mask": (4, 8, 8), "scale": (4,)
    }  # fmt: skip
    [first, *_] = [batch.targets["name"] for batch in data_of(own).batches()]
    assert sorted(first) != first
    assert all(name.startswith("t") for name in first)


def test_a_mapping_of_any_class_is_a_dict() -> None:
    given = UserDict({"b": np.zeros(2), "a": [1, 2]})
    made = tree_of(given, "here")
    assert list(made) == ["a", "b"]
    assert made["a"].dtype == torch.int64


@pytest.mark.parametrize(
    "value", [object(), {"x": object()}, {1: torch.zeros(1)}, {"name": "a"}, "a", ("a", None)]
)
def test_what_holds_no_tensor_is_refused(value: object, tmp_path: Path) -> None:
    from ckptswap.task.data.readers import NumberedReader

    source = NumberedReader("here", [(value, torch.zeros(1))], TaskSpec(threads=1))
    with pytest.raises(DataError, match="sample 0 of here holds"):
        list(source.first())


def test_batches_whose_parts_have_other_numbers_of_samples(own: Path) -> None:
    own.write_text(
        SOURCE + "\ndef odd():\n    yield {'a': torch.zeros(2, 1), 'b': torch.zeros(3)}, torch.zeros(2)\n"
    )
    with pytest.raises(DataError, match=r"has \[2, 3, 2\] inputs, targets and groups"):
        data_of(own, "odd")


@pytest.mark.parametrize("names", [["a"], ["a", "b", "c"]])
def test_texts_of_a_batch_are_one_for_each_sample(own: Path, names: list[str]) -> None:
    own.write_text(SOURCE + f"\ndef odd():\n    yield torch.zeros(2, 1), {names}\n")
    with pytest.raises(DataError, match=rf"has \[2, {len(names)}\] inputs, targets and groups"):
        data_of(own, "odd")


def test_what_holds_itself_is_refused() -> None:
    endless: list[object] = [torch.zeros(1)]
    endless.append(endless)
    with pytest.raises(DataError, match="nested too deep"):
        tree_of(endless, "here")


def test_a_limit_and_a_small_memory(own: Path) -> None:
    spec = replace(task_of(own, "Named", "named", "error"), limit=6)
    kept, again = load_data(spec), load_data(spec, memory=0)
    assert kept.samples == 6
    assert kept.fingerprint() == again.fingerprint()
    for one, other in zip(kept.batches(), again.batches(), strict=True):
        assert all(torch.equal(one.inputs[name], other.inputs[name]) for name in one.inputs)


def test_normalizing_is_for_one_tensor(own: Path) -> None:
    with pytest.raises(UsageError, match=r"sample 0 of .* has \{file: Plain, image: \[1, 8, 8\]"):
        load_data(replace(task_of(own, "Named", "named", "error"), normalize="0/1"))


@pytest.mark.parametrize("metric", ["mse", "iou"])
def test_our_metrics_take_one_tensor(own: Path, metric: str) -> None:
    spec = replace(task_of(own, "Named", "named", "error"), metrics=(metric,))
    task = load_task(spec, saved(own, "Named", 0))
    with pytest.raises(MetricError, match=rf"{metric} compares with one tensor, and the target is \{{name"):
        task.measure()


# Statistics estimated anew --------------------------------------------------------------------------------------


def test_recalibrated_variants_of_several_inputs(own: Path) -> None:
    spec = task_of(own, "Masked", "pairs", "error")
    donor, recipient = saved(own, "Masked", 1), saved(own, "Masked", 0)
    other = own.with_name("other.py")
    other.write_text(SOURCE.replace("manual_seed(0)", "manual_seed(1)"))
    calibration = Calibration(2, f"{other}:pairs")
    result = sweep(
        donor,
        recipient,
        spec,
        by=[("kind",)],
        run_dir=own.with_name("run"),
        calibration=calibration,
        tolerance=0.1,
    )
    assert all(row.recalibrated is not None for row in result.rows if row.kind == "conv.weight")
    task = load_task(spec, recipient)
    first, second = load_calibration(calibration, task)
    assert fingerprint([first, second]) != fingerprint([second, first])
    with pytest.raises(UsageError, match="are also in the calibration data"):
        load_calibration(Calibration(1, spec.data), task)


def test_one_tensors_hash_is_what_it_was() -> None:
    """Runs of earlier versions keep the hash of their data."""
    import hashlib

    from ckptswap.task.data.readers import DecodedSample

    image, mask = torch.arange(4.0).reshape(1, 2, 2), torch.tensor([[0, 1], [1, 0]])
    kind = (((1, 2, 2), torch.float32), ((2, 2), torch.int64))
    expected = hashlib.sha256(repr(kind).encode() + image.numpy().tobytes() + mask.numpy().tobytes()).digest()
    sample = DecodedSample.of(image, mask, ())
    assert (sample.kind, sample.digest) == (kind, expected)
