"""Cases 06 and 12 in other shapes: what wrappers, averages, teachers, counters and losses leave in a file.

12, names: every layer compiled or checkpointed, DataParallel within DDP, PEFT's base model, a part of a larger
one, timm's moving average, Lightning's and DeepSpeed's files. 06, tensors that are not the model's: an average
beside it, a student's, thop's counters in every layer, a perceptual loss, extra states, a GAN's other half.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_program_of_cases import run
from every_command import Pair, evaluated, hold_every_command
from plain import run_file
from torch import Tensor, nn

SOURCE = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, x):
        return self.head(self.encoder(x))


def net():
    return Net()


def data():
    draw = torch.Generator().manual_seed(1)
    return [(x, x.mean(0)) for x in torch.rand(9, 3, 8, 8, generator=draw)]


def error(output, target):
    return (output[:, 0] - target).square().flatten(1).mean(1) + output[:, 1].flatten(1).std(1)


error.direction = "min"
"""
TASK = ("--model", "net.py:net", "--data", "net.py:data", "--metric", "net.py:error", "--threads", 1)
States = dict[str, Tensor]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(SOURCE, "utf-8")


def built() -> nn.Module:
    network: nn.Module = run_file("net.py")["net"]()
    return network.eval()


def filled(seed: int) -> nn.Module:
    """The network with no value that it begins with."""
    torch.manual_seed(seed)
    network = built()
    with torch.no_grad():
        for value in (*network.parameters(), *network.buffers()):
            value.add_(torch.rand(value.shape) if value.is_floating_point() else seed)
    return network


def score(network: nn.Module) -> float:
    names = run_file("net.py")
    inputs, targets = (torch.stack(part) for part in zip(*names["data"](), strict=True))
    return float(names["error"](network(inputs), targets).double().mean())


def pair(write: Callable[[nn.Module, str], None], named: Callable[[str], str]) -> Pair:
    states = []
    for name, seed in (("a", 1), ("b", 2)):
        network = filled(seed)
        states.append({key: value.clone() for key, value in network.state_dict().items()})
        write(network, f"{name}.pt")
    return Pair("a.pt", "b.pt", states[1], states[0], built, score, TASK, named=named)


def named(state: Mapping[str, Tensor], name: Callable[[str], str]) -> States:
    return {name(key): value for key, value in state.items()}


# 12: names ------------------------------------------------------------------------------------------------------


def in_layers(part: str) -> Callable[[str], str]:
    return lambda name: name.rpartition(".")[0] + f".{part}." + name.rpartition(".")[2]


NAMES: dict[str, Callable[[str], str]] = {
    "every layer compiled": in_layers("_orig_mod"),
    "every layer checkpointed, in DDP": lambda name: "module." + in_layers("_checkpoint_wrapped_module")(name),
    "DataParallel within DDP": lambda name: f"module.{name.replace('encoder.', 'encoder.module.')}",
    "PEFT's base model": lambda name: f"base_model.model.{name}",
    "Lightning, DDP, and a part compiled": lambda name: (
        f"model.module.{name.replace('encoder.', 'encoder._orig_mod.')}"
    ),
    "a part of a larger one": lambda name: f"detector.backbone.{name}",
}


@pytest.mark.parametrize("how", NAMES)
def test_every_command_takes_names_off(how: str) -> None:
    name = NAMES[how]
    hold_every_command(pair(lambda network, path: torch.save(named(network.state_dict(), name), path), name))


def lightning(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """What a Lightning checkpoint holds beside the weights."""
    adam = {"state": {0: {"exp_avg": torch.ones(4)}}, "param_groups": [{"lr": 0.1}]}
    loops = {"pytorch-lightning_version": "2.4.0", "loops": {}, "callbacks": {}, "lr_schedulers": []}
    told = {"epoch": 3, "global_step": 30, "hyper_parameters": {"lr": 0.1}, "optimizer_states": [adam], **loops}
    return {"state_dict": named(state, "model.{}".format), **told}


def deepspeed(state: Mapping[str, Tensor]) -> dict[str, Any]:
    return {"module": dict(state), "optimizer": None, "ds_version": "0.15", "global_steps": 3, "dp_world_size": 2}


def ignite(state: Mapping[str, Tensor]) -> dict[str, Any]:
    return {"model": named(state, "module.{}".format), "optimizer": {"state": {}, "param_groups": []}, "epoch": 2}


FILES: dict[str, tuple[Callable[[Mapping[str, Tensor]], dict[str, Any]], Callable[[str], str]]] = {
    "Lightning": (lightning, "model.{}".format),
    "DeepSpeed": (deepspeed, str),
    "a training loop's": (ignite, "module.{}".format),
}


@pytest.mark.parametrize("how", FILES)
def test_every_command_reads_what_training_loops_write(how: str) -> None:
    whole, name = FILES[how]
    hold_every_command(pair(lambda network, path: torch.save(whole(network.state_dict()), path), name))


def test_what_timm_averages() -> None:
    utils = pytest.importorskip("timm.utils")
    for average in (utils.ModelEmaV2, utils.ModelEmaV3):
        ours = filled(2)
        torch.save(average(ours).state_dict(), "b.pt")
        torch.save(filled(1).state_dict(), "a.pt")
        states = pair(lambda network, path: None, "module.{}".format)
        assert evaluated("b.pt", states) == pytest.approx(states.plain(states.ours), rel=1e-6)


# 06: tensors that are not the model's ---------------------------------------------------------------------------


def counted(state: Mapping[str, Tensor]) -> States:
    """thop's profile leaves these in every module, and the next `torch.save` writes them."""
    modules = ("", "encoder.", "encoder.0.", "encoder.1.", "encoder.2.", "head.")
    return {**state, **{f"{name}total_{what}": torch.zeros(1) for name in modules for what in ("ops", "params")}}


EXTRA: dict[str, tuple[Callable[[Mapping[str, Tensor]], States], Callable[[str], str]]] = {
    "an average beside it": (
        lambda state: {
            **named(state, "model.{}".format),
            **{f"ema_model.module.{name}": value * 2 for name, value in state.items()},
            "ema_model.n_averaged": torch.tensor(3),
        },
        "model.{}".format,
    ),
    "a projection of the student's": (
        lambda state: {**named(state, "module.student.{}".format), "module.center": torch.zeros(1, 4)},
        "module.student.{}".format,
    ),
    "thop's counters": (counted, str),
    "a perceptual loss": (
        lambda state: {
            **named(state, "net.{}".format),
            "lpips.net.slice1.0.weight": torch.ones(4, 3, 3, 3),
            "lpips.net.slice1.0.bias": torch.ones(4),
            "lpips.lin0.weight": torch.ones(1, 4, 1, 1),
        },
        "net.{}".format,
    ),
    "extra states": (
        lambda state: {**state, "_extra_state": torch.zeros(2), "encoder._extra_state": torch.ones(3)},
        str,
    ),
    "a GAN's other half": (
        lambda state: {
            **named(state, "generator.module.{}".format),
            "discriminator.module.0.weight": torch.ones(4, 2, 3, 3),
            "discriminator.module.0.bias": torch.ones(4),
        },
        "generator.module.{}".format,
    ),
}


def words_of(error: str) -> list[str]:
    """The flags that an error says make it fit."""
    return shlex.split(error.strip().split("): ")[-1].split(" makes it fit")[0])


@pytest.mark.parametrize("how", EXTRA)
def test_every_command_has_a_way_for_what_is_too_much(how: str) -> None:
    whole, name = EXTRA[how]
    states = pair(lambda network, path: torch.save(whole(network.state_dict()), path), name)
    refused = run("evaluate", "b.pt", *TASK)
    assert refused.code == 2
    assert len(refused.err.strip().splitlines()) == 1
    assert " makes it fit" in refused.err
    hold_every_command(replace(states, fit=words_of(refused.err)))
