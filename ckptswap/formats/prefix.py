"""Prefixes that wrappers put before every tensor's name."""

from __future__ import annotations

from collections.abc import Iterable

from ckptswap.wrappers import SEGMENTS

WRAPPERS = tuple(f"{segment}." for segment in SEGMENTS)


def common_prefix(names: Iterable[str]) -> str:
    """The wrappers' prefix that all names share, '' when there is none; a `Checkpoint` is its names.

    >>> common_prefix(["module._orig_mod.c.weight", "module._orig_mod.c.bias"])
    'module._orig_mod.'
    >>> common_prefix(["module.c.weight", "head.weight"])
    ''
    """
    listed = list(names)
    prefix = ""
    while listed:
        found = next((each for each in WRAPPERS if all(name.startswith(prefix + each) for name in listed)), "")
        if not found:
            break
        prefix += found
    return prefix
