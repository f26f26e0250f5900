"""`ckptswap sweep`: which layers and kinds can be taken from another checkpoint, and which break the network."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from decimal import Decimal
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
    from ckptswap.checkpoint import Checkpoint
    from ckptswap.report.text import Style
    from ckptswap.sweep.executors import Executor
    from ckptswap.sweep.plan import Cell
    from ckptswap.sweep.result import SweepResult
    from ckptswap.sweep.run import Proposal
    from ckptswap.task.spec import TaskSpec

SHOWN = 2
"""Of the worst cells so far, those that fit behind a progress bar."""

MOST_POINTS = 1000
"""Of a path."""

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


def _alphas(text: str) -> tuple[float, ...]:
    """`0:1:0.1`, or single points."""
    found = re.fullmatch(r"(-?[\d.]+):(-?[\d.]+):([\d.]+)", text)
    try:
        if not found:
            return tuple(float(Decimal(part)) for part in text.split(","))
        start, stop, step = (Decimal(part) for part in found.groups())
        count = int((stop - start) / step) + 1
    except (ArithmeticError, ValueError):
        count = 0
    if not 0 < count <= MOST_POINTS:
        raise UsageError(f"--alpha {text!r} is no path", remedy="write for example 0:1:0.1, or 0.25,0.5")
    return tuple(float(start + step * at) for at in range(count))


def _between(alphas: tuple[float, ...]) -> tuple[float, ...]:
    if not all(0 <= alpha <= 1 for alpha in alphas):
        raise UsageError(
            f"--alpha has a point outside 0…1 ({min(alphas):g} to {max(alphas):g})",
            remedy="it goes from 0 (the recipient) to 1 (the donor)",
        )
    return alphas


@dataclass
class VariantFlags:
    """What each part of the selection takes, and what is scored beside it."""

    mode: Annotated[
        Literal["only", "all-but", "prefix", "suffix"],
        typer.Option(help="Take this part only, all but it, or all layers up to it or from it on."),
    ] = "only"
    alpha: Annotated[
        str | None,
        typer.Option(metavar="A:B:STEP", help="Also go part of the way to the donor, such as 0:1:0.1."),
    ] = None
    recalibrate_bn: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Also estimate BN statistics anew, on N batches."),
    ] = None
    calibration_data: Annotated[
        str | None,
        typer.Option(metavar="SPEC", help="For that: which data. [default: of lab:mni its training part]"),
    ] = None
    calibration_args: Annotated[
        Patterns, typer.Option(metavar="K=V,…", help="Arguments of that data's callable.")
    ] = None

    def how(self) -> dict[str, Any]:
        """What `propose` takes of it; raises `UsageError` for a calibration set without use."""
        from ckptswap.sweep.calibration import Calibration

        calibration = None
        if self.recalibrate_bn is not None:
            args = _parameters(self.calibration_args)
            calibration = Calibration(self.recalibrate_bn, self.calibration_data, args)
        elif self.calibration_data or self.calibration_args:
            raise UsageError(
                "--calibration-data is for --recalibrate-bn", remedy="give --recalibrate-bn N with it"
            )
        alphas = _between(_alphas(self.alpha)) if self.alpha is not None else ()
        return {"mode": self.mode, "alphas": alphas, "calibration": calibration}


@flags
def sweep(
    donor: Annotated[
        list[str],
        typer.Option(
            "--from",
            metavar="DONOR",
            help="The checkpoint that gives; repeat for several. Or one made from the recipient: init:SEED, "
            "rewind, zeros, mean, shuffle:SEED, noise:SHARE.",
        ),
    ],
    recipient: Annotated[str, typer.Option("--to", metavar="RECIPIENT", help="The checkpoint that receives.")],
    select: SelectionFlags,
    names: NameFlags,
    task: TaskFlags,
    what: VariantFlags,
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
      ckptswap sweep --from reconstruct.safetensors --from init:1 --from shuffle:0 --to segment.safetensors \\
        --data lab:mni --metric dice --by kind --limit 16
      ckptswap sweep --from reconstruct.safetensors --to segment.safetensors --data lab:mni --metric dice \\
        --mode prefix --by layer --recalibrate-bn 4 --limit 16
    """
    from ckptswap.formats import open_checkpoint
    from ckptswap.sweep.allocator import keep_freed_memory
    from ckptswap.sweep.run import propose

    keep_freed_memory()
    limits, selection = work.limits(), select.selection()
    ways = tuple(split_ways([value]) for value in by or ["layer,kind"])
    how: dict[str, Any] = {
        "selection": selection,
        "by": ways,
        "run_dir": run,
        "engine": work.engine,
        "memory": work.memory,
        **what.how(),
    }
    spec = task.spec()
    executor = where.executor_for(spec)
    with ExitStack() as stack:
        giving, receiving = _opened(donor, stack.enter_context(open_checkpoint(recipient)), names, spec, stack)
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


def _opened(
    donors: Sequence[str], recipient: Checkpoint, names: NameFlags, spec: TaskSpec, stack: ExitStack
) -> tuple[list[Checkpoint], Checkpoint]:
    """The donors that are files, under comparable names, and then those that are made from the recipient."""
    from ckptswap.sweep.donors import is_made, open_donor

    found: dict[str, Checkpoint] = {}
    for text in donors:
        if not is_made(text):
            donor = stack.enter_context(open_donor(text, recipient, spec))
            found[text], recipient = names.matched(donor, recipient)
    for text in donors:
        if text not in found:
            found[text] = stack.enter_context(open_donor(text, recipient, spec))
    return [found[text] for text in dict.fromkeys(donors)], recipient


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
    if evidence.result.mode != "only" or len(evidence.result.donors) > 1:
        return evidence.result  # the claims are about one donor's parts, one at a time
    return replace(evidence.result, findings=findings(evidence))


def render(result: SweepResult, format: Format, style: Style, top: int | None = None) -> str:
    """A sweep's result in one of the formats; the table comes with heatmap, kinds and findings."""
    from ckptswap.report import sweep as report
    from ckptswap.report.donors import donors_table
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
    if len(result.donors) > 1:
        return donors_table(result, style, top)
    below = (heatmap, report.kind_summary, report.findings_text)
    drawn = () if result.mode in ("prefix", "suffix") else below
    parts = [report.sweep_table(result, style, top=top), *(draw(result, style) for draw in drawn)]
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
