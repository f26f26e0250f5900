"""`lightning:file.py:Class`: a user's LightningModule, with the hyperparameters that its checkpoint holds.

They are read without building any object; the class is the user's own code, which only the command line may name.
"""

import inspect
import json
from collections.abc import Mapping
from typing import Any

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import ModelError, listing
from ckptswap.formats.torch_tensors import HYPERPARAMETERS_KEY, OBJECT
from ckptswap.registry import Source
from ckptswap.task.callables import call, load_callable


def built(rest: str, args: Mapping[str, Any]) -> Any:
    """The class that is named, with those of the arguments that it takes, as Lightning itself chooses them.

    Raises `ModelError` where there is no such class, and where it takes an argument that the checkpoint holds as
    an object.
    """
    function = load_callable(rest, ModelError)
    parameters = inspect.signature(function).parameters.values()
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    known = {parameter.name for parameter in parameters}
    taken = {key: value for key, value in args.items() if takes_all or key in known}
    objects = {key: value[OBJECT] for key, value in taken.items() if isinstance(value, dict) and OBJECT in value}
    if objects:
        named = listing([f"{key} ({name})" for key, name in objects.items()])
        raise ModelError(
            f"the checkpoint holds hyperparameters of {rest} as objects, which are not built: {named}",
            remedy="give these with --model-args, or build it in a function of yours: --model file.py:FUNCTION",
        )
    return call(f"lightning:{rest}", function, taken, ModelError)


def with_hyperparameters(args: Mapping[str, Any], checkpoint: Checkpoint) -> dict[str, Any]:
    """The arguments with the hyperparameters that a file of Lightning holds, where nothing else was said.

    >>> told = Checkpoint.from_arrays({}, metadata={HYPERPARAMETERS_KEY: '{"width": 3, "lr": 0.1}'})
    >>> with_hyperparameters({"lr": 1}, told)
    {'width': 3, 'lr': 1}
    """
    held = json.loads(checkpoint.metadata.get(HYPERPARAMETERS_KEY, "{}"))
    return {**(held if isinstance(held, dict) else {}), **args}


SOURCE = Source(built, libraries=(), completed=with_hyperparameters, file=lambda rest: rest.rpartition(":")[0])
