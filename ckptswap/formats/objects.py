"""JSON objects from strangers: bounded, and no key twice."""

import json
from collections import Counter
from typing import Any

PARTS_FREE = 500_000  # parts of an object of whatever length
LEAST = 8  # bytes of a part where there are more


def parse_object(raw: bytes) -> dict[str, Any]:
    """A JSON object; raises `ValueError` whose text ends a sentence about it.

    >>> parse_object(b'{"a": 1}')
    {'a': 1}
    >>> parse_object(b'{"a": 1, "a": 2}')
    Traceback (most recent call last):
    ValueError: names 'a' twice
    """
    check_density(raw)
    try:
        content = json.loads(raw.decode("utf-8"), object_pairs_hook=_once)
    except KeyError as error:
        raise ValueError(f"names {error.args[0]!r:.80} twice") from None
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8") from None
    except RecursionError:
        raise ValueError("is nested too deep") from None
    except ValueError as error:
        raise ValueError(f"is not JSON ({str(error).splitlines()[0]:.100})") from None
    if not isinstance(content, dict):
        raise ValueError("is not a JSON object")
    return content


def check_density(raw: bytes) -> None:
    """Raises `ValueError` for JSON that would take thirty times its bytes in memory, as a list of lists does:
    nothing that is kept by names is so dense."""
    if (parts := raw.count(b",")) > max(PARTS_FREE, len(raw) // LEAST):
        raise ValueError(f"is a list of {parts:,} parts, of fewer than {LEAST} bytes each")


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise KeyError(Counter(key for key, _ in pairs).most_common(1)[0][0])
    return members


def strings(content: Any) -> dict[str, str]:
    """The string values of what should be an object; metadata holds nothing else.

    >>> strings({"a": "b", "total_size": 3})
    {'a': 'b'}
    """
    items = content.items() if isinstance(content, dict) else ()
    return {key: value for key, value in items if isinstance(value, str)}


def is_plain_name(name: str) -> bool:
    """Whether a name can only mean a file in the folder where it is looked for.

    >>> is_plain_name("model-1.safetensors"), is_plain_name("../x"), is_plain_name("/x")
    (True, False, False)
    """
    return bool(name) and name not in (".", "..") and not set(name) & set("/\\\x00")
