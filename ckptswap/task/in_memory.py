"""Models, data and metrics that stand in memory: a word for each, which brings the thing itself along.

In specs, plans and tables such a thing goes by `memory:NAME`. A word that was written down and read again is that
name alone: what it meant was in another process, and has to be given again.
"""

import copy
import re
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from ckptswap.errors import DataError, ModelError, TaskError, brief
from ckptswap.task.callables import call, first_line

PREFIX = "memory:"


class InMemory(str):
    """`memory:NAME`, and what goes by that name. It is not copied with the specs that hold the word.

    >>> word = InMemory.of([1, 2])
    >>> word, word.value, copy.deepcopy(word).value is word.value
    ('memory:list', [1, 2], True)
    """

    value: Any

    @classmethod
    def of(cls, value: Any) -> "InMemory":
        """The word for a thing, of the name that it has, or else its class."""
        named = value.func if isinstance(value, partial) else value
        name = getattr(named, "__name__", None) or type(named).__name__
        word = cls(f"{PREFIX}{re.sub(r'[^0-9A-Za-z_.]', '', str(name)) or 'thing'}")
        word.value = value
        return word

    @property
    def is_made(self) -> bool:
        """Whether it is a model itself, and not what builds one."""
        return hasattr(self.value, "state_dict") and not isinstance(self.value, type)

    def __copy__(self) -> "InMemory":
        return self

    def __deepcopy__(self, memo: object) -> "InMemory":
        return self

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (str(self),)


def built(word: str, args: Mapping[str, Any]) -> Any:
    """A copy of the module, which the caller may write to, or what the function or class gives for the arguments.

    Raises `ModelError` for what is neither, for arguments of a module, where the module cannot be copied, and as
    `value_of` does.
    """
    from torch import nn

    model = value_of(word, "model", ModelError)
    if not isinstance(model, nn.Module):
        if not callable(model):
            raise ModelError(
                f"the model is {brief(model)}", remedy="give an nn.Module, or a function that builds one"
            )
        return call(word, model, args, ModelError)
    if args:
        remedy = "leave them out, or give a function that builds the model"
        raise ModelError(f"model_args are given for {word}, which is built already", remedy=remedy)
    try:
        return copy.deepcopy(model)
    except Exception as error:  # a module of the user's may hold anything
        raise ModelError(
            f"{word} cannot be copied ({first_line(error)})",
            remedy="give a function that builds it: model=lambda: …",
        ) from None


def value_of(word: str, key: str, error: type[TaskError]) -> Any:
    """What goes by a word that begins with `PREFIX`. Raises `error` where only the word is left of it."""
    if isinstance(word, InMemory):
        return word.value
    raise error(
        f"{word} stood in the memory of another process",
        remedy=f"give it again in Python ({key}=…), or write it in a file: {key}='file.py:name'",
    )


def samples(word: str, args: Mapping[str, Any]) -> Any:
    """The Dataset, the list or what yields batches; a function is called with the arguments for it.

    Raises `DataError` for a tuple of whole arrays, for arguments of what takes none, and as `value_of` does.
    """
    data = value_of(word, "data", DataError)
    if isinstance(data, tuple) and len(data) > 1 and all(hasattr(part, "shape") for part in data):
        remedy = "give a list of samples: list(zip(inputs, targets)), or TensorDataset(inputs, targets)"
        raise DataError(f"data is a tuple of {len(data)} arrays, which are not its samples", remedy=remedy)
    if callable(data) and not hasattr(data, "__getitem__") and not isinstance(data, Iterable):
        return call(word, data, args, DataError)
    if args:
        raise DataError(f"data_args are given for {word}, which is there already", remedy="leave them out")
    return data
