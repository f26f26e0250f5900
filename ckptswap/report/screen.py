"""What `sweep` and `report` print: the answer on one screen, or all of it, or a form for programs."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate, chain
from statistics import median
from typing import Literal

from rich.text import Text

from ckptswap.errors import listing
from ckptswap.report.answer import told
from ckptswap.report.donors import donor_lines
from ckptswap.report.heatmap import heat_lines
from ckptswap.report.layout import HEADING, QUIET, WIDE, WIDEST, Column, flow, left_out, paragraph, render, table
from ckptswap.report.rows import (
    LATTICE,
    better,
    cell_name,
    drop_or_least,
    facts,
    first_of_each,
    mode_words,
    samples_words,
    sections,
)
from ckptswap.report.sweep import LOOK, name_columns, sweep_columns, sweep_csv, sweep_json, sweep_latex, sweep_md
from ckptswap.report.text import Style, decimals, dump_json, fixed, number, safe
from ckptswap.sweep.result import Finding, Row, SweepResult, has_places, widest, window_sizes

SEE_MORE = "--all: every row, the heatmap; some rows: `report` --verdict, --only, --sort"
SEE_RUNS = "--all: every row, and what was not measured; `ckptswap {}` draws the runs of blocks as a triangle"
SEE_SETS = "interaction: a set's drop less the sum of its parts' own; --all: every set"
SEE_ROWS = "--all: every row, and what was not measured"
FINEST_FIRST = (
    "cells", "blocks and kinds", "parts and kinds", "whole layers", "whole blocks", "parts", "whole kinds",
    "whole selection",
)  # fmt: skip
STDERR = 4  # lines that `sweep` writes there above its answer: the run's folder, its page, two notes
SCREEN = 40 - STDERR  # lines of a screen; no more are printed where nobody asks for all
WORST = 10
FEWEST_KINDS = 3
FAILED = 6  # lines on what failed
NOTES = 8  # lines of remarks on the whole run that a screen has room for
_UNMEASURED = {
    "identical": "the tensors are equal in both",
    "no-effect": "the model never reads them in eval mode",
    "mismatch": "the donor's tensors do not fit",
    "failed": "could not be scored",
}


def render_sweep(
    result: SweepResult,
    format: Literal["table", "json", "csv", "md", "latex"],
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
        result = replace(result, rows=tuple(first_of_each(result.rows, top)))
    if format == "json":
        return dump_json(sweep_json(result))
    return {"csv": sweep_csv, "md": sweep_md, "latex": sweep_latex}[format](result)


def sweep_whole(result: SweepResult, style: Style, top: int | None = None) -> str:
    """Every row (or the `top` worst of each way of splitting), heatmap, kinds and findings."""
    parts = [kind_lines(result, style)] if _has_places(result) else []
    if parts and not style.whole:
        parts.insert(0, heat_lines(result, style))
    drawn = [render(lines, style) for lines in [*parts, finding_lines(result, style)] if lines]
    return "\n".join([render(_answer(result, style), style), sweep_table(result, style, top), *drawn])


def _answer(result: SweepResult, style: Style) -> list[Text]:
    return paragraph(safe(told(result, whole=style.whole)), style)


def sweep_table(result: SweepResult, style: Style, top: int | None = None) -> str:
    """Whole kinds, whole layers and cells, each worst drop first; below, what was not measured, and why.

    `top` limits each section. The interval is the simultaneous one; where there is room (130 columns), the plain
    one stands beside it.

    >>> row = Row("conv1", "conv.bias", ("conv1.bias",), 64, "measured", rank=1, rmse=0.2, score=0.8, drop=0.1)
    >>> text = sweep_table(SweepResult("dice", "max", 0.01, 0.9, None, 72, rows=(row,)), Style())
    >>> print("\\n".join(text.splitlines()[4:]))
    #  layer  kind       numel   RMSE  score    drop  ±         verdict
    1  conv1  conv.bias     64  0.200  0.800  +0.100  –  █████  –
    """
    if len(result.donors) > 1:
        parts = [donor_lines(result, style, top)]
    else:
        measured = sections(row for row in result.rows if row.status == "measured")
        parts = [_section(title, rows, result, style, top) for title, rows in measured]
    lines = [_header(result, style), *parts, _unmeasured(result.rows, style)]
    return "\n".join(render(part, style) for part in lines if part)


def sweep_summary(result: SweepResult, style: Style, top: int | None = None) -> str:
    """The answer, the worst rows, the kinds and what failed: ten rows, or as many as a screen has room for,
    unless `top` says how many.

    >>> print(sweep_summary(SweepResult("dice", "max", 0.01, 0.9, None, 72, rows=()), Style()), end="")
    Nothing is scored yet.
    <BLANKLINE>
    dice, higher is better, 72 samples
    baseline 0.9   donor –   tolerance 0.01   ± 95 %, simultaneous
    <BLANKLINE>
    --all: every row, the heatmap; some rows: `report` --verdict, --only, --sort
    """
    if top is not None:
        return render(_summary(result, style, top), style)
    screens = (_summary(result, style, shown) for shown in range(WORST, 0, -1))
    fitting = next((lines for lines in screens if len(lines) <= SCREEN), None)
    return render(fitting or _clipped(_summary(result, style, 1)), style)


def _clipped(lines: Sequence[Text]) -> list[Text]:
    """So many that a screen holds them; of those that were cut, how many, and the last paragraph."""
    tail = lines[max(at for at, line in enumerate(lines) if not line.plain) :]
    kept = SCREEN - len(tail) - 1
    return [*lines[:kept], Text(f"and {len(lines) - kept - len(tail):,} more lines", style=QUIET), *tail]


def _summary(result: SweepResult, style: Style, shown: int) -> list[Text]:
    """The answer, so many of the worst rows, and of the kinds as many as there is room for."""
    failed = _unmeasured([row for row in result.rows if row.status == "failed"], style)
    if len(failed) > FAILED:
        failed = [*failed[: FAILED - 1], *left_out(len(failed) - FAILED + 1)]
    parts = [_answer(result, style), _header(result, style, NOTES)]
    measured = dict(sections(row for row in result.rows if row.status == "measured"))
    finest = next((way for way in FINEST_FIRST if way in measured), None)
    if len(result.donors) > 1:
        parts.append(donor_lines(result, style, shown))
    elif result.mode == "lattice":
        titles = [title for title in LATTICE if title in measured and title != LATTICE[2]]
        parts += [_section(title, measured[title], result, style, shown) for title in titles]
    elif finest:
        parts.append(_section(finest, measured[finest], result, style, shown))
    below = [failed, finding_lines(result, style, in_short=True), paragraph(_see_more(result), style, look=QUIET)]
    if _has_places(result):
        used = sum(len(lines) + 1 for lines in [*parts, *below] if lines)
        room = SCREEN - used - 3  # a title, headings, and how many kinds are left out
        parts.append(kind_lines(result, style, max(room, FEWEST_KINDS)))
    return [line for lines in [*parts, *below] if lines for line in (Text(), *lines)][1:]


def _see_more(result: SweepResult) -> str:
    if _has_places(result):
        return SEE_MORE
    if window_sizes(result.mode):
        return SEE_RUNS.format("plot" if len(result.donors) < 2 else "report --format html")
    return SEE_SETS if result.mode == "lattice" else SEE_ROWS


def _has_places(result: SweepResult) -> bool:
    """Whether each cell has a place of its own, and one row."""
    return has_places(result.mode) and len(result.donors) < 2


def _header(result: SweepResult, style: Style, room: int | None = None) -> list[Text]:
    """Metric, samples, baseline, donor and tolerance, then notes in so many lines (None: all)."""
    wide = style.width >= WIDEST
    intervals = {"intervals" if wide else "±": f"95 %, {'plain and ' if wide else ''}simultaneous"}
    known = {name: value for name, value in facts(result).items() if name != "donor" or len(result.donors) < 2}
    parts = [Text.assemble((f"{name} ", QUIET), value) for name, value in (known | intervals).items()]
    samples = f", {better(result)}, {samples_words(result)}"
    metric = Text.assemble((safe(result.metric), HEADING), (samples, QUIET))
    lines = _notes(result.notes, style, room)
    return [*flow([metric], style), *flow(parts, style, gap=3), *_others(result, style), *lines]


def _notes(notes: Sequence[str], style: Style, room: int | None) -> list[Text]:
    """The first, and as many more as so many lines have room for (None: all)."""
    parts = [paragraph(safe(note), style, look=QUIET) for note in notes]
    ends = accumulate(map(len, parts))
    shown = len(parts) if room is None else sum(end <= room for end in ends) or len(parts[:1])
    return [*chain.from_iterable(parts[:shown]), *left_out(len(parts) - shown)]


def _others(result: SweepResult, style: Style) -> list[Text]:
    """The metrics that do not rank the rows, each with its baseline, and the donor's score."""
    lines = []
    for other in result.others:
        parts = [("also ", QUIET), (safe(other.name), HEADING), (f", {better(other)}", QUIET)]
        scores = {"baseline": other.baseline} | ({"donor": other.donor_score} if len(result.donors) < 2 else {})
        known = [Text.assemble((f"{name} ", QUIET), number(score)) for name, score in scores.items()]
        lines += flow([Text.assemble(*parts), *known], style, gap=3)
    return lines


def _section(title: str, rows: Sequence[Row], result: SweepResult, style: Style, top: int | None) -> list[Text]:
    shown = list(rows[:top])
    if result.mode in ("prefix", "suffix"):  # a curve: read from the first layer taken to the last
        shown.sort(key=lambda row: (row.kind or "", len(row.tensors)))
    lines = [Text(mode_words(result) or title, style=HEADING)]
    lines += table(sweep_columns(result, shown, style), shown, style)
    return [*lines, *left_out(len(rows) - len(shown)), *_paths(shown, style)]


def _paths(rows: Sequence[Row], style: Style) -> list[Text]:
    """The drop at each point of the way to the donor, where the sweep has them."""
    if not (alphas := sorted({point.alpha for row in rows for point in row.path})):
        return []
    places = decimals((drop for row in rows for drop in (row.drop, *(point.drop for point in row.path))), 3)

    def drop(row: Row, alpha: float) -> str:
        drops = {1.0: row.drop, **{point.alpha: point.drop for point in row.path}}
        return fixed(drops.get(alpha), places, signed=True)

    points = [Column(f"{alpha:g}", partial(drop, alpha=alpha), right=True) for alpha in [*alphas, 1.0]]
    title = Text("drop on the way to the donor, by alpha", style=HEADING)
    return [Text(), title, *table([*name_columns(rows), *points], rows, style)]


def _unmeasured(rows: Sequence[Row], style: Style) -> list[Text]:
    """One line a status with its count; below mismatch and failed, each reason with its cells."""
    lines = []
    for status, meaning in _UNMEASURED.items():
        cells: dict[str, list[str]] = defaultdict(list)
        for row in rows:
            if row.status == status:
                cells[row.reason or "no reason given"].append(cell_name(row))
        if cells:
            label = f"{sum(map(len, cells.values())):4,} {status}"
            lines += paragraph(meaning, style, indent=16, label=label, look=QUIET)
        for reason, names in cells.items() if status in ("mismatch", "failed") else ():
            lines += paragraph(f"{listing(names, most=5)}: {safe(reason)}", style, indent=16)
    return [Text("not ranked", style=HEADING), *lines] if lines else []


@dataclass(frozen=True)
class _Kind:
    """A kind's cells, and its row as a whole where the sweep has one."""

    name: str
    cells: Sequence[Row]
    whole: Row | None

    @property
    def drops(self) -> list[float]:
        """Those of the cells that have one."""
        return [row.drop for row in self.cells if row.drop is not None]


def kind_lines(result: SweepResult, style: Style, most: int | None = None) -> list[Text]:
    """Per kind: how many cells, their worst and median drop, their verdicts, and the drop of the whole kind.

    Of the `most` worst kinds, where all are too many. None without cells.

    >>> row = Row("conv1", "conv.bias", ("conv1.bias",), 64, "measured", rank=1, drop=0.1, verdict="sensitive")
    >>> for line in kind_lines(SweepResult("dice", "max", 0.01, 0.9, None, 72, rows=(row,)), Style())[1:]:
    ...     print(line.plain)
    kind       cells   worst  median  reusable  sensitive  undecided  whole
    conv.bias      1  +0.100  +0.100         0          1          0      –
    """
    cells: dict[str, list[Row]] = defaultdict(list)
    for row in widest(result.rows):
        if row.kind is not None and row.place is not None:
            cells[row.kind].append(row)
    whole = {row.kind: row for row in result.rows if row.place is None and row.kind is not None}
    kinds = [_Kind(name, rows, whole.get(name)) for name, rows in cells.items()]
    kinds.sort(key=lambda kind: -max(map(drop_or_least, (*kind.cells, kind.whole))))
    if not kinds:
        return []
    places = decimals((row.drop for row in result.rows if row.kind is not None), 3 if style.width < WIDE else 4)
    signed = partial(fixed, places=places, signed=True)
    tried = any(row.zero_drop is not None for kind in kinds for row in kind.cells)
    columns = [
        Column("kind", lambda kind: safe(kind.name), smallest=15),
        Column("cells", _cells, right=True, spare=3),
        Column("worst", lambda kind: signed(max(kind.drops, default=None)), right=True),
        Column("median", lambda kind: signed(median(kind.drops) if kind.drops else None), right=True, spare=2),
        Column("reusable", partial(_verdicts, verdict="reusable"), right=True),
        *([Column("unused", partial(_verdicts, verdict="unused"), right=True, spare=2)] if tried else []),
        Column("sensitive", partial(_verdicts, verdict="sensitive"), right=True),
        Column("undecided", partial(_verdicts, verdict="undecided"), right=True, spare=1),
        Column("whole", lambda kind: signed(kind.whole.drop if kind.whole else None), right=True),
    ]
    lines = [Text("drop by kind, over its cells", style=HEADING), *table(columns, kinds[:most], style)]
    return [*lines, *left_out(len(kinds) - len(kinds[:most]))]


def _cells(kind: _Kind) -> str:
    """How many, and of how many where some have no drop."""
    scored, cells = len(kind.drops), len(kind.cells)
    return f"{scored:,}" if scored == cells else f"{scored:,}/{cells:,}"


def _verdicts(kind: _Kind, verdict: str) -> Text:
    amount = sum(row.verdict == verdict for row in kind.cells)
    return Text(f"{amount:,}", style=LOOK[verdict] if amount else QUIET)


def finding_lines(result: SweepResult, style: Style, *, in_short: bool = False) -> list[Text]:
    """Each claim with its verdict, its rule and its numbers; `in_short` with its verdict alone.

    None where no claim was judged.

    >>> finding = Finding("bias", "Biases can be reused.", "all reusable", {"worst": 0.002}, "supported")
    >>> result = SweepResult("dice", "max", 0.01, 0.9, None, 72, rows=(), findings=(finding,))
    >>> [line.plain for line in finding_lines(result, Style(), in_short=True)]
    ['findings', 'supported  Biases can be reused.']
    """
    if not result.findings:
        return []
    lines, untested = [Text("findings", style=HEADING)], []
    longest = max(len(finding.verdict) for finding in result.findings)
    for finding in result.findings:
        # What a claim speaks of: the drop of a row, or the count of a kind's cells.
        numbers = [value for name, value in finding.numbers.items() if not name.endswith("bound")]
        if any(isinstance(value, float) or value for value in numbers):
            lines += _in_short(finding, style, longest + 2) if in_short else _finding(finding, style)
        else:
            untested.append(finding.claim)
    if untested:
        lines += paragraph(f"not tested, having no such rows: {', '.join(untested)}", style)
    return lines if lines[-1].plain else lines[:-1]


def _in_short(finding: Finding, style: Style, indent: int) -> list[Text]:
    lines = paragraph(safe(finding.text), style, indent=indent, label=finding.verdict)
    lines[0].stylize(LOOK[finding.verdict], 0, len(finding.verdict))
    return lines


def _finding(finding: Finding, style: Style) -> list[Text]:
    verdict = Text.assemble((finding.verdict, LOOK[finding.verdict]), (f"  {safe(finding.claim)}", QUIET))
    lines = [*flow([verdict], style), *paragraph(safe(finding.text), style, indent=2)]
    numbers = [Text.assemble((f"{safe(name)} ", QUIET), number(value)) for name, value in finding.numbers.items()]
    rule = paragraph(safe(finding.rule), style, indent=8, label="  rule", look=QUIET)
    return [*lines, *rule, *flow(numbers, style, indent=2), Text()]
