"""How a variant is scored: one model in memory, tensors swapped in, one full pass, tensors swapped back.

The swap is a copy in place into the model's own tensors, and so is the way back, so that the recipient's bits
are there again whatever a variant did.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import CkptswapError, MismatchError
from ckptswap.sweep.journal import BASELINE, DONOR, Record
from ckptswap.sweep.plan import variant_id
from ckptswap.task.weights import to_torch

if TYPE_CHECKING:
    from ckptswap.task import Measured, Task


class FullEngine:
    """Scores the donor, the recipient and any number of variants of it, one full pass each.

    The task's model holds the recipient from the construction on, and between any two calls.
    Raises `MismatchError` when the recipient does not fit the model.
    """

    def __init__(self, task: Task, donor: Checkpoint, recipient: Checkpoint) -> None:
        self.task, self.donor, self.recipient = task, donor, recipient
        task.load(recipient)
        self._state = {
            name: value for name, value in task.model.state_dict().items() if isinstance(value, torch.Tensor)
        }
        self._sharing = _sharing(self._state)

    def baseline(self) -> Record:
        """The recipient's own statistics."""
        return self._record(BASELINE)

    def reference(self) -> Record:
        """The donor's statistics on the recipient's task; failed when it does not fit the model."""
        try:
            self.task.load(self.donor)
            return self._record(DONOR)
        except MismatchError as error:
            return Record(DONOR, failed=str(error))
        finally:
            self.task.load(self.recipient)

    def run(self, variants: Iterable[tuple[str, ...]]) -> Iterator[Record]:
        """Score the variants that take these tensors from the donor, in the given order."""
        for names in variants:
            with self.swapped(names):
                record = self._record(variant_id(names))
            yield record

    @contextmanager
    def swapped(self, names: Iterable[str]) -> Iterator[None]:
        """The model with the named tensors taken from the donor; the recipient's bits come back at the end.

        Tensors that share memory (tied parameters) are written in the order of the state dict, as loading the
        variant's file would: the last one counts. Raises `MismatchError` for a name that the model lacks.
        """
        taken = set(names)
        touched = self._touched(taken)
        kept = {name: self._state[name].clone() for name in touched}
        try:
            for name in touched:
                source = self.donor if name in taken else self.recipient
                self._state[name].copy_(to_torch(source.read(name)))
            yield
        finally:
            for name, tensor in kept.items():
                self._state[name].copy_(tensor)

    def _touched(self, names: set[str]) -> list[str]:
        missing = sorted(names - self._state.keys())
        if missing:
            raise MismatchError(f"the model has no tensor {missing[0]!r}", remedy="leave it out with --exclude")
        places = {place for name in names for place in self._sharing[name]}
        return [name for name in self._state if name in places]

    def _record(self, variant: str) -> Record:
        """One full pass; what goes wrong in it becomes the record's reason."""
        try:
            measured = self.task.measure()
        except CkptswapError as error:
            return Record(variant, failed=str(error))
        except Exception as error:  # the user's model, data or metric may raise anything
            return Record(variant, failed=f"{type(error).__name__}: {error}")
        return Record(variant, measured.statistics, measured.nonfinite, _fault(measured), tuple(measured.warnings))


def _fault(measured: Measured) -> str | None:
    """Why statistics cannot be used: thresholded metrics hide NaN outputs, so these are counted."""
    if measured.nonfinite:
        return f"{measured.nonfinite} of the model's outputs are NaN or infinite"
    for metric, values in measured.statistics.items():
        bad = int((~np.isfinite(values)).any(axis=1).sum())
        if bad:
            return f"the metric {metric} is NaN or infinite in {bad} of {len(values)} samples"
    return None


def _sharing(state: dict[str, torch.Tensor]) -> dict[str, list[str]]:
    """For each tensor, all that use the same memory, itself included."""
    owners: dict[int, list[str]] = defaultdict(list)
    for name, tensor in state.items():
        owners[tensor.untyped_storage().data_ptr()].append(name)
    return {name: owners[tensor.untyped_storage().data_ptr()] for name, tensor in state.items()}
