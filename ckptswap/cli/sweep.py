"""`ckptswap sweep`: which layers and kinds can be taken from another checkpoint, and which break the network."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ckptswap.cli.diff import split_ways
from ckptswap.cli.flags import (
    AsciiFlag,
    Format,
    FormatFlag,
    NameFlags,
    OutFlag,
    Patterns,
    SelectionFlags,
    TaskFlags,
    flags,
)
from ckptswap.cli.terminal import emit, progress, say, style, tell_unmatched, warn
from ckptswap.errors import EXIT_PARTIAL, UsageError
from ckptswap.report.text import safe

if TYPE_CHECKING:
    from ckptswap.report.text import Style
    from ckptswap.sweep.executors import Executor
    from ckptswap.sweep.plan import Cell
    from ckptswap.sweep.result import SweepResult
    from ckptswap.sweep.run import Proposal
    from ckptswap.task.spec import TaskSpec

SHOWN = 2
"""Of the worst cells so far, those that fit behind a progress bar."""

RunFlag = Annotated[
    str | None, typer.Option("--run", metavar="DIR", help="The run's folder. [default: runs/KEY, printed]")
]


def _bytes(text: str) -> int:
    """`2GB`, `500MB` or a plain number of bytes."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", text.strip(), re.IGNORECASE)
    size = int(float(found[1]) * 1000 ** " KMGT".index(found[2].upper() or " ")) if found else 0
    if not size:
        raise UsageError(f"--memory {text!r} is no size", remedy="write for example 2GB")
    return size


def _seconds(text: str) -> float:
    """`90s`, `5m`, `2h` or a plain number of seconds."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text.strip())
    if found is None or not float(found[1]):
        raise UsageError(f"--budget {text!r} is no time", remedy="write for example 90s, 5m or 2h")
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]


def _tolerance(value: float | None) -> float | None:
    """A drop's limit is finite and not negative; a NaN would pass any range."""
    if value is not None and not (0 <= value < math.inf):
        raise UsageError(f"tolerance is {value}", remedy="it must be a number, 0 or more")
    return value


ToleranceFlag = Annotated[
    float | None,
    typer.Option(
        callback=_tolerance,
        help="The largest drop that counts as none. [default: 1 % of what the baseline gains, printed]",
    ),
]


@dataclass
class WorkFlags:
    """How much is computed, and how."""

    top: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Race for the N worst cells only, and show no others."),
    ] = None
    confidence: Annotated[
        float | None,
        typer.Option(metavar="P", help="With --top: how sure to be of these N. [default: 0.95]"),
    ] = None
    epsilon: Annotated[
        float | None,
        typer.Option(metavar="DROP", help="With --top: drops so near are tied. [default: the tolerance]"),
    ] = None
    budget: Annotated[
        float | None,
        typer.Option(metavar="TIME", parser=_seconds, help="Stop after so long, such as 90s, 5m or 2h."),
    ] = None
    screen: Annotated[
        Literal["rmse", "gradient"] | None,
        typer.Option(help="Guess the ranking beforehand, and tell how well it was guessed."),
    ] = None
    engine: Annotated[
        Literal["auto", "replay", "full"],
        typer.Option(help="How variants are scored: replay only what a swap changes, or full forward passes."),
    ] = "auto"
    memory: Annotated[
        int | None,
        typer.Option(metavar="SIZE", parser=_bytes, help="What replays may take, such as 2GB. [default: 2GB]"),
    ] = None

    def limits(self) -> dict[str, Any]:
        """What `Proposal.run` takes of it; raises `UsageError` for a race's flags without a race."""
        if self.top is None and (self.confidence is not None or self.epsilon is not None):
            raise UsageError("--confidence and --epsilon are for a race", remedy="give --top N with them")
        confidence = 0.95 if self.confidence is None else self.confidence
        race = {"top": self.top, "confidence": confidence, "epsilon": self.epsilon}
        return {**race, "budget": self.budget, "screen": self.screen}


def _parameters(values: Sequence[str] | None) -> dict[str, Any]:
    """`K=V,K=V` as submitit takes it."""
    from ckptswap.task.spec import parse_args

    return parse_args(",".join(values)) if values else {}


@dataclass
class ExecutorFlags:
    """Where it is computed."""

    executor: Annotated[
        Literal["inline", "process", "slurm", "ray"] | None,
        typer.Option(help="Where: here, in processes, on a Slurm or a Ray cluster. [default: inline]"),
    ] = None
    jobs: Annotated[
        int | None,
        typer.Option("-j", "--jobs", metavar="N", min=1, help="Among how many workers, of --threads each."),
    ] = None
    slurm: Annotated[
        Patterns,
        typer.Option(metavar="K=V,…", help="With slurm: submitit's parameters, such as time=60,partition=gpu."),
    ] = None
    ray_address: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="With ray: of the cluster. [default: one on this machine]"),
    ] = None

    def executor_for(self, spec: TaskSpec) -> Executor:
        """Raises `UsageError` for flags that do not go together."""
        from ckptswap.sweep.executors import executor

        slurm = _parameters(self.slurm)
        return executor(spec, self.executor, self.jobs, slurm=slurm, ray_address=self.ray_address)


@flags
def sweep(
    donor: Annotated[str, typer.Option("--from", metavar="DONOR", help="The checkpoint that gives.")],
    recipient: Annotated[str, typer.Option("--to", metavar="RECIPIENT", help="The checkpoint that receives.")],
    select: SelectionFlags,
    names: NameFlags,
    task: TaskFlags,
    work: WorkFlags,
    where: ExecutorFlags,
    by: Annotated[
        Patterns,
        typer.Option("--by", metavar="WAY", help="layer,kind | layer | kind | tensor; repeat for several tables."),
    ] = None,
    run: RunFlag = None,
    tolerance: ToleranceFlag = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Set the folder's old journal aside and begin anew.")
    ] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Leave damaged lines out of the journal and compute these anew.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and its cost; score nothing.")
    ] = False,
    format: FormatFlag = "table",
    out: OutFlag = None,
    ascii: AsciiFlag = False,
) -> None:
    """Swap each layer × kind in, one at a time, score the network, and rank what breaks it.

    The same command again continues an interrupted run, and scores only what is new.

    \b
    Examples:
      ckptswap sweep --from reconstruct.safetensors --to segment.safetensors --data lab:mni --metric dice --dry-run
      ckptswap sweep --from reconstruct.safetensors --to segment.safetensors --data lab:mni --metric dice \\
        --only 'bn.running_*' --layers encoder.3 --limit 16
      ckptswap sweep --from reconstruct.safetensors --to segment.safetensors --data lab:mni --metric dice \\
        --by kind --limit 16 --format json | jq '.rows[0]'
    """
    from ckptswap.formats import open_checkpoint
    from ckptswap.sweep.allocator import keep_freed_memory
    from ckptswap.sweep.run import propose

    keep_freed_memory()
    limits, selection = work.limits(), select.selection()
    ways = tuple(split_ways([value]) for value in by or ["layer,kind"])
    with open_checkpoint(donor) as giving, open_checkpoint(recipient) as receiving:
        giving, receiving = names.matched(giving, receiving)
        how: dict[str, Any] = {
            "selection": selection,
            "by": ways,
            "run_dir": run,
            "engine": work.engine,
            "memory": work.memory,
        }
        spec = task.spec()
        executor = where.executor_for(spec)
        proposal = propose(giving, receiving, spec, **how)
        tell_unmatched(selection, receiving)
        if dry_run:
            emit(_plan(proposal, format), out)
            return
        say(f"run: {proposal.folder}")
        _run(proposal, tolerance=tolerance, fresh=fresh, repair=repair, executor=executor, **limits)
    result = judged(str(proposal.folder))
    export(result, str(proposal.folder))
    say_notes(result, format)
    emit(render(result, format, style(out, ascii=ascii), work.top), out)
    failed = sum(row.status == "failed" for row in result.rows)
    if failed:
        say(f"ckptswap: {failed} of {len(result.rows)} variants failed; the reasons are in the table")
        raise typer.Exit(EXIT_PARTIAL)


def _run(proposal: Proposal, **how: Any) -> None:
    """Score, behind a bar that also shows the worst cells so far, with the exports kept up to date."""
    from ckptswap.sweep.stopping import on_signals

    worst = ""

    def show(found: Sequence[tuple[Cell, float]]) -> None:
        nonlocal worst
        worst = "worst so far: " + "; ".join(_named(cell, drop) for cell, drop in found[:SHOWN])

    def news() -> None:
        export(judged(str(proposal.folder)), str(proposal.folder))

    try:
        with on_signals() as stop, progress("sweep", unit=" blocks") as tell:
            proposal.run(
                **how,
                stop=stop,
                progress=lambda done, total: tell(done, total, worst),
                live=show,
                news=news,
            )
    finally:
        warn(proposal.engine.notes)


def _named(cell: Cell, drop: float) -> str:
    where = " ".join(part for part in (cell.layer, cell.kind) if part)
    return f"{safe(where or cell.names[0])} {drop:+.3f}"


def judged(folder: str, metric: str | None = None, tolerance: float | None = None) -> SweepResult:
    """The table of a run's folder, with the paper's claims judged on it."""
    from ckptswap.lab.findings import findings
    from ckptswap.sweep.evidence import load_evidence

    evidence = load_evidence(folder, metric, tolerance)
    return replace(evidence.result, findings=findings(evidence))


def render(result: SweepResult, format: Format, style: Style, top: int | None = None) -> str:
    """A sweep's result in one of the formats; the table comes with heatmap, kinds and findings."""
    from ckptswap.report import sweep as report
    from ckptswap.report.heatmap import heatmap
    from ckptswap.report.text import dump_json

    if format != "table" and top is not None:
        worst = tuple(row for row in result.rows if row.rank is not None and row.rank <= top)
        result = replace(result, rows=worst)
    if format == "json":
        return dump_json(report.sweep_json(result))
    if format == "csv":
        return report.sweep_csv(result)
    if format == "md":
        return report.sweep_md(result)
    below = (heatmap, report.kind_summary, report.findings_text)
    parts = [report.sweep_table(result, style, top=top), *(draw(result, style) for draw in below)]
    return "\n".join(part for part in parts if part.strip())


def say_notes(result: SweepResult, format: Format) -> None:
    """Tolerance and warnings on stderr, for the formats that have no place for words."""
    if format in ("json", "csv"):
        for note in result.notes:
            say(f"ckptswap: note: {note}")


def export(result: SweepResult, folder: str) -> None:
    """The same table beside the journal, for whoever reads the folder without us."""
    for format in ("json", "csv", "md"):
        emit(render(result, format, style()), f"{folder}/result.{format}")


def _plan(proposal: Proposal, format: Format) -> str:
    """What would run, and what it costs."""
    from ckptswap.report import plan as report
    from ckptswap.report.text import dump_json

    data = report.plan_json(proposal.plan, str(proposal.folder), proposal.task.samples, proposal.cost())
    texts = {
        "table": lambda: report.plan_table(data, style()),
        "json": lambda: dump_json(data),
        "csv": lambda: report.plan_csv(data),
        "md": lambda: report.plan_md(data),
    }
    return texts[format]()
