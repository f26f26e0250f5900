"""The command line and the library are twins: the same fields are flags and keywords, and both leave the same."""

from __future__ import annotations

import inspect
import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_program import TASK, good

import ckptswap as cs
from ckptswap.cli.main import Commands
from ckptswap.errors import UsageError
from ckptswap.given import selection_of
from ckptswap.records import flag_name
from ckptswap.sweep.spec import Judging, RunOptions, SweepSpec
from ckptswap.sweeping import asked, keywords
from ckptswap.task.spec import TaskSpec

PAIR = ("reconstruct.safetensors", "segment.safetensors")
TASK_KEYS: dict[str, Any] = {"data": "scans", "group": r"(s\d+)_", "batch_size": 8, "threads": 1, "metric": "iou"}
OF_THE_COMMAND = {
    *("format", "out", "force", "ascii", "width", "all", "quiet", "progress", "fail_on"),
    *("dry_run", "help", "from", "to", "config", "both"),
}
"""What is about printing and exit codes, or is an argument of the library's functions."""


def flag_names(command: str) -> set[str]:
    options = (word for option in Commands()[command].params for word in option.opts if word.startswith("--"))
    return {word.removeprefix("--").replace("-", "_") for word in options}


def test_every_field_of_a_spec_is_a_flag_and_a_keyword() -> None:
    flags, words = flag_names("sweep"), {*keywords(), "claims"}
    task = {flag_name(part).replace("-", "_") for part in fields(TaskSpec) if part.metadata.get("help")}
    told = {
        flag_name(part).replace("-", "_")
        for form in (SweepSpec, RunOptions)
        for part in fields(form)
        if part.metadata.get("help")
    }
    assert task | told <= flags
    assert told <= words
    both = set(inspect.signature(cs.sweep_both).parameters)
    assert flags <= words | task | both | OF_THE_COMMAND, "every flag of the command is a keyword of the library"


@pytest.mark.parametrize(
    "command", ["show", "diff", "transplant", "evaluate", "report", "plot", "select", "convert"]
)
def test_every_flag_of_a_command_is_a_keyword_of_its_function(command: str) -> None:
    from ckptswap import api

    functions = [getattr(api, command)]
    functions += {"transplant": [api.planned_transplant, selection_of]}.get(command, [])
    known = {word for function in functions for word in inspect.signature(function).parameters}
    known |= {part.name for part in fields(Judging)} if {"judging", "how"} & known else set()
    names = {"map", "map_file", "strip_prefix", "map_preset", "match"}
    task = {flag_name(part).replace("-", "_") for part in fields(TaskSpec)}
    # Rows are pooled, sorted and cut by `Diff.grouped` and `Diff.sorted`; `commands` makes what select prints.
    # `evaluate --explain` is a function of its own, `cs.explain`.
    own = {
        "diff": {"by", "sort", "top", "exit_code"},
        "report": {"top", "watch", "only", "exclude", "layers", "kind", "verdict", "sort"},
        "plot": {"only", "exclude", "layers", "kind"},
        "select": {"to"},
        "evaluate": {"explain"},
    }
    assert flag_names(command) <= known | names | task | OF_THE_COMMAND | own.get(command, set())


def folder_of(run: Path) -> dict[str, Any]:
    """What a run's folder holds, without when and by which command it was made."""
    plan = json.loads((run / "plan.json").read_text("utf-8"))
    for part in ("made", "sha256", "mark"):  # when, by which command, and the seals over that
        plan.pop(part, None)
    texts = {path.name: path.read_text("utf-8") for path in run.glob("result.*") if path.suffix != ".html"}
    return {"files": sorted(path.name for path in run.iterdir()), "plan": plan, **texts}


CALLS: list[tuple[list[object], dict[str, Any]]] = [
    (["--by", "kind"], {"by": "kind"}),
    (
        ["--by", "kind", "--kind", "bn.stats", "--alpha", "0:1:0.5", "--tolerance", "0.02", "--engine", "full"],
        {"by": "kind", "kind": "bn.stats", "alpha": "0:1:0.5", "tolerance": 0.02, "engine": "full"},
    ),
    (["--by", "layer", "--top", 2, "--epsilon", "0.01"], {"by": "layer", "top": 2, "epsilon": 0.01}),
]


@pytest.mark.parametrize(("flags", "words"), CALLS, ids=["kind", "alpha", "race"])
def test_both_leave_the_same_folder(flags: list[object], words: dict[str, Any], work: Path) -> None:
    task = [*TASK, "--metric", "iou"]
    good("sweep", "--from", PAIR[0], "--to", PAIR[1], *task, *flags, "--run", "a")
    result = cs.sweep(*PAIR, run="b", **words, **TASK_KEYS)
    assert folder_of(work / "a") == folder_of(work / "b")
    assert cs.report("a").rows == result.rows


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"engine": "nosuch"}, "engine is 'nosuch': use auto or replay or full"),
        ({"screen": "nosuch"}, "use rmse, gradient, curvature, or sample:N"),
        ({"screen": "sample:0"}, "screen is 'sample:0'"),
        ({"mode": "nosuch"}, "use only or"),
        ({"alpha": True}, "alpha is"),
        ({"alpha": float("nan")}, "alpha is"),
        ({"alpha": 2.0}, "outside 0…1"),
        ({"memory": -1}, "memory is -1"),
        ({"budget": -3}, "budget is -3"),
        ({"top": "3"}, "top is '3'"),
        ({"jobs": "2"}, "jobs is '2'"),
        ({"executor": 3}, "executor is 3"),
        ({"tolerence": 0.1}, "did you mean 'tolerance'?"),
    ],
)
def test_a_keyword_is_held_to_what_its_flag_takes(how: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)):
        asked("a.pt", "b.pt", **how)


def test_keywords_may_be_numbers_of_numpy() -> None:
    how = asked("a.pt", "b.pt", alpha=np.array([0.25, 0.5]), top=np.int64(3), memory="2GB", jobs=1)
    assert (how.spec.alphas, how.options.top, how.spec.memory) == ((0.25, 0.5), 3, 2_000_000_000)


def test_every_keyword_is_taken() -> None:
    how = asked("a.pt", "b.pt", samples=False, command="ours", map="a=b", strip_prefix="net.")
    assert (how.options.samples, how.options.command, how.spec.map) == (False, "ours", ("a=b",))
    for name in keywords():
        asked("a.pt", "b.pt", **{name: None})


def test_reproduce_takes_no_other_keywords() -> None:
    with pytest.raises(TypeError, match="tolerance"):
        cs.reproduce("run", tolerance=0.1)
