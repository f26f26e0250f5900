"""`ckptswap sweep`: which layers and kinds can be taken from another checkpoint, and which break the network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ckptswap.cli.diff import split_ways
from ckptswap.cli.flags import (
    AsciiFlag,
    Format,
    FormatFlag,
    NameFlags,
    OutFlag,
    OverFlag,
    PartialFlag,
    Patterns,
    SelectionFlags,
    TaskFlags,
    flags,
)
from ckptswap.cli.sweepflags import BothFlags, ExecutorFlags, RunFlag, ToleranceFlag, VariantFlags, WorkFlags
from ckptswap.cli.terminal import command_line, emit, note, progress, say, style, tell_unmatched, warn
from ckptswap.errors import EXIT_PARTIAL
from ckptswap.report.text import safe

if TYPE_CHECKING:
    from ckptswap.report.text import Style
    from ckptswap.sweep.analysis import Analysis
    from ckptswap.sweep.plan import Cell
    from ckptswap.sweep.result import SweepResult
    from ckptswap.sweep.runner import Executor, Sweep
    from ckptswap.sweep.spec import RunOptions, SweepSpec

PAGE = "result.html"


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
    also: BothFlags,
    by: Annotated[
        Patterns,
        typer.Option(
            "--by", metavar="WAY", help="layer,kind | layer | kind | tensor | all; repeat for several tables."
        ),
    ] = None,
    run: RunFlag = None,
    partial: PartialFlag = False,
    tolerance: ToleranceFlag = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Set the folder's old journal aside and begin anew.")
    ] = False,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Compute anew what is damaged in the journal, write a damaged plan."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and its cost; score nothing.")
    ] = False,
    format: FormatFlag = "table",
    out: OutFlag = None,
    force: OverFlag = False,
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
      ckptswap sweep --from reconstruct.safetensors --to segment.safetensors --data lab:mni --metric dice \\
        --both --back-metric psnr --by kind --limit 16
    """
    from ckptswap.scoring.allocator import keep_freed_memory
    from ckptswap.sweep.run_folder.plain import refuse_odd
    from ckptswap.sweep.runner import executor_of
    from ckptswap.sweep.spec import RunOptions, SweepSpec

    keep_freed_memory()
    also.check(donor, format, tolerance)
    options = RunOptions(
        run=run, tolerance=tolerance, fresh=fresh, repair=repair, command=command_line(),
        **work.options(), **where.options(),
    )  # fmt: skip
    forth = SweepSpec(
        tuple(donor),
        recipient,
        task.spec(exclude=select.exclude, partial=partial),
        select.selection(),
        by=tuple(split_ways([value]) for value in by or ["layer,kind"]),
        map=tuple(names.map or ()),
        map_file=names.map_file,
        strip_prefix=names.strip_prefix,
        engine=work.engine,
        memory=work.memory,
        **what.how(),
    )
    executor = executor_of(options, forth.task)
    ways = {"": forth}
    if also.both:
        back = replace(forth, donors=(recipient,), recipient=donor[0], task=also.back(forth.task))
        ways = {"forth": forth, "back": back}
    found: dict[str, SweepResult] = {}
    planned: list[str] = []
    for way, spec in ways.items():
        folder = str(Path(run) / way) if run else None
        if folder and way:
            refuse_odd(Path(folder), folder=True)
        with _prepared(spec, folder) as sweep:
            if dry_run:
                sweep.check(options, executor)
                planned.append(_plan(sweep, format))
                continue
            say(f"run: {sweep.folder}")
            found[way] = _run(sweep, options, executor)
        say_notes(found[way], format)
    if dry_run:
        emit(_joined(dict(zip(ways, planned, strict=True)), format), out)
        return
    drawn = {way: render(each, format, style(out, ascii=ascii), work.top) for way, each in found.items()}
    emit(_joined(drawn, format), out)
    failed = sum(each.failed for each in found.values())
    if failed:
        total = sum(len(each.rows) + each.beside for each in found.values())
        say(f"ckptswap: {failed} of {total} variants failed; the reasons are in the table")
        raise typer.Exit(EXIT_PARTIAL)


def _joined(texts: Mapping[str, str], format: Format) -> str:
    """One direction as it is; two under their names, or as one JSON object."""
    if len(texts) == 1:
        return next(iter(texts.values()))
    if format == "json":
        parts = ",\n".join(f'"{way}": {text.rstrip()}' for way, text in texts.items())
        return f'{{"schema": "ckptswap.both/1",\n{parts}}}\n'
    mark = "## " if format == "md" else ""
    return "\n".join(f"{mark}{way}\n\n{text}" for way, text in texts.items())


@contextmanager
def _prepared(spec: SweepSpec, run: str | None) -> Iterator[Sweep]:
    """The sweep of one direction; tells of names, and which values of the selection match nothing."""
    from ckptswap.sweep.runner import prepared

    with prepared(spec, run) as sweep:
        note(sweep.notes)
        fit, selection = sweep.task.fit, spec.selection
        tell_unmatched(replace(selection, exclude=()), fit.checkpoint, fit.own)
        tell_unmatched(replace(selection, only=(), layers=(), kind=()), *sweep.donors, fit.checkpoint, fit.own)
        yield sweep


def _run(sweep: Sweep, options: RunOptions, executor: Executor | None) -> SweepResult:
    """Score, and leave the table in the folder in every form."""
    from ckptswap.lab.findings import judge

    result = judge(_score(sweep, options, executor))
    export(result, str(sweep.folder))
    keep_page(result, str(sweep.folder))
    return result


def _score(sweep: Sweep, options: RunOptions, executor: Executor | None) -> Analysis:
    """Score, behind a bar that also shows the worst cells so far, with the exports kept up to date."""
    from ckptswap.lab.findings import judge
    from ckptswap.sweep.progress import Listeners
    from ckptswap.sweep.stopping import on_signals

    worst: list[str] = []

    def show(cells: Sequence[tuple[Cell, float]]) -> None:
        nonlocal worst
        worst = ["worst so far: " + _named(*cells[0]), *(_named(*cell) for cell in cells[1:])] if cells else []

    try:
        with on_signals() as stop, progress("sweep", unit=" blocks") as tell:
            listeners = Listeners(
                progress=lambda done, total: tell(done, total, below=worst),
                live=show,
                news=lambda analysis: export(judge(analysis), str(sweep.folder)),
                stop=stop,
            )
            return sweep.run(options, listeners, executor)
    finally:
        warn(sweep.scorer.notes)


def _named(cell: Cell, drop: float) -> str:
    where = " ".join(part for part in (cell.layer, cell.kind) if part)
    return f"{safe(where or cell.names[0])} {drop:+.3f}"


def judged(folder: str, metric: str | None = None, tolerance: float | None = None) -> SweepResult:
    """The table of a run's folder, with the paper's claims judged on it."""
    from ckptswap.api import report

    return report(folder, metric=metric, tolerance=tolerance)


def render(result: SweepResult, format: Format, style: Style, top: int | None = None) -> str:
    """A sweep's result in one of the formats; the table comes with heatmap, kinds and findings."""
    from ckptswap.report.screen import render_sweep

    return render_sweep(result, format, style, top=top, every=True)


def say_notes(result: SweepResult, format: Format, run: str = "") -> None:
    """Tolerance and warnings on stderr, for the formats that have no place for words; `run` is one of several."""
    if format in ("json", "csv"):
        for note in result.notes:
            say(f"ckptswap: note: {f'{run}: ' if run else ''}{note}")


def export(result: SweepResult, folder: str) -> None:
    """The same table beside the journal, for whoever reads the folder without us."""
    for format in ("json", "csv", "md"):
        emit(render(result, format, style()), f"{folder}/result.{format}")


def keep_page(result: SweepResult, folder: str) -> None:
    """The page beside the journal, for whoever would rather look than read."""
    from ckptswap.report.html import about, sweep_html

    emit(sweep_html(result, about(folder)), f"{folder}/{PAGE}")
    say(f"ckptswap: {folder}/{PAGE} shows it in a browser")


def _plan(proposal: Sweep, format: Format) -> str:
    """What would run, and what it costs."""
    from ckptswap.report import plan as report
    from ckptswap.report.text import dump_json

    folder, donors = str(proposal.folder), len(proposal.donors)
    data = report.plan_json(proposal.plan, folder, proposal.task.samples, proposal.cost(), donors)
    texts = {
        "table": lambda: report.plan_table(data, style()),
        "json": lambda: dump_json(data),
        "csv": lambda: report.plan_csv(data),
        "md": lambda: report.plan_md(data),
    }
    return texts[format]()
