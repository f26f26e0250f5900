"""Prefixes that wrappers put before every tensor's name."""

from __future__ import annotations

import os
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
    shared, end = os.path.commonprefix(list(names)), 0  # noqa: RUF071  letters are meant
    while segment := next((wrapper for wrapper in WRAPPERS if shared.startswith(wrapper, end)), ""):
        end += len(segment)
    return shared[:end]
