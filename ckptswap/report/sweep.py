"""A sweep as json, csv, md, and as the ranked table that is read in a terminal."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.text import Text

from ckptswap.errors import listing
from ckptswap.report.layout import BETTER, HEADING, QUIET, WORSE, Cell, Column, flow, grid, paragraph, render
from ckptswap.report.tabular import md_text, to_csv, to_md
from ckptswap.report.text import (
    MISSING,
    Style,
    bar,
    count,
    decimals,
    fixed,
    interval,
    named,
    number,
    plural,
    safe,
)

if TYPE_CHECKING:
    from ckptswap.sweep.result import Finding, Row, SweepResult

SCHEMA = "ckptswap.sweep/1"
ROW_FIELDS = (
    "rank", "layer", "kind", "tensors", "numel", "rmse", "rel_l2", "score", "drop", "ci_low", "ci_high",
    "sim_low", "sim_high", "samples", "status", "verdict", "reason",
)  # fmt: skip
LOOK = {
    "reusable": BETTER,
    "sensitive": f"bold {WORSE}",
    "undecided": QUIET,
    "supported": f"bold {BETTER}",
    "not supported": f"bold {WORSE}",
}
_UNMEASURED = {
    "identical": "the tensors are equal in both",
    "no-effect": "the model never reads them in eval mode",
    "mismatch": "the donor's tensors do not fit",
    "failed": "could not be scored",
}
MODES = {
    "only": "",
    "all-but": "all but this from the donor",
    "prefix": "all layers up to this one from the donor",
    "suffix": "all layers from this one on from the donor",
}
SMALLEST = {"layer": 10, "kind": 15, "tensors": 10}  # bn.running_mean stays whole as long as it can
WIDE, _WIDEST = 100, 130


def sweep_json(result: SweepResult) -> dict[str, Any]:
    """The JSON contract, `docs/schemas/sweep.schema.json`; names as they are, numbers in full.

    >>> from ckptswap.sweep.result import SweepResult
    >>> sweep_json(SweepResult("dice", "max", 0.01, 0.9, None, 72, rows=()))["schema"]
    'ckptswap.sweep/1'
    """
    head = ("metric", "direction", "tolerance", "baseline", "donor_score", "samples")
    return {
        "schema": SCHEMA,
        **{name: getattr(result, name) for name in head},
        **_more_json(result),
        "rows": [_row_json(row) | _more_of_row(row, result) for row in result.rows],
        "findings": [_finding_json(finding) for finding in result.findings],
    }


def _row_json(row: Row) -> dict[str, Any]:
    return {name: list(row.tensors) if name == "tensors" else getattr(row, name) for name in ROW_FIELDS}


def _more_json(result: SweepResult) -> dict[str, Any]:
    """What only some sweeps have: it is there where it was asked for, and nowhere else."""
    found: dict[str, Any] = {}
    if result.mode != "only":
        found["mode"] = result.mode
    if len(result.donors) > 1:
        found["donors"] = [asdict(donor) for donor in result.donors]
    if _is_recalibrated(result):
        found["recalibrated_baseline"] = result.recalibrated_baseline
    return found


def _more_of_row(row: Row, result: SweepResult) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if len(result.donors) > 1:
        found["donor"] = result.donors[row.donor].path
    if any(each.path for each in result.rows):
        found["path"] = [asdict(point) for point in row.path]
        found["barrier"] = asdict(row.barrier) if row.barrier else None
    if _is_recalibrated(result):
        found["recalibrated"] = asdict(row.recalibrated) if row.recalibrated else None
    return found


def _is_recalibrated(result: SweepResult) -> bool:
    return result.recalibrated_baseline is not None


def _finding_json(finding: Finding) -> dict[str, Any]:
    return {
        "claim": finding.claim,
        "text": finding.text,
        "rule": finding.rule,
        "numbers": dict(finding.numbers),
        "verdict": finding.verdict,
    }


def sweep_csv(result: SweepResult) -> str:
    """Every row, with the columns of the JSON contract.

    >>> from ckptswap.sweep.result import SweepResult
    >>> sweep_csv(SweepResult("dice", "max", 0.01, 0.9, None, 72, rows=()))[:16]
    'rank,layer,kind,'
    """
    extra = _extra_columns(result)
    rows = ([*_row_json(row).values(), *(value(row) for value in extra.values())] for row in result.rows)
    return to_csv([*ROW_FIELDS, *extra], rows)


def _extra_columns(result: SweepResult) -> dict[str, Callable[[Row], object]]:
    """Columns that only some sweeps have, for csv and md."""
    found: dict[str, Callable[[Row], object]] = {}
    if len(result.donors) > 1:
        found["donor"] = lambda row: result.donors[row.donor].path
    if any(row.path for row in result.rows):
        found["barrier"] = lambda row: row.barrier.height if row.barrier else None
    if _is_recalibrated(result):
        found["recalibrated_drop"] = lambda row: row.recalibrated.drop if row.recalibrated else None
    return found


# Sections -------------------------------------------------------------------------------------------------------


def sections(rows: Iterable[Row]) -> list[tuple[str, list[Row]]]:
    """The rows by way of splitting, in their own order."""
    titles = {
        (True, False): "whole kinds",
        (False, True): "whole layers",
        (False, False): "cells",
        (True, True): "whole selection",
    }
    found: dict[str, list[Row]] = {title: [] for title in titles.values()}
    for row in rows:
        found[titles[row.layer is None, row.kind is None]].append(row)
    return [(title, rows) for title, rows in found.items() if rows]


def labels(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Name columns: layer, kind, or both; the tensor's name where several rows share layer and kind."""
    shared = Counter((row.layer, row.kind) for row in rows)
    columns = {}
    if rows[0].layer is not None:
        columns["layer"] = [_place(row, shared[row.layer, row.kind] > 1) for row in rows]
    if rows[0].kind is not None:
        columns["kind"] = [safe(row.kind or "") for row in rows]
    return columns or {"tensors": [plural(len(row.tensors), "tensor") for row in rows]}


def _place(row: Row, ambiguous: bool) -> str:
    return safe(row.tensors[0]) if ambiguous and row.tensors else named(row.layer or "")


def cell_name(row: Row) -> str:
    """Layer and kind in one string, as far as the row has them.

    >>> from ckptswap.sweep.result import Row
    >>> cell_name(Row("head", "conv.bias", ("head.bias",), 1, "measured"))
    'head conv.bias'
    """
    parts = [named(row.layer) if row.layer is not None else "", safe(row.kind) if row.kind is not None else ""]
    return " ".join(part for part in parts if part) or plural(len(row.tensors), "tensor")


# The ranked table ------------------------------------------------------------------------------------------------


def sweep_table(result: SweepResult, style: Style, top: int | None = None) -> str:
    """Whole kinds, whole layers and cells, each worst drop first; below, what was not measured, and why.

    `top` limits each section. The interval is the simultaneous one, by which verdicts are given; where there is
    room (130 columns), the plain one stands beside it.

    >>> from ckptswap.sweep.result import Row, SweepResult
    >>> row = Row("conv1", "conv.bias", ("conv1.bias",), 64, "measured", rank=1, rmse=0.2, score=0.8, drop=0.1,
    ...           samples=72)
    >>> result = SweepResult("dice", "max", 0.01, 0.9, None, 72, rows=(row,))
    >>> print(sweep_table(result, Style()), end="")
    dice, higher is better, 72 samples
    baseline 0.9   donor –   tolerance 0.01   ± 95 %, simultaneous
    <BLANKLINE>
    cells
    #  layer  kind       numel   RMSE  score    drop  ±         verdict
    1  conv1  conv.bias     64  0.200  0.800  +0.100  –  █████  –
    """
    lines = header(result, style)
    measured = [row for row in result.rows if row.status == "measured"]
    for title, rows in sections(measured):
        if result.mode in ("prefix", "suffix"):  # a curve: read from the first layer taken to the last
            rows = sorted(rows, key=lambda row: (row.kind or "", len(row.tensors)))
        shown = rows[:top]
        lines += [Text(), Text(MODES[result.mode] or title, style=HEADING), *ranked_lines(shown, result, style)]
        lines += [*left_out(len(rows) - len(shown)), *_paths(shown, style)]
    return render(lines + unmeasured(result.rows, style), style)


def header(result: SweepResult, style: Style) -> list[Text]:
    """Metric, samples, baseline, donor and tolerance, then the notes."""
    better = "higher" if result.direction == "max" else "lower"
    wide = style.width >= _WIDEST
    facts = {
        "baseline": number(result.baseline),
        **({"donor": number(result.donor_score)} if len(result.donors) < 2 else {}),
        "tolerance": number(result.tolerance),
        "intervals" if wide else "±": f"95 %, {'plain and ' if wide else ''}simultaneous",
    }
    if _is_recalibrated(result):
        facts["recalibrated baseline"] = number(result.recalibrated_baseline)
    parts = [Text.assemble((f"{name} ", QUIET), value) for name, value in facts.items()]
    samples = plural(result.samples, "sample")
    metric = Text.assemble((safe(result.metric), HEADING), (f", {better} is better, {samples}", QUIET))
    notes = [line for note in result.notes for line in paragraph(safe(note), style, look=QUIET)]
    return [*flow([metric], style), *flow(parts, style, gap=3), *notes]


def left_out(rows: int) -> list[Text]:
    """A line that says how many rows are not shown, where there are any."""
    return [Text(f"and {rows:,} more", style=QUIET)] if rows > 0 else []


def section_title(result: SweepResult, rows: Sequence[Row]) -> str:
    """What stands over rows of one way of splitting."""
    return MODES[result.mode] or sections(rows)[0][0]


def ranked_lines(rows: Sequence[Row], result: SweepResult, style: Style) -> list[Text]:
    """The rows as a table, with what the width has room for."""
    digits = 3 if style.width < WIDE else 4
    columns = [Column("#", right=True), *(Column(name, smallest=SMALLEST[name]) for name in labels(rows))]
    cells: list[Sequence[Cell]] = [[_rank(row) for row in rows], *labels(rows).values()]
    for column, values in _number_columns(rows, result, digits, wide=style.width >= _WIDEST):
        columns.append(column)
        cells.append(values)
    columns += [Column("", spare=1), Column("verdict")]
    cells += [_bars(rows, result, style), [_verdict(row) for row in rows]]
    return grid(columns, list(zip(*cells, strict=True)), style)


def _number_columns(
    rows: Sequence[Row], result: SweepResult, digits: int, *, wide: bool
) -> list[tuple[Column, list[str]]]:
    rmse = decimals((row.rmse for row in rows), digits)
    drop = decimals((row.drop for row in rows), digits)
    score = max(
        drop, decimals([result.baseline, *(row.score for row in rows)], digits)
    )  # no coarser than the drop
    columns = [
        (Column("numel", right=True, spare=3), [count(row.numel) for row in rows]),
        (Column("RMSE", right=True, spare=4), [distance(row, lambda value: fixed(value, rmse)) for row in rows]),
        (Column("score", right=True, spare=5), [fixed(row.score, score) for row in rows]),
        (Column("drop", right=True), [fixed(row.drop, drop, signed=True) for row in rows]),
    ]
    columns += _asked_columns(rows, result, drop)
    if any(row.samples != result.samples for row in rows):  # a race, or a sweep that is not finished
        columns.append((Column("samples", right=True), [count(row.samples) for row in rows]))
    if not wide:
        return [*columns, (Column("±", spare=2), [_plus_minus(row, drop) for row in rows])]
    plain = [interval(row.ci_low, row.ci_high, drop, signed=True) for row in rows]
    simultaneous = [interval(row.sim_low, row.sim_high, drop, signed=True) for row in rows]
    return [*columns, (Column("plain interval"), plain), (Column("simultaneous"), simultaneous)]


def distance(row: Row, shown: Callable[[float | None], str]) -> str:
    """The RMSE as it is `shown`, or which sort of value it cannot tell of."""
    if row.non_finite is None:
        return shown(row.rmse)
    return " ".join(word for word in ("NaN", "Inf") if word in row.non_finite)


def _asked_columns(rows: Sequence[Row], result: SweepResult, drop: int) -> list[tuple[Column, list[str]]]:
    """The drop with new batch norm statistics, and the barrier on the way to the donor, where there are any."""
    found = []
    if _is_recalibrated(result):
        again = [row.recalibrated.drop if row.recalibrated else None for row in rows]
        found.append((Column("recal.", right=True), [fixed(each, drop, signed=True) for each in again]))
    if any(row.path for row in rows):
        heights = [row.barrier.height if row.barrier else None for row in rows]
        found.append((Column("barrier", right=True), [fixed(each, drop, signed=True) for each in heights]))
    return found


def _paths(rows: Sequence[Row], style: Style) -> list[Text]:
    """The drop at each point of the way to the donor, where the sweep has them."""
    alphas = sorted({point.alpha for row in rows for point in row.path})
    if not alphas:
        return []
    found = [{1.0: row.drop, **{point.alpha: point.drop for point in row.path}} for row in rows]
    places = decimals((drop for each in found for drop in each.values()), 3)
    columns = [Column(name, smallest=SMALLEST[name]) for name in labels(rows)]
    columns += [Column(f"{alpha:g}", right=True) for alpha in [*alphas, 1.0]]
    numbers = [[fixed(each.get(alpha), places, signed=True) for alpha in [*alphas, 1.0]] for each in found]
    names = zip(*labels(rows).values(), strict=True)
    cells = [[*name, *row] for name, row in zip(names, numbers, strict=True)]
    title = "drop on the way to the donor, by alpha"
    return [Text(), Text(title, style=HEADING), *grid(columns, cells, style)]


def _plus_minus(row: Row, places: int) -> str:
    """How far the simultaneous interval reaches; to the farther end, since an exact or a cut one is uneven."""
    if row.sim_low is None or row.sim_high is None or row.drop is None:
        return MISSING
    return f"±{fixed(max(row.sim_high - row.drop, row.drop - row.sim_low), places)}"


def _bars(rows: Sequence[Row], result: SweepResult, style: Style) -> list[Cell]:
    scale = largest_drop(result.rows)
    width = 5 if style.width < WIDE else 12
    return [
        Text(bar(row.drop, scale, width, style.ascii), style=WORSE if (row.drop or 0) > 0 else BETTER)
        for row in rows
    ]


def largest_drop(rows: Iterable[Row]) -> float:
    """The largest finite |drop|, the scale of bars and heatmap; 0 when there is none."""
    drops = (row.drop for row in rows if row.drop is not None)
    return max((abs(drop) for drop in drops if math.isfinite(drop)), default=0.0)


def _rank(row: Row) -> Cell:
    return Text(MISSING if row.rank is None else str(row.rank), style=QUIET)


def _verdict(row: Row) -> Cell:
    return Text(row.verdict or MISSING, style=LOOK.get(row.verdict or "", ""))


def unmeasured(rows: Iterable[Row], style: Style) -> list[Text]:
    """One line a status with its count; below mismatch and failed, each reason with its cells."""
    by_status: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_status[row.status].append(row)
    lines = []
    for status, meaning in _UNMEASURED.items():
        if found := by_status[status]:
            lines += paragraph(meaning, style, indent=16, label=f"{len(found):4,} {status}", look=QUIET)
            lines += _reasons(found, style) if status in ("mismatch", "failed") else []
    return [Text(), Text("not ranked", style=HEADING), *lines] if lines else []


def _reasons(rows: Iterable[Row], style: Style) -> list[Text]:
    cells: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        cells[row.reason or "no reason given"].append(cell_name(row))
    return [
        line
        for reason, names in cells.items()
        for line in paragraph(f"{listing(names, most=5)}: {safe(reason)}", style, indent=16)
    ]


# Markdown --------------------------------------------------------------------------------------------------------

_MD_FIELDS = (
    "rank",
    "layer",
    "kind",
    "numel",
    "rmse",
    "score",
    "drop",
    "95 % interval",
    "simultaneous",
    "verdict",
    "status",
)


def sweep_md(result: SweepResult) -> str:
    """The same numbers for GitHub: a line of facts, a table for each way of splitting, the findings.

    >>> from ckptswap.sweep.result import SweepResult
    >>> print(sweep_md(SweepResult("dice", "max", 0.01, 0.9, None, 72, rows=())), end="")
    **dice** (higher is better): baseline 0.9, donor –, tolerance 0.01, 72 samples
    """
    better = "higher" if result.direction == "max" else "lower"
    donor = f"donor {number(result.donor_score)}, " if len(result.donors) < 2 else ""
    facts = (
        f"**{md_text(result.metric)}** ({better} is better): baseline {number(result.baseline)}, "
        f"{donor}tolerance {number(result.tolerance)}, {plural(result.samples, 'sample')}"
    )
    blocks = [facts + "\n", *(md_text(note) + "\n" for note in result.notes)]
    for title, rows in sections(result.rows):
        blocks.append(f"### {title.capitalize()}\n\n{_md_table(rows, result)}")
    if result.findings:
        blocks.append("### Findings\n\n" + "".join(_md_finding(finding) for finding in result.findings))
    return "\n".join(blocks)


def _md_table(rows: Sequence[Row], result: SweepResult) -> str:
    extra = _extra_columns(result)
    cells = [[*_md_row(row), *(value(row) for value in extra.values())] for row in rows]
    return to_md([*_MD_FIELDS, *extra], cells)


def _md_row(row: Row) -> list[object]:
    return [
        row.rank,
        None if row.layer is None else row.layer or "(root)",
        row.kind,
        row.numel,
        row.rmse,
        row.score,
        row.drop,
        _md_interval(row.ci_low, row.ci_high),
        _md_interval(row.sim_low, row.sim_high),
        row.verdict,
        row.status if row.reason is None else f"{row.status}: {row.reason}",
    ]


def _md_interval(low: float | None, high: float | None) -> str | None:
    return None if low is None or high is None else f"{number(low)} … {number(high)}"


def _md_finding(finding: Finding) -> str:
    numbers = ", ".join(f"{md_text(name)} {number(value)}" for name, value in finding.numbers.items())
    return (
        f"- **{finding.verdict}**: {md_text(finding.text)} {numbers or MISSING}\n"
        f"  (rule: {md_text(finding.rule)})\n"
    )
