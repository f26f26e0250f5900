"""Which format a file is of, told by all that the format asks of its first bytes, not by two of them."""

from __future__ import annotations

from typing import Literal

HEAD = 9
"""Bytes of a file that are needed to tell."""
HEADER_MOST = 100_000_000
"""The longest safetensors header that the reference implementation accepts, in bytes."""
_PROTOCOLS = b"\x02\x03\x04\x05"

Kind = Literal["safetensors", "zip", "pickle"]


def kind_of(head: bytes) -> Kind | None:
    """What these first bytes begin; None where it is none of these.

    safetensors is asked first, since the length of its header may read like any magic number: a header of 640
    bytes begins as a pickle does. Neither a zip nor a pickle can be taken for it: behind a length that is possible
    they have no `{` (in a zip it would be a way of compressing that does not exist; a pickle would have to begin
    with a text whose first letter is NUL).

    >>> kind_of((640).to_bytes(8, "little") + b"{"), kind_of(b"\\x80\\x02}q\\x00(X\\x01\\x00"), kind_of(b"GGUF")
    ('safetensors', 'pickle', None)
    """
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= HEADER_MOST:
        return "safetensors"
    if head.startswith(b"PK\x03\x04"):
        return "zip"
    if head[:1] == b"\x80" and head[1:2] and head[1] in _PROTOCOLS:
        return "pickle"
    return None
