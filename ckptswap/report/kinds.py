"""What each kind costs, over its cells."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from statistics import median
from typing import TYPE_CHECKING

from rich.text import Text

from ckptswap.report.layout import HEADING, QUIET, Cell, Column, grid, render
from ckptswap.report.sweep import LOOK, SMALLEST, WIDE, left_out
from ckptswap.report.text import Style, decimals, fixed, safe

if TYPE_CHECKING:
    from ckptswap.sweep.result import Row, SweepResult


def kind_summary(result: SweepResult, style: Style) -> str:
    """Per kind: how many cells, their worst and median drop, their verdicts, and the drop of the whole kind.

    >>> from ckptswap.sweep.result import Row, SweepResult
    >>> row = Row("conv1", "conv.bias", ("conv1.bias",), 64, "measured", rank=1, drop=0.1, verdict="sensitive")
    >>> print(kind_summary(SweepResult("dice", "max", 0.01, 0.9, None, 72, rows=(row,)), Style()), end="")
    drop by kind, over its cells
    kind       cells   worst  median  reusable  sensitive  undecided  whole
    conv.bias      1  +0.100  +0.100         0          1          0      –
    """
    return render(kind_lines(result, style)[0], style)


def kind_lines(result: SweepResult, style: Style, most: int | None = None) -> tuple[list[Text], int]:
    """The same as lines, of the `most` worst kinds; and how many kinds are left out."""
    from ckptswap.sweep.result import widest

    cells: dict[str, list[Row]] = defaultdict(list)
    for row in widest(result.rows):
        if row.kind is not None:
            cells[row.kind] += [row] if row.layer is not None else []
    if not cells:
        return [], 0
    whole = {row.kind: row for row in result.rows if row.layer is None and row.kind is not None}
    places = decimals((row.drop for row in result.rows if row.kind is not None), 3 if style.width < WIDE else 4)
    kinds = sorted(cells, key=lambda kind: -_worst([*cells[kind], *([whole[kind]] if kind in whole else [])]))
    rows = [_kind_row(kind, cells[kind], whole.get(kind), places) for kind in kinds[:most]]
    fewer = len(kinds) - len(rows)
    title = Text("drop by kind, over its cells", style=HEADING)
    return [title, *grid(_KIND_COLUMNS, rows, style), *left_out(fewer)], fewer


_KIND_COLUMNS = (
    Column("kind", smallest=SMALLEST["kind"]),
    Column("cells", right=True, spare=3),
    Column("worst", right=True),
    Column("median", right=True, spare=2),
    Column("reusable", right=True),
    Column("sensitive", right=True),
    Column("undecided", right=True, spare=1),
    Column("whole", right=True),
)


def _worst(rows: Iterable[Row]) -> float:
    return max((row.drop for row in rows if row.drop is not None), default=float("-inf"))


def _kind_row(kind: str, cells: Sequence[Row], whole: Row | None, places: int) -> list[Cell]:
    drops = [row.drop for row in cells if row.drop is not None]
    verdicts = Counter(row.verdict for row in cells)
    return [
        safe(kind),
        f"{len(drops):,}" if len(drops) == len(cells) else f"{len(drops):,}/{len(cells):,}",
        fixed(max(drops, default=None), places, signed=True),
        fixed(median(drops) if drops else None, places, signed=True),
        *(
            Text(f"{verdicts[each]:,}", style=LOOK[each] if verdicts[each] else QUIET)
            for each in ("reusable", "sensitive", "undecided")
        ),
        fixed(whole.drop if whole else None, places, signed=True),
    ]
