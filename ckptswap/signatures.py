"""For `help`: functions whose `**` stands for the fields of specs, with each of these as a parameter."""

from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, fields
from inspect import Parameter, Signature, cleandoc, signature
from textwrap import fill
from typing import Any

from ckptswap.records import flag_name

Forms = tuple[type, ...]


def keyword_of(part: "Field[Any]") -> str:
    """The keyword that a field of a spec is.

    >>> from ckptswap.task.spec import TaskSpec
    >>> [keyword_of(part) for part in fields(TaskSpec) if part.name in ("metrics", "batch_size")]
    ['metric', 'batch_size']
    """
    return flag_name(part).replace("-", "_")


def explicit(function: Callable[..., Any], forms: Forms, others: tuple[str, ...] = ()) -> Signature:
    """The function's signature, in which `**` is every field of these forms that a flag has, and some `others`.

    >>> from ckptswap.task.spec import TaskSpec
    >>> def score(path: str, **task): ...
    >>> str(explicit(score, (TaskSpec,))).split(", data_args")[0]
    '(path: str, *, model=None, model_args=None, data=None'
    """
    own = signature(function).parameters
    named = [one for one in own.values() if one.kind is not Parameter.VAR_KEYWORD]
    told = {keyword_of(part): None if part.default is MISSING else part.default for part in _parts(forms)}
    told = dict.fromkeys(others) | told
    new = {name: value for name, value in told.items() if name not in own}
    named += [Parameter(name, Parameter.KEYWORD_ONLY, default=value) for name, value in new.items()]
    return signature(function).replace(parameters=named)


def explained(function: Callable[..., Any], forms: Forms) -> str:
    """The function's docstring, and a line or two on each of these keywords, as the command's help has them."""
    told = ((keyword_of(part), part.metadata["help"]) for part in _parts(forms))
    lines = [fill(f"{name}: {text}", 108, subsequent_indent="    ") for name, text in told]
    return "\n".join([cleandoc(function.__doc__ or ""), "", "Keywords:", *lines])


def _parts(forms: Forms) -> Iterator["Field[Any]"]:
    return (part for form in forms for part in fields(form) if part.metadata.get("help"))
