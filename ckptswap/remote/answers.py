"""What a web server's answer says, judged: it may lie about all of it."""

import hashlib
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import NamedTuple, NoReturn

from ckptswap.errors import FileError

_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")
_PLAIN = re.compile(r"[^\w.:+=/-]", re.ASCII)
_LENGTH = re.compile(r"\d{1,18}")
_REASONS = {
    401: ("is not given to strangers (401)", "say who you are"),
    403: ("is refused to you (403)", "ask its owner for access, and say who you are"),
    404: ("does not exist (404)", "check the address"),
    410: ("is gone (410)", "check the address"),
}


class NotThereError(FileError):
    """A file that a server has not, or does not show to this user."""


class Known(NamedTuple):
    """What tells one version of a file from another: its size, and what the server calls it."""

    size: int
    etag: str | None
    modified: str | None

    @property
    def text(self) -> str | None:
        """Its version in at most 64 plain letters; None where the server names none."""
        told = self.etag or self.modified
        if told is None:
            return None
        plain = _PLAIN.sub("", told)
        return (
            f"{plain or '-'}/{self.size}" if len(plain) <= 40 else hashlib.sha256(told.encode()).hexdigest()[:40]
        )


class Promised(NamedTuple):
    """A stretch that an answer promises, and of which version of the file."""

    start: int
    size: int
    known: Known


def part_of(headers: Mapping[str, str], name: str) -> Promised:
    """What an answer of a range holds. Raises `FileError` where it does not say so."""
    told = _RANGE.fullmatch(headers.get("Content-Range", ""))
    if told is None:
        refuse(name, "does not say which bytes it sends, or how many there are")
    start, last, size = map(int, told.groups())
    if not start <= last < size:
        refuse(name, f"sends bytes {start:,} to {last:,} of a file of {size:,}")
    return Promised(start, last - start + 1, known_of(headers, size))


def known_of(headers: Mapping[str, str], size: int) -> Known:
    """The version that an answer is of."""
    return Known(size, headers.get("ETag"), headers.get("Last-Modified"))


def length_of(headers: Mapping[str, str]) -> int | None:
    """How many bytes an answer is said to have; None where it is not."""
    text = headers.get("Content-Length", "")
    return int(text) if _LENGTH.fullmatch(text) else None


def wait_of(headers: Mapping[str, str], now: float) -> float | None:
    """How many seconds to wait before asking again, where the answer says so.

    >>> wait_of({"Retry-After": "7"}, 0.0), wait_of({}, 0.0)
    (7.0, None)
    >>> wait_of({"Retry-After": "Thu, 01 Jan 1970 00:01:40 GMT"}, 40.0)
    60.0
    """
    text = headers.get("Retry-After", "")
    if _LENGTH.fullmatch(text):
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now)
    except (TypeError, ValueError, OverflowError):
        return None


def refuse_status(name: str, status: int, advice: str = "") -> NoReturn:
    """Raises `FileError` for an answer that is none; `advice` is how one says who one is."""
    otherwise = "try again later" if status >= 500 else advice or "check the address"
    what, remedy = _REASONS.get(status, (f"cannot be had: the server answers {status}", otherwise))
    form = NotThereError if status in _REASONS else FileError
    raise form(f"{name} {what}", remedy=advice if status in (401, 403) and advice else remedy)


def refuse(name: str, fault: str) -> NoReturn:
    """Raises `FileError` for a server that contradicts itself."""
    raise FileError(f"the server of {name} {fault}", remedy="download the file, and name the copy")
