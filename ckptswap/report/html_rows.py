"""Every row of a sweep as one HTML table, and what its copy buttons need."""

from __future__ import annotations

import html
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ckptswap.report.sweep import sections
from ckptswap.report.text import MISSING, count, fixed, interval, named, plural, safe

if TYPE_CHECKING:
    from ckptswap.sweep.facts import Origin
    from ckptswap.sweep.result import Row, SweepResult


def escaped(text: str) -> str:
    """Text from a file as HTML, with control characters made visible.

    >>> escaped("<b>\\x1b")
    '&lt;b&gt;\\\\x1b'
    """
    return html.escape(safe(text))


def css_class(word: str | None) -> str:
    """A verdict or status as a class of `page.css`."""
    return (word or "none").replace(" ", "-")


_COLUMNS = (
    ("rank", True), ("layer", False), ("kind", False), ("values", True), ("RMSE", True), ("score", True),
    ("drop", True), ("plain interval", False), ("simultaneous interval", False), ("verdict", False),
)  # fmt: skip


def rows_table(result: SweepResult, origin: Origin, top: int | None) -> str:
    """Every row, section by section, in one table that can be filtered and sorted."""
    several = len(result.donors) > 1
    extra = [("donor", False)] if several else []
    extra += [("recalibrated drop", True)] if result.recalibrated_baseline is not None else []
    extra += [("barrier", True)] if any(row.path for row in result.rows) else []
    columns = [*_COLUMNS, *extra]
    lines, hidden = [], 0
    at = {id(row): index for index, row in enumerate(result.rows)}
    for _, rows in sections(result.rows):
        shown = rows if top is None else [row for row in rows if row.rank is not None and row.rank <= top]
        hidden += len(rows) - len(shown)
        lines += [_row(row, at[id(row)], result, extra, origin) for row in shown]
    head = "".join(
        f'<th scope="col" aria-sort="none"><button type="button" data-column="{place}" '
        f'data-number="{int(is_number)}">{name}</button></th>'
        for place, (name, is_number) in enumerate(columns)
    )
    more = f"<p class=quiet>{hidden:,} more rows are left out by --top.</p>" if hidden else ""
    return f"""<p class="filter"><label>filter <input id="filter" type="search" placeholder="layer, kind, verdict"
 autocomplete="off" spellcheck="false"></label> <span id="shown"
 role="status">{plural(len(lines), "row")}</span></p>
<div class="wide" tabindex="0" role="region" aria-label="every row">
<table id="table"><thead><tr>{head}<th scope="col">command</th></tr></thead>
<tbody>
{chr(10).join(lines)}
</tbody></table></div>{more}"""


def _row(row: Row, at: int, result: SweepResult, extra: Sequence[tuple[str, bool]], origin: Origin) -> str:
    again = row.recalibrated
    verdict = row.verdict if row.status == "measured" else row.status
    also: dict[str, tuple[float | None, str]] = {
        "donor": (None, escaped(result.donors[row.donor].path) if result.donors else ""),
        "recalibrated drop": _number(again.drop if again else None, signed=True),
        "barrier": _number(row.barrier.height if row.barrier else None, signed=True),
    }
    cells: list[tuple[float | None, str]] = [
        (row.rank, MISSING if row.rank is None else str(row.rank)),
        (None, "(all)" if row.layer is None else html.escape(named(row.layer))),
        (None, "(all)" if row.kind is None else escaped(row.kind)),
        (row.numel, count(row.numel)),
        _number(row.rmse),
        _number(row.score),
        _number(row.drop, signed=True),
        (None, interval(row.ci_low, row.ci_high, 4, signed=True)),
        (None, interval(row.sim_low, row.sim_high, 4, signed=True)),
        (None, f'<span class="verdict {css_class(verdict)}">{escaped(verdict or MISSING)}</span>{_reason(row)}'),
        *(also[name] for name, _ in extra),
    ]
    drawn = "".join(f"<td{_value(value)}>{text}</td>" for value, text in cells)
    copy = (
        f'<button type="button" class="copy" data-row="{at}" title="copy the transplant command">copy</button>'
        if _has_command(row, origin)
        else MISSING
    )
    return f"<tr>{drawn}<td>{copy}</td></tr>"


def _reason(row: Row) -> str:
    return f" <small>{escaped(row.reason)}</small>" if row.reason else ""


def _number(value: float | None, *, signed: bool = False) -> tuple[float | None, str]:
    return value, fixed(value, 4, signed=signed)


def _value(value: float | None) -> str:
    return "" if value is None else f' class="n" data-value="{value!r}"'


def _has_command(row: Row, origin: Origin) -> bool:
    """A name with control characters is nothing to paste into a terminal."""
    if row.status == "mismatch" or not row.tensors or row.donor >= len(origin.donors):
        return False
    return origin.transplant(row.donor) is not None and all(name.isprintable() for name in row.tensors)


def row_commands(result: SweepResult, origin: Origin) -> dict[str, Any]:
    """What the copy buttons need: the beginning of each donor's command, the words that name tensors, and for
    each row which of these."""
    words: dict[str, int] = {}
    rows = [[words.setdefault(name, len(words)) for name in row.tensors] for row in result.rows]
    return {
        "starts": [origin.transplant(at) for at in range(len(origin.donors))],
        "words": [f"--only {shlex.quote(f'={name}')}" for name in words],
        "rows": rows,
        "donors": [row.donor for row in result.rows],
    }
