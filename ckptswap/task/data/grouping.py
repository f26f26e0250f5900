"""Which samples belong together, as the samples say it themselves.

A third part of a sample is its group only where it is a whole number or a text: a tensor (of weights, of lengths)
may mean something else, and statistics over wrong groups would be wrong. `group` names another part.
"""

from collections.abc import Hashable, Iterable, Mapping
from numbers import Integral
from typing import Any

import numpy as np
from torch import Tensor

from ckptswap.errors import DataError, brief

Group = tuple[Hashable, ...]
"""A sample's group, alone in a tuple; () where it was given none."""


def grouped(item: Any, key: str | None, where: str) -> tuple[Any, tuple[Any, ...]]:
    """A sample or a batch without the part that tells its group, and that part, if one is named: a number in a
    tuple, a name in a dict or in the dict that a tuple begins with. Raises `DataError` where there is none.

    >>> grouped(("x", "y", "w", 7), "3", "sample 0"), grouped({"x": 1, "who": "a"}, "who", "sample 0")
    ((('x', 'y', 'w'), (7,)), ({'x': 1}, ('a',)))
    """
    if key is None:
        return item, ()
    if isinstance(item, Mapping) and key in item:
        return {name: item[name] for name in item if name != key}, (item[key],)
    if isinstance(item, tuple | list):
        if key.isdecimal() and int(key) < len(item):
            return (*item[: int(key)], *item[int(key) + 1 :]), (item[int(key)],)
        if item and isinstance(item[0], Mapping) and key in item[0]:
            inputs, told = grouped(item[0], key, where)
            return (inputs, *item[1:]), told
    raise DataError(
        f"{where} is {brief(item)}, and has no part {key!r}",
        remedy="--group is the number of a part, from 0, or its name in a dict; of a folder's files a regex",
    )


def plain_label(value: Any, where: str) -> Hashable:
    """A third part as the group that it is: a whole number or a text. Raises `DataError` for anything else."""
    is_plain = isinstance(value, str | Integral)
    if not is_plain:
        raise _refusal(value, where)
    return value


def plain_labels(values: Any, where: str) -> list[Group]:
    """The same for a batch: a list of such, one for each sample."""
    if not isinstance(values, list | tuple):
        raise _refusal(values, where)
    return [(plain_label(value, where),) for value in values]


def label_of(value: Any, where: str) -> Hashable:
    """The group in a part that is named as one: anything that is one value. Raises `DataError` for others.

    >>> label_of(np.array(3), "sample 0")
    3
    """
    label = value.tolist() if isinstance(value, Tensor | np.ndarray | np.generic) else value
    if isinstance(label, list) or not isinstance(label, Hashable):
        raise DataError(f"{where} has {brief(value)} as its group", remedy="it must be one number or one text")
    return label


def labels_of(values: Any, where: str) -> list[Group]:
    """The same for a batch."""
    if not isinstance(values, Iterable) or isinstance(values, str) or getattr(values, "shape", None) == ():
        raise DataError(f"{where} has {brief(values)} as its groups", remedy="yield one for each sample")
    return [(label_of(value, where),) for value in values]


def _refusal(value: Any, where: str) -> DataError:
    return DataError(
        f"the third part of {where} is {brief(value)}, and a group is a whole number or a text",
        remedy="if it tells which samples belong together, say group=2 (--group 2); else leave it out",
    )
