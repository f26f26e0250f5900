"""Training: the same bits again, a shared initialisation, and what it refuses."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ckptswap.errors import CkptswapError, DataError, FileError, ModelError, TaskError, UsageError
from ckptswap.formats import open_checkpoint
from ckptswap.lab import data
from ckptswap.lab.train import load_samples, soft_dice_loss, train
from ckptswap.lab.trainspec import TrainSpec

SMALL = TrainSpec(
    "segment", model_args={"width": 2, "depth": 1}, data="lab:tiny", steps=3, batch_size=2, threads=1
)


class Tiny:
    """Six noisy discs of 16 × 16; `classes` > 2 adds classes."""

    def __init__(self, classes: int = 2) -> None:
        rng = np.random.default_rng(0)
        self.masks = rng.integers(0, classes, (6, 16, 16))
        self.images = (self.masks[:, None] / classes + rng.normal(0, 0.1, (6, 1, 16, 16))).astype(np.float32)

    def __len__(self) -> int:
        return 6

    def __getitem__(self, at: int) -> tuple[np.ndarray, np.ndarray]:
        return self.images[at], self.masks[at]


class Broken(Tiny):
    def __init__(self) -> None:
        super().__init__()
        self.images[:] = np.nan


@pytest.fixture(autouse=True)
def _tiny_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "DATASETS", {"tiny": Tiny, "broken": Broken})


def arrays(path: Path) -> dict[str, np.ndarray]:
    with open_checkpoint(path) as checkpoint:
        return {name: checkpoint.read(name) for name in checkpoint}


@pytest.mark.parametrize("task", ["segment", "reconstruct"])
@pytest.mark.parametrize("model", ["lab:unet", "lab:pspnet"])
def test_the_same_spec_gives_the_same_bits(tmp_path: Path, task: str, model: str) -> None:
    spec = replace(SMALL, task=task, model=model, model_args={"width": 2})
    one = train(spec, tmp_path / "one.safetensors")
    torch.manual_seed(99)
    two = train(spec, tmp_path / "two.safetensors")
    assert one.losses == two.losses
    assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "two.safetensors").read_bytes()
    train(replace(spec, seed=1), tmp_path / "three.safetensors")
    assert not np.array_equal(
        arrays(tmp_path / "one.safetensors")["head.weight"], arrays(tmp_path / "three.safetensors")["head.weight"]
    )


def test_training_follows_a_plain_loop(tmp_path: Path) -> None:
    from ckptswap.lab.networks import build

    train(SMALL, tmp_path / "a.safetensors", save_init=tmp_path / "init.safetensors")
    state = {name: torch.from_numpy(array) for name, array in arrays(tmp_path / "init.safetensors").items()}
    network, tiny = build("unet", width=2, depth=1), Tiny()
    network.load_state_dict(state)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(0)).tolist()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for at in (0, 2, 4):
        optimizer.param_groups[0]["lr"] = 3e-3 * (1 - at / 6)
        batch = order[at : at + 2]
        target = torch.from_numpy(tiny.masks[batch]).float()
        logits = network(torch.from_numpy(tiny.images[batch]))[:, 0]
        p = torch.sigmoid(logits)
        dice = (2 * (p * target).sum() + 1) / (p.sum() + target.sum() + 1)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, target) + 1 - dice
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.set_num_threads(threads)
    for name, array in arrays(tmp_path / "a.safetensors").items():
        np.testing.assert_allclose(network.state_dict()[name].numpy(), array, atol=1e-5, err_msg=name)


def test_mni_trains_on_its_training_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "DATASETS", {"mni": data.mni})
    assert torch.equal(load_samples(replace(SMALL, data="lab:mni")).images, data.mni("train").images)


def test_the_loss_falls(tmp_path: Path) -> None:
    losses = train(replace(SMALL, steps=40, lr=0.05), tmp_path / "a.safetensors").losses
    assert len(losses) == 40
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5])


def test_metadata_says_what_it_is(tmp_path: Path) -> None:
    train(replace(SMALL, seed=7), tmp_path / "a.safetensors", save_init=tmp_path / "init.safetensors")
    with open_checkpoint(tmp_path / "a.safetensors") as checkpoint:
        said = checkpoint.metadata
    assert (said["ckptswap.model"], said["ckptswap.seed"], said["ckptswap.step"]) == ("lab:unet", "7", "3")
    assert json.loads(said["ckptswap.task"]) == {"name": "segment", "target": "masks"}
    assert json.loads(said["ckptswap.model_args"]) == {"in_channels": 1, "classes": 1, "width": 2, "depth": 1}
    with open_checkpoint(tmp_path / "init.safetensors") as checkpoint:
        assert checkpoint.metadata["ckptswap.step"] == "0"


def test_two_tasks_share_an_initialisation(tmp_path: Path) -> None:
    init = tmp_path / "init.safetensors"
    train(SMALL, tmp_path / "a.safetensors", save_init=init)
    other = replace(SMALL, task="reconstruct", seed=5)
    again = tmp_path / "again.safetensors"
    result = train(other, tmp_path / "b.safetensors", init_from=init, save_init=again)
    assert result.kept == ()
    for name, array in arrays(init).items():
        np.testing.assert_array_equal(arrays(again)[name], array)
    with open_checkpoint(init) as start, open_checkpoint(tmp_path / "b.safetensors") as checkpoint:
        assert checkpoint.metadata["ckptswap.init_from"] == start.sha256()


def test_what_does_not_fit_an_initialisation_is_kept_and_named(tmp_path: Path) -> None:
    init = tmp_path / "init.safetensors"
    train(replace(SMALL, data_args={"classes": 3}), tmp_path / "a.safetensors", save_init=init)
    assert train(SMALL, tmp_path / "b.safetensors", init_from=init).kept == ("head.weight", "head.bias")


def test_an_initialisation_of_another_network_is_refused(tmp_path: Path) -> None:
    train(replace(SMALL, model="lab:pspnet", model_args={"width": 3}), tmp_path / "a.safetensors")
    with pytest.raises(ModelError, match="no parameter that fits"):
        train(
            replace(SMALL, data_args={"classes": 3}),
            tmp_path / "b.safetensors",
            init_from=tmp_path / "a.safetensors",
        )


def test_smp_models_take_their_channels_from_the_data(tmp_path: Path) -> None:
    args = {"encoder_name": "resnet18", "encoder_depth": 3, "decoder_channels": [8, 4, 4]}
    spec = replace(SMALL, model="smp:Unet", model_args=args, data_args={"classes": 3}, steps=1)
    train(spec, tmp_path / "a.safetensors")
    with open_checkpoint(tmp_path / "a.safetensors") as checkpoint:
        assert json.loads(checkpoint.metadata["ckptswap.model_args"])["classes"] == 3
        assert checkpoint["segmentation_head.0.weight"].shape[0] == 3
        assert checkpoint["encoder.conv1.weight"].shape[1] == 1


def test_a_folder_of_images_and_masks(tmp_path: Path) -> None:
    tiny = Tiny()
    for name, pixels in (("images", tiny.images[:, 0].clip(0, 1) * 255), ("masks", tiny.masks * 255)):
        (tmp_path / "scans" / name).mkdir(parents=True)
        for at, each in enumerate(pixels):
            Image.fromarray(each.astype(np.uint8)).save(tmp_path / "scans" / name / f"{at}.png")
    result = train(replace(SMALL, data=str(tmp_path / "scans")), tmp_path / "a.safetensors")
    assert result.samples == 6


def test_progress_hears_every_step(tmp_path: Path) -> None:
    heard: list[tuple[int, float]] = []
    result = train(SMALL, tmp_path / "a.safetensors", progress=lambda step, loss: heard.append((step, loss)))
    assert heard == list(enumerate(result.losses, start=1))


def test_a_file_in_the_way_is_refused_before_training(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_text("mine")
    with pytest.raises(FileError, match="--force"):
        train(SMALL, tmp_path / "a.safetensors", progress=lambda step, loss: pytest.fail("it trained"))
    train(SMALL, tmp_path / "a.safetensors", force=True)
    assert len(arrays(tmp_path / "a.safetensors")) > 10


def test_an_interrupt_leaves_nothing(tmp_path: Path) -> None:
    def stop(step: int, loss: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(SMALL, tmp_path / "a.safetensors", progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_the_callers_generator_and_threads_stay_as_they_were(tmp_path: Path) -> None:
    torch.manual_seed(3)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    train(SMALL, tmp_path / "a.safetensors")
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads


def test_a_loss_that_is_no_number_is_said(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="nan at step 1"):
        train(replace(SMALL, data="lab:broken"), tmp_path / "a.safetensors")
    assert list(tmp_path.iterdir()) == []


Change = Callable[[TrainSpec], TrainSpec]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda s: replace(s, task="segmnt"), UsageError, "did you mean 'segment'"),
        (lambda s: replace(s, steps=0), UsageError, "steps is 0"),
        (lambda s: replace(s, batch_size=0), UsageError, "batch_size is 0"),
        (lambda s: replace(s, lr=float("nan")), UsageError, "lr is nan"),
        (lambda s: replace(s, seed=-1), UsageError, "seed is -1"),
        (lambda s: replace(s, model="net.py:build"), ModelError, "lab:unet"),
        (lambda s: replace(s, model="lab:unett"), ModelError, "did you mean 'unet'"),
        (lambda s: replace(s, model_args={"depth": 5}), ModelError, "cannot train on a batch of 2×1×16×16"),
        (lambda s: replace(s, model_args={"classes": 3}, task="reconstruct"), ModelError, "is wanted"),
        (lambda s: replace(s, data_args={"classes": 4}, model_args={"classes": 2}), DataError, "classes=4"),
        (lambda s: replace(s, data="lab:mnni"), DataError, "no data 'mnni'"),
    ],
)
def test_what_makes_no_sense_is_refused(
    tmp_path: Path, change: Change, error: type[CkptswapError], message: str
) -> None:
    with pytest.raises(error, match=message):
        train(change(SMALL), tmp_path / "a.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_ignored_pixels_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Marked(Tiny):
        def __init__(self, value: int) -> None:
            super().__init__()
            self.masks[:, :4] = 0
            self.images[:, :, :4] = 0.0
            self.masks[:, :4] = value

    monkeypatch.setitem(data.DATASETS, "marked", Marked)  # type: ignore[arg-type, call-overload]
    spec = replace(SMALL, data="lab:marked", steps=1)
    for classes in (1, 2):
        of = replace(spec, model_args={**SMALL.model_args, "classes": classes})
        first, second = (
            train(
                replace(of, data_args={"value": value}, ignore=value), tmp_path / f"{classes}-{value}.safetensors"
            )
            for value in (7, 255)
        )
        assert first.losses == second.losses
        counted = train(replace(of, data_args={"value": 1}), tmp_path / f"{classes}-counted.safetensors")
        assert counted.losses != first.losses


def test_soft_dice_by_hand() -> None:
    logits, target = torch.tensor([0.0, 0.0]), torch.tensor([1.0, 0.0])
    assert soft_dice_loss(logits, target).item() == pytest.approx(1 - (2 * 0.5 + 1) / (1 + 1 + 1))


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_frozen_kinds_stay_and_the_others_move(tmp_path: Path, optimizer: str) -> None:
    init, out = tmp_path / "i.safetensors", tmp_path / "o.safetensors"
    train(replace(SMALL, optimizer=optimizer, freeze=("conv.bias", "bn.affine")), out, save_init=init)
    before, after = arrays(init), arrays(out)
    with open_checkpoint(out) as checkpoint:
        kinds = {name: entry.kind for name, entry in checkpoint.items()}
    same = {name for name in before if np.array_equal(before[name], after[name])}
    assert same == {name for name, kind in kinds.items() if kind in ("conv.bias", "bn.weight", "bn.bias")}


def test_a_bias_before_batch_norm_moves_by_rounding_only_under_sgd(tmp_path: Path) -> None:
    """It has no gradient: what it adds, batch norm takes away. (AdamW moves it all the same.)"""
    moved = {}
    for optimizer in ("sgd", "adamw"):
        init, out = tmp_path / "i.safetensors", tmp_path / "o.safetensors"
        train(replace(SMALL, steps=20, optimizer=optimizer), out, save_init=init, force=True)
        before, after = arrays(init), arrays(out)
        moved[optimizer] = np.abs(after["encoder.0.conv1.bias"] - before["encoder.0.conv1.bias"]).max()
        assert np.abs(after["head.bias"] - before["head.bias"]).max() > 1e-4, "it has no batch norm behind it"
    assert moved["sgd"] < 1e-6
    assert moved["adamw"] > 1e-3


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"optimizer": "sgdd"}, "did you mean 'sgd'"),
        ({"freeze": ("conv.bia",)}, "did you mean 'conv.bias'"),
        ({"freeze": ("bn.running_mean",)}, "trains no parameter"),
        ({"freeze": ("*",)}, "nothing to train"),
    ],
)
def test_what_cannot_be_trained_so(tmp_path: Path, changed: dict, words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)):
        train(replace(SMALL, **changed), tmp_path / "o.safetensors")
    assert not (tmp_path / "o.safetensors").exists()
