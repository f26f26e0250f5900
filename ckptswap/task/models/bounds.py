"""What a model may take that a stranger's checkpoint names: no more numbers than the checkpoint could fill."""

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.nn.modules import module as modules

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import ModelError
from ckptswap.registry import source_of

ARGS_MOST = {"img_size": 1024, "window_size": 16, "upsampling": 32, "depth": 16}
"""Arguments that cost memory before there is a parameter to count, or only when the model runs."""
PATCH_LEAST = 4


@contextmanager
def bounded_by(checkpoint: Checkpoint, spec: str, args: Mapping[str, Any]) -> Iterator[None]:
    """In here a model is built, in this thread, as `checkpoint` itself says. Raises `ModelError` once it has more
    numbers than the checkpoint could fill, before their memory is touched.

    Twice as many are allowed, since a parameter may be made anew while a model is built.
    """
    registered = source_of("models", spec)
    if not (registered and registered[0].builds_on_meta):
        _check_args(checkpoint, args)
    here, made = threading.get_ident(), Counter[str]()
    spare = registered[0].spare if registered else 0
    most = 2 * sum(entry.numel for entry in checkpoint.values()) + 1000 + spare

    def count(module: object, name: str, value: Tensor | None) -> None:
        if value is None or threading.get_ident() != here:
            return
        made[value.device.type] += max(1, value.numel())  # one without numbers takes its time, too
        if made[value.device.type] > most:
            raise _refusal(checkpoint, f"needs more numbers than the {most:,} that it could fill")

    handles = [
        register(count)
        for register in (
            modules.register_module_parameter_registration_hook,
            modules.register_module_buffer_registration_hook,
        )
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _check_args(checkpoint: Checkpoint, args: Mapping[str, Any]) -> None:
    for key, value in args.items():
        if any(isinstance(part, list | tuple | dict) for part in _parts(value)):
            raise _refusal(checkpoint, f"has values within those of {key}")
    for key, most in ARGS_MOST.items():
        if any(value > most for value in _numbers(args.get(key))):
            raise _refusal(checkpoint, f"has {key} above {most}")
    if any(value < PATCH_LEAST for value in _numbers(args.get("patch_size"))):
        raise _refusal(checkpoint, f"has patch_size below {PATCH_LEAST}")


def _numbers(value: Any) -> list[float]:
    return [part for part in _parts(value) if isinstance(part, int | float)]


def _parts(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return list(value) if isinstance(value, list | tuple) else [value]


def _refusal(checkpoint: Checkpoint, fault: str) -> ModelError:
    return ModelError(
        f"the model that {checkpoint.path} names itself {fault}",
        remedy="if you trust it, name it yourself with --model and --model-args",
    )
