"""Workers that are jobs of a Slurm cluster, begun through submitit (the extra `slurm`).

The jobs of a spec are one array. When the process that submitted them is gone they go on, and whoever runs the
same sweep again, anywhere, finds them in the queue by their comment. One that Slurm preempts, or that comes to its
time limit, finishes the block in hand and is queued again.

submitit's files are pickles: each spec has a new folder for them, which nobody can have filled before, and the
sweep opens none. A job says how it ended in a file of JSON.
"""

import getpass
import json
import logging
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from ckptswap.errors import CkptswapError, RunError, Stopped, UsageError, near
from ckptswap.executors.pool import Ending, WorkerPool, given_jobs
from ckptswap.executors.process import last_line, log_end
from ckptswap.executors.worker import work
from ckptswap.executors.worker_spec import WorkerSpec, read_worker_spec, spec_path
from ckptswap.formats.atomic import write_text
from ckptswap.scoring.allocator import keep_freed_memory
from ckptswap.sweep.run_folder.plain import faults, read_plain
from ckptswap.sweep.stopping import on_signals
from ckptswap.task.spec import TaskSpec

os.environ.setdefault("SUBMITIT_LOG_LEVEL", "NOCONFIG")  # else importing it sets up logging to stdout
import submitit

MARK = "ckptswap"
JOBS = "slurm"  # the folder of submitit's files in a run's folder
OVER = {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED",
        "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT"}  # fmt: skip
"""States of jobs that will not run again; a requeued one has others."""
_LINES = ("setup", "teardown")  # lists of lines of a shell
_NOT_ASKED = frozenset(("command", "folder", "map_count", "comment"))
"""What is ours, or submitit's own: a job is found again by its comment."""
LOOKS = 2
"""How often a job without a result must be found over: its result may take a while to appear on a network."""


def build(task: TaskSpec, jobs: int | None, options: Mapping[str, Any]) -> WorkerPool:
    """An executor of Slurm's jobs; `options["slurm"]` are submitit's parameters: time in minutes, partition, …

    Raises `UsageError` where nobody says how many, `RunError` where there is no Slurm.
    """
    jobs, parameters = given_jobs("slurm", jobs), _checked(options.get("slurm", {}))
    queue()
    pool = WorkerPool(partial(_submit, parameters), jobs, reattach)
    pool.header = partial(_header, parameters, jobs, task.threads)
    return pool


def _checked(parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    """Slurm's parameters, where submitit knows them all; `setup` and `teardown` may be one line of a shell."""
    known = submitit.SlurmExecutor._valid_parameters() - _NOT_ASKED
    unknown = next((name for name in parameters if name not in known), None)
    if unknown is not None:
        other = f'others go through additional_parameters={{"{unknown.replace("_", "-")}":…}}'
        remedy = near(unknown, known) or f"it takes {', '.join(sorted(known))}; {other}"
        raise UsageError(f"--slurm has no parameter {unknown!r:.40}", remedy=remedy)
    lines = {name: [value] for name, value in parameters.items() if name in _LINES and isinstance(value, str)}
    return {**parameters, **lines}


def _executor(folder: Path, parameters: Mapping[str, Any], threads: int | None, token: str) -> Any:
    executor = submitit.SlurmExecutor(folder)
    own = {"cpus_per_task": threads, "job_name": MARK, "comment": f"{MARK} {token}"}
    logging.getLogger("submitit").setLevel(logging.ERROR)
    try:
        executor.update_parameters(**{**own, **parameters})
    except (ValueError, TypeError, AssertionError) as error:
        raise UsageError(f"submitit refuses Slurm's parameters ({error})", remedy="check --slurm") from None
    return executor


def _header(parameters: Mapping[str, Any], jobs: int, threads: int | None, folder: Path) -> str:
    """What sbatch will be told, and what each job does before its work."""
    executor = _executor(_folder_of(folder, "TOKEN"), parameters, threads, "TOKEN")
    executor.parameters |= {"map_count": jobs} if jobs > 1 else {}
    # submitit shows it to nobody; what it runs then is told by a file that is not there yet.
    script = executor._make_submission_file_text("", "")
    return str(script.partition("\n# command")[0].rstrip())


def _submit(parameters: Mapping[str, Any], spec: WorkerSpec) -> "SlurmHandle":
    return SlurmHandle({}, spec, _executor(_new_folder(spec), parameters, spec.threads, spec.token))


def reattach(folder: Path) -> "tuple[SlurmHandle, Collection[int]] | None":
    """The jobs in the queue that belong to a spec of this folder."""
    jobs: dict[int, Any] = {}
    for number, (state, comment) in queue().items():
        token = comment.removeprefix(f"{MARK} ")
        if state not in OVER and token != comment and spec_path(folder, token).exists():
            jobs[len(jobs)] = submitit.SlurmJob(_folder_of(folder, token), number)
    return (SlurmHandle(jobs), jobs.keys()) if jobs else None


class SlurmHandle:
    """The jobs of one spec, or those that were found in the queue."""

    poll = 1.0

    def __init__(self, jobs: dict[int, Any], spec: WorkerSpec | None = None, executor: Any = None) -> None:
        self._jobs: dict[int, submitit.SlurmJob[Any]] = jobs
        self._spec, self._executor = spec, executor
        self._over: Counter[int] = Counter()

    def begin(self, shards: Sequence[int]) -> None:
        assert self._spec is not None
        told = [str(self._spec.path)] * len(shards), [self._spec.seal] * len(shards), shards
        try:
            jobs = self._executor.map_array(run_shard, *told)
        except (subprocess.CalledProcessError, submitit.core.utils.FailedJobError, OSError) as error:
            fault = f"Slurm takes no jobs ({_last_words(error)})"
            raise RunError(fault, remedy="check --slurm, and `sinfo`") from None
        self._jobs.update(zip(shards, jobs, strict=True))

    def ended(self) -> Mapping[int, Ending]:
        try:
            states = queue()
        except RunError:
            return {}  # a controller may be away for a while, and jobs go on
        endings = {}
        for shard, job in list(self._jobs.items()):
            if ending := self._ending(shard, job, states):
                endings[shard] = ending
                del self._jobs[shard], self._over[shard]
        return endings

    def stop(self) -> str:
        """They are left alone."""
        ids = " ".join(dict.fromkeys(str(job.job_id).split("_")[0] for job in self._jobs.values()))
        return f"Slurm's jobs go on (`scancel {ids}` ends them), and the same command collects what they find"

    def kill(self) -> None:
        """Nothing: what goes on is found again."""

    def _ending(
        self, shard: int, job: submitit.SlurmJob[Any], states: Mapping[str, tuple[str, str]]
    ) -> Ending | None:
        if self._spec is not None and (last_words := _end_path(self._spec.path, shard)).exists():
            fault = json.loads(read_plain(last_words))["fault"]
            return Ending(fault, hopeless=fault is not None)
        state = states.get(job.job_id, ("forgotten", ""))[0]
        is_over = state in OVER or state == "forgotten"
        self._over[shard] = self._over[shard] + 1 if is_over else 0
        if self._over[shard] < LOOKS:
            return None
        return Ending(f"job {job.job_id} is {state}; {log_end(job.paths.stderr)}".rstrip("; "))


def _end_path(spec: Path, shard: int) -> Path:
    """Where a job says that it is done, or why it cannot work; one that dies says nothing."""
    return spec.with_name(f"{spec.stem}-{shard}.ended")


def _last_words(error: BaseException) -> str:
    return last_line(getattr(error, "stderr", None) or str(error)) or type(error).__name__


def _folder_of(folder: Path, token: str) -> Path:
    """Where submitit keeps what it knows of a spec's jobs, by the number of the array."""
    return folder.absolute() / JOBS / token / "%A"


def _new_folder(spec: WorkerSpec) -> Path:
    """The same, made for a new spec. Raises `RunError` where another user could put other pickles there."""
    folder = Path(spec.folder)
    with faults(f"cannot make {folder / JOBS}"):
        if folder.stat().st_uid != os.getuid():
            raise RunError(f"{folder} belongs to another user", remedy="use a --run of your own with Slurm")
        (folder / JOBS).mkdir(exist_ok=True)
        (folder / JOBS / spec.token).mkdir(mode=0o700)
    return _folder_of(folder, spec.token)


def queue() -> dict[str, tuple[str, str]]:
    """State and comment of each job of this user that Slurm still knows. Raises `RunError` without a Slurm."""
    what = ["--array", "--noheader", "--states=all", "--format=%i|%T|%k"]
    command = ["squeue", "--user", getpass.getuser(), *what]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    except FileNotFoundError:
        raise RunError("there is no Slurm here (no squeue)", remedy="run it where jobs are submitted") from None
    except (subprocess.SubprocessError, OSError) as error:
        raise RunError(f"squeue fails ({_last_words(error)})", remedy="is the controller there?") from None
    rows = (line.split("|", 2) for line in done.stdout.splitlines())
    return {number: (state, comment) for number, state, comment in rows}


def run_shard(path: str, seal: str, shard: int) -> str | None:
    """What a job does. Returns why it cannot work, None when its shard is done."""
    keep_freed_memory()
    fault = None
    # submitit's handlers, which are in place by now, would ignore the one and break off at the other.
    with on_signals(signal.SIGTERM, signal.SIGUSR2, patient=True) as stop:
        try:
            work(read_worker_spec(path, seal), shard, stop)
        except Stopped:
            _leave()
        except CkptswapError as error:
            fault = str(error)
    write_text(_end_path(Path(path), shard), json.dumps({"fault": fault}))
    return fault


def _leave() -> None:
    """End without a result, queued again where Slurm would not do it by itself."""
    # Slurm signals every process of a job, often twice: the second would kill the scontrol started below.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # Not SLURM_JOB_ID: one task of an array has the array's own number there, and would requeue all its siblings.
    number = submitit.JobEnvironment().job_id
    if must_requeue_itself(number):
        subprocess.run(["scontrol", "requeue", number], check=True)
    sys.exit(128 + signal.SIGTERM)  # no Exception, so that submitit leaves no result that would call the job done


def must_requeue_itself(number: str) -> bool:
    """Whether a job that was told to stop should ask to be run again. The controller knows why it was stopped:

    | stopped by | `scontrol show job` says | it comes back |
    |---|---|---|
    | `scontrol requeue`, preemption at once | COMPLETING, `Restarts` one higher | by itself |
    | preemption with a grace time | RUNNING, `PreemptTime` set | if it asks |
    | `scancel` | COMPLETING, `Restarts` as before | if it asks, and then nobody can cancel it: don't |
    | `scancel --signal TERM` | RUNNING, no `PreemptTime` | if it asks: don't |
    | the time limit is near (SIGUSR2) | RUNNING, `EndTime` soon | if it asks |
    """
    shown = subprocess.run(["scontrol", "show", "job", number], capture_output=True, text=True, check=True).stdout
    facts = dict(re.findall(r"(\w+)=(\S*)", shown))
    preempted = facts.get("PreemptTime", "None") != "None"
    near = datetime.now() + timedelta(minutes=3)  # submitit asks for SIGUSR2 90 s before the end
    try:
        is_at_its_limit = datetime.fromisoformat(facts["EndTime"]) < near
    except (KeyError, ValueError):
        is_at_its_limit = False
    return facts["JobState"] == "RUNNING" and (preempted or is_at_its_limit)
