"""Grafts in files of torch: the pickle and all beside the tensors stay, and the tensors are the variant's."""

from __future__ import annotations

import zipfile
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from ckptswap.errors import CkptswapError
from ckptswap.formats import open_checkpoint
from ckptswap.selection import Selection
from ckptswap.transplant import METADATA_KEY, left_behind, plan_transplant, transplant


class Net(torch.nn.Module):
    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.conv = torch.nn.Conv2d(2, 3, 3)
        self.norm = torch.nn.BatchNorm2d(3)
        self.head = torch.nn.Linear(3, 2)
        for value in self.state_dict().values():
            if value.is_floating_point():
                value.normal_().abs_()  # a variance is not below zero


def trained(seed: int) -> tuple[Net, dict]:
    """A network after a step, and its optimizer's state."""
    net = Net(seed)
    optimizer = torch.optim.Adam(net.parameters())
    net.head(net.norm(net.conv(torch.ones(2, 2, 5, 5))).mean((2, 3))).sum().backward()
    optimizer.step()
    return net, optimizer.state_dict()


def lightning(seed: int) -> dict:
    net, optimizer = trained(seed)
    return {
        "epoch": 7,
        "global_step": 70,
        "pytorch-lightning_version": "2.4.0",
        "state_dict": net.state_dict(),
        "loops": {"fit_loop": {"epoch_progress": {"total": {"ready": 7}}}},
        "optimizer_states": [optimizer],
        "lr_schedulers": [],
        "hparams_name": "kwargs",
        "hyper_parameters": {"width": 3, "lr": 0.1, "note": f"of {seed}", "spec": Namespace(depth=2)},
    }


def nested(seed: int) -> dict:
    net, optimizer = trained(seed)
    return {"model": net.state_dict(), "optimizer": optimizer, "epoch": 3, "best": {"score": 0.5 + seed}}


def parameters(seed: int) -> dict:
    """As detectors save them: parameters themselves, which keep their class."""
    return {"model": OrderedDict(trained(seed)[0].named_parameters()), "iteration": 4}


def flat(seed: int) -> dict:
    return {**trained(seed)[0].state_dict(), "steps": 12 + seed}


def halved(seed: int) -> dict:
    return {
        "net": {name: value.bfloat16() for name, value in Net(seed).state_dict().items()},
        "args": Namespace(a=1),
    }


MADE = {"lightning": lightning, "nested": nested, "parameters": parameters, "flat": flat, "bf16": halved}
LEGACY = [False, True]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def saved(make: Callable[[int], dict], legacy: bool = False) -> None:
    for name, seed in (("donor.ckpt", 1), ("recipient.ckpt", 2)):
        torch.save(make(seed), name, _use_new_zipfile_serialization=not legacy)


def graft(out: str = "graft.ckpt", alpha: float = 1.0, **flags: list[str]) -> list[str]:
    """Write it, and give what was said to be lost."""
    with open_checkpoint("donor.ckpt") as donor, open_checkpoint("recipient.ckpt") as recipient:
        plan = plan_transplant(donor, recipient, Selection.parse(**flags), alpha=alpha)
        said = left_behind(plan, out)
        transplant(plan, out, force=True)
    return said


def load(path: str) -> Any:
    return torch.load(path, weights_only=False)


def leaves(value: Any, at: str = "") -> dict[str, Any]:
    """All that a value holds, by path; of tensors their bytes, class and gradient flag."""
    if isinstance(value, torch.Tensor):
        raw = value.detach().contiguous().reshape(-1).view(torch.uint8) if value.numel() else value.detach()
        return {at: (type(value), value.dtype, tuple(value.shape), value.requires_grad, raw.tolist())}
    if isinstance(value, Namespace):
        value = vars(value)
    if isinstance(value, Mapping):
        inside = [leaf for key, each in value.items() for leaf in leaves(each, f"{at}/{key}").items()]
        return {f"{at}:": (type(value), list(value), getattr(value, "_metadata", None)), **dict(inside)}
    if isinstance(value, list | tuple):
        return {key: leaf for n, each in enumerate(value) for key, leaf in leaves(each, f"{at}/{n}").items()}
    return {at: value}


def differing(a: Any, b: Any) -> set[str]:
    ours, theirs = leaves(a), leaves(b)
    assert ours.keys() == theirs.keys()
    return {key for key in ours if ours[key] != theirs[key]}


@pytest.mark.parametrize("legacy", LEGACY)
@pytest.mark.parametrize("name", MADE)
def test_all_but_the_taken_tensors_is_as_it_was(here: Path, name: str, legacy: bool) -> None:
    saved(MADE[name], legacy)
    said = graft(only=["conv.*"])
    assert said == (
        ["recipient.ckpt: a file from before torch 1.6 has no room to say where it came from"] * legacy
    )
    changed = differing(load("graft.ckpt"), load("recipient.ckpt"))
    assert {key.rpartition("/")[2] for key in changed} == {"conv.weight", "conv.bias"}
    assert len(changed) == 2
    assert not changed & differing(load("graft.ckpt"), load("donor.ckpt"))


@pytest.mark.parametrize("legacy", LEGACY)
def test_the_graft_is_loaded_as_the_variant(here: Path, legacy: bool) -> None:
    saved(lightning, legacy)
    graft(kind=["bn.*"])
    content, theirs = load("graft.ckpt"), load("donor.ckpt")["state_dict"]
    net, plain = Net(0), Net(0)
    net.load_state_dict(content["state_dict"])
    plain.load_state_dict(
        {**load("recipient.ckpt")["state_dict"], **{k: theirs[k] for k in theirs if "norm" in k}}
    )
    torch.optim.Adam(net.parameters()).load_state_dict(content["optimizer_states"][0])
    inputs = torch.ones(1, 2, 5, 5)
    assert torch.equal(net.norm.eval()(net.conv(inputs)), plain.norm.eval()(plain.conv(inputs)))
    assert differing(net.state_dict(), plain.state_dict()) == set()


def test_every_member_of_the_zip_but_the_taken_ones_is_byte_for_byte_the_same(here: Path) -> None:
    saved(lightning)
    graft(only=["conv.bias"])
    with zipfile.ZipFile("recipient.ckpt") as before, zipfile.ZipFile("graft.ckpt") as after:
        assert after.testzip() is None
        assert after.namelist()[: len(before.namelist())] == before.namelist()
        changed = [name for name in before.namelist() if before.read(name) != after.read(name)]
    assert len(changed) == 1
    assert "/data/" in changed[0]
    mapped = torch.load("graft.ckpt", weights_only=False, mmap=True)
    assert differing(mapped, load("graft.ckpt")) == set()


def test_it_says_where_it_came_from_once_more(here: Path) -> None:
    saved(nested)
    graft(only=["conv.bias"])
    Path("graft.ckpt").replace("recipient.ckpt")
    graft(only=["head.bias"])
    with open_checkpoint("graft.ckpt") as found:
        assert '"=conv.bias"' not in found.metadata[METADATA_KEY]
        assert "head.bias" in found.metadata[METADATA_KEY]
        assert "conv.bias" in found.metadata[f"{METADATA_KEY}.1"]


@pytest.mark.parametrize("legacy", LEGACY)
def test_blends_and_own_input(here: Path, legacy: bool) -> None:
    saved(nested, legacy)
    before = load("recipient.ckpt")
    graft("recipient.ckpt", alpha=0.25, only=["conv.bias"])
    ours, theirs, made = before["model"], load("donor.ckpt")["model"], load("recipient.ckpt")["model"]
    mixed = 0.75 * ours["conv.bias"].double() + 0.25 * theirs["conv.bias"].double()
    assert torch.equal(made["conv.bias"], mixed.float())
    assert {key.rpartition("/")[2] for key in differing(load("recipient.ckpt"), before)} == {"conv.bias"}


def views(seed: int) -> dict:
    """Tensors that are parts of one storage, one that is laid out channels last, an empty one and a scalar."""
    torch.manual_seed(seed)
    storage = torch.randn(40)
    return {
        "state_dict": {
            "first": storage[:10],
            "second": storage[10:34].view(4, 6),
            "turned": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
            "column": torch.randn(6, 5)[:, 1:3],
            "empty": torch.zeros(0, 3),
            "scalar": torch.randn(()),
            "half": torch.randn(7).half(),
        },
        "rest": storage[34:],
    }


@pytest.mark.parametrize("legacy", LEGACY)
@pytest.mark.parametrize(
    "names",
    [["first"], ["second"], ["turned"], ["column"], ["empty", "scalar"], ["half", "second", "turned"], ["*"]],
)
def test_views_are_replaced_where_they_lie(here: Path, names: list[str], legacy: bool) -> None:
    saved(views, legacy)
    assert len(graft(only=names)) == legacy  # nothing is lost
    found, ours, theirs = (load(name) for name in ("graft.ckpt", "recipient.ckpt", "donor.ckpt"))
    taken = set(ours["state_dict"]) if names == ["*"] else set(names)
    for name, value in found["state_dict"].items():
        wanted = (theirs if name in taken else ours)["state_dict"][name]
        assert torch.equal(value, wanted), name
        assert value.stride() == ours["state_dict"][name].stride()
    assert torch.equal(found["rest"], ours["rest"])


def tied(seed: int) -> dict:
    torch.manual_seed(seed)
    weight = torch.randn(4, 3)
    return {"model": {"a.weight": weight, "b.weight": weight, "c.bias": torch.randn(2)}, "epoch": 1}


@pytest.mark.parametrize("legacy", LEGACY)
def test_tied_tensors_that_are_taken_together_stay_tied(here: Path, legacy: bool) -> None:
    saved(tied, legacy)
    graft(only=["*.weight"])
    model = load("graft.ckpt")["model"]
    assert model["a.weight"].data_ptr() == model["b.weight"].data_ptr()
    assert torch.equal(model["a.weight"], load("donor.ckpt")["model"]["a.weight"])


def expanded(seed: int) -> dict:
    return {"model": {"a": torch.full((1,), float(seed)).expand(3), "b": torch.ones(2)}, "epoch": 1}


def overlapping(seed: int) -> dict:
    storage = torch.arange(6.0) * seed
    return {"model": {"a": storage[:4], "b": storage[2:]}, "epoch": 1}


@pytest.mark.parametrize("make", [expanded, overlapping])
def test_what_cannot_be_replaced_in_place_is_written_apart_and_the_loss_is_said(
    here: Path, make: Callable[[int], dict]
) -> None:
    saved(make)
    assert graft(only=["a"]) == ["recipient.ckpt: what lies beside the tensors is not written: epoch"]
    with open_checkpoint("graft.ckpt") as found:
        ours, theirs = load("recipient.ckpt")["model"], load("donor.ckpt")["model"]
        assert found.read("a").tolist() == theirs["a"].tolist()
        beside = theirs if make is overlapping else ours  # what shares bytes is taken together
        assert found.read("b").tolist() == beside["b"].tolist()


def averaged(seed: int) -> dict:
    state = Net(seed).state_dict()
    return {"model": state, "ema": state, "old": {"conv.bias": state["conv.bias"]}, "epoch": 0}


def test_what_lies_in_the_same_bytes_elsewhere_is_said_to_change(here: Path) -> None:
    saved(averaged)
    ema, both = (
        f"recipient.ckpt: what shares bytes with the taken changes with it: {keys}" for keys in ("ema", "ema, old")
    )
    assert graft(only=["head.bias"]) == [ema]
    assert graft(only=["conv.bias"]) == [both]
    found = load("graft.ckpt")
    assert torch.equal(found["old"]["conv.bias"], found["model"]["conv.bias"])


@pytest.mark.parametrize("legacy", LEGACY)
@pytest.mark.parametrize("out", ["graft.safetensors", "graft", "graft.npz", "graft/"])
def test_another_format_says_first_what_it_loses(here: Path, out: str, legacy: bool) -> None:
    saved(lightning, legacy)
    [said] = graft(out, only=["conv.*"])
    assert said.startswith("recipient.ckpt: what lies beside the tensors is not written: epoch, global_step")
    assert "hyper_parameters" in said
    assert said.endswith("(-o FILE.ckpt keeps it)")


def test_a_plain_state_dict_has_nothing_to_lose(here: Path) -> None:
    saved(lambda seed: Net(seed).state_dict())
    assert graft("graft.safetensors", only=["conv.*"]) == []


def test_nothing_taken_is_the_same_content(here: Path) -> None:
    saved(nested)
    graft(alpha=0)
    assert differing(load("graft.ckpt"), load("recipient.ckpt")) == set()


def test_checksums_that_were_left_out_are_no_hindrance(here: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        saved(nested)
    finally:
        torch.serialization.set_crc32_options(True)
    graft(only=["conv.bias"])
    assert differing(load("graft.ckpt"), load("recipient.ckpt")) == {"/model/conv.bias"}


@pytest.mark.parametrize("legacy", LEGACY)
def test_a_recipient_that_is_replaced_meanwhile_is_refused(
    here: Path, legacy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(nested, legacy)
    with open_checkpoint("donor.ckpt") as donor, open_checkpoint("recipient.ckpt") as recipient:
        plan = plan_transplant(donor, recipient, Selection.parse(only=["conv.bias"]))
        torch.save(lightning(5), "other.ckpt")
        Path("other.ckpt").replace("recipient.ckpt")
        with pytest.raises(CkptswapError):
            transplant(plan, "graft.ckpt")
    assert not Path("graft.ckpt").exists()
