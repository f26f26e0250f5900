"""How results show themselves: as tables to rich, as HTML to notebooks.

The classes are of rooms that know nothing of reports; `shows_itself` teaches them when `ckptswap`'s functions are
first used.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.text import Text

from ckptswap.checkpoint import Checkpoint
from ckptswap.diff import Diff
from ckptswap.report.charts import Heat, heat
from ckptswap.report.checkpoint import show_json, show_table
from ckptswap.report.diff import diff_json, diff_table, non_finite
from ckptswap.report.evaluate import evaluate_json, evaluate_table
from ckptswap.report.sweep import cell_name, distance, sweep_table
from ckptswap.report.text import MISSING, Style, count, figure, fixed, interval, number, plural, safe, shape
from ckptswap.sweep.comparison import Comparison
from ckptswap.sweep.result import SweepResult

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions

MOST = 40
"""Rows that a notebook shows; the result has them all."""


@dataclass(frozen=True)
class Table:
    """Rows of texts under headings, with a line above. `more` rows are not shown."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    more: int = 0


def shows_itself() -> None:
    """Give checkpoints, diffs and sweeps their `__rich_console__` and `_repr_html_`."""
    _teach(Checkpoint, lambda it, style: show_table(_shown(it), style), lambda it: [_of_checkpoint(it)])
    _teach(Diff, lambda it, style: diff_table(diff_json(it), style), lambda it: [_of_diff(it)])
    _teach(Comparison, _text_of_comparison, _of_comparison)
    _teach(SweepResult, lambda it, style: sweep_table(it, style, top=MOST), _of_sweep)


def _teach(
    kind: type, text: Callable[[Any, Style], str], tables: Callable[[Any], Iterable[Table | Heat | str]]
) -> None:
    def console(self: Any, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        style = Style(options.max_width, colour=not console.no_color and console.is_terminal)
        yield Text.from_ansi(text(self, style))

    kind.__rich_console__ = console  # type: ignore[attr-defined]
    kind._repr_html_ = lambda self: "\n".join(map(as_html, tables(self)))  # type: ignore[attr-defined]


# What is shown ---------------------------------------------------------------------------------------------------


def _shown(checkpoint: Checkpoint) -> dict[str, Any]:
    return show_json(checkpoint, list(checkpoint.values()))


def _of_checkpoint(checkpoint: Checkpoint) -> Table:
    found = list(checkpoint.values())
    rows = tuple((each.name, each.kind, shape(each.shape), each.dtype, count(each.numel)) for each in found[:MOST])
    title = f"{checkpoint.path}: {checkpoint.format}, {plural(len(found), 'tensor')}"
    return Table(title, ("name", "kind", "shape", "dtype", "values"), rows, max(0, len(found) - MOST))


def _of_diff(diff: Diff) -> Table:
    data = diff_json(diff)
    said = ", ".join(f"{number} {word}" for word, number in data["summary"].items() if number)
    rows = [row for row in data["rows"] if row["status"] != "identical"]
    shown = tuple(
        (
            row["name"] or " ".join(filter(None, (row["layer"], row["kind"]))),
            row["kind"] or "",
            row["status"],
            count(row["changed"]),
            *([non_finite(row) or "", MISSING, MISSING] if non_finite(row) else _distances(row)),
        )
        for row in rows[:MOST]
    )
    columns = ("name", "kind", "status", "changed", "RMSE", "max |Δ|", "relative L2")
    title = f"{diff.a.path} → {diff.b.path}: {said or 'nothing to compare'}"
    return Table(title, columns, shown, max(0, len(rows) - MOST))


def _distances(row: Mapping[str, Any]) -> list[str]:
    return [figure(row[name]) for name in ("rmse", "max_abs", "rel_l2")]


def _of_sweep(result: SweepResult) -> list[Table | Heat | str]:
    from ckptswap.report.answer import answer

    ranked = [row for row in result.rows if row.status == "measured"]
    shown = tuple(
        (
            MISSING if row.rank is None else str(row.rank),
            cell_name(row),
            count(row.numel),
            distance(row, figure),
            number(row.score),
            fixed(row.drop, 4, signed=True),
            interval(row.sim_low, row.sim_high, 4, signed=True),
            row.verdict or MISSING,
        )
        for row in ranked[:MOST]
    )
    columns = ("rank", "cell", "values", "RMSE", "score", "drop", "95 % simultaneous", "verdict")
    title = f"{result.metric}: baseline {number(result.baseline)}, tolerance {number(result.tolerance)}"
    picture = [heat(result)] if result.mode in ("only", "all-but") and len(result.donors) < 2 else []
    said = [f"{finding.verdict}: {finding.text}" for finding in result.findings]
    table = Table(title, columns, shown, max(0, len(ranked) - MOST))
    return [" ".join(answer(result)), *(each for each in picture if each.rows), table, *said]


def _text_of_comparison(comparison: Comparison, style: Style) -> str:
    said = (safe(f"warning: {each}") for each in comparison.warnings)
    return "\n".join([evaluate_table(evaluate_json(comparison), style).rstrip("\n"), *said])


def _of_comparison(comparison: Comparison) -> list[Table | Heat | str]:
    """Scores, then the paired differences where there are two to compare, then what to be told of them."""
    data = evaluate_json(comparison)
    names = list(data["checkpoints"][0]["scores"])
    rows = tuple((each["path"], *(_score(each["scores"][name]) for name in names)) for each in data["checkpoints"])
    scores = Table(plural(data["samples"], "sample"), ("checkpoint", *names), rows)
    pairs = tuple(map(_difference, data["differences"]))
    columns = ("metric", "a", "b", "a − b", "95 % interval, paired")
    paired = [Table("differences, on the same samples", columns, pairs)] if pairs else []
    return [scores, *paired, *(f"warning: {each}" for each in comparison.warnings)]


def _difference(pair: Mapping[str, Any]) -> tuple[str, ...]:
    ends = interval(pair["ci_low"], pair["ci_high"], 4, signed=True)
    return pair["metric"], pair["a"], pair["b"], fixed(pair["difference"], 4, signed=True), ends


def _score(score: Mapping[str, Any]) -> str:
    ends = interval(score["ci_low"], score["ci_high"], 4)
    return f"{number(score['value'])} {'' if ends == MISSING else ends}".rstrip()


# HTML ------------------------------------------------------------------------------------------------------------


def as_html(part: Table | Heat | str) -> str:
    """A table, a heatmap or a sentence as HTML that needs neither styles nor scripts.

    >>> as_html(Table("<a>", ("name",), (("w",),)))[:60]
    '<table><caption>&lt;a&gt;</caption><thead><tr><th>name</th><'
    """
    if isinstance(part, str):
        return f"<p>{_e(part)}</p>"
    return _heat_html(part) if isinstance(part, Heat) else _table_html(part)


def _e(text: str) -> str:
    return html.escape(safe(text))


def _row(cells: Iterable[str], tag: str = "td") -> str:
    return f"<tr>{''.join(f'<{tag}>{_e(each)}</{tag}>' for each in cells)}</tr>"


def _table_html(table: Table) -> str:
    more = f"<tfoot><tr><td>and {table.more:,} more</td></tr></tfoot>" if table.more else ""
    return (
        f"<table><caption>{_e(table.title)}</caption><thead>{_row(table.columns, 'th')}</thead>"
        f"<tbody>{''.join(map(_row, table.rows))}</tbody>{more}</table>"
    )


def _heat_html(heat: Heat) -> str:
    """Orange costs, blue helps; what was not measured says so in a word."""
    most = max((abs(value) for row in heat.values for value in row if value is not None), default=0) or 1
    lines = []
    for name, values, said in zip(heat.rows, heat.values, heat.said, strict=True):
        cells = "".join(_cell(value, word, most) for value, word in zip(values, said, strict=True))
        lines.append(f"<tr><th>{_e(name)}</th>{cells}</tr>")
    head = _row(("layer", *heat.columns), "th")
    return (
        f"<details open><summary>{_e(heat.title)}</summary><table><thead>{head}</thead>"
        f"<tbody>{''.join(lines)}</tbody></table></details>"
    )


def _cell(value: float | None, word: str, most: float) -> str:
    if value is None:
        return f"<td>{_e(word)}</td>"
    colour = "213,94,0" if value > 0 else "0,114,178"
    look = f"background:rgba({colour},{min(abs(value) / most, 1):.2f})"
    return f'<td style="{look}">{fixed(value, 4, signed=True)}</td>'
