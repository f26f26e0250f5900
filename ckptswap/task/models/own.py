"""`file.py:callable` and `package.module:callable`: the user's own code, which only the command line may name."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from ckptswap.errors import ModelError
from ckptswap.registry import names
from ckptswap.task.callables import call, load_callable


def built(spec: str, args: Mapping[str, Any]) -> Any:
    """Call what the spec names. Raises `ModelError` where there is no such code, or it fails."""
    function = load_callable(spec, ModelError, names("models"))
    if isinstance(function, nn.Module):
        raise ModelError(f"{spec} is a model already", remedy="name a function that builds one")
    return call(spec, function, args, ModelError)
