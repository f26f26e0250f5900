"""`ckptswap reproduce`: the paper's experiment, with the controls that it lacks."""

from dataclasses import MISSING, dataclass
from pathlib import Path

import typer

from ckptswap import lazy, runs
from ckptswap.cli.flags import DrawnFlags, Keywords, flags
from ckptswap.cli.sweepflags import WHERE
from ckptswap.cli.terminal import complain, emit, say
from ckptswap.errors import EXIT_PARTIAL, UsageError
from ckptswap.messages import note
from ckptswap.records import option
from ckptswap.report.document import document_latex, document_md, document_text


@dataclass
class ExperimentFlags:
    """Which experiment, and how much of it at once."""

    jobs: int = option(
        runs.REPRODUCE_JOBS,
        "Networks at work at once, one thread each.",
        short="j",
        metavar="N",
        least=1,
        defaults="file",
    )
    full: bool = option(
        False, "5 seeds of networks that reach their task; or 2 seeds of small ones.", flag="full/--quick"
    )
    data: str | None = option(
        None,
        "With train/ and test/, each with images/ and masks/. [default: MNI152 slices]",
        metavar="FOLDER",
        defaults="never",
    )


@flags(where=WHERE)
def reproduce(
    *,
    run: str = option(
        MISSING, "Where to keep everything; continues what is there.", metavar="DIR", defaults="never"
    ),
    where: Keywords,
    output: DrawnFlags,
    how: ExperimentFlags,
    dry_run: bool = option(False, "Print what it would do and cost; train nothing.", defaults="file"),
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
        emit(lazy.reporting.plan(Path(run), is_full=how.full, data=how.data).told(how.jobs), output.out)
        return
    result = runs.reproduce(run, **vars(how), **where)
    output.emit(
        result.values,
        table=lambda _: document_text(result.document, output.style),
        md=lambda _: document_md(result.document),
        latex=lambda _: document_latex(result.document),
    )
    say(f"all of it, with intervals and every number behind a verdict: {run}/report.md and {run}/report.json")
    note(result.notes)
    for unit, why in result.failed.items():
        complain(f"ckptswap: {unit} failed: {why}")
    if result.failed:
        raise typer.Exit(EXIT_PARTIAL)
