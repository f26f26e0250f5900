"""The arguments of the pickle opcodes. `pickletools` knows them, but reads lines and integers of any length, and
puts all of a wrong one into its error."""

import codecs
import pickletools
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

DIGITS_MOST = 1200  # letters of a number written out; Python itself reads 4,300
INTEGER_MOST = 512  # bytes of an integer: more cannot be printed, and is used by nothing that saves tensors
NAME_MOST = 4000  # letters of a global's module or name
LINE_MOST = 64 << 20

Argument = Callable[[BinaryIO], Any]


def _line(stream: BinaryIO, most: int) -> bytes:
    raw = stream.readline(most + 1)
    if not raw.endswith(b"\n"):
        raise ValueError("one of its lines has no end, or is too long")
    return raw[:-1]


def _integer(stream: BinaryIO) -> int | bool:
    """A number of INT or LONG; old pickles write True as 01."""
    raw = _line(stream, DIGITS_MOST)
    return raw == b"01" if raw in (b"00", b"01") else int(raw.removesuffix(b"L"))


def _quoted(stream: BinaryIO) -> str:
    raw = _line(stream, LINE_MOST)
    if len(raw) < 2 or raw[:1] != raw[-1:] or raw[:1] not in (b"'", b'"'):
        raise ValueError("one of its strings has no quotes")
    return codecs.escape_decode(raw[1:-1])[0].decode("ascii")


def _pair(stream: BinaryIO) -> str:
    """A module and a name, parted by a space."""
    return " ".join(_line(stream, NAME_MOST).decode("utf-8") for _ in range(2))


def _long(width: int) -> Argument:
    def read(stream: BinaryIO) -> int:
        size = int.from_bytes(stream.read(width), "little")
        raw = stream.read(min(size, INTEGER_MOST + 1))
        if len(raw) != size:
            raise ValueError(f"an integer takes {size:,} bytes")
        return int.from_bytes(raw, "little", signed=True)

    return read


_OURS: Mapping[str, Argument] = {
    "INT": _integer,
    "LONG": _integer,
    "FLOAT": lambda stream: float(_line(stream, DIGITS_MOST)),
    "STRING": _quoted,
    "UNICODE": lambda stream: str(_line(stream, LINE_MOST), "raw-unicode-escape"),
    "PERSID": lambda stream: _line(stream, NAME_MOST).decode("ascii"),
    **dict.fromkeys(["GLOBAL", "INST"], _pair),
    **dict.fromkeys(["PUT", "GET"], lambda stream: int(_line(stream, DIGITS_MOST))),
    "LONG1": _long(1),
    "LONG4": _long(4),
}
ARGUMENTS: Mapping[bytes, tuple[str, Argument | None]] = {
    code.code.encode("latin-1"): (code.name, _OURS.get(code.name) or (code.arg.reader if code.arg else None))
    for code in pickletools.opcodes
}
"""Opcode → its name, and what reads its argument."""
