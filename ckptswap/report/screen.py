"""What `sweep` and `report` print: the answer on one screen, or all of it, or a form for programs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from rich.text import Text

from ckptswap.report.answer import answer
from ckptswap.report.donors import donor_lines, donors_table
from ckptswap.report.findings import finding_lines, findings_text
from ckptswap.report.heatmap import heatmap
from ckptswap.report.kinds import kind_lines, kind_summary
from ckptswap.report.layout import HEADING, QUIET, paragraph, render
from ckptswap.report.sweep import (
    header,
    left_out,
    ranked_lines,
    section_title,
    sections,
    sweep_csv,
    sweep_json,
    sweep_md,
    sweep_table,
    unmeasured,
)
from ckptswap.report.text import Style, dump_json, safe

if TYPE_CHECKING:
    from ckptswap.sweep.result import Row, SweepResult

SCREEN = 40
"""Lines that a screen has; no more are printed where nobody asks for all."""
WORST = 10
FEWEST_KINDS = 3


def render_sweep(
    result: SweepResult,
    format: Literal["table", "json", "csv", "md"],
    style: Style,
    *,
    top: int | None = None,
    every: bool = False,
) -> str:
    """A sweep in any format. `top` keeps so many of the worst rows; a table is a summary unless `every` row is
    wanted, the other formats are always whole."""
    if format == "table":
        return sweep_whole(result, style, top) if every else sweep_summary(result, style, top)
    if top is not None:
        result = replace(
            result, rows=tuple(row for row in result.rows if row.rank is not None and row.rank <= top)
        )
    if format == "json":
        return dump_json(sweep_json(result))
    return sweep_csv(result) if format == "csv" else sweep_md(result)


def sweep_whole(result: SweepResult, style: Style, top: int | None = None) -> str:
    """Every row, heatmap, kinds and findings."""
    if len(result.donors) > 1:
        return donors_table(result, style, top)
    parts = [sweep_table(result, style, top)]
    if result.mode not in ("prefix", "suffix"):  # whose cells hold each other, so that none has a place of its own
        parts += [heatmap(result, style), kind_summary(result, style)]
    return "\n".join(part for part in [*parts, findings_text(result, style)] if part.strip())


def sweep_summary(result: SweepResult, style: Style, top: int | None = None) -> str:
    """The answer, the worst rows (ten, or `top`), the kinds and what failed, in a screen's lines.

    >>> from ckptswap.sweep.result import Row, SweepResult
    >>> row = Row("conv1", "conv.bias", ("conv1.bias",), 64, "measured", rank=1, rmse=0.2, score=0.8, drop=0.1,
    ...           samples=72, verdict="sensitive")
    >>> result = SweepResult("dice", "max", 0.01, 0.9, None, 72, rows=(row,))
    >>> print(sweep_summary(result, Style()), end="")
    dice, higher is better, 72 samples
    baseline 0.9   donor –   tolerance 0.01   ± 95 %, simultaneous
    <BLANKLINE>
    Taking conv1 conv.bias from the donor costs most: dice goes from 0.9 to 0.8, a
    drop of +0.1. Of 1 measured row, 0 are reusable within 0.01, 1 is sensitive and
    0 are undecided.
    <BLANKLINE>
    cells
    #  layer  kind       numel   RMSE  score    drop  ±         verdict
    1  conv1  conv.bias     64  0.200  0.800  +0.100  –  █████  sensitive
    <BLANKLINE>
    drop by kind, over its cells
    kind       cells   worst  median  reusable  sensitive  undecided  whole
    conv.bias      1  +0.100  +0.100         0          1          0      –
    """
    lines = [*header(result, style), Text(), *paragraph(safe(" ".join(answer(result))), style)]
    shown = WORST if top is None else top
    hidden = 0
    if len(result.donors) > 1:
        body, hidden = donor_lines(result, style, shown)
        lines += body
    elif rows := _finest(result):
        worst = sorted(rows, key=lambda row: row.rank or len(rows))[:shown]
        hidden = len(result.rows) - len(worst)
        lines += [Text(), Text(section_title(result, rows), style=HEADING), *ranked_lines(worst, result, style)]
        lines += left_out(len(rows) - len(worst))
    failed = unmeasured([row for row in result.rows if row.status == "failed"], style)
    below = [*failed, *([Text()] if result.findings else []), *finding_lines(result, style, in_short=True)]
    if result.mode in ("only", "all-but") and len(result.donors) < 2:
        room = SCREEN - len(lines) - len(below) - 5  # a gap, two headings, what is left out, how to see more
        kinds, fewer = kind_lines(result, style, max(room, FEWEST_KINDS))
        lines += [Text(), *kinds] if kinds else []
        hidden += fewer
    lines += below
    if hidden:
        lines.append(Text("--all shows every row", style=QUIET))
    return render(lines, style)


def _finest(result: SweepResult) -> list[Row]:
    """The measured rows of the finest way of splitting."""
    measured = dict(sections(row for row in result.rows if row.status == "measured"))
    ways = ("cells", "whole layers", "whole kinds", "whole selection")
    return next((measured[way] for way in ways if way in measured), [])
