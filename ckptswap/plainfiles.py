"""Plain files, opened without waiting: a pipe or a device in a stranger's folder would keep us for ever. And small
text files, read whole: of a bounded size, and TOML without numbers, nesting or keys that take the machine.
"""

import os
import stat
from functools import cache
from pathlib import Path
from typing import Any

from ckptswap.errors import FileError, UsageError, near

TEXT_MOST = 10_000_000
TOML_MOST = 256_000  # bytes: a task file has some hundred, a large `pyproject.toml` some ten thousand
DOTS_MOST = 200  # dots in a line of TOML: the parser takes their square
DEEP_MOST = 20
_INHERITED = ("/dev/stdin", "/dev/fd/", "/proc/self/fd/")
"""What a shell hands over, as for `-c <(...)`: a pipe that somebody writes to."""
_WHOLE_MOST = 1 << 63


def open_plain(path: str | os.PathLike[str], *, or_pipe: bool = False) -> int:
    """A file descriptor for reading; raises `FileError` saying why there is none.

    What is not a plain file is not even opened: some devices act when they are. `or_pipe` lets one pass.
    """
    name = os.fspath(path)
    try:
        _refuse_special(name, os.stat(path).st_mode, or_pipe)
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | (0 if or_pipe else os.O_NONBLOCK))
        try:
            _refuse_special(name, os.fstat(handle).st_mode, or_pipe)  # somebody may have exchanged it
        except FileError:
            os.close(handle)
            raise
        return handle
    except FileNotFoundError:
        raise FileError(f"{name} does not exist", remedy=_nearby(Path(path))) from None
    except PermissionError:
        raise FileError(f"{name} cannot be read", remedy="ask for permission to read it") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise FileError(f"{name} cannot be opened ({reason})", remedy="check the path") from None


def refuse_elsewhere(path: str | os.PathLike[str]) -> None:
    """Raises `FileError` for what is to be written and is not a place on this machine.

    >>> refuse_elsewhere("s3://bucket/a.pt")
    Traceback (most recent call last):
    ckptswap.errors.FileError: nothing is written to s3: name a place on this machine, and upload it from there
    """
    scheme, colon, _ = os.fspath(path).partition(":/")
    if colon and scheme in ("https", "http", "hf", "s3") and not os.path.exists(f"{scheme}:"):
        remedy = "name a place on this machine, and upload it from there"
        raise FileError(f"nothing is written to {scheme}", remedy=remedy)


def _refuse_special(path: str, mode: int, or_pipe: bool) -> None:
    if stat.S_ISDIR(mode):
        raise FileError(f"{path} is a folder", remedy="name a file")
    if not stat.S_ISREG(mode) and not (or_pipe and stat.S_ISFIFO(mode)):
        raise FileError(f"{path} is neither a file nor a folder", remedy="name a plain file")


def _nearby(path: Path) -> str:
    try:
        return near(path.name, os.listdir(path.parent)) or "check the path"
    except OSError:
        return f"there is no folder {path.parent} either"


def read_plain(path: str | os.PathLike[str], most: int = TEXT_MOST) -> bytes:
    """The whole of a small file, or of a pipe that a shell hands over. Raises `FileError`, also where it is larger
    than `most` bytes."""
    name = os.fspath(path)
    raw = _handed_over(name, most) if name.startswith(_INHERITED) else _read(name, most, or_pipe=False)
    if len(raw) > most:
        raise FileError(f"{name} is too large", remedy=f"{most:,} bytes is the most")
    return raw


def _read(path: str, most: int, *, or_pipe: bool) -> bytes:
    with open(open_plain(path, or_pipe=or_pipe), "rb") as file:
        try:
            return file.read(most + 1)
        except OSError as error:
            raise FileError(f"{path} cannot be read", remedy=error.strerror or str(error)) from None


@cache
def _handed_over(path: str, most: int) -> bytes:
    """What comes through a pipe comes once, and `-c` is read twice: for its keys, and for their values."""
    return _read(path, most, or_pipe=True)


def read_toml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A TOML file's content; raises `FileError` when it cannot be read, `UsageError` when it makes no sense."""
    return parse_toml(read_plain(path), path)


def parse_toml(raw: bytes, path: str | os.PathLike[str]) -> dict[str, Any]:
    """TOML from these bytes of a file; raises `UsageError`.

    >>> parse_toml(b"a = [1]", "x.toml")
    {'a': [1]}
    >>> parse_toml(b"a = 0x" + b"f" * 5000, "x.toml")
    Traceback (most recent call last):
    ckptswap.errors.UsageError: x.toml is not a TOML file: it has a number of more than 64 bits
    """
    import tomllib  # ten milliseconds, which a command without such a file need not spend

    try:
        if len(raw) > TOML_MOST:
            raise ValueError(f"it takes {len(raw):,} bytes, and {TOML_MOST:,} is the most")
        if any(line.count(b".") > DOTS_MOST for line in raw.splitlines()):
            raise ValueError(f"it has a line with more than {DOTS_MOST} dots")
        content = tomllib.loads(raw.decode("utf-8"))
        refuse_unwieldy(content)
        return content
    except RecursionError:
        fault = "it is nested too deep"
    except ValueError as error:
        fault = "it has a number of too many digits" if "sys.set_int" in str(error) else str(error)
    raise UsageError(f"{os.fspath(path)} is not a TOML file", remedy=fault)


def refuse_unwieldy(value: Any, deep: int = DEEP_MOST) -> None:
    """Raises `ValueError` ("it …", to end a sentence) for what is nested deeper than so many levels or holds a
    whole number of more than 64 bits: printing either can fail, or take long.

    >>> refuse_unwieldy([[[1]]], deep=2)
    Traceback (most recent call last):
    ValueError: it is nested too deep
    """
    pending = [(value, 0)]
    while pending:
        inner_value, level = pending.pop()
        if level > deep:
            raise ValueError("it is nested too deep")
        if isinstance(inner_value, int) and not -_WHOLE_MOST <= inner_value < _WHOLE_MOST:
            raise ValueError("it has a number of more than 64 bits")
        inside = inner_value.values() if isinstance(inner_value, dict) else inner_value
        pending += [(inner, level + 1) for inner in inside] if isinstance(inner_value, dict | list | tuple) else []
