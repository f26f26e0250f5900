"""The small things every report shares: names made safe, numbers, bars, strict JSON.

Names come from a stranger's file, so each passes through `safe` before it is shown; where rich draws, it gets
`rich.text.Text`, never a markup string.
"""

import io
import json
import math
import numbers
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rich.cells import cell_len

MISSING = "–"
# Control, format (bidi overrides, zero-width), surrogate, private, unassigned, line and paragraph separators.
_UNSAFE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
_ASCII = {
    "–": "-", "−": "-", "…": "~", "±": "+-", "×": "x", "→": "->", "·": "|", "≤": "<=", "█": "#", "░": "-",
    **dict.fromkeys("▏▎▍▌▋▊▉", "#"),
}  # fmt: skip
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_NUMBERS = re.compile("[0-9]+")
_BETWEEN = re.compile("[^0-9]+")


@dataclass(frozen=True)
class Style:
    """How a terminal wants it: `width` in cells, with or without colour, Unicode or plain ASCII.

    `whole`: for a pipe, whose other end goes by lines: names whole, a row a line, no column left out and nothing
    drawn; `width` is then that of words alone.
    """

    width: int = 80
    colour: bool = False
    ascii: bool = False
    whole: bool = False


def safe(text: str) -> str:
    r"""`text` with everything that could move a cursor, recolour or reorder a line made visible.

    >>> print(safe("a\x1b[31m\nb\u202ec"))
    a\x1b[31m\nb\u202ec
    """
    if text.isprintable():  # most are, and tables of 200,000 names wait for this
        return text
    return "".join(_escape(c) if unicodedata.category(c) in _UNSAFE else c for c in text)


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def asciify(text: str) -> str:
    r"""Our own glyphs by their ASCII stand-ins, anything else beyond ASCII as an escape.

    >>> print(asciify("±0.01 é"))
    +-0.01 \xe9
    """
    return "".join(c if c.isascii() else _ASCII.get(c) or _escape(c) for c in text)


def cells(text: str) -> int:
    """How many cells a terminal gives it: a letter each, in ASCII, and rich knows the others.

    >>> cells("conv"), cells("层")
    (4, 2)
    """
    return len(text) if text.isascii() and text.isprintable() else cell_len(text)


def named(layer: str) -> str:
    """A layer's name for people; the root module's is empty.

    >>> named("")
    '(root)'
    """
    return safe(layer) or "(root)"


def shorten(name: str, width: int, *, head: int | None = None, ascii: bool = False) -> str:
    """`name` in at most `width` cells, cut in the middle; `head` cells stay in front of the cut. Where a cut takes
    no number away (a block's, say), the nearest such one.

    >>> shorten("decoder.final.conv", 13), shorten("encoder.layer1.0.conv1", 17)
    ('decode…l.conv', 'encoder…1.0.conv1')
    """
    if cells(name) <= width:
        return name
    room = max(width - 1, 0)
    head = (room + 1) // 2 if head is None else min(head, room)
    head = _sparing_numbers(name, room, head) if name.isascii() else head
    cut = _take(name, head) + ("~" if ascii else "…") + _take(name[::-1], room - head)[::-1]
    return cut if width > 0 else ""


def _sparing_numbers(name: str, room: int, head: int) -> int:
    """The place nearest to `head` at which all letters but `room` can be cut out without a digit among them."""
    cut = len(name) - room
    spans = ((run.start(), run.end() - cut) for run in _BETWEEN.finditer(name))
    heads = (min(max(head, first), last) for first, last in spans if first <= last)
    return min(heads, key=lambda near: abs(near - head), default=head)


def keeps_numbers(name: str, shown: str) -> bool:
    """Whether a shortened name still has all of its numbers.

    >>> keeps_numbers("layer1.0.conv", "lay…1.0.conv"), keeps_numbers("layer1.0.conv", "layer1…conv")
    (True, False)
    """
    return name == shown or _NUMBERS.findall(name) == _NUMBERS.findall(shown)


def shorten_between_numbers(name: str, width: int) -> str:
    """`name` in at most `width` cells with all of its numbers, cut at several places where one is not enough; in
    the middle where the numbers alone are too long.

    >>> shorten_between_numbers("model.layers.17.self_attn.q_proj.linear1.weight", 20)
    'mo…s.17.s…ar1.w…ht'
    """
    cut = shorten(name, width)
    parts = re.split("([0-9]+)", name)
    room = width - sum(map(len, parts[1::2]))
    between = sorted(cells(text) for text in parts[::2])
    if keeps_numbers(name, cut) or room < sum(map(bool, between)):
        return cut
    most = max(most for most in range(width + 1) if sum(min(length, most) for length in between) <= room)
    parts[::2] = [shorten(text, most) for text in parts[::2]]
    return "".join(parts)


def _take(text: str, room: int) -> str:
    if text.isascii():
        return text[:room]
    end = 0
    while end < len(text) and (room := room - cell_len(text[end])) >= 0:
        end += 1
    return text[:end]


def shorten_all(names: Sequence[str], width: int, *, ascii: bool = False) -> list[str]:
    """A column of names, all cut at one place: the one that keeps most of them apart.

    >>> shorten_all(["encoder.layer1.conv", "encoder.layer2.conv"], 9)
    ['en…1.conv', 'en…2.conv']
    """
    distinct = list(dict.fromkeys(names))
    if all(cells(name) <= width for name in distinct):
        return list(names)
    sample = distinct[:400]  # enough to choose the cut by, however long the column
    best, most = 1, 0
    for head in sorted(range(1, max(width - 1, 2)), key=lambda head: (abs(head - width // 2), head)):
        apart = len({shorten(name, width, head=head) for name in sample})
        if apart > most:  # of those that are as good the nearest to the middle
            best, most = head, apart
        if apart == len(sample):
            break
    return [shorten(name, width, head=best, ascii=ascii) for name in names]


def fold(text: str, width: int) -> list[str]:
    """All of `text`, in lines of at most `width` cells, broken after a dot or the like where one is near.

    >>> fold("encoder.layer1.0.conv1", 9)
    ['encoder.', 'layer1.0.', 'conv1']
    """
    lines, start, stop, used = [], 0, 0, 0
    for at, letter in enumerate(text):
        if used + cell_len(letter) > width and at > start:
            end = stop if 2 * (stop - start) > at - start else at
            lines.append(text[start:end])
            start, used = end, cell_len(text[end:at])
        used += cell_len(letter)
        stop = at + 1 if letter in ". _/" else stop
    return [*lines, text[start:]]


def decimals(values: Iterable[float | None], digits: int = 4) -> int:
    """Decimal places that give the largest of `values` so many significant digits: one choice a column.

    >>> decimals([0.7012, 0.003, None]), decimals([31.5])
    (4, 2)
    """
    largest = max((abs(v) for v in values if v is not None and math.isfinite(v)), default=0.0)
    return max(0, digits - 1 - math.floor(math.log10(largest))) if largest else digits


def fixed(value: float | None, places: int, *, signed: bool = False) -> str:
    """A number with `places` decimals; what would round to nothing is written with its exponent, exact zero as 0.

    >>> fixed(0.70123, 3, signed=True), fixed(-0.00002, 3), fixed(0.0, 3), fixed(None, 3)
    ('+0.701', '-2e-05', '0', '–')
    """
    if value is None:
        return MISSING
    sign = "+" if signed else ""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else f"{value:{sign}}"
    if places > 6:
        return f"{value:{sign}.2e}"
    text = f"{value:{sign}.{places}f}"
    return text if any(c in "123456789" for c in text) else f"{value:{sign}.0e}"


def number(value: float | None, digits: int = 4, *, signed: bool = False) -> str:
    """A number on its own, to so many significant digits.

    >>> number(0.00912345), number(None), number(-1.5, signed=True), number(3)
    ('0.009123', '–', '-1.5', '3')
    """
    return MISSING if value is None else f"{value:{'+' if signed else ''}.{digits}g}"


def figure(value: float | None, digits: int = 3) -> str:
    """A number in a column whose values differ by orders of magnitude: floats to so many digits, counts in short.

    >>> figure(0.5), figure(0.0123), figure(2_359_296), figure(0.0), figure(None)
    ('0.500', '0.0123', '2.36M', '0', '–')
    """
    if value is None or isinstance(value, int):
        return count(value)
    return f"{value:#.{digits}g}".removesuffix(".") if value else "0"


def interval(low: float | None, high: float | None, places: int, *, signed: bool = False) -> str:
    """A confidence interval in brackets.

    >>> interval(0.61, 0.79, 2), interval(None, None, 2)
    ('[0.61, 0.79]', '–')
    """
    ends = ", ".join(fixed(end, places, signed=signed) for end in (low, high))
    return MISSING if low is None or high is None else f"[{ends}]"


def count(value: int | None) -> str:
    """A count in at most five cells.

    >>> count(9408), count(36864), count(2359296), count(None)
    ('9,408', '36.9k', '2.36M', '–')
    """
    if value is None or abs(value) < 10_000:
        return MISSING if value is None else f"{value:,}"
    return _scaled(value, ("", "k", "M", "G", "T", "P"))


def size(value: int | None) -> str:
    """A number of bytes, in powers of a thousand.

    >>> size(512), size(44_700_000), size(None)
    ('512 B', '44.7 MB', '–')
    """
    return MISSING if value is None else _scaled(value, (" B", " kB", " MB", " GB", " TB", " PB"))


def _scaled(value: float, units: Sequence[str]) -> str:
    step = 0
    while abs(value) >= 999.5 and step < len(units) - 1:
        value, step = value / 1000, step + 1
    return f"{value:.3g}{units[step]}"


def duration(seconds: float) -> str:
    """A time that people read: seconds, then minutes, then hours.

    >>> duration(0.4), duration(75), duration(7320)
    ('0.4 s', '1 min 15 s', '2 h 2 min')
    """
    if seconds < 10:
        return f"{seconds:.2g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if minutes else f"{rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def plural(amount: int, noun: str) -> str:
    """A counted noun.

    >>> plural(1, "tensor"), plural(1200, "tensor")
    ('1 tensor', '1,200 tensors')
    """
    return f"{amount:,} {noun}{'' if amount == 1 else 's'}"


def letters_of(items: Sequence[object]) -> list[str]:
    """A letter for each, and numbers where there are no more letters.

    >>> letters_of(["run", "other run"])
    ['A', 'B']
    """
    return [chr(ord("A") + at) if at < 26 else str(at) for at in range(len(items))]


def shape(sides: Sequence[int] | None) -> str:
    """A tensor's shape.

    >>> shape([64, 3, 7, 7]), shape([]), shape(None)
    ('64×3×7×7', 'scalar', '–')
    """
    return MISSING if sides is None else "×".join(map(str, sides)) or "scalar"


def bar(value: float | None, scale: float, width: int, ascii: bool = False) -> str:
    """A bar of |value| / scale in `width` cells; below zero shaded instead of solid; nothing for a missing value.

    >>> bar(0.5, 1.0, 4), bar(-0.5, 1.0, 4), bar(1e-9, 1.0, 4), bar(None, 1.0, 4), bar(0.5, 1.0, 4, ascii=True)
    ('██', '░░', '▏', '', '##')
    """
    if value is None or math.isnan(value) or value == 0 or scale <= 0:
        return ""
    full, rest = divmod(max(1, round(8 * width * min(abs(value) / scale, 1.0))), 8)
    if value > 0 and not ascii:
        return "█" * full + _EIGHTHS[rest].strip()
    return ("#" if value > 0 else "-" if ascii else "░") * max(1, full)


def dump_json(obj: object) -> str:
    r"""Strict JSON, keys as given, NaN and infinities as null, safe to print on a terminal.

    Raises TypeError for what JSON cannot say.

    >>> print(dump_json({"drop": float("nan"), "name": "a\x1b"}), end="")
    {
      "drop": null,
      "name": "a\u001b"
    }
    """
    try:
        return _dumped(obj)
    except (ValueError, TypeError):  # NaN, or numpy's numbers: only then is all of it copied
        return _dumped(finite(obj))


def _dumped(obj: object) -> str:
    out = io.StringIO()  # piece by piece: a list of all the pieces takes several times the text's own memory
    for piece in json.JSONEncoder(indent=2, allow_nan=False, ensure_ascii=True).iterencode(obj):
        out.write(piece.replace("\x7f", "\\u007f"))  # the one control character that JSON lets through
    return out.getvalue() + "\n"


def finite(obj: object) -> object:
    """The same for JSON: NaN and infinities as None, numpy's numbers as Python's.

    >>> finite({"drops": (1.0, float("inf"))})
    {'drops': [1.0, None]}
    """
    if isinstance(obj, Mapping):
        return {key: finite(value) for key, value in obj.items()}
    if isinstance(obj, (list, tuple)):
        return [finite(value) for value in obj]
    if isinstance(obj, numbers.Integral):
        return obj if isinstance(obj, bool) else int(obj)
    if isinstance(obj, numbers.Real):
        return float(obj) if math.isfinite(obj) else None
    return obj
