"""`ckptswap report`: a run's table again, and again while the sweep is at work."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from ckptswap.cli.flags import AsciiFlag, Format, OutFlag, OverFlag
from ckptswap.cli.sweep import judged, render, say_notes
from ckptswap.cli.sweepflags import ToleranceFlag
from ckptswap.cli.terminal import emit, say, style
from ckptswap.errors import UsageError
from ckptswap.report.text import Style

PAUSE = 2.0
"""Seconds between two looks at a run."""
CLEAR = "\x1b[H\x1b[2J"


def report(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...", help="A run's folder, finished or not; several are compared.", show_default=False
        ),
    ],
    metric: Annotated[str | None, typer.Option(help="Which of the run's metrics. [default: its first]")] = None,
    tolerance: ToleranceFlag = None,
    top: Annotated[int | None, typer.Option(metavar="N", min=1, help="Show only the N worst cells.")] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show it anew whenever there is more, until the sweep ends.")
    ] = False,
    format: Annotated[
        Literal["table", "json", "csv", "md", "html"],
        typer.Option("--format", help="How to print the result; html is a page that opens offline."),
    ] = "table",
    out: OutFlag = None,
    force: OverFlag = False,
    ascii: AsciiFlag = False,
) -> None:
    """Show what a sweep found, from its folder alone: ranked table, heatmap, kinds, findings.

    \b
    Examples:
      ckptswap report run
      ckptswap report run --top 10 --ascii
      ckptswap report run --format csv -o drops.csv
      ckptswap report run --format html -o run.html
      ckptswap report run --watch --top 5
      ckptswap report run other-run --top 10
    """
    run, *others = dict.fromkeys(runs)
    if format == "html":
        emit(_page(run, others, watch, metric, tolerance, top, out), out)
        return
    if others:
        if watch:
            raise UsageError("--watch follows one run", remedy="leave it out, or the other runs")
        emit(_compared([run, *others], metric, tolerance, top, format, style(out, ascii=ascii)), out)
        return

    def table() -> str:
        result = judged(run, metric, tolerance)
        say_notes(result, format)
        return render(result, format, style(out, ascii=ascii), top)

    if not watch:
        emit(table(), out)
        return
    if format != "table" or out is not None:
        raise UsageError("--watch draws tables on a terminal", remedy="leave --format and --out out")
    _watch(Path(run), table)


def _page(
    run: str,
    others: list[str],
    watch: bool,
    metric: str | None,
    tolerance: float | None,
    top: int | None,
    out: str | None,
) -> str:
    """One run as a page."""
    from ckptswap.report.html import about, sweep_html

    if others or watch:
        raise UsageError(
            "a page shows one run as it is", remedy="leave the other runs and --watch out, or --format"
        )
    if out is None and sys.stdout.isatty():
        raise UsageError("a page of some 5 MB is no sight in a terminal", remedy="give -o FILE.html")
    return sweep_html(judged(run, metric, tolerance), about(run), top)


def _compared(
    runs: list[str], metric: str | None, tolerance: float | None, top: int | None, format: Format, style: Style
) -> str:
    """Runs side by side."""
    from ckptswap.report.agreement import agreement_csv, agreement_document, agreement_json
    from ckptswap.report.document import document_md, document_text
    from ckptswap.report.text import dump_json
    from ckptswap.sweep.agreement import agreement
    from ckptswap.sweep.analysis import load_result

    found = agreement({run: load_result(run, metric, tolerance) for run in runs})
    if format in ("json", "csv") and top is not None:
        found = replace(found, cells=found.cells[:top])
    if format == "json":
        return dump_json(agreement_json(found))
    if format == "csv":  # which has no place for words
        for name, result in zip(found.runs, found.results, strict=True):
            say_notes(result, format, name)
        return agreement_csv(found)
    document = agreement_document(found, top)
    return document_md(document) if format == "md" else document_text(document, style)


def _watch(run: Path, table: Callable[[], str]) -> None:
    """Draw whenever the journal has grown: over the last table on a terminal, elsewhere below it."""
    for _ in _growing(run):
        text = table()
        emit(f"{CLEAR}{text}" if sys.stdout.isatty() else f"{text}\n")
    say("ckptswap: no sweep works on it (any more)")


def _growing(run: Path) -> Iterator[None]:
    """Once now, then whenever there is more, until nobody works on the run."""
    from ckptswap.sweep.run_folder.folder import RunFolder

    folder, size = RunFolder(run), -1
    while True:
        held = folder.is_worked_on()  # before the last look: what comes between is seen
        now = folder.journal_size()
        if now != size:
            size = now
            yield
        if not held:
            return
        time.sleep(PAUSE)
