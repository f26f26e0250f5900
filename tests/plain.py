"""What people write today: both files loaded, tensors copied, `load_state_dict`, a whole forward pass a batch."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable
from functools import cache
from pathlib import Path
from types import CodeType
from typing import Any

import torch
from torch import Tensor, nn

from ckptswap.checkpoint import Checkpoint
from ckptswap.task import Task

Forward = Callable[[Tensor], Tensor]


def run_file(place: str | Path) -> dict[str, Any]:
    """What a user's file defines, run anew but compiled once: a test builds its networks dozens of times."""
    names: dict[str, Any] = {"__name__": "run", "__file__": str(place)}
    exec(_compiled(Path(place).read_text("utf-8"), str(place)), names)
    return names


@cache
def _compiled(text: str, place: str) -> CodeType:
    return compile(text, place, "exec")


def plain_network(task: Task, donor: Checkpoint, recipient: Checkpoint, names: Collection[str]) -> nn.Module:
    """A network of its own, with the named tensors of the donor's file, under all names that they have, and the
    others of the recipient's."""
    theirs, ours = (torch.load(each.path, weights_only=True) for each in (donor, recipient))
    places = {ours[name].data_ptr() for name in names}
    names = {name for name in ours if name in names or ours[name].data_ptr() in places}
    assert task.spec.model is not None
    place, _, name = task.spec.model.rpartition(":")
    network: nn.Module = run_file(place)[name](**task.spec.model_args)
    network.load_state_dict({each: (theirs if each in names else ours)[each] for each in ours})
    return network.eval()


def plain_outputs(
    task: Task,
    donor: Checkpoint,
    recipient: Checkpoint,
    names: Collection[str],
    pick: Callable[[object], Tensor] = lambda found: found,  # type: ignore[assignment, return-value]
) -> list[Tensor]:
    """The output of every batch of the task, in its order."""
    network = plain_network(task, donor, recipient, names)
    with torch.no_grad():
        return [pick(_called(network, batch)) for batch in inputs_of(task)]


def _called(network: nn.Module, batch: Any) -> Any:
    """A dict's tensors go in by name (whole where the network takes a `batch`), a tuple's by position; the network
    gets copies."""
    if isinstance(batch, dict):
        copies = {name: part.clone() for name, part in batch.items() if name != "index"}
        return network(copies) if "batch" in inspect.signature(network.forward).parameters else network(**copies)
    return network(*(part.clone() for part in batch)) if isinstance(batch, tuple) else network(batch.clone())


def inputs_of(task: Task) -> list[Any]:
    """The inputs of every batch."""
    return [batch.inputs for batch in task.batches()]


def raw(tensor: Tensor) -> tuple[object, ...]:
    """All that makes a tensor what it is, NaN's bits included."""
    return tensor.dtype, tuple(tensor.shape), tensor.contiguous().numpy().tobytes()


def bits(tensors: Iterable[tuple[str, Tensor]] | nn.Module) -> dict[str, tuple[object, ...]]:
    """The bits of every tensor of a model."""
    items = tensors.state_dict().items() if isinstance(tensors, nn.Module) else tensors
    return {name: raw(value) for name, value in items}
