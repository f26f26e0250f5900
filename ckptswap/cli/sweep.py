"""`ckptswap sweep`: which layers and kinds can be taken from another checkpoint, and which break the network."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

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
from ckptswap.cli.terminal import emit, progress, say, style, tell_unmatched
from ckptswap.errors import EXIT_PARTIAL, UsageError

if TYPE_CHECKING:
    from ckptswap.report.text import Style
    from ckptswap.sweep.result import SweepResult
    from ckptswap.sweep.run import Proposal

RunFlag = Annotated[
    str | None, typer.Option("--run", metavar="DIR", help="The run's folder. [default: runs/KEY, printed]")
]


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


@flags
def sweep(
    donor: Annotated[str, typer.Option("--from", metavar="DONOR", help="The checkpoint that gives.")],
    recipient: Annotated[str, typer.Option("--to", metavar="RECIPIENT", help="The checkpoint that receives.")],
    select: SelectionFlags,
    names: NameFlags,
    task: TaskFlags,
    by: Annotated[
        Patterns,
        typer.Option("--by", metavar="WAY", help="layer,kind | layer | kind | tensor; repeat for several tables."),
    ] = None,
    run: RunFlag = None,
    tolerance: ToleranceFlag = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Set the folder's old journal aside and begin anew.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and its cost; score nothing.")
    ] = False,
    top: Annotated[int | None, typer.Option(metavar="N", min=1, help="Show only the N worst cells.")] = None,
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
    from ckptswap.sweep.run import propose

    ways = tuple(split_ways([value]) for value in by or ["layer,kind"])
    with open_checkpoint(donor) as giving, open_checkpoint(recipient) as receiving:
        giving, receiving = names.matched(giving, receiving)
        selection = select.selection()
        proposal = propose(giving, receiving, task.spec(), selection=selection, by=ways, run_dir=run)
        tell_unmatched(selection, receiving)
        if dry_run:
            emit(_plan(proposal, format), out)
            return
        say(f"run: {proposal.folder}")
        with progress("sweep", unit=" passes") as tell:
            proposal.run(tolerance=tolerance, fresh=fresh, progress=tell)
    result = judged(str(proposal.folder))
    export(result, str(proposal.folder))
    say_notes(result, format)
    emit(render(result, format, style(out, ascii=ascii), top), out)
    failed = sum(row.status == "failed" for row in result.rows)
    if failed:
        say(f"ckptswap: {failed} of {len(result.rows)} variants failed; the reasons are in the table")
        raise typer.Exit(EXIT_PARTIAL)


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

    data = report.plan_json(proposal.plan, str(proposal.folder), proposal.task.samples)
    texts = {
        "table": lambda: report.plan_table(data, style()),
        "json": lambda: dump_json(data),
        "csv": lambda: report.plan_csv(data),
        "md": lambda: report.plan_md(data),
    }
    return texts[format]()
