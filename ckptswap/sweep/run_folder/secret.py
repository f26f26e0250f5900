"""A secret of the user's, made once, by which a folder shows that this user's own command made it.

It lies in the user's state folder (`$XDG_STATE_HOME/ckptswap/secret`, default `~/.local/state/…`), and nobody else
can read it. Where there can be none, every run folder is a stranger's.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
import stat
from pathlib import Path

SIZE = 32


def mark_of(content: bytes) -> str | None:
    """What only this user can write beside these bytes; None where there can be no secret."""
    key = _secret()
    return None if key is None else _mark(key, content)


def is_mark_of(mark: str | None, content: bytes) -> bool:
    """Whether this user wrote the mark beside these bytes. Makes no secret."""
    key = _read(_place())
    return mark is not None and key is not None and hmac.compare_digest(mark, _mark(key, content))


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


def _secret() -> bytes | None:
    """The user's secret, made where there is none."""
    place = _place()
    return _read(place) or _made(place)


def _read(place: Path | None) -> bytes | None:
    """A secret that nobody else can have read or written; None else."""
    if place is None:
        return None
    try:
        with open(os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            about, secret = os.fstat(file.fileno()), file.read(SIZE + 1)
    except OSError:
        return None
    is_own = stat.S_ISREG(about.st_mode) and about.st_uid == os.geteuid() and not about.st_mode & 0o077
    return secret if is_own and len(secret) == SIZE else None


def _made(place: Path | None) -> bytes | None:
    """A new secret in its place. Of several processes one is first, and all read what it wrote."""
    if place is None or os.path.lexists(place):
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
