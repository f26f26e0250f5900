"""`ckptswap reproduce`: the paper's experiment, with the controls that it lacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ckptswap.cli.flags import AsciiFlag, Format, FormatFlag, OutFlag, OverFlag, flags
from ckptswap.cli.sweepflags import ExecutorFlags
from ckptswap.cli.terminal import emit, progress, say, style
from ckptswap.errors import EXIT_PARTIAL, DependencyError, UsageError
from ckptswap.report.text import duration, plural

if TYPE_CHECKING:
    from ckptswap.lab.experiment import Experiment
    from ckptswap.lab.reproduce import Estimate
    from ckptswap.report.charts import Picture

REPORT, VALUES = "report.md", "report.json"
PICTURES = ("kinds", "prefixes", "rmse")


@flags
def reproduce(
    run: Annotated[
        str, typer.Option("--run", metavar="DIR", help="Where to keep everything; continues what is there.")
    ],
    where: ExecutorFlags,
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
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what it would do and cost; train nothing.")
    ] = False,
    format: FormatFlag = "table",
    out: OutFlag = None,
    force: OverFlag = False,
    ascii: AsciiFlag = False,
) -> None:
    """Train networks for segmentation and auto-encoding, swap every part of every pair, judge the paper's claims.

    Several networks and seeds, shared and independent initialisation, and controls. The same command again
    continues. Needs the extra 'demo'.

    \b
    Examples:
      ckptswap reproduce --run quick --dry-run
      ckptswap reproduce --run quick
      ckptswap reproduce --full --run reusability --jobs 2
    """
    from ckptswap.formats.overwrite import refuse_occupied
    from ckptswap.lab import experiment as plans
    from ckptswap.lab.reproduce import SETTINGS, cost
    from ckptswap.lab.reproduce import reproduce as carry_out
    from ckptswap.sweep.run_folder.folder import refuse_odd_parts
    from ckptswap.sweep.spec import RunOptions
    from ckptswap.sweep.stopping import on_signals

    refuse_odd_parts(Path(run))  # before minutes of measuring
    if format == "csv":
        raise UsageError("reproduce has no csv", remedy="use --format json, md or table")
    experiment = (plans.full if full else plans.quick)(data)
    if not (Path(run) / SETTINGS).exists():
        refuse_occupied(Path(run), run=("lock",), results=(REPORT, VALUES, *(f"{name}.svg" for name in PICTURES)))
    price = cost(experiment)
    jobs = where.jobs or 2
    text = _told(experiment, price, jobs)
    if dry_run:
        emit(text, out)
        return
    say(text)
    with on_signals() as stop, progress("reproduce", unit=" s") as meter:
        outcome = carry_out(
            experiment,
            Path(run),
            workers=RunOptions(**{**where.options(), "jobs": jobs}),
            known=price,
            progress=lambda done, total, what: meter(round(done), round(total), what),
            stop=stop,
        )
    _report(experiment, Path(run), dict(outcome.failed), format, out, ascii)
    for note in outcome.notes:
        say(f"ckptswap: note: {note}")
    if outcome.failed:
        for unit, why in outcome.failed.items():
            say(f"ckptswap: {unit} failed: {why}")
        raise typer.Exit(EXIT_PARTIAL)


def _told(experiment: Experiment, price: Estimate, jobs: int) -> str:
    units = len(experiment.units())
    return (
        f"{plural(len(experiment.arms), 'network')} x {plural(experiment.seeds, 'seed')}: "
        f"{price.trainings} trainings of {experiment.steps} steps, {price.sweeps} sweeps; about "
        f"{duration(price.total(min(jobs, units)))} by {plural(min(jobs, units), 'job')} when nothing is done yet"
    )


def _report(
    experiment: Experiment, folder: Path, failed: dict[str, str], format: Format, out: str | None, ascii: bool
) -> None:
    """Leave the report in the folder, in every form, and print one of them."""
    from ckptswap.lab.pairs import load_pairs
    from ckptswap.lab.summary import pictures, summary, summary_json
    from ckptswap.report.document import document_md, document_text
    from ckptswap.report.text import dump_json

    pairs = load_pairs(experiment, folder)
    document = summary(experiment, pairs, 2 * len(experiment.units()) - len(pairs))
    texts = {"md": document_md(document), "json": dump_json(summary_json(experiment, pairs, failed))}
    emit(texts["md"], str(folder / REPORT))
    emit(texts["json"], str(folder / VALUES))
    _draw(pictures(pairs), folder)
    emit(texts[format] if format in texts else document_text(document, style(out, ascii=ascii)), out)
    say(f"all of it, with intervals and every number behind a verdict: {folder / REPORT} and {folder / VALUES}")


def _draw(drawn: Mapping[str, Sequence[Picture]], folder: Path) -> None:
    """The pictures beside the report, where the extra `plot` is there."""
    from ckptswap.report.figures import draw

    try:
        for name, panels in drawn.items():
            emit(draw(panels, "svg").decode(), str(folder / f"{name}.svg"))
    except DependencyError as error:
        say(f"ckptswap: note: no pictures: {error}")
