"""How results show themselves: as tables to rich, as HTML to notebooks."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.text import Text

from ckptswap.checkpoint import Checkpoint
from ckptswap.diff import Diff
from ckptswap.report import frames
from ckptswap.report.answer import told
from ckptswap.report.charts import Heat, heat
from ckptswap.report.checkpoint import show_columns, show_json, show_table
from ckptswap.report.diff import diff_columns, diff_json, diff_table
from ckptswap.report.evaluate import evaluate_json, evaluate_table, scored_tables
from ckptswap.report.layout import Column
from ckptswap.report.plotted import plotted
from ckptswap.report.screen import sweep_table
from ckptswap.report.sweep import sweep_columns
from ckptswap.report.templates import template
from ckptswap.report.text import Style, number, plural, safe
from ckptswap.statistics import Comparison
from ckptswap.sweep.result import SweepResult, has_places

MOST = 40  # rows that a notebook shows; the result has them all
LARGEST = 20_000
"""Letters of HTML that are shown: a notebook keeps every output. What is larger loses rows, then its heatmap."""
CELLS = 400  # of a heatmap that may still be small enough
_SIZES = tuple((rows, with_heat) for with_heat in (True, False) for rows in (MOST, 20, 10, 5))


@dataclass(frozen=True)
class Panel:
    """Rows under those of the columns that a page has, with a title above."""

    title: str
    columns: Iterable[Column]
    rows: Sequence[Any]


Shown = Panel | Heat | str


def shows_itself() -> None:
    """Give the classes of rooms that know nothing of reports their `__rich_console__`, `_repr_html_` and
    `to_pandas`, and sweeps their `plot`."""
    _teach(Checkpoint, lambda it, style: show_table(show_json(it), style), of_checkpoint, frames.of_checkpoint)
    _teach(Diff, lambda it, style: diff_table(diff_json(it), style), _of_diff, frames.of_diff)
    _teach(Comparison, _text_of_comparison, _of_comparison, frames.of_comparison)
    _teach(SweepResult, lambda it, style: sweep_table(it, style, top=MOST), _of_sweep, frames.of_sweep)
    SweepResult.plot = plotted  # type: ignore[attr-defined]


def _teach(
    kind: type,
    text: Callable[[Any, Style], str],
    parts: Callable[[Any], Iterable[Shown]],
    frame: Callable[[Any], Any],
) -> None:
    def console(self: Any, console: Any, options: Any) -> Iterator[Text]:
        style = Style(options.max_width, colour=not console.no_color and console.is_terminal)
        yield Text.from_ansi(text(self, style))

    kind.__rich_console__ = console  # type: ignore[attr-defined]
    kind._repr_html_ = lambda self: as_html(parts(self))  # type: ignore[attr-defined]
    kind.to_pandas = frame  # type: ignore[attr-defined]


def as_html(parts: Iterable[Shown]) -> str:
    """Tables, heatmaps and sentences as HTML that needs neither styles nor scripts, `LARGEST` letters at the most
    where names are not endless.

    >>> print(as_html(["1 < 2"]), end="")
    <p>1 &lt; 2</p>
    """
    parts = [part for part in parts if not isinstance(part, Heat) or len(part.rows) * len(part.columns) <= CELLS]
    for most, with_heat in _SIZES:
        shown = [part for part in parts if with_heat or not isinstance(part, Heat)]
        text = template("notebook.html.j2").render(parts=shown, most=most)
        if len(text) <= LARGEST:
            break
    return text


def of_checkpoint(checkpoint: Checkpoint, *chosen: Any) -> list[Shown]:
    """What a page shows of a checkpoint; `chosen` are entries and statistics as in `show_json`."""
    rows = show_json(checkpoint, *chosen)["rows"]
    title = f"{checkpoint.path}: {checkpoint.format}, {plural(len(rows), 'tensor')}"
    return [Panel(title, show_columns(rows), rows)]


def _of_diff(diff: Diff) -> list[Shown]:
    compared = diff_json(diff)
    counts = ", ".join(f"{count} {status}" for status, count in compared["summary"].items() if count)
    rows = [row for row in compared["rows"] if row["status"] != "identical"]
    return [Panel(f"{diff.a.path} → {diff.b.path}: {counts or 'nothing to compare'}", diff_columns(rows), rows)]


def _of_sweep(result: SweepResult) -> list[Shown]:
    ranked = [row for row in result.rows if row.status == "measured"]
    title = f"{result.metric}: baseline {number(result.baseline)}, tolerance {number(result.tolerance)}"
    pictures = [heat(result)] if has_places(result.mode) and len(result.donors) < 2 else []
    findings = [f"{finding.verdict}: {finding.text}" for finding in result.findings]
    table = Panel(title, sweep_columns(result, ranked, always_named=True), ranked)
    return [told(result), *(picture for picture in pictures if picture.rows), table, *findings]


def _text_of_comparison(comparison: Comparison, style: Style) -> str:
    text = evaluate_table(evaluate_json(comparison), style).rstrip("\n")
    return "\n".join([text, *(safe(f"warning: {warning}") for warning in comparison.warnings)])


def _of_comparison(comparison: Comparison) -> Iterator[Shown]:
    """Scores, then the paired differences where there are two to compare, then what to be told of them."""
    for metric, columns, rows in scored_tables(evaluate_json(comparison)):
        yield Panel(f"{metric}, {plural(comparison.samples, 'sample')}", columns, rows)
    yield from (f"warning: {warning}" for warning in comparison.warnings)
