"""Every row of a sweep as one HTML table, and what its copy buttons need."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ckptswap.report.answer import is_partial
from ckptswap.report.charts import row_names
from ckptswap.report.sweep import cell_name, distance, sections
from ckptswap.report.text import MISSING, count, decimals, fixed, interval, named, plural, safe
from ckptswap.shell import quoted

if TYPE_CHECKING:
    from ckptswap.sweep.provenance import Provenance
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


def shown_rows(result: SweepResult, top: int | None) -> list[Row]:
    """The rows of the table, section by section, of each the worst `top`."""
    return [
        row
        for _, rows in sections(result.rows)
        for row in rows
        if top is None or (row.rank is not None and row.rank <= top)
    ]


@dataclass(frozen=True)
class _Column:
    """A column: its name, its cells as HTML, whether they are numbers."""

    name: str
    cells: Sequence[str]
    is_number: bool = True


def rows_table(result: SweepResult, rows: Sequence[Row]) -> str:
    """The rows in one table that can be filtered and sorted. Cells are not closed, which HTML lets us do: their
    closing tags would be a tenth of a large page."""
    columns = list(_columns(result, rows))
    head = "".join(
        f'<th scope="col" aria-sort="none"><button type="button" data-column="{place}" '
        f'data-number="{int(column.is_number)}">{column.name}</button></th>'
        for place, column in enumerate(columns)
    )
    lines = "\n".join(
        f"<tr>{''.join(cells)}</tr>" for cells in zip(*(each.cells for each in columns), strict=True)
    )
    hidden = len(result.rows) - len(rows)
    more = f"<p class=quiet>{hidden:,} more rows are left out by --top.</p>" if hidden else ""
    return f"""<p class="filter"><label>filter <input id="filter" type="search" placeholder="layer, kind, verdict"
 autocomplete="off" spellcheck="false"></label> <span id="shown"
 role="status">{plural(len(rows), "row")}</span></p>
<div class="wide" tabindex="0" role="region" aria-label="every row">
<table id="table"><thead><tr>{head}</tr></thead>
<tbody>
{lines}
</tbody></table></div>{more}"""


def _columns(result: SweepResult, rows: Sequence[Row]) -> Iterator[_Column]:
    """Numbers of one column have the same decimals, intervals those of the drop."""
    names = row_names(rows)
    places = decimals(row.drop for row in rows)
    yield _Column("rank", _cells(MISSING if row.rank is None else str(row.rank) for row in rows))
    yield _Column(
        "layer", _cells(html.escape(_layer(row, name)) for row, name in zip(rows, names, strict=True)), False
    )
    yield _Column("kind", _cells("(all)" if row.kind is None else escaped(row.kind) for row in rows), False)
    yield _Column("values", _cells(count(row.numel) for row in rows))
    near = decimals(row.rmse for row in rows)
    yield _Column("RMSE", _cells(distance(row, lambda value: fixed(value, near)) for row in rows))
    yield _numbers("score", (row.score for row in rows), places)  # no coarser than the drop
    yield _numbers("drop", (row.drop for row in rows), signed=True)
    plain = (interval(row.ci_low, row.ci_high, places, signed=True) for row in rows)
    yield _Column("plain interval", _cells(plain))
    wide = (interval(row.sim_low, row.sim_high, places, signed=True) for row in rows)
    yield _Column("simultaneous interval", _cells(wide))
    yield _Column("verdict", [_verdict(row) for row in rows], False)
    yield from _asked_columns(result, rows)


def _asked_columns(result: SweepResult, rows: Sequence[Row]) -> Iterator[_Column]:
    """Those that only some runs have."""
    if any(is_partial(result, row) for row in result.rows):
        yield _Column("samples", _cells(count(row.samples) for row in rows))
    if len(result.donors) > 1:
        donors = [f"<td class=donor>{escaped(each.path)}" for each in result.donors]
        yield _Column("donor", [donors[row.donor] for row in rows], False)
    if result.recalibrated_baseline is not None:
        again = (row.recalibrated.drop if row.recalibrated else None for row in rows)
        yield _numbers("recalibrated drop", again, signed=True)
    if any(row.path for row in result.rows):
        heights = (row.barrier.height if row.barrier else None for row in rows)
        yield _numbers("barrier", heights, signed=True)


def _cells(texts: Iterable[str]) -> list[str]:
    return [f"<td>{text}" for text in texts]


def _numbers(name: str, values: Iterable[float | None], least: int = 0, *, signed: bool = False) -> _Column:
    known = list(values)
    places = max(least, decimals(known))
    return _Column(name, _cells(fixed(value, places, signed=signed) for value in known))


def _layer(row: Row, name: str) -> str:
    """The layer; of one of several tensors under one layer and kind its own name."""
    if name != cell_name(row):
        return name
    return "(all)" if row.layer is None else named(row.layer)


def _verdict(row: Row) -> str:
    said = row.verdict if row.status == "measured" else row.status
    reason = f" <small>{escaped(row.reason)}</small>" if row.reason else ""
    return f"<td class={css_class(said)}>{escaped(said or MISSING)}{reason}"


# Commands --------------------------------------------------------------------------------------------------------


def row_commands(rows: Sequence[Row], origin: Provenance) -> dict[str, Any]:
    """What the copy buttons need: the beginning of each donor's command, the tensors' names as words of a shell,
    and for each row the donor and its words as runs (first, how many, …); none where no command can be.

    The longest rows come first, so that the many that take nearly all, or one layer more each, are a few runs.
    """
    words: dict[str, int] = {}
    for row in sorted(rows, key=lambda row: -len(row.tensors)):
        for name in row.tensors:
            words.setdefault(name, len(words))
    return {
        "starts": [origin.transplant(at) for at in range(len(origin.donors))],
        "words": [quoted(f"={name}") for name in words],
        "rows": [
            _runs(words[name] for name in row.tensors) if _has_command(row, origin) else None for row in rows
        ],
        "donors": [row.donor for row in rows],
    }


def _runs(places: Iterable[int]) -> list[int]:
    """
    >>> _runs([4, 5, 6, 0, 1])
    [4, 3, 0, 2]
    """
    runs: list[int] = []
    for place in places:
        if runs and place == runs[-2] + runs[-1]:
            runs[-1] += 1
        else:
            runs += [place, 1]
    return runs


def _has_command(row: Row, origin: Provenance) -> bool:
    """What holds control characters is nothing to paste into a terminal."""
    if row.status == "mismatch" or not row.tensors or row.donor >= len(origin.donors):
        return False
    words = (origin.recipient, origin.donors[row.donor], *row.tensors)
    return origin.transplant(row.donor) is not None and all(word.isprintable() for word in words)
