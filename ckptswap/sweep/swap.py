"""Swapping tensors in the model itself, bit-exactly undone: the plain way to make a variant, and the reference."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import MismatchError
from ckptswap.task.weights import to_torch

_LEAVE_OUT = "leave it out with --exclude"


class Swaps:
    """The model's own tensors, which hold the recipient, and the donor's in the same form."""

    def __init__(self, model: nn.Module, donor: Checkpoint) -> None:
        self.donor = donor
        self.state = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
        self._sharing = _sharing(self.state)
        self._given: dict[str, Tensor] = {}

    def given(self, name: str) -> Tensor:
        """The donor's tensor, in the model's dtype, layout and place. Raises `MismatchError` for an unknown
        name, and for another shape, which copying would stretch.
        """
        if name not in self.state:
            raise MismatchError(f"the model has no tensor {name!r}", remedy=_LEAVE_OUT)
        if name not in self._given:
            own, theirs = self.state[name], to_torch(self.donor.read(name))
            if own.shape != theirs.shape:
                shapes = f"{list(theirs.shape)} in the donor, {list(own.shape)} in the model"
                raise MismatchError(f"{name}: {shapes}", remedy=_LEAVE_OUT)
            self._given[name] = torch.empty_like(own).copy_(theirs)
        return self._given[name]

    def taken(self, names: Iterable[str]) -> dict[str, Tensor]:
        """What must be written to make a variant, in the order of the state dict.

        Tensors that share memory (tied parameters) are all written, as loading the variant's file would: the last
        one counts, be it the donor's or the recipient's own.
        """
        wanted = set(names)
        given = {name: self.given(name) for name in wanted}
        touched = {each for name in wanted for each in self._sharing[name]}
        return {name: given.get(name, value) for name, value in self.state.items() if name in touched}

    @contextmanager
    def swapped(self, names: Iterable[str]) -> Iterator[None]:
        """The model with the named tensors taken from the donor; the recipient's bits come back at the end."""
        written = {name: value.clone() for name, value in self.taken(names).items()}
        kept = {name: self.state[name].clone() for name in written}
        try:
            self._write(written)
            yield
        finally:
            self._write(kept)

    def _write(self, values: dict[str, Tensor]) -> None:
        for name, value in values.items():
            self.state[name].copy_(value)


def _sharing(state: dict[str, Tensor]) -> dict[str, list[str]]:
    """For each tensor, all that use the same memory, itself included."""
    owners: dict[int, list[str]] = defaultdict(list)
    for name, tensor in state.items():
        owners[tensor.untyped_storage().data_ptr()].append(name)
    return {name: owners[tensor.untyped_storage().data_ptr()] for name, tensor in state.items()}
