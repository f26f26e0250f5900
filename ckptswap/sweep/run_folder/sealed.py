"""What a run remembers beside its journal: JSON whose first line has a checksum of every byte that follows.

`plan.json` also bears the mark of the user whose command wrote it, without which nothing that it names is run or
read (`secret`). It is a mark on what the file says, not on where it lies: a folder may be copied and moved.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from ckptswap.sweep.run_folder.secret import is_mark_of, mark_of

_HEAD = re.compile(rb'\{"sha256": "([0-9a-f]{64})", "mark": (null|"[0-9a-f]{64}"),\n')


def sealed(contents: Mapping[str, Any], *, marked: bool = False) -> str:
    """A JSON object under its checksum, and under this user's mark.

    >>> unsealed(sealed({"a": [1, 0.1]}).encode())
    {'a': [1, 0.1]}
    """
    body = _body(contents)
    mark = mark_of(body) if marked else None
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
    head = _HEAD.match(raw)
    return head is not None and is_mark_of(head[2].decode().strip('"'), raw[head.end() :])


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
