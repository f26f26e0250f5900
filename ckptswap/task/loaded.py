"""A model that holds one checkpoint: which model it is, how it is built, and with what it begins."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import MismatchError, UsageError
from ckptswap.task.callables import first_line
from ckptswap.task.data.loading import implied
from ckptswap.task.fit import Fit
from ckptswap.task.models.build import build_named
from ckptswap.task.models.lookalike import fitting_args
from ckptswap.task.models.named import completed, model_of
from ckptswap.task.spec import TaskSpec
from ckptswap.task.weights import load_into

INITIAL_SEED = 0
"""Of the values that a model begins with; what a checkpoint lacks keeps them."""
_DTYPES = {"f64": torch.float64, "f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


@dataclass(frozen=True)
class Loaded:
    """A model that holds a checkpoint, in eval mode, on the spec's device: the parts of a `Task` without data."""

    spec: TaskSpec
    model: nn.Module
    fit: Fit
    initial: str | None


def load_model(spec: TaskSpec, checkpoint: Checkpoint) -> Loaded:
    """Build the model and load the checkpoint. Raises `ModelError`, `MismatchError` or `UsageError`.

    What the checkpoint does not hold begins with the same values every time.
    """
    _check_device(spec.device)
    asked, spec = spec, resolved(spec, checkpoint)
    assert spec.model is not None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(INITIAL_SEED)
        model = build_named(checkpoint, asked.model, spec.model_args)
    try:
        fit = load_into(model, checkpoint, exclude=spec.exclude, partial=spec.partial, match=spec.match)
    except MismatchError as error:
        if words := fitting_args(checkpoint, spec.model, spec.model_args):
            raise MismatchError(error.message, remedy=f"--model-args {words} makes it fit") from None
        raise
    initial = _hash_of(model, fit.kept) if fit.kept else None
    model.to(spec.device, _DTYPES[spec.dtype] if spec.dtype else None)
    return Loaded(spec, model, fit, initial)


def _hash_of(model: nn.Module, names: Sequence[str]) -> str:
    state = model.state_dict()
    return Checkpoint.from_arrays({name: state[name] for name in names}).sha256()


def resolved(spec: TaskSpec, checkpoint: Checkpoint) -> TaskSpec:
    """The spec with the model that it, or else the checkpoint, names, and with what the look of its data says.
    Raises `ModelError` when neither names a model."""
    spec = implied(spec)
    if spec.model is not None:
        return replace(spec, model_args=completed(spec.model, spec.model_args, checkpoint))
    if spec.model_args:
        raise UsageError("--model-args is given without --model", remedy="name the model that they are for")
    model, args = model_of(checkpoint)
    return replace(spec, model=model, model_args=args)


def _check_device(name: str) -> None:
    try:
        torch.empty(0, device=torch.device(name))
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(f"device {name!r} cannot be used", remedy=first_line(error)) from None


def float_dtype(model: nn.Module) -> torch.dtype:
    """The dtype of its first parameter of floats, which its inputs have too."""
    return next(
        (parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()), torch.float32
    )
