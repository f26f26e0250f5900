"""`ckptswap report`: a run's table again, and again while the sweep is at work."""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from ckptswap import api, lazy
from ckptswap.cli.flags import METRIC, SELECTION, BriefFlags, DrawnFlags, Keywords, Patterns, flags
from ckptswap.cli.sweep import say_notes
from ckptswap.cli.sweepflags import CLAIMS, EVERY
from ckptswap.cli.terminal import emit, say
from ckptswap.errors import UsageError
from ckptswap.records import option
from ckptswap.report.agreement import agreement_csv, agreement_document, agreement_json
from ckptswap.report.document import document_latex, document_md, document_text
from ckptswap.report.screen import render_sweep
from ckptswap.report.text import dump_json
from ckptswap.runs import distinct
from ckptswap.sweep.run_folder.folder import RunFolder
from ckptswap.sweep.spec import Judging

PAUSE = 2.0  # seconds between two looks at a run
CLEAR = "\x1b[H\x1b[2J"


@dataclass
class PageFlags(DrawnFlags):
    """How the result is printed, and where; a page is one of the ways."""

    format: Literal["table", "json", "csv", "md", "latex", "html"] = option(  # type: ignore[assignment]
        "table", "How to print the result; html is a page that opens offline.", defaults="file"
    )


@dataclass(frozen=True)
class JudgedFlags(Judging):
    """By what a run is judged."""

    metric: str | None = METRIC
    claims: bool = CLAIMS


@dataclass(frozen=True)
class ChosenFlags:
    """Which rows, and how they stand; verdicts stay those of the whole table."""

    verdict: Patterns = option(
        None,
        "Only rows of this verdict: reusable, unused, sensitive, undecided.",
        metavar="VERDICT",
        defaults="file",
    )
    sort: Literal["drop", "rmse", "rel_l2", "numel", "name", "layer", "spread"] = option(
        "drop",
        "Largest first, or by name, or in the order in which layers run; spread is of several runs.",
        defaults="file",
    )


@flags(told=BriefFlags, select=SELECTION)
def report(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...", help="A run's folder, finished or not; several are compared.", show_default=False
        ),
    ],
    judged: JudgedFlags,
    select: Keywords,
    rows: ChosenFlags,
    output: PageFlags,
    top: int | None = option(None, "Show only the N worst cells.", metavar="N", least=1, defaults="file"),
    every: bool = EVERY,
    watch: bool = option(False, "Show it anew whenever there is more, until the sweep ends.", defaults="file"),
) -> None:
    """Show what a sweep found, from its folder alone: the answer, the worst cells, the kinds.

    \b
    Examples:
      ckptswap report run
      ckptswap report run --top 10 --ascii
      ckptswap report run --verdict undecided --sort rmse --all
      ckptswap report run --format csv -o drops.csv
      ckptswap report run --format html -o run.html
      ckptswap report run --watch --top 5
      ckptswap report run other-run --top 10
      ckptswap report run other-run --format html -o runs.html
    """
    given = distinct(runs)
    _refuse_page_or_watch(given, output, watch=watch)
    wanted = {**vars(judged), **select, **vars(rows)}
    table = partial(_table, given[0], wanted, top, output, every=every)
    if watch:
        _watch(Path(given[0]), table)
    else:
        emit(_compared(given, wanted, top, output) if len(given) > 1 else table(), output.out)


def _refuse_page_or_watch(runs: Sequence[str], output: PageFlags, *, watch: bool) -> None:
    """Raises `UsageError` where a page has no file, or there is nothing to watch on a terminal."""
    is_page = output.format == "html"
    if is_page and watch:
        raise UsageError("a page shows a run as it is", remedy="leave --watch out, or --format")
    if len(runs) > 1 and watch:
        raise UsageError("--watch follows one run", remedy="leave it out, or the other runs")
    if watch and (output.format != "table" or output.out is not None):
        raise UsageError("--watch draws tables on a terminal", remedy="leave --format and --out out")
    if is_page and output.out is None and sys.stdout.isatty():
        raise UsageError("a page is for a browser, not for a terminal", remedy="give -o FILE.html")


def _table(run: str, wanted: Keywords, top: int | None, output: PageFlags, *, every: bool) -> str:
    result = api.report(run, **wanted)
    if output.format == "html":
        return lazy.html.sweep_html(result, lazy.html.about(run), top)
    say_notes(result, output.format)
    return render_sweep(result, output.format, output.style, top=top, every=every)


def _compared(runs: Sequence[str], wanted: Keywords, top: int | None, output: PageFlags) -> str:
    agreement = api.compare(runs, **{name: value for name, value in wanted.items() if name != "claims"})
    if output.format in ("json", "csv") and top is not None:
        agreement = replace(agreement, cells=agreement.cells[:top])
    if output.format == "json":
        return dump_json(agreement_json(agreement))
    if output.format == "csv":  # which has no place for words
        for name, result in zip(agreement.runs, agreement.results, strict=True):
            say_notes(result, output.format, name)
        return agreement_csv(agreement)
    if output.format == "html":
        return lazy.runs_html.runs_html(agreement, top)
    document = agreement_document(agreement, top)
    forms = {"md": document_md, "latex": document_latex}
    return forms[output.format](document) if output.format in forms else document_text(document, output.style)


def _watch(run: Path, table: Callable[[], str]) -> None:
    """Draw whenever the journal has grown: over the last table on a terminal, elsewhere below it."""
    folder, size, is_held = RunFolder(run), -1, True
    while is_held:
        is_held = folder.is_worked_on()  # before the last look: what comes between is seen
        now = folder.journal_size()
        if now != size:
            size, text = now, table()
            emit(f"{CLEAR}{text}" if sys.stdout.isatty() else f"{text}\n")
        if is_held:
            time.sleep(PAUSE)
    say("ckptswap: no sweep works on it (any more)")
