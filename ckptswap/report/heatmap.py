"""The layer × kind heatmap of the drop in a terminal: colours, characters alone, or plain ASCII."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from rich.cells import cell_len
from rich.text import Text

from ckptswap.naming import natural_key
from ckptswap.report.layout import HEADING, QUIET, flow
from ckptswap.report.rows import Key, by_blocks, largest_drop, mark_of, worst_cells
from ckptswap.report.text import Style, asciify, fold, keeps_numbers, named, number, safe, shorten_all
from ckptswap.sweep.result import Row, SweepResult

_STEPS, _ASCII_STEPS = "○◦·░▒▓█", "Oo.:+*#"
"""From much better over `within the tolerance` to much worse, and their colours from the 256: blue, grey, orange,
which colour-blind readers tell apart too."""
_COLOURS = (33, 110, 245, 180, 215, 208, 202)
_MIDDLE = 2
_MARKS = {"identical": "=", "no-effect": "∅", "mismatch": "×", "failed": "!", "unused": "u"}

_CELL = 8  # columns of one cell, with the gap


def heat_lines(result: SweepResult, style: Style) -> list[Text]:
    """Layers down, kinds across, the drop in each cell; the last row is the whole kind. None without cells.

    Layers in execution order where the run tells it, kinds in natural order. Several rows of one layer and kind
    show the worst of them. A kind too many for the width begins a new panel.

    >>> row = Row("conv1", "conv.bias", ("conv1.bias",), 64, "measured", rank=1, drop=0.1)
    >>> result = SweepResult("dice", "max", 0.01, 0.9, None, 72, rows=(row,))
    >>> [line.plain.split() for line in heat_lines(result, Style())][1:4]
    [['conv'], ['bias'], ['conv1', '███████']]
    """
    merged = by_blocks(result.rows)
    if not (cells := worst_cells(result.rows, merged=merged)):
        return []
    scale = Scale(result.tolerance, largest_drop(result.rows), style)
    kinds = sorted({kind for _, kind in cells}, key=lambda kind: (kind is None, natural_key(kind or "")))
    narrowest, widest = (max(12, style.width - kinds * _CELL - 2) for kinds in (7, 1))
    names = _layer_names(result, cells, range(narrowest, widest + 1), style)
    left = min(max(map(cell_len, names.values())), widest) + 2
    room = max(1, (style.width - left) // _CELL)
    lines = [Text(f"drop by {'block' if merged else 'layer'} and kind", style=HEADING)]
    for start in range(0, len(kinds), room):
        lines += [*_panel(cells, names, left, kinds[start : start + room], scale), Text()]
    return [*lines, *_legend(cells, scale)]


def _layer_names(
    result: SweepResult, cells: Mapping[Key, Row], widths: Iterable[int], style: Style
) -> dict[str | None, str]:
    """Layers, then the whole kind, by the names they are shown under: cut to the first width at which no two look
    alike and none lacks a number; whole (to be folded) where no cut does that."""
    ordered = result.in_order(layer for layer, _ in cells if layer is not None)
    full = [asciify(named(layer)) if style.ascii else named(layer) for layer in ordered]
    cuts = (shorten_all(full, width, ascii=style.ascii) for width in widths)
    apart = (names for names in cuts if len(set(names)) == len(set(full)))
    shown = next((names for names in apart if all(map(keeps_numbers, full, names))), full)
    return {**dict(zip(ordered, shown, strict=True)), None: "whole kind"}


@dataclass(frozen=True)
class Scale:
    """Drop → glyph and colour: within the tolerance, then equal steps up to the largest drop."""

    tolerance: float
    largest: float
    style: Style

    def level(self, drop: float) -> int:
        """0 within the tolerance; 1 to 4 for worse, -1 or -2 for better, in equal steps up to the largest drop.

        >>> [Scale(0.01, 0.8, Style()).level(drop) for drop in (0.005, 0.3, 0.8, -0.1)]
        [0, 2, 4, -1]
        """
        if abs(drop) <= self.tolerance:
            return 0
        steps = len(_COLOURS) - 1 - _MIDDLE if drop > 0 else _MIDDLE
        share = min(abs(drop) / self.largest, 1.0) if self.largest else 1.0  # nothing finite: the drop is infinite
        step = max(1, math.ceil(steps * share))
        return step if drop > 0 else -step

    def draw(self, row: Row | None) -> Text:
        """A cell, as wide as a column without its gap."""
        if row is None:
            return Text(" " * (_CELL - 1))
        if (mark := _marks(self.style).get(mark_of(row))) or row.drop is None or math.isnan(row.drop):
            return Text((mark or "?").center(_CELL - 1), style=QUIET)
        return self.ink(self.level(row.drop), _CELL - 1)

    def ink(self, level: int, width: int) -> Text:
        """A level's character in its colour; with colours every measured cell is solid."""
        steps = _ASCII_STEPS if self.style.ascii else "█" * len(_STEPS) if self.style.colour else _STEPS
        return Text(steps[_MIDDLE + level] * width, style=f"color({_COLOURS[_MIDDLE + level]})")


def _marks(style: Style) -> dict[str, str]:
    return _MARKS | ({"no-effect": "0", "mismatch": "x"} if style.ascii else {})


def _panel(
    cells: Mapping[Key, Row], names: Mapping[str | None, str], left: int, kinds: Sequence[str | None], scale: Scale
) -> list[Text]:
    """Headings, then one line for each layer that has a cell under these kinds; cells begin at column `left`."""
    stacks = [_stack("whole.layer" if kind is None else kind, scale.style) for kind in kinds]
    from_below = list(zip_longest(*map(reversed, stacks), fillvalue=""))  # headings stand on their columns
    headings = ("".join(_padded(word, _CELL) for word in words) for words in reversed(from_below))
    lines = [Text(" " * left + heading, style=QUIET) for heading in headings]
    for layer, name in names.items():
        of_layer = [cells.get((layer, kind)) for kind in kinds]
        if any(of_layer):
            *above, last = fold(name, left - 2)
            lead = _padded(last, left), QUIET if layer is None else ""
            lines += map(Text, above)
            lines.append(Text.assemble(lead, Text(" ").join(map(scale.draw, of_layer))))
    return lines


def _padded(text: str, width: int) -> str:
    return text + " " * (width - cell_len(text))


def _stack(kind: str, style: Style) -> list[str]:
    """A kind broken at dots and underscores into lines, each no wider than its column."""
    words = re.split(r"(?<=[^._])[._]", safe(kind))
    return [line for word in words for line in fold(asciify(word) if style.ascii else word, _CELL - 1)]


def _legend(cells: Mapping[Key, Row], scale: Scale) -> list[Text]:
    """What each character and colour that occurs means; steps by their upper bound."""
    drops = [row.drop for row in cells.values() if mark_of(row) == "measured" and row.drop is not None]
    levels = {scale.level(drop) for drop in drops if not math.isnan(drop)}
    present = set(map(mark_of, cells.values()))
    steps = [_step(level, scale) for level in range(-2, 5) if level in levels or level == 0]
    marks = {status: mark for status, mark in _marks(scale.style).items() if status in present}
    marked = [Text.assemble(mark, (f" {status}", QUIET)) for status, mark in marks.items()]
    full = len({layer for layer, _ in cells}) * len({kind for _, kind in cells})
    blank = [Text("blank: no such cell", style=QUIET)] if len(cells) < full else []
    return flow([*steps, *marked, *blank], scale.style, gap=3)


def _step(level: int, scale: Scale) -> Text:
    bound = scale.tolerance if level == 0 else scale.largest * (level / 4 if level > 0 else -level / 2)
    meaning = f"{'better ' if level < 0 else ''}{'within ' if level == 0 else '≤'}{number(bound, 2)}"
    return Text.assemble(scale.ink(level, 2), (f" {meaning}", QUIET))
