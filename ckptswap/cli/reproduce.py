"""`ckptswap reproduce`: the paper's experiment, with the controls that it lacks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ckptswap import api, lazy
from ckptswap.cli.flags import FILE, NEVER, DrawnFlags, Keywords, flags
from ckptswap.cli.sweepflags import WHERE
from ckptswap.cli.terminal import emit, say
from ckptswap.errors import EXIT_PARTIAL, UsageError
from ckptswap.report.document import document_md, document_text


@flags(where=WHERE)
def reproduce(
    run: Annotated[
        str, typer.Option("--run", metavar="DIR", help="Where to keep everything; continues what is there."), NEVER
    ],
    where: Keywords,
    output: DrawnFlags,
    jobs: Annotated[
        int,
        typer.Option("-j", "--jobs", metavar="N", min=1, help="Networks at work at once, one thread each."),
        FILE,
    ] = api.REPRODUCE_JOBS,
    full: Annotated[
        bool,
        typer.Option(
            "--full/--quick", help="5 seeds of networks that reach their task; or 2 seeds of small ones."
        ),
    ] = False,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER", help="With train/ and test/, each with images/ and masks/. [default: MNI152 slices]"
        ),
        NEVER,
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what it would do and cost; train nothing."), FILE
    ] = False,
) -> None:
    """Train networks for segmentation and auto-encoding, swap every part, judge the paper's claims.

    Several networks and seeds, shared and independent initialisation, and controls. The same command again
    continues. Needs the extra 'demo'.

    \b
    Examples:
      ckptswap reproduce --run quick --dry-run
      ckptswap reproduce --run quick
      ckptswap reproduce --full --run reusability --jobs 2
    """
    if output.format == "csv":
        raise UsageError("reproduce has no csv", remedy="use --format json, md or table")
    if dry_run:
        emit(lazy.reporting.plan(Path(run), is_full=full, data=data).told(jobs), output.out)
        return
    result = api.reproduce(run, full=full, data=data, jobs=jobs, **where)
    output.emit(
        result.values,
        table=lambda _: document_text(result.document, output.style),
        md=lambda _: document_md(result.document),
    )
    say(f"all of it, with intervals and every number behind a verdict: {run}/report.md and {run}/report.json")
    for note in result.notes:
        say(f"ckptswap: note: {note}")
    if result.failed:
        for unit, why in result.failed.items():
            say(f"ckptswap: {unit} failed: {why}")
        raise typer.Exit(EXIT_PARTIAL)
