"""What may befall a file: mutations of its bytes, and of what they mean (instructions, fields, numbers, records).

A `Part` is a stretch of a sound file that is damaged by itself, and put back as its container wants it, with the
right lengths and checksums: else nothing behind these would ever be reached.
"""

from __future__ import annotations

import io
import pickletools
import random
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property

Span = tuple[int, int]
Files = Mapping[str, bytes]
EXTREMES = [0, 1, 2, 127, 128, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**60, 2**63 - 1, 2**63,
            2**64 - 1]  # fmt: skip
TOKENS = [b"\x00" * 8, b"\xff" * 8, b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06", b"[" * 60, b'{"a":', b"../../x",
          b"/etc/passwd", b"\x89HDF\r\n\x1a\n", b"GGUF", b"\n", b"\x1b[31m", b"\xf0\x9f", b"NaN",
          b"1e999", b"-1"]  # fmt: skip
WORST = 12  # mutations of one file at most


@dataclass(frozen=True)
class Part:
    """What is damaged, and how it becomes a file again: `rebuilt` gives the files, by their names. `units` finds
    what belongs together, which is then dropped, doubled or put elsewhere; `words` are put in."""

    name: str
    raw: bytes
    rebuilt: Callable[[bytes], Files]
    units: Callable[[bytes], Sequence[Span]] | None = None
    words: Sequence[bytes] = field(default=())

    @cached_property
    def spans(self) -> Sequence[Span]:
        return self.units(self.raw) if self.units else ()

    @cached_property
    def numbers(self) -> list[tuple[int, int]]:
        """Where a count, a length or an offset may stand, and its width: what is small, and not zero."""
        raw, found = self.raw, []
        for width in (8, 4, 2):
            for at in range(len(raw) - width + 1):
                value = int.from_bytes(raw[at : at + width], "little")
                if 0 < value <= 2 * len(raw):
                    found.append((at, width))
        return found


def mutated(part: Part, other: bytes, draw: random.Random) -> bytes:
    """The part with one to a dozen mutations, `other` being what it may be spliced with."""
    raw = bytearray(part.raw)
    for _ in range(draw.choice((1, 1, 1, 2, 2, 3, 5, WORST))):
        change = draw.choice(_CHANGES if part.spans else _PLAIN)
        change(raw, part, other, draw)
        if not raw:
            raw += b"\x00"
        if len(raw) > 4 * len(part.raw) + 4096:
            del raw[4 * len(part.raw) + 4096 :]
    return bytes(raw)


Change = Callable[[bytearray, Part, bytes, random.Random], None]


def _flip(raw: bytearray, part: Part, other: bytes, draw: random.Random) -> None:
    raw[draw.randrange(len(raw))] ^= 1 << draw.randrange(8)


def _byte(raw: bytearray, part: Part, other: bytes, draw: random.Random) -> None:
    raw[draw.randrange(len(raw))] = draw.randrange(256)


def _number(raw: bytearray, part: Part, other: bytes, draw: random.Random) -> None:
    """A number where one stands, or may stand: an extreme, a neighbour, or what stands elsewhere."""
    if part.numbers and draw.random() < 0.8:
        at, width = draw.choice(part.numbers)
    else:
        at, width = draw.randrange(len(raw)), draw.choice((1, 2, 4, 8))
    old = int.from_bytes(raw[at : at + width], "little")
    near = (old + 1, old - 1, old * 2, old << 8, len(raw), len(raw) - at, -old)
    value = draw.choice(EXTREMES if draw.random() < 0.5 else near) % (1 << 8 * width)
    raw[at : at + width] = value.to_bytes(width, "big" if draw.random() < 0.05 else "little")


def _exchange(raw: bytearray, part: Part, other: bytes, draw: random.Random) -> None:
    """One number in the place of another."""
    if len(part.numbers) > 1:
        (a, width), (b, _) = draw.choice(part.numbers), draw.choice(part.numbers)
        raw[a : a + width] = raw[b : b + width]


def _cut(raw: bytearray, part: Part, other: bytes, draw: random.Random) -> None:
    at = draw.randrange(len(raw))
    del raw[at : at + draw.choice((1, 2, 4, 8, 20, 100))]


def _end(raw: bytearray, part: Part, other: bytes, draw: random.Random) -> None:
    del raw[draw.randrange(len(raw)) :]


def _insert(raw: bytearray, part: Part, other: bytes, draw: random.Random) -> None:
    at = draw.randrange(len(raw) + 1)
    raw[at:at] = draw.choice((*part.words, *TOKENS))


def _repeat(raw: bytearray, part: Part, other: bytes, draw: random.Random) -> None:
    at = draw.randrange(len(raw))
    stretch = raw[at : at + draw.choice((1, 4, 16, 64))]
    raw[at:at] = stretch * draw.choice((1, 2, 10, 100))


def _splice(raw: bytearray, part: Part, other: bytes, draw: random.Random) -> None:
    """A stretch of another file of the format, in the place of one of its own."""
    at, begin = draw.randrange(len(raw)), draw.randrange(max(1, len(other)))
    stretch = other[begin : begin + draw.choice((4, 16, 64, 256))]
    raw[at : at + draw.choice((0, len(stretch)))] = stretch


def _unit(raw: bytearray, part: Part, other: bytes, draw: random.Random) -> None:
    """Something that belongs together, dropped, doubled, moved, or put in another's place."""
    (start, end), (begin, stop) = draw.choice(part.spans), draw.choice(part.spans)
    moved = part.raw[begin:stop]
    way = draw.randrange(4)
    if way == 0:
        del raw[start:end]
    elif way == 1:
        raw[start:start] = part.raw[start:end] * draw.choice((1, 1, 2, 50))
    elif way == 2:
        raw[start:end] = moved
    else:
        raw[start:start] = moved


def _word(raw: bytearray, part: Part, other: bytes, draw: random.Random) -> None:
    """A word of the format in the place of something, or before it."""
    start, end = draw.choice(part.spans)
    raw[start : draw.choice((start, end))] = draw.choice(part.words or TOKENS)


_PLAIN: list[Change] = [_flip, _byte, _number, _number, _exchange, _cut, _end, _insert, _repeat, _splice]
_CHANGES: list[Change] = [*_PLAIN, _unit, _unit, _unit, _word, _word]


# What belongs together ------------------------------------------------------------------------------------------


def instructions(raw: bytes) -> list[Span]:
    """Those of the pickles that lie in a row."""
    starts, stream = [], io.BytesIO(raw)
    with suppress(ValueError):
        while stream.tell() < len(raw):
            starts += [at for _, _, at in pickletools.genops(stream) if at is not None]
    return [*zip(starts, [*starts[1:], stream.tell()], strict=True)]


def tokens(raw: bytes) -> list[Span]:
    """Those of JSON, and of what is written like it."""
    return [match.span() for match in re.finditer(rb'"[^"]*"\s*:?|-?\d+|[\w.]+|[][{},]', raw)]


def records(raw: bytes) -> list[Span]:
    """Those of a zip archive: headers of members and what lies behind them."""
    starts = [match.start() for match in re.finditer(rb"PK(?:\x01\x02|\x03\x04|\x05\x06|\x06\x06|\x06\x07)", raw)]
    return [*zip(starts, [*starts[1:], len(raw)], strict=True)]


def blocks(raw: bytes) -> list[Span]:
    """Those of HDF5 that have a name, and what lies behind them."""
    names = rb"TREE|HEAP|SNOD|GCOL|OHDR|OCHK|FRHP|FHDB|FHIB|BTHD|BTLF|BTIN|FAHD|FADB|EAHD|EAIB|FSHD|SMTB|\x89HDF"
    starts = [match.start() for match in re.finditer(names, raw)]
    return [*zip(starts, [*starts[1:], len(raw)], strict=True)]


# Protobuf: lengths enclose what they count, so that fields are damaged in a tree ---------------------------------


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def message(raw: bytes, depth: int = 5) -> list[tuple[int, int, object]] | None:
    """A message as (number, wire type, value), a value being a number, bytes or a message; None for all else."""
    at, parts = 0, []
    while at < len(raw):
        try:
            tag, at = _read_varint(raw, at)
            number, wire = tag >> 3, tag & 7
            if wire == 0:
                value, at = _read_varint(raw, at)
            elif wire in (1, 5):
                width = 8 if wire == 1 else 4
                value, at = raw[at : at + width], at + width
            elif wire == 2:
                size, at = _read_varint(raw, at)
                held = raw[at : at + size]
                value, at = (message(held, depth - 1) if depth and size > 2 else None) or held, at + size
            else:
                return None
        except IndexError:
            return None
        if at > len(raw) or not 0 < number < 100:
            return None
        parts.append((number, wire, value))
    return parts


def _read_varint(raw: bytes, at: int) -> tuple[int, int]:
    value = place = 0
    while True:
        value |= (raw[at] & 0x7F) << place
        if raw[at] < 0x80:
            return value, at + 1
        at, place = at + 1, place + 7


def encoded(parts: Sequence[tuple[int, int, object]]) -> bytes:
    """A message's bytes, with the lengths of what is there."""
    out = bytearray()
    for number, wire, value in parts:
        out += varint(number << 3 | wire)
        if wire == 0:
            out += varint(value)  # type: ignore[arg-type]
        elif wire == 2:
            held = encoded(value) if isinstance(value, list) else value
            out += varint(len(held)) + held  # type: ignore[arg-type, operator]
        else:
            out += value  # type: ignore[operator]
    return bytes(out)


def mutated_message(tree: list, draw: random.Random) -> bytes:
    """A message with some fields dropped, doubled, moved, renumbered or filled with something else."""
    whole, tree = tree, _copied(tree)
    for _ in range(draw.choice((1, 1, 2, 4, 8))):
        holder = tree
        while (
            inner := [value for _, _, value in holder if isinstance(value, list) and value]
        ) and draw.random() < 0.7:
            holder = draw.choice(inner)
        if not holder:
            continue
        at = draw.randrange(len(holder))
        number, wire, value = holder[at]
        match draw.randrange(5):
            case 0:
                del holder[at]
            case 1:
                holder[at:at] = [holder[at]] * draw.choice((1, 2, 100))
            case 2:
                holder[at] = (draw.randrange(1, 21), wire, value)
            case 3:
                holder.insert(draw.randrange(len(holder) + 1), _copied([draw.choice(whole)])[0])
            case _:
                holder[at] = (number, *_other_value(wire, value, draw))
    return encoded(tree)


def _other_value(wire: int, value: object, draw: random.Random) -> tuple[int, object]:
    if wire == 0:
        return wire, draw.choice(EXTREMES)
    if isinstance(value, bytes) and wire == 2:
        return wire, draw.choice((b"", value * 2, value[:-1], *TOKENS, struct.pack("<Q", draw.choice(EXTREMES))))
    return draw.choice(((0, draw.choice(EXTREMES)), (2, b""), (5, b"\xff" * 4), (1, b"\x01" * 8)))


def _copied(tree: list) -> list:
    return [(n, wire, _copied(value) if isinstance(value, list) else value) for n, wire, value in tree]
