"""`export:FILE.pt2` and `script:FILE.pt`: a network as `torch.export.save` or `torch.jit.save` wrote it.

Both hold code, so that only the command line may name them; the tensors come from the checkpoint all the same.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MethodType
from typing import Any

from ckptswap.errors import ModelError
from ckptswap.registry import Source
from ckptswap.task.callables import faults_of

_TRAINING = ("train", "training")
"""What operations call the argument under which they drop values, or estimate statistics."""


def built_from_export(path: str, args: Mapping[str, Any]) -> Any:
    """The program of a .pt2 file. Raises `ModelError` where it cannot be loaded, or was exported in training."""
    import torch  # takes seconds, and a declaration must cost nothing

    _check(path, args)
    with faults_of(f"export:{path}", ModelError):
        program = torch.export.load(path)
    training = next(filter(_is_training, program.graph.nodes), None)
    if training is not None:
        raise ModelError(
            f"{path} was exported in training mode ({training.target})", remedy="export model.eval() instead"
        )
    model = program.module()
    # The program is of one mode, and refuses to be told; what is below it has flags that somebody may look at.
    for name in ("train", "eval"):
        setattr(model, name, MethodType(getattr(torch.nn.Module, name), model))
    return model


def built_from_script(path: str, args: Mapping[str, Any]) -> Any:
    """The module of a TorchScript file. Raises `ModelError` where it cannot be loaded."""
    import torch  # as above

    _check(path, args)
    with faults_of(f"script:{path}", ModelError, remedy="save it with torch.jit.save"):
        return torch.jit.load(path, map_location="cpu")


def _check(path: str, args: Mapping[str, Any]) -> None:
    if args:
        raise ModelError(f"{path} is a finished model", remedy="leave --model-args out")
    if not Path(path).is_file():
        raise ModelError(f"there is no file {path}", remedy="check the path; it is relative to the current folder")


def _is_training(node: Any) -> bool:
    schema = getattr(node.target, "_schema", None)
    names = [argument.name for argument in schema.arguments] if schema is not None else []
    given = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    return any(given.get(name) is True for name in _TRAINING)


EXPORT = Source(built_from_export, file=str)
SCRIPT = Source(built_from_script, file=str)
