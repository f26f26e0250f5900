"""Which samples of a data set a limit takes, before any of them is read.

They are drawn evenly over classes and groups where these are known by then: of a folder, of what our sources open,
of a list in memory, and of somebody's Dataset that tells them as `targets` (whole numbers, as torchvision's data
sets do) or `groups`, one a sample.
"""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from ckptswap.statistics import Drawn
from ckptswap.task.limit import SEED, Limit
from ckptswap.task.order import drawing_order

Strata = dict[str, Sequence[Hashable]]


def drawn_of(items: Any, limit: Limit | None) -> tuple[Sequence[int], Drawn | None]:
    """The numbers of the samples that are taken, ascending, and what part that is; None for all of them.

    >>> class Photos(list):
    ...     targets = [0, 0, 0, 1, 1, 1]
    >>> drawn_of(Photos("abcdef"), Limit(2))
    ([2, 5], Drawn(of=6, by=('class',), seed=3411))
    >>> drawn_of("abcdef", Limit(2, is_first=True))
    (range(0, 2), Drawn(of=6, by=(), seed=None))
    """
    count = len(items)
    if limit is None or limit.samples >= count:
        return range(count), None
    if limit.is_first:
        return range(limit.samples), Drawn(count)
    strata = strata_of(items)
    order = drawing_order(count, *strata.values())
    return sorted(order[: limit.samples].tolist()), Drawn(count, tuple(strata), SEED)


def strata_of(items: Any) -> Strata:
    """Classes and groups, one a sample, of those that are known, and that several samples share."""
    told = {"class": _told(items, "targets", 1), "group": _told(items, "groups", 2)}
    return {name: values for name, values in told.items() if _are_strata(values, wholes=name == "class")}


def _told(items: Any, name: str, at: int) -> list[Any]:
    """What data tell of each sample under a name, or a list has of it in this place; else nothing."""
    values: Any = getattr(items, name, None)
    if values is None and type(items) in (list, tuple):
        values = [item[at] if isinstance(item, tuple | list) and len(item) > at else None for item in items]
    is_one_each = isinstance(values, Sequence | np.ndarray) or hasattr(values, "tolist")
    return list(map(_plain, values)) if is_one_each and len(values) == len(items) else []


def _plain(value: Any) -> Any:
    """A number in place of an array or tensor of one."""
    is_one = getattr(value, "shape", None) is not None and np.prod(value.shape) == 1
    return value.item() if is_one else value


def _are_strata(values: Sequence[Any], *, wholes: bool) -> bool:
    """Whether samples share them: class numbers, or groups that may have names."""
    forms = (int,) if wholes else (int, str)
    return all(type(value) in forms for value in values) and 1 < len(set(values)) < len(values)
