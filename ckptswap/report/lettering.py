"""Text in pictures: how much room it takes, where it is broken, and what a font can draw. Needs matplotlib."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from ckptswap.report.text import asciify, fold

FONT = "DejaVu Sans"  # comes with matplotlib, so that a picture is the same everywhere
SIZES = (7.0, 6.5, 6.0, 5.5, 5.0)  # points; what is smaller than 5 is not read in print
LINE = 1.25  # of its size, that a line is high
POINTS = 72  # to the inch


def plain(text: str) -> str:
    r"""What matplotlib takes for just these letters: nothing between two $ is mathematics, and what the font lacks
    is an escape.

    >>> print(plain("a$b"), plain("层"))
    a\$b \u5c42
    """
    known = _letters()
    return "".join(c if ord(c) in known else asciify(c) for c in text).replace("$", r"\$")


@cache
def _letters() -> frozenset[int]:
    from matplotlib import font_manager

    return frozenset(font_manager.get_font(font_manager.findfont(FONT)).get_charmap())


@cache
def inches(text: str, size: float) -> float:
    """How wide a line of text is.

    >>> 0.5 < inches("encoder.0.conv", 7) < 1
    True
    """
    from matplotlib.textpath import text_to_path

    path = text_to_path.get_text_width_height_descent(plain(text), _properties(size), ismath=False)
    return float(path[0]) / POINTS


@cache
def _properties(size: float) -> Any:
    from matplotlib.font_manager import FontProperties

    return FontProperties(family=FONT, size=size)


def wrapped(text: str, size: float, room: float) -> str:
    """Words over as many lines as they need in `room` inches.

    >>> wrapped("drop in iou, by layer and kind", 7, 1)
    'drop in iou, by layer\\nand kind'
    """
    lines: list[str] = []
    for word in text.split():
        if lines and inches(f"{lines[-1]} {word}", size) <= room:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return "\n".join(lines)


@dataclass(frozen=True)
class TickNames:
    """Names along an axis, whole: `shown` at a size of `size` points, over `lines` lines where one is too long."""

    shown: tuple[str, ...]
    size: float
    lines: int = 1

    @property
    def wide(self) -> float:
        """Inches that the longest takes."""
        return max((inches(line, self.size) for name in self.shown for line in name.split("\n")), default=0.0)

    @property
    def high(self) -> float:
        """Inches that each takes in height."""
        return self.lines * self.size * LINE / POINTS


def _broken(name: str, letters: int) -> list[str]:
    """Between layer and kind where that is enough, else after dots and the like."""
    parts = name.rsplit(" ", 1)
    return parts if max(map(len, parts)) <= letters else fold(name, letters)


NO_NAMES = TickNames((), SIZES[0])


def fitted(names: Sequence[str], room: float) -> TickNames:
    """The largest size at which the names fit in `room` inches; where none does, they are broken after dots.

    >>> fitted(["conv1"], 2.0).size, fitted(["model.layers.11.self_attn.q_proj"], 1.0).shown
    (7.0, ('model.layers.11.self_\\nattn.q_proj',))
    """
    for size in SIZES:
        made = TickNames(tuple(names), size)
        if made.wide <= room:
            return made
    letters = max(int(room / inches("n", SIZES[-1])), 4)
    folded = [_broken(name, letters) for name in names]
    return TickNames(tuple(map("\n".join, folded)), SIZES[-1], max(map(len, folded)))
