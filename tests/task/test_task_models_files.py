"""Models that files hold: Lightning's checkpoints, exported programs, scripts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import ckptswap as cs
from ckptswap.errors import ModelError, UsageError
from ckptswap.formats import open_checkpoint
from ckptswap.task.libraries import code_hashes
from ckptswap.task.loaded import load_model
from ckptswap.task.models.build import build_model
from ckptswap.task.models.named import model_of
from ckptswap.task.spec import TaskSpec

LIT = """
import torch
from lightning import LightningModule
from torch import nn


class Net(LightningModule):
    def __init__(self, width=2, kernel=(3, 3), lr=0.1, loss=None):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Conv2d(1, width, kernel, padding=1), nn.BatchNorm2d(width), nn.Dropout(0.5),
                                 nn.ReLU(), nn.Conv2d(width, 2, 1))

    def forward(self, x):
        return self.net(x)


def images():
    draw = torch.Generator().manual_seed(0)
    return [(x, (x[0] > 0.5).long()) for x in torch.rand(9, 1, 8, 8, generator=draw)]


def error(output, target):
    return nn.functional.cross_entropy(output, target, reduction="none").flatten(1).mean(1)


error.direction = "min"
"""


class Net(nn.Module):
    """What the file's class holds, without Lightning."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.Dropout(0.5), nn.ReLU(),
                                 nn.Conv2d(3, 2, 1))  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


Save = Callable[..., Path]


@pytest.fixture
def save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Save:
    """Saves a network drawn by a seed as Lightning does, with these hyperparameters."""
    monkeypatch.chdir(tmp_path)
    Path("lit.py").write_text(LIT)

    def saved(name: str, seed: int, **hyperparameters: Any) -> Path:
        torch.manual_seed(seed)
        held = {"width": 3, "kernel": (3, 3), "lr": 0.01, "loss": None, **hyperparameters}
        content = {"state_dict": Net().state_dict(), "epoch": 1, "pytorch-lightning_version": "2.6.6",
                   "hparams_name": "kwargs", "hyper_parameters": held}  # fmt: skip
        torch.save(content, tmp_path / name)
        return tmp_path / name

    return saved


def the_plain_loop(result: Any, a: Path, b: Path) -> None:
    """Every row is what `load_state_dict` and a whole pass give."""
    own: dict[str, Any] = {}
    exec(LIT.replace("from lightning import LightningModule", "LightningModule = object"), own)
    pairs = own["images"]()
    images, masks = (torch.stack(part) for part in zip(*pairs, strict=True))
    donor, state = (torch.load(path, weights_only=False)["state_dict"] for path in (a, b))

    def score(values: dict[str, torch.Tensor]) -> float:
        model = Net().eval()
        model.load_state_dict(values)
        with torch.inference_mode():
            return own["error"](model(images), masks).mean().item()

    assert result.baseline == pytest.approx(score(state), rel=1e-6)
    measured = [row for row in result.rows if row.status == "measured"]
    assert len(measured) >= 4
    for row in measured:
        taken = {key: (donor if key in row.tensors else state)[key] for key in state}
        assert row.score == pytest.approx(score(taken), rel=1e-6), row.tensors


def test_a_file_of_lightning_is_swept_by_the_name_of_its_class(save: Save) -> None:
    pytest.importorskip("lightning")
    a, b = save("a.ckpt", 1), save("b.ckpt", 2)
    result = cs.sweep(a, b, by="tensor", model="lightning:lit.py:Net", data="lit.py:images", metric="lit.py:error",
                      run="run", threads=1, batch_size=4, engine="replay")  # fmt: skip
    the_plain_loop(result, a, b)


def test_a_graft_loads_as_lightning_loads_its_recipient(save: Save) -> None:
    pytest.importorskip("lightning")
    a, b = save("a.ckpt", 1), save("b.ckpt", 2, lr=0.5)
    cs.transplant(a, b, "graft.ckpt", kind="conv.bias").close()
    own: dict[str, Any] = {"__name__": "lit"}
    exec(LIT, own)
    loaded = own["Net"].load_from_checkpoint("graft.ckpt", weights_only=False)
    assert loaded.hparams.lr == 0.5
    donor, recipient = (torch.load(path, weights_only=False) for path in (a, b))
    kinds = {entry.name: entry.kind for entry in cs.open(b).values()}
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, (donor if kinds[name] == "conv.bias" else recipient)["state_dict"][name])
    assert torch.load("graft.ckpt", weights_only=False).keys() == recipient.keys()


def test_hyperparameters_are_the_files_where_nothing_else_is_said(save: Save) -> None:
    pytest.importorskip("lightning")
    with open_checkpoint(save("a.ckpt", 1)) as checkpoint:
        loaded = load_model(TaskSpec(model="lightning:lit.py:Net"), checkpoint)
        assert loaded.spec.model_args == {"width": 3, "kernel": [3, 3], "lr": 0.01, "loss": None}
        assert code_hashes(loaded.spec).keys() == {"lightning:lit.py:Net"}
        told = TaskSpec(model="lightning:lit.py:Net", model_args={"lr": 1.0})
        assert load_model(told, checkpoint).model.hparams.lr == 1.0


def test_hyperparameters_that_are_objects_are_refused_by_name(save: Save) -> None:
    pytest.importorskip("lightning")
    path = save("a.ckpt", 1, loss=torch.device("cpu"), elsewhere=torch.device("cpu"))
    with open_checkpoint(path) as checkpoint:
        spec = TaskSpec(model="lightning:lit.py:Net")
        with pytest.raises(
            ModelError, match=r"as objects, which are not built: loss \(torch\.device\): give these"
        ):
            load_model(spec, checkpoint)
        assert load_model(spec.merge({"model-args": "loss=None"}), checkpoint).fit.loaded


def test_what_lies_beside_the_hyperparameters_is_told_in_time(save: Save) -> None:
    pytest.importorskip("lightning")
    with open_checkpoint(save("a.ckpt", 1, width={"a": [1, {"b": 2}]})) as checkpoint:
        with pytest.raises(ModelError, match=r"lightning:lit\.py:Net"):
            load_model(TaskSpec(model="lightning:lit.py:Net"), checkpoint)
        with pytest.raises(ModelError, match=r"lit\.py has no 'Nett': did you mean 'Net'"):
            load_model(TaskSpec(model="lightning:lit.py:Nett"), checkpoint)


# Exported programs and scripts -----------------------------------------------------------------------------------


@pytest.fixture
def files(save: Save, tmp_path: Path) -> tuple[Path, Path]:
    """Two checkpoints, and beside them their network, exported and scripted."""
    net, image = Net().eval(), (torch.rand(4, 1, 8, 8),)
    program = torch.export.export(net, image, dynamic_shapes=({0: torch.export.Dim("samples")},))
    torch.export.save(program, tmp_path / "net.pt2")
    torch.jit.save(torch.jit.script(net), tmp_path / "net.pt")
    torch.export.save(torch.export.export(Net(), image), tmp_path / "training.pt2")
    return save("a.ckpt", 1), save("b.ckpt", 2)


OWN = LIT.replace("from lightning import LightningModule", "LightningModule = object")


@pytest.mark.parametrize("spec", ["export:net.pt2", "script:net.pt"])
def test_a_file_with_a_network_is_swept(spec: str, files: tuple[Path, Path]) -> None:
    Path("own.py").write_text(OWN)
    result = cs.sweep(*files, by="tensor", model=spec, data="own.py:images", metric="own.py:error", run="run",
                      threads=1, batch_size=4)  # fmt: skip
    the_plain_loop(result, *files)
    assert code_hashes(TaskSpec(model=spec)).keys() == {spec}


@pytest.mark.parametrize(
    ("spec", "args", "message"),
    [
        ("export:nowhere.pt2", {}, "there is no file nowhere.pt2"),
        ("script:nowhere.pt", {}, "there is no file nowhere.pt"),
        ("export:training.pt2", {}, r"was exported in training mode \(aten\..*: export model.eval\(\) instead"),
        ("export:net.pt2", {"width": 3}, "is a finished model: leave --model-args out"),
        ("export:a.ckpt", {}, "export:a.ckpt failed"),
        ("script:a.ckpt", {}, "script:a.ckpt failed"),
    ],
)
@pytest.mark.usefixtures("files")
def test_a_file_without_a_network_is_refused(spec: str, args: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        build_model(spec, args)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("spec", ["export:net.pt2", "script:net.pt", "lightning:lit.py:Net", "hf:folder"])
def test_a_checkpoint_never_names_code_or_files(spec: str, tmp_path: Path) -> None:
    said = cs.Checkpoint.from_arrays({}, metadata={"ckptswap.model": spec})
    with pytest.raises(ModelError, match="could be a stranger's code"):
        model_of(said)
    with pytest.raises(UsageError, match="without --model"):
        load_model(TaskSpec(model_args={"a": 1}), said)
