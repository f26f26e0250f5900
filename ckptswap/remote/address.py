"""Addresses without their secrets.

What stands before `@` or behind `?` may open a door to whoever reads it, and is neither printed nor written
down: a short digest stands for it, by which this process and its children find it.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable
from urllib.parse import SplitResult, urlsplit

from ckptswap.entries import SIGN
from ckptswap.errors import FileError

_HIDDEN = "hidden"
_TABLE = "_CKPTSWAP_ADDRESSES"
"""The variable of the environment, which workers have from their parent, with what stands behind the digests."""
_STAND_IN = re.compile(rf"{_HIDDEN}=([0-9a-f]{{12}})")
_WEB = re.compile(r"\A((?:--[a-z-]+=)?)(https?://.+)\Z", re.IGNORECASE | re.DOTALL)


def split_key(address: str) -> tuple[str, str | None]:
    """An address, and the key behind `::`, which is looked for where its host has ended: one may be an IPv6.

    >>> split_key("https://[::1]:80/gan.pt::g_ema"), split_key("https://[::1]/gan.pt")
    (('https://[::1]:80/gan.pt', 'g_ema'), ('https://[::1]/gan.pt', None))
    """
    scheme, slashes, rest = address.partition("//")
    host, slash, path = rest.partition("/")
    path, sign, key = path.partition(SIGN)
    return f"{scheme}{slashes}{host}{slash}{path}", key if sign else None


def public(text: str) -> str:
    """The same address of a web server, fit to be printed; any other text is given back as it is.

    >>> public("https://host/a.pt?download=true#x"), public("https://ann:secret@host/a.pt::ema"), public("a?b.pt")
    ('https://host/a.pt?hidden=e94c08d4aee3', 'https://host/a.pt?hidden=fc12bdfe0f4d::ema', 'a?b.pt')
    """
    if not _WEB.fullmatch(text):
        return text
    address, key = split_key(text)
    parts = _parsed(address)
    user, at, host = parts.netloc.rpartition("@")
    if (at or parts.query) and not (not at and _STAND_IN.fullmatch(parts.query)):
        secret = [user, parts.query]
        digest = hashlib.sha256(repr(secret).encode("utf-8", "surrogatepass")).hexdigest()[:12]
        os.environ[_TABLE] = json.dumps(_table() | {digest: secret})
        parts = parts._replace(netloc=host, query=f"{_HIDDEN}={digest}")
    shown = parts._replace(fragment="").geturl()
    return shown if key is None else f"{shown}{SIGN}{key}"


def without_secrets(words: Iterable[str]) -> list[str]:
    """The words of a command line, its addresses fit to be printed; of one that is none, nothing but its kind.

    >>> without_secrets(["train", "--init-from=https://host/a.pt?k=v", "--x=1"])
    ['train', '--init-from=https://host/a.pt?hidden=a1ad75ce46b0', '--x=1']
    """
    return [_WEB.sub(lambda told: told[1] + _public_or_none(told[2]), word) for word in words]


def _public_or_none(address: str) -> str:
    try:
        return public(address)
    except FileError:
        return "https://"


def whole(address: str) -> tuple[str, str, str]:
    """What is asked for: the address, who asks (`user:password`, else ''), and how it is called. Raises
    `FileError` for an address of which a part was not written down, or that is none."""
    shown = public(address)
    parts = _parsed(shown)
    if not parts.hostname:
        raise FileError(f"{shown} names no server", remedy="write https://HOST/PATH")
    stand_in = _STAND_IN.fullmatch(parts.query)
    if stand_in is None:
        return shown, "", shown
    if stand_in[1] not in (table := _table()):
        remedy = "name the whole address again"
        raise FileError(
            f"what stood behind the ? of {shown} is kept nowhere, since it may be secret", remedy=remedy
        )
    user, query = table[stand_in[1]]
    return parts._replace(query=query).geturl(), user, shown


def path_of(address: str) -> str:
    """An address without what stands behind its path, which tells a file's format.

    >>> path_of("https://host/a.pt?hidden=1fe0c8ebbe5b")
    'https://host/a.pt'
    """
    return _parsed(address)._replace(query="", fragment="").geturl()


def _parsed(address: str) -> SplitResult:
    try:
        parts = urlsplit(address)
        _ = parts.port
    except ValueError:
        raise FileError("an address is given that no web server has", remedy="write https://HOST/PATH") from None
    return parts


def _table() -> dict[str, list[str]]:
    return json.loads(os.environ.get(_TABLE, "{}"))
