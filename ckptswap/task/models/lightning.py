"""`lightning:file.py:Class`: a user's LightningModule, with the hyperparameters that its checkpoint holds.

They are read without building any object; the class is the user's own code, which only the command line may name.
"""

import ast
import inspect
import json
from collections.abc import Mapping
from typing import Any

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import FileError, ModelError, listing
from ckptswap.formats.torch_tensors import HYPERPARAMETERS_KEY, OBJECT
from ckptswap.plainfiles import read_plain
from ckptswap.registry import Source
from ckptswap.task.callables import call, load_callable


def built(rest: str, args: Mapping[str, Any]) -> Any:
    """The class that is named, with those of the arguments that it takes, as Lightning itself chooses them.

    Raises `ModelError` where there is no such class, and where it takes an argument that the checkpoint holds as
    an object.
    """
    if rest.endswith(".py"):
        classes = _classes_in(rest)
        remedy = f"write lightning:{rest}:{classes[0] if classes else 'CLASS'}"
        raise ModelError(f"lightning:{rest} names no class of that file", remedy=remedy)
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


def _classes_in(path: str) -> list[str]:
    """The classes of a file that are derived from another, the LightningModules first; the file is not run."""
    try:
        parts = ast.walk(ast.parse(read_plain(path)))
    except (FileError, ValueError, SyntaxError):
        return []
    bases = {part.name: " ".join(map(ast.unparse, part.bases)) for part in parts if isinstance(part, ast.ClassDef)}
    derived = [name for name, text in bases.items() if text]
    return sorted(derived, key=lambda name: "LightningModule" not in bases[name])


def with_hyperparameters(args: Mapping[str, Any], checkpoint: Checkpoint) -> dict[str, Any]:
    """The arguments with the hyperparameters that a file of Lightning holds, where nothing else was said.

    >>> told = Checkpoint.from_arrays({}, metadata={HYPERPARAMETERS_KEY: '{"width": 3, "lr": 0.1}'})
    >>> with_hyperparameters({"lr": 1}, told)
    {'width': 3, 'lr': 1}
    """
    held = json.loads(checkpoint.metadata.get(HYPERPARAMETERS_KEY, "{}"))
    return {**(held if isinstance(held, dict) else {}), **args}


SOURCE = Source(built, libraries=(), completed=with_hyperparameters, file=lambda rest: rest.rpartition(":")[0])
