"""Two files of one network, upon which every command is run and held against a plain loop.

The plain loop loads a state dict with `load_state_dict` and runs the whole model; `show`, `convert`, `diff`,
`transplant`, `evaluate`, `sweep` and `select` must all mean the same tensors.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_program_of_cases import good
from safetensors.torch import load_file
from torch import Tensor, nn

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Pair:
    """`ours` and `theirs` are what the files `recipient` and `donor` hold, under the model's names.

    `build` makes the model, `score` runs it whole; `task` are the flags that name model, data and metric, `fit`
    those that say how the files fit it. `named` gives a tensor's name in the recipient's file.
    """

    donor: str
    recipient: str
    ours: State
    theirs: State
    build: Callable[[], nn.Module]
    score: Callable[[nn.Module], float]
    task: Sequence[object]
    fit: Sequence[object] = ()
    named: Callable[[str], str] = str

    def plain(self, state: State) -> float:
        """The score of these values, by torch alone."""
        self.model.load_state_dict(dict(state))
        with torch.no_grad():
            return self.score(self.model)

    @cached_property
    def model(self) -> nn.Module:
        return self.build().eval()

    def mixed(self, names: Sequence[str]) -> dict[str, Tensor]:
        """Ours, with the tensors of these names from theirs, whatever else these are called."""
        places = storages(self.model)
        taken = {places[name] for name in names}
        return {name: (self.theirs if places[name] in taken else self.ours)[name] for name in self.ours}


def storages(model: nn.Module) -> dict[str, int]:
    """Of each tensor the memory in which it lies."""
    return {name: value.untyped_storage().data_ptr() for name, value in model.state_dict().items()}


def hold_every_command(pair: Pair) -> list[dict[str, Any]]:
    """The rows of the sweep, after all that was done with them."""
    hold_listing(pair)
    expected = pair.plain(pair.ours)
    assert evaluated(pair.recipient, pair) == pytest.approx(expected, rel=1e-5, abs=1e-7)
    rows = swept(pair, expected)
    hold_transplant(pair, max(rows, key=lambda row: abs(row["drop"] or 0)))
    hold_selection(pair, rows)
    return rows


def evaluated(path: str, pair: Pair) -> float:
    document = good("evaluate", path, *pair.task, *pair.fit, "--format", "json").json
    [score] = document["checkpoints"][0]["scores"].values()
    return score["value"]


def hold_listing(pair: Pair) -> None:
    """`show` and `convert` have every tensor, also those that are not the model's."""
    shown = good("show", pair.recipient, "--format", "json").json
    assert shown["tensors"] == len(shown["rows"])
    assert {pair.named(name) for name in pair.ours} >= {row["name"] for row in shown["rows"]} or pair.fit
    good("convert", pair.recipient, "converted.safetensors", "--force")
    compared = good("diff", pair.recipient, "converted.safetensors", "--format", "json").json
    assert compared["summary"]["identical"] == shown["tensors"]
    assert evaluated("converted.safetensors", pair) == pytest.approx(pair.plain(pair.ours), rel=1e-5, abs=1e-7)


def swept(pair: Pair, baseline: float) -> list[dict[str, Any]]:
    """A row a tensor, each with the plain loop's score; one that moves nothing has no drop."""
    swap = ("--from", pair.donor, "--to", pair.recipient, "--by", "tensor", "--run", "run")
    table = good("sweep", *swap, *pair.task, *pair.fit, "--format", "json").json
    assert table["baseline"] == pytest.approx(baseline, rel=1e-5, abs=1e-7)
    assert table["donor_score"] == pytest.approx(pair.plain(pair.theirs), rel=1e-5, abs=1e-7)
    places = storages(pair.model)
    covered = [places[row["tensors"][0]] for row in table["rows"]]
    assert len(covered) == len({*covered}), "a row a tensor"
    float_places = {places[name] for name, value in pair.ours.items() if value.is_floating_point()}
    assert {*covered} >= float_places, "and every tensor has one"
    for row in table["rows"]:
        assert row["status"] in ("measured", "no-effect", "identical"), row["reason"]
        plain = pair.plain(pair.mixed(row["tensors"]))
        assert row["score"] == pytest.approx(plain, rel=1e-5, abs=1e-7), row["tensors"]
    rows: list[dict[str, Any]] = table["rows"]
    return rows


def hold_transplant(pair: Pair, row: Mapping[str, Any]) -> None:
    """One name of a row is enough: the file that is written scores as the row does, and differs in it alone."""
    name = pair.named(row["tensors"][0])
    swap = ("--from", pair.donor, "--to", pair.recipient)
    good("transplant", *swap, "--only", f"={name}", "-o", "taken.safetensors", "--force")
    assert evaluated("taken.safetensors", pair) == pytest.approx(row["score"], rel=1e-5, abs=1e-7)
    compared = good("diff", pair.recipient, "taken.safetensors", "--format", "json").json
    changed = {each["name"] for each in compared["rows"] if each["status"] == "changed"}
    assert changed == {pair.named(each) for each in row["tensors"]}


def hold_selection(pair: Pair, rows: Sequence[Mapping[str, Any]]) -> None:
    """What the printed commands write scores as the plain loop says of what was taken."""
    tolerance = max(abs(row["drop"] or 0) for row in rows) / 2
    chosen = good("select", "run", "--tolerance", tolerance, "--to", "chosen.safetensors", "--format", "json").json
    for command in chosen["commands"]:
        good(*shlex.split(command)[1:])
    taken = [name for row in chosen["rows"] if row["taken"] for name in row["tensors"]]
    assert taken
    assert Path("chosen.safetensors").is_file()
    plain = pair.plain(pair.mixed(taken))
    assert evaluated("chosen.safetensors", pair) == pytest.approx(plain, rel=1e-5, abs=1e-7)
    assert load_file("chosen.safetensors")
