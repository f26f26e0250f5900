"""`ckptswap sweep`: which layers and kinds can be taken from another checkpoint, and which break the network."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass
from typing import TYPE_CHECKING, Any

import typer

from ckptswap import lazy
from ckptswap.cli.flags import FIT, NAMES, SELECTION, TASK, DrawnFlags, Format, Keywords, flags, task_keywords
from ckptswap.cli.sweepflags import CALIBRATION, CLAIMS, EVERY, OPTIONS, SPEC, BothFlags
from ckptswap.cli.terminal import command_line, complain, emit, say
from ckptswap.errors import EXIT_DIFFERENT, EXIT_PARTIAL, UsageError
from ckptswap.records import option
from ckptswap.report import plan as report
from ckptswap.report.rows import filtered_words
from ckptswap.report.screen import render_sweep
from ckptswap.report.text import dump_json, plural
from ckptswap.scoring.allocator import keep_freed_memory
from ckptswap.sweep.result import FailOn, SweepResult

if TYPE_CHECKING:
    from ckptswap.sweeping import Asked

PARTS = {**SPEC, **CALIBRATION, **OPTIONS, **NAMES, **FIT}


@dataclass
class SidesFlags:
    """From what, into what."""

    donor: list[str] = option(
        MISSING,
        "The checkpoint that gives; repeat for several. Or one made from the recipient: init:SEED, rewind, zeros, "
        "mean, shuffle:SEED, noise:SHARE.",
        flag="from",
        metavar="DONOR",
        defaults="never",
    )
    recipient: str = option(
        MISSING, "The checkpoint that receives.", flag="to", metavar="RECIPIENT", defaults="never"
    )


@dataclass
class TableFlags(DrawnFlags):
    """How the table is printed and judged, and where; or the plan instead."""

    claims: bool = CLAIMS
    every: bool = EVERY
    dry_run: bool = option(False, "Print the plan and its cost; score nothing.", defaults="file")
    fail_on: FailOn | None = option(
        None, "Exit with 1 when a row is sensitive; or is not known to be reusable.", defaults="file"
    )


@flags(select=SELECTION, task=TASK, how=PARTS)
def sweep(
    *,
    sides: SidesFlags,
    select: Keywords,
    task: Keywords,
    how: Keywords,
    also: BothFlags,
    output: TableFlags,
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
      ckptswap sweep --from segment.safetensors --to segment.safetensors --data lab:mni --metric dice \\
        --by kind --limit 4 --fail-on sensitive --quiet
    """
    _refuse(also, output.format)
    keep_freed_memory()
    told = {"command": command_line(), **select, **how, **task_keywords(task)}
    one = lazy.sweeping.asked(sides.donor, sides.recipient, **told)
    ways = lazy.sweeping.both_ways(one, also.back_metric, also.back_target) if also.both else {"": one}
    if output.dry_run:
        emit(_joined({way: _plan(sweep, output) for way, sweep in ways.items()}, output.format), output.out)
        return
    results, texts = [], {}
    for way, asked in ways.items():
        results.append(result := lazy.sweeping.swept(asked, claims=output.claims))
        say_notes(result, output.format)
        texts[way] = render_sweep(result, output.format, output.style, top=one.options.top, every=output.every)
    emit(_joined(texts, output.format), output.out)
    if failed := sum(result.failed for result in results):
        total = sum(len(result.rows) + result.beside for result in results)
        complain(f"ckptswap: {failed} of {total} variants failed; the reasons are in the table")
        raise typer.Exit(EXIT_PARTIAL)
    if output.fail_on:
        _check(results, output.fail_on)


def _refuse(also: BothFlags, format: str) -> None:
    if also.both and format == "csv":
        raise UsageError("--both gives two tables", remedy="use `report RUN/back --format csv` afterwards")
    if not also.both and (also.back_metric or also.back_target):
        raise UsageError("--back-metric and --back-target are for --both", remedy="give --both with them")


def _check(results: Sequence[SweepResult], on: FailOn) -> None:
    failing = [row for result in results for row in result.failing(on)]
    if failing:
        what = "sensitive" if on == "sensitive" else "not known to be reusable"
        total = sum(len(result.rows) for result in results)
        complain(f"ckptswap: {len(failing)} of {plural(total, 'row')} {what} (--fail-on {on})")
        raise typer.Exit(EXIT_DIFFERENT)


def _joined(texts: Mapping[str, str], format: Format) -> str:
    """One direction as it is; two under their names, or as one JSON object."""
    if len(texts) == 1:
        return next(iter(texts.values()))
    if format == "json":
        parts = ",\n".join(f'"{way}": {text.rstrip()}' for way, text in texts.items())
        return f'{{"schema": "ckptswap.both/1",\n{parts}}}\n'
    mark = {"md": "## ", "latex": "% "}.get(format, "")
    return "\n".join(f"{mark}{way}\n\n{text}" for way, text in texts.items())


def say_notes(result: SweepResult, format: str, run: str = "") -> None:
    """Tolerance and warnings on stderr, for the formats that have no place for words; `run` is one of several."""
    if format in ("json", "csv"):
        for note in (*filtered_words(result), *result.notes):
            say(f"ckptswap: note: {f'{run}: ' if run else ''}{note}")


def _plan(sweep: "Asked", output: TableFlags) -> str:
    document: dict[str, Any] = lazy.sweeping.planned(sweep)
    forms: dict[str, Callable[[Any], str]] = {"json": dump_json, "csv": report.plan_csv, "md": report.plan_md}
    forms["latex"] = report.plan_latex
    draw = forms.get(output.format)
    return draw(document) if draw else report.plan_table(document, output.style, every=output.every)
