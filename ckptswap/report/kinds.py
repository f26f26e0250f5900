"""What each kind costs, over its cells."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

from rich.text import Text

from ckptswap.report.layout import HEADING, QUIET, WIDE, Column, left_out, table
from ckptswap.report.rows import drop_or_least
from ckptswap.report.sweep import LOOK
from ckptswap.report.text import Style, decimals, fixed, safe
from ckptswap.sweep.result import Row, SweepResult, widest


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
        if row.kind is not None and row.layer is not None:
            cells[row.kind].append(row)
    whole = {row.kind: row for row in result.rows if row.layer is None and row.kind is not None}
    kinds = [_Kind(name, rows, whole.get(name)) for name, rows in cells.items()]
    kinds.sort(key=lambda kind: -max(map(drop_or_least, (*kind.cells, kind.whole))))
    if not kinds:
        return []
    places = decimals((row.drop for row in result.rows if row.kind is not None), 3 if style.width < WIDE else 4)
    signed = partial(fixed, places=places, signed=True)
    columns = [
        Column("kind", lambda kind: safe(kind.name), smallest=15),
        Column("cells", _cells, right=True, spare=3),
        Column("worst", lambda kind: signed(max(kind.drops, default=None)), right=True),
        Column("median", lambda kind: signed(median(kind.drops) if kind.drops else None), right=True, spare=2),
        Column("reusable", partial(_verdicts, verdict="reusable"), right=True),
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
