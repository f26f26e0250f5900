"""One network under the names that wrappers give: every command takes them off, and says so.

Relatives: torch.compile of a part, DDP of a compiled one, DataParallel of a part (torchvision's VGG, as in
PyTorch's ImageNet example), activation checkpointing within FSDP, Lightning's `model.`, a network with parts named
`module` and `model`, a model that is itself wrapped, wrappers on both sides.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_program import good, run
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.optim.swa_utils import AveragedModel

import ckptswap as cs

SOURCE = '''
import torch
from torch import nn


class Net(nn.Module):
    """It has parts of the very names that wrappers use."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.module = nn.Conv2d(4, 4, 1)
        self.head = nn.Conv2d(4, 1, 1)

    def forward(self, x):
        return self.head(self.module(self.encoder(x)))


def net():
    return Net()


def compiled():
    found = Net()
    found.encoder = torch.compile(found.encoder, backend="eager")
    return found


def parallel():
    return nn.DataParallel(Net())


def data():
    draw = torch.Generator().manual_seed(1)
    images = torch.rand(10, 3, 8, 8, generator=draw)
    return [(image, (image.mean(0) > 0.5).long()) for image in images]
'''
TASK = ("--data", "net.py:data", "--metric", "mse,dice", "--threads", 1, "--format", "json")
Names = Callable[[str], str]


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "net.py").write_text(SOURCE)
    with contextlib.chdir(tmp_path):
        yield tmp_path


def made(seed: int) -> nn.Module:
    """The network of the file, with no value that it begins with."""
    space: dict[str, object] = {"__name__": "net"}
    exec(SOURCE, space)
    torch.manual_seed(seed)
    model = space["net"]()  # type: ignore[operator]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.rand_like(parameter) / 8)
        model.train()(torch.rand(16, 3, 8, 8))
    return model.eval()


def plain_scores(state: Mapping[str, Tensor]) -> dict[str, float]:
    """By load_state_dict and one full forward."""
    model = made(9)
    model.load_state_dict(dict(state))
    space: dict[str, object] = {"__name__": "net"}
    exec(SOURCE, space)
    samples = space["data"]()  # type: ignore[operator]
    with torch.no_grad():
        output = torch.cat([model(image[None]) for image, _ in samples])[:, 0]
    truth = torch.stack([mask for _, mask in samples])
    guess = output > 0
    both, sizes = (guess & (truth > 0)).sum((1, 2)), guess.sum((1, 2)) + truth.sum((1, 2))
    return {
        "mse": float(((output - truth) ** 2).mean((1, 2)).double().mean()),
        "dice": float((2 * both / sizes).double().mean()),
    }


def scores(*arguments: object) -> tuple[dict[str, float], str]:
    done = good("evaluate", *arguments, *TASK)
    [found] = done.json["checkpoints"]
    return {name: each["value"] for name, each in found["scores"].items()}, done.err


def part(name: str) -> Names:
    return lambda each: each.replace("encoder.", f"encoder.{name}.")


WRAPPED: dict[str, Names] = {
    "ddp of compiled": lambda name: f"module._orig_mod.{name}",
    "compiled part": part("_orig_mod"),
    "parallel part": part("module"),
    "ddp": lambda name: f"module.{name}",
    "lightning": lambda name: f"model.{name}",
    "lightning of compiled": lambda name: f"model._orig_mod.{name}",
    "fabric": lambda name: f"_forward_module.model.{name}",
    "fsdp": lambda name: f"_fsdp_wrapped_module.{part('_fsdp_wrapped_module._checkpoint_wrapped_module')(name)}",
}


@pytest.mark.parametrize("how", WRAPPED)
def test_evaluate_scores_it_as_plain_torch_does_and_says_what_it_took_off(here: Path, how: str) -> None:
    state = made(0).state_dict()
    torch.save({WRAPPED[how](name): value for name, value in state.items()}, "a.pt")
    found, said = scores("a.pt", "--model", "net.py:net")
    assert found == pytest.approx(plain_scores(state), rel=1e-6)
    assert said.count("note:") == 1
    assert "to match the model" in said


def test_what_torchs_own_wrappers_save_is_scored_alike(here: Path) -> None:
    """Not names by hand: what torch itself writes."""
    model = made(0)
    expected = plain_scores(model.state_dict())
    part_compiled = made(0)
    part_compiled.encoder = torch.compile(part_compiled.encoder, backend="eager")
    part_parallel = made(0)
    part_parallel.encoder = nn.DataParallel(part_parallel.encoder)
    part_checkpointed = made(0)
    part_checkpointed.encoder = checkpoint_wrapper(part_checkpointed.encoder)
    wrapped = {
        "parallel": nn.DataParallel(model),
        "compiled": torch.compile(model, backend="eager"),
        "both": nn.DataParallel(torch.compile(model, backend="eager")),
        "part_compiled": part_compiled,
        "part_parallel": part_parallel,
        "part_checkpointed": part_checkpointed,
    }
    for name, each in wrapped.items():
        torch.save(each.state_dict(), f"{name}.pt")
    done = good("evaluate", *(f"{name}.pt" for name in wrapped), "--model", "net.py:net", *TASK)
    for each in done.json["checkpoints"]:
        assert each["scores"]["mse"]["value"] == pytest.approx(expected["mse"], rel=1e-6), each["path"]
    assert "part_compiled.pt are taken without '_orig_mod' in their names" in done.err


@pytest.mark.parametrize("model", ["compiled", "parallel"])
def test_the_models_own_names_may_carry_a_wrappers(here: Path, model: str) -> None:
    state = made(0).state_dict()
    torch.save(state, "plain.pt")
    torch.save({f"_orig_mod.{name}": value for name, value in state.items()}, "whole.pt")
    for path in ("plain.pt", "whole.pt"):
        found, said = scores(path, "--model", f"net.py:{model}")
        assert found == pytest.approx(plain_scores(state), rel=1e-6)
        assert "to match the model" in said


@pytest.mark.parametrize("donor", ["ddp", "compiled part", None])
@pytest.mark.parametrize("recipient", ["lightning of compiled", None])
def test_a_sweep_and_its_selection_are_those_of_plain_files(
    here: Path, donor: str | None, recipient: str | None
) -> None:
    states = [made(seed).state_dict() for seed in (0, 1)]
    for file, how, state in (("a.pt", donor, states[0]), ("b.pt", recipient, states[1])):
        torch.save({WRAPPED[how](name) if how else name: value for name, value in state.items()}, file)
    swap = ("--from", "a.pt", "--from", "zeros", "--to", "b.pt", "--model", "net.py:net", *TASK)
    rows = good("sweep", *swap, "--run", "r", "--by", "tensor").json["rows"]
    measured = [row for row in rows if row["status"] == "measured" and row["donor"] == "a.pt"]
    assert {name for row in measured for name in row["tensors"]} == {
        name for name in states[0] if "num_batches" not in name
    }
    for row in measured:
        expected = plain_scores({**states[1], **{name: states[0][name] for name in row["tensors"]}})
        assert row["score"] == pytest.approx(expected["mse"], rel=1e-5)
    selected = good("select", "r", "--tolerance", 1, "--to", "new.safetensors", "--format", "json").json
    for command in selected["commands"]:
        good(*command_words(command))
    taken = {name for row in selected["rows"] if row["taken"] for name in row["tensors"]}
    assert taken
    new = load_file("new.safetensors")
    for name, value in states[1].items():
        whole = WRAPPED[recipient](name) if recipient else name
        assert torch.equal(new[whole], states[0][name] if name in taken else value)


def command_words(command: str) -> list[str]:
    import shlex

    return shlex.split(command)[1:]


def test_diff_and_transplant_compare_them(here: Path) -> None:
    state = made(0).state_dict()
    torch.save(state, "plain.pt")
    torch.save({part("_orig_mod")(name): value for name, value in state.items()}, "part.pt")
    torch.save(AveragedModel(made(0)).state_dict(), "swa.pt")
    done = good("diff", "plain.pt", "part.pt", "--format", "json")
    assert done.json["summary"]["identical"] == len(state)
    assert "'_orig_mod' in their names" in done.err
    done = good("diff", "plain.pt", "swa.pt", "--format", "json")
    assert (done.json["summary"]["identical"], done.json["summary"]["only_b"]) == (len(state), 1)
    done = good("transplant", "--from", "part.pt", "--to", "swa.pt", "--kind", "conv.*", "-o", "new.pt")
    assert "'module' in their names" in done.err


def test_names_that_no_wrapper_explains_are_told_with_the_flags_that_align_them(here: Path) -> None:
    state = made(0).state_dict()
    torch.save(state, "a.pt")
    torch.save({name.replace("encoder.", "backbone."): value for name, value in state.items()}, "b.pt")
    torch.save({f"x.{at}": value for at, value in enumerate(state.values())}, "c.pt")
    done = good("diff", "a.pt", "b.pt", "--format", "json")
    assert "share 4 names; with --map 'encoder.*=backbone.*' 7 more are the same" in done.err
    again = good("diff", "a.pt", "b.pt", "--map", "encoder.*=backbone.*", "--format", "json")
    assert (again.json["summary"]["identical"], again.err) == (len(state), "")
    assert "no tensor of a.pt has the name of one of c.pt" in good("diff", "a.pt", "c.pt").err
    refused = run("transplant", "--from", "a.pt", "--to", "b.pt")
    assert refused.code == 2
    assert "--map 'encoder.*=backbone.*'" in refused.err


def test_a_model_and_file_that_no_wrapper_explains_get_flags_that_were_tried(here: Path) -> None:
    state = made(0).state_dict()
    torch.save({name.replace("encoder.", "backbone."): value for name, value in state.items()}, "b.pt")
    torch.save({f"net.{name}": value for name, value in state.items()} | {"loss.w": torch.ones(2)}, "net.pt")
    for path, words in (
        ("b.pt", ["--map", "backbone.*=encoder.*"]),
        ("net.pt", ["--strip-prefix", "net.", "--exclude", "loss.*"]),
    ):
        refused = run("evaluate", path, "--model", "net.py:net", *TASK)
        assert refused.code == 2
        for word in words:
            assert word in refused.err
        found, _ = scores(path, "--model", "net.py:net", *words)
        assert found == pytest.approx(plain_scores(state), rel=1e-6)
        swept = ("sweep", "--from", path, "--from", "zeros", "--to", path, "--model", "net.py:net", *TASK)
        done = good(*swept, "--by", "kind", "--run", f"{path}.run", *words)
        assert done.json["baseline"] == pytest.approx(plain_scores(state)["mse"], rel=1e-6)


def test_the_library_has_the_same_ways(here: Path) -> None:
    states = [made(seed).state_dict() for seed in (0, 1)]
    a = {f"module.{name.replace('encoder.', 'backbone.')}": value for name, value in states[0].items()}
    b = states[1] | {"loss.w": torch.ones(2)}
    how = {"map": "module.backbone.*=module.encoder.*"}
    assert cs.diff(a, b, **how).summary["only_a"] == 0
    taken = cs.transplant(a, b, only="encoder.*", **how)
    np.testing.assert_array_equal(taken.read("encoder.0.weight"), states[0]["encoder.0.weight"].numpy())
    torch.save(a, "a.pt")
    torch.save(b, "b.pt")
    task = {"model": "net.py:net", "data": "net.py:data", "metric": "mse", "threads": 1}
    found = cs.sweep("a.pt", "b.pt", by="layer", exclude="loss.*", run="r", **how, **task)
    assert {row.layer for row in found.rows} == {"encoder.0", "encoder.1", "module", "head"}
    for row in found.rows:
        mixed = {**states[1], **{name: states[0][name] for name in row.tensors}}
        assert row.score == pytest.approx(plain_scores(mixed)["mse"], rel=1e-5)
    partial = cs.sweep("a.pt", "b.pt", by="layer", partial=True, run="p", **how, **task)
    assert [row.score for row in partial.rows] == [row.score for row in found.rows]


def test_a_part_named_as_a_wrapper_is_never_mistaken() -> None:
    """Both `module.w` and `w` are the model's: a file of DDP has `module.module.w` and `module.w`."""
    from ckptswap.checkpoint import Checkpoint
    from ckptswap.task.weights import load_into

    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.zeros(2))
            self.module = nn.Module()
            self.module.w = nn.Parameter(torch.zeros(2))

    model = Odd()
    arrays = {"module.module.w": np.array([1.0, 2.0]), "module.w": np.array([3.0, 4.0])}
    load_into(model, Checkpoint.from_arrays(arrays))
    assert model.module.w.tolist() == [1, 2]
    assert model.w.tolist() == [3, 4]
