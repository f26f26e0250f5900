"""Swapping tensors in the model itself, bit-exactly undone: the plain way to make a variant, and the reference."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn

from ckptswap.checkpoint import Checkpoint, overlay
from ckptswap.errors import MismatchError
from ckptswap.task.weights import to_torch

_LEAVE_OUT = "leave it out with --exclude"


class Swaps:
    """The model's own tensors, which hold the recipient, and the donors' in the same form."""

    def __init__(self, model: nn.Module, *donors: Checkpoint, recipient: Checkpoint | None = None) -> None:
        self.donors, self.recipient = donors, recipient
        self.state = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
        self._sharing = _sharing(self.state)
        self._given: dict[tuple[str, int], Tensor] = {}

    def given(self, name: str, donor: int = 0, alpha: float = 1.0) -> Tensor:
        """The donor's tensor, in the model's dtype, layout and place. Raises `MismatchError` for an unknown
        name, and for another shape, which copying would stretch.
        """
        if name not in self.state:
            raise MismatchError(f"the model has no tensor {name!r}", remedy=_LEAVE_OUT)
        if alpha != 1.0:
            return self._as_own(name, self._blended(name, donor, alpha))
        if (name, donor) not in self._given:
            self._given[name, donor] = self._as_own(name, to_torch(self.donors[donor].read(name)))
        return self._given[name, donor]

    def _as_own(self, name: str, theirs: Tensor) -> Tensor:
        own = self.state[name]
        if own.shape != theirs.shape:
            shapes = f"{list(theirs.shape)} in the donor, {list(own.shape)} in the model"
            raise MismatchError(f"{name}: {shapes}", remedy=_LEAVE_OUT)
        return torch.empty_like(own).copy_(theirs)

    def _blended(self, name: str, donor: int, alpha: float) -> Tensor:
        """Part of the way to the donor, with the bits that `transplant --alpha` writes; not kept, being many."""
        assert self.recipient is not None
        return to_torch(overlay(self.recipient, self.donors[donor], [name], alpha=alpha).read(name))

    def taken(self, names: Iterable[str], donor: int = 0, alpha: float = 1.0) -> dict[str, Tensor]:
        """What must be written to make a variant, in the order of the state dict.

        Tensors that share memory (tied parameters) are all written, as loading the variant's file would: the last
        one counts, be it the donor's or the recipient's own.
        """
        wanted = set(names)
        given = {name: self.given(name, donor, alpha) for name in wanted}
        touched = {each for name in wanted for each in self._sharing[name]}
        return {name: given.get(name, value) for name, value in self.state.items() if name in touched}

    def swapped(self, names: Iterable[str]) -> AbstractContextManager[None]:
        """The model with the named tensors taken from the donor; the recipient's bits come back at the end."""
        return self.holding(self.taken(names))

    @contextmanager
    def holding(self, values: Mapping[str, Tensor]) -> Iterator[None]:
        """The model with these tensors written to it; the recipient's bits come back at the end."""
        written = {name: value.clone() for name, value in values.items()}
        kept = {name: self.state[name].clone() for name in written}
        try:
            self._write(written)
            yield
        finally:
            self._write(kept)

    def _write(self, values: Mapping[str, Tensor]) -> None:
        for name, value in values.items():
            self.state[name].copy_(value)


def _sharing(state: dict[str, Tensor]) -> dict[str, list[str]]:
    """For each tensor, all that use the same memory, itself included."""
    owners: dict[int, list[str]] = defaultdict(list)
    for name, tensor in state.items():
        owners[tensor.untyped_storage().data_ptr()].append(name)
    return {name: owners[tensor.untyped_storage().data_ptr()] for name, tensor in state.items()}
