"""Where the blocks of a sweep are computed: in this process, in several, on a Slurm or a Ray cluster.

An executor is anything with `run(proposal, journal, meter)`, which returns when the journal lacks nothing but what
failed. `Inline` does the work itself. The others divide it by cost into shards, one a worker, and are pools of
workers (`pool.WorkerPool`) that differ in how workers are begun, looked after and stopped (`pool.JobHandle`).
Results never pass through them: workers write journal files of their own, and whoever waits reads these.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

from ckptswap.errors import DependencyError, UsageError
from ckptswap.task.spec import TaskSpec

if TYPE_CHECKING:
    from ckptswap.scoring.scorer import Block
    from ckptswap.sweep.run_folder.journal import Journal
    from ckptswap.sweep.runner import Sweep

Name = Literal["inline", "process", "slurm", "ray"]


class Meter(Protocol):
    """Told of each block that is new. Both raise whatever is to end the work."""

    def __call__(self, block: Block) -> None: ...

    def check(self) -> None:
        """Called every now and then while nothing comes."""


class Executor(Protocol):
    """Where a sweep's blocks are computed."""

    def run(self, proposal: Sweep, journal: Journal, meter: Meter) -> None:
        """Score what the journal lacks; variants that fail are left with their reason.

        Raises what the meter raises, with all finished blocks in the journal's files, and `RunError` where workers
        cannot work, or die again and again without having finished a block.
        """


def executor(
    spec: TaskSpec,
    name: Name | None = None,
    jobs: int | None = None,
    *,
    slurm: Mapping[str, Any] | None = None,
    ray_address: str | None = None,
) -> Executor:
    """The executor of this name (default: `inline`, or `process` for more than one job) for a task.

    `jobs` is the number of workers; of processes, unless told, as many as this machine has room for. `slurm` are
    submitit's parameters for jobs, such as time and partition. Raises `UsageError` for what does not go together,
    `DependencyError` where an extra is missing.

    >>> type(executor(TaskSpec())).__name__, type(executor(TaskSpec(), jobs=2)).__name__
    ('Inline', 'WorkerPool')
    """
    from ckptswap.executors.inline import Inline
    from ckptswap.executors.pool import WorkerPool

    name = name or ("process" if (jobs or 1) > 1 else "inline")
    _refuse(name, jobs, slurm, ray_address)
    if name == "inline":
        return Inline()
    if name == "process":
        from ckptswap.executors.process import Processes, jobs_of

        return WorkerPool(Processes(), jobs or jobs_of(spec))
    assert jobs is not None
    try:
        if name == "slurm":
            from ckptswap.executors.slurm import Slurm

            return WorkerPool(Slurm(slurm or {}), jobs)
        from ckptswap.executors.ray import Ray

        return WorkerPool(Ray(ray_address), jobs)
    except ImportError:
        raise DependencyError(
            f"--executor {name} needs an extra", remedy=f"pip install 'ckptswap[{name}]'"
        ) from None


def _refuse(name: str, jobs: int | None, slurm: Mapping[str, Any] | None, ray_address: str | None) -> None:
    """Raises `UsageError` for what does not go together."""
    if name not in get_args(Name):
        raise UsageError(f"there is no executor {name!r}", remedy=f"use one of {', '.join(get_args(Name))}")
    if jobs is not None and jobs < 1:
        raise UsageError(f"{jobs} jobs make no sweep", remedy="give 1 or more")
    if slurm and name != "slurm":
        raise UsageError("Slurm's parameters are given without Slurm", remedy="add --executor slurm")
    if ray_address and name != "ray":
        raise UsageError("a Ray address is given without Ray", remedy="add --executor ray")
    if name == "inline" and (jobs or 1) > 1:
        raise UsageError(f"inline is one job, not {jobs}", remedy="use --executor process")
    if name in ("slurm", "ray") and jobs is None:
        raise UsageError(f"nobody says among how many jobs of {name} to divide the work", remedy="give --jobs N")
