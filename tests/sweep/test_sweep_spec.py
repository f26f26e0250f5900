"""What a sweep is told is refused where it makes no sense, before anything is written."""

from __future__ import annotations

import math
from typing import Any

import pytest

from ckptswap.errors import UsageError
from ckptswap.sweep.spec import RunOptions, SweepSpec
from ckptswap.task import TaskSpec

ODD_SPECS: list[dict[str, Any]] = [
    {"engine": "odd"}, {"mode": "odd"}, {"by": "kind"}, {"alphas": (math.nan,)}, {"alphas": (2.0,)},
    {"alphas": (-0.5,)}, {"memory": 0.5}, {"memory": 0}, {"memory": True}, {"screen": "odd"}, {"screen": 4},
    {"screen": "sample:0"}, {"screen": "sample:-1"}, {"screen": "sample:1.5"}, {"screen": "sample:"},
]  # fmt: skip
ODD_OPTIONS: list[dict[str, Any]] = [
    {"top": 2.5}, {"top": "2"}, {"top": 0}, {"jobs": "2"}, {"jobs": 1.5}, {"budget": -1.0},
    {"budget": math.nan}, {"fresh": "no"}, {"executor": 3}, {"tolerance": math.nan}, {"slurm": "time=1"},
]  # fmt: skip


@pytest.mark.parametrize("odd", ODD_SPECS, ids=str)
def test_an_odd_spec_is_refused(odd: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        SweepSpec(("a.pt",), "b.pt", TaskSpec(threads=1), **odd)


@pytest.mark.parametrize("odd", ODD_OPTIONS, ids=str)
def test_odd_options_are_refused(odd: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        RunOptions(**odd)


def test_what_makes_sense_is_kept() -> None:
    spec = SweepSpec(("a.pt",), "b.pt", TaskSpec(threads=1), alphas=(0, 0.5, 1), memory=1, mode="prefix")
    assert (spec.alphas, spec.memory) == ((0, 0.5, 1), 1)
    assert RunOptions(top=3, epsilon=0, budget=0.0).race_rules(1.0).epsilon == 0
