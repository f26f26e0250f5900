"""Sweeps of checkpoints that are open already, as tests ask for them: by keywords."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ckptswap.checkpoint import Checkpoint
from ckptswap.sweep import preparing
from ckptswap.sweep.plan import Plan
from ckptswap.sweep.progress import Listeners
from ckptswap.sweep.result import SweepResult
from ckptswap.sweep.run_folder.folder import RunFolder
from ckptswap.sweep.run_folder.plan_file import RunMetric, RunPlan
from ckptswap.sweep.run_folder.sealed import sealed, unsealed
from ckptswap.sweep.runner import Sweep
from ckptswap.sweep.sides import Sides
from ckptswap.sweep.spec import RunOptions, SourceFile, SweepSource, SweepSpec
from ckptswap.task import TaskSpec

SPEC = ("selection", "by", "mode", "alphas", "calibration", "engine", "memory", "screen", "decide")
HEARD = ("progress", "live", "news", "stop")


def prepare(
    donor: Checkpoint | str | Sequence[Checkpoint | str],
    recipient: Checkpoint,
    task: TaskSpec,
    *,
    run_dir: str | Path | None = None,
    **spec: Any,
) -> Sweep:
    """Plan a sweep; the keywords are fields of `SweepSpec`."""
    donors = [donor] if isinstance(donor, str | Checkpoint) else donor
    names = tuple(each if isinstance(each, str) else each.path for each in donors)
    for field in {"by", "alphas"} & spec.keys():
        spec[field] = tuple(spec[field])
    told = SweepSpec(
        names, recipient.path, task, **{key: value for key, value in spec.items() if value is not None}
    )
    return preparing.prepare(told, Sides(tuple(donors), recipient), run_dir)


def ran(planned: Sweep, *, samples: bool = False, executor: Any = None, **how: Any) -> SweepResult:
    """Run a sweep; the keywords are fields of `RunOptions` and `Listeners`."""
    heard = {name: how.pop(name) for name in HEARD if name in how}
    return planned.run(RunOptions(samples=samples, **how), Listeners(**heard), executor).result


def sweep(
    donor: Checkpoint | str | Sequence[Checkpoint | str],
    recipient: Checkpoint,
    task: TaskSpec,
    *,
    run_dir: str | Path | None = None,
    **how: Any,
) -> SweepResult:
    """Plan and run one."""
    spec = {name: how.pop(name) for name in SPEC if name in how}
    return ran(prepare(donor, recipient, task, run_dir=run_dir, **spec), **how)


def run_plan(key: Mapping[str, Any], **changed: Any) -> RunPlan:
    """The plan of a run of nothing, under these conditions."""
    source = SweepSource(
        SweepSpec(("a.pt",), "b.pt", TaskSpec(threads=1)),
        "",
        (SourceFile("/a.pt", {}),),
        SourceFile("/b.pt", {}),
        "/",
        (),
    )
    plan = RunPlan(
        key=key,
        source=source,
        tolerance=None,
        metrics=(RunMetric("iou", "max", None, (0.0, 1.0), True),),
        groups=(0,),
        units=(0,),
        walk=((0,),),
        plan=Plan((("kind",),), (), ()),
        layers=(),
        donor_misfits=(None,),
        warnings=(),
    )
    return replace(plan, **changed)


def plan_json(run: str | Path) -> dict[str, Any]:
    """What a run's `plan.json` says."""
    return unsealed(RunFolder(run).plan_path.read_bytes())


def write_plan_json(run: str | Path, content: Mapping[str, Any]) -> None:
    """Write a run's `plan.json` as this user's command does, whatever it says."""
    RunFolder(run).plan_path.write_text(sealed(content, marked=True))
