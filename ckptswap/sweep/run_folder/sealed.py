"""What a run remembers beside its journal: JSON whose first line has a checksum of every byte that follows.

`plan.json` also bears the mark of the user whose command wrote it, without which nothing that it names is run or
read. It takes a secret of the user's, made once (`$XDG_STATE_HOME/ckptswap/secret`, default `~/.local/state/…`),
which nobody else can read. Where there can be none, every run folder is a stranger's.
"""

import contextlib
import hashlib
import hmac
import json
import os
import re
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SIZE = 32  # bytes of a secret
_HEAD = re.compile(rb'\{"sha256": "([0-9a-f]{64})", "mark": (null|"[0-9a-f]{64}"),\n')


def sealed(contents: Mapping[str, Any], *, marked: bool = False) -> str:
    """A JSON object under its checksum, and under this user's mark.

    >>> unsealed(sealed({"a": [1, 0.1]}).encode())
    {'a': [1, 0.1]}
    """
    body = _body(contents)
    place = _place()
    key = (_read(place) or _made(place)) if marked and place else None
    mark = _mark(key, body) if key else None
    return f'{{"sha256": "{_digest(body)}", "mark": {json.dumps(mark)},\n{body.decode()}'


def seal_of(contents: Mapping[str, Any]) -> str:
    """The checksum that `sealed` puts before it."""
    return _digest(_body(contents))


def unsealed(raw: bytes, *, seal: str | None = None) -> dict[str, Any]:
    """The object of which `sealed` made these bytes; where its checksum is known, no other than that one.

    Raises `ValueError`, whose text ends a sentence, where a single bit of them has changed.

    >>> unsealed(sealed({"better": "max"}).replace("max", "mix").encode())
    Traceback (most recent call last):
    ValueError: its checksum does not fit
    """
    head = _HEAD.match(raw)
    if head is None:
        raise ValueError("it has no checksum")
    body = raw[head.end() :]
    if _digest(body) != head[1].decode() or seal not in (None, head[1].decode()):
        raise ValueError("its checksum does not fit")
    return plain_json(b"{" + body)


def is_own(raw: bytes) -> bool:
    """Whether these bytes, made by `sealed`, bear this user's mark."""
    head, place = _HEAD.match(raw), _place()
    key = _read(place) if place else None
    if head is None or key is None:
        return False
    return hmac.compare_digest(head[2].decode().strip('"'), _mark(key, raw[head.end() :]))


def plain_json(raw: bytes) -> dict[str, Any]:
    """A JSON object; raises `ValueError`, whose text ends a sentence, for anything else, however deep."""
    try:
        content = json.loads(raw, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    if not isinstance(content, dict):
        raise ValueError("it is not a JSON object")
    return content


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is not JSON")


def _body(contents: Mapping[str, Any]) -> bytes:
    return json.dumps(contents, indent=1, allow_nan=False).encode().removeprefix(b"{\n")


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def _mark(key: bytes, content: bytes) -> str:
    return hmac.new(key, b"ckptswap run\0" + content, hashlib.sha256).hexdigest()


def _place() -> Path | None:
    """Where the secret is; None for a user without a home."""
    state = Path(os.environ.get("XDG_STATE_HOME", ""))
    if not state.is_absolute():  # as the XDG base directories have it
        try:
            state = Path.home() / ".local/state"
        except RuntimeError:
            return None
    return state / "ckptswap/secret" if state.is_absolute() else None


def _read(place: Path) -> bytes | None:
    """A secret that nobody else can have read or written; None else."""
    try:
        with open(os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            about, secret = os.fstat(file.fileno()), file.read(SIZE + 1)
    except OSError:
        return None
    is_own = stat.S_ISREG(about.st_mode) and about.st_uid == os.geteuid() and not about.st_mode & 0o077
    return secret if is_own and len(secret) == SIZE else None


def _made(place: Path) -> bytes | None:
    """A new secret in its place. Of several processes one is first, and all read what it wrote."""
    if os.path.lexists(place):
        return None
    beside = place.with_name(f".secret.{secrets.token_hex(4)}")
    try:
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(SIZE))
        with contextlib.suppress(FileExistsError):
            os.link(beside, place)
    except OSError:
        return None
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()
    return _read(place)
