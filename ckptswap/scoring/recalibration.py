"""Batch norm's running statistics estimated anew after a swap, on batches that are never scored.

How much of a drop is only that running means and variances belong to other values, a new estimate tells. Sources:
AdaBN, Li et al. 2016, arXiv:1603.04779; REPAIR, Jordan et al. 2022, arXiv:2211.08403. The estimate is that of
`torch.optim.swa_utils.update_bn`: a plain mean over the batches.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ckptswap.errors import UsageError
from ckptswap.scoring.swap import Swaps
from ckptswap.scoring.variant import Calibration
from ckptswap.task.data import load_data
from ckptswap.task.task import Task
from ckptswap.task.tree import Tree, bytes_of, call, form_of, sample_at, size_of


def load_calibration(wanted: Calibration, task: Task) -> list[Tree]:
    """The inputs of the first batches of a calibration set, in the task's batch size and random order.

    Raises `UsageError` where there is no such data, not enough of it, no batch norm to estimate, or where a sample
    of it is also scored.
    """
    if wanted.batches < 1:
        raise UsageError(f"--recalibrate-bn is {wanted.batches}", remedy="give a number of batches, 1 or more")
    if not _norms(task.model):
        fault = "the model has no batch norm with running statistics"
        raise UsageError(fault, remedy="leave --recalibrate-bn out")
    data, args = wanted.data, wanted.data_args
    if data is None:
        if task.spec.data != "lab:mni":
            fault = "--recalibrate-bn needs data that is not scored"
            raise UsageError(fault, remedy="name it with --calibration-data")
        data, args = "lab:mni", {"part": "train"}
    files = any(os.path.isdir(place or "") for place in (data, task.spec.data))
    group = None if files else task.spec.group  # a part of each sample, which is no input
    spec = replace(
        task.spec, data=data, data_args=args, target="input", limit=None, group=group, screen_samples=None
    )
    with task.pinned(), closing(load_data(spec).batches()) as batches:
        inputs = [batch.inputs for batch in islice(batches, wanted.batches)]
    if len(inputs) < wanted.batches:
        fault = f"{data} has {len(inputs)} batches of {task.spec.batch_size}, fewer than {wanted.batches}"
        raise UsageError(fault, remedy=f"use --recalibrate-bn {len(inputs)}")
    _refuse_scored(inputs, task)
    return inputs


def fingerprint(batches: Sequence[Tree]) -> str:
    """A hash of the batches, their order included.

    >>> a, b = torch.zeros(2, 1), torch.ones(2, 1)
    >>> fingerprint([a, b]) == fingerprint([b, a])
    False
    """
    digest = hashlib.sha256()
    for batch in batches:
        form = (batch.shape, batch.dtype) if isinstance(batch, Tensor) else form_of(batch)
        digest.update(repr(form).encode())
        for piece in bytes_of(batch):
            digest.update(piece)
    return digest.hexdigest()[:16]


def _digests(batch: Tree) -> list[bytes]:
    samples = (sample_at(batch, at) for at in range(size_of(batch)))
    return [hashlib.sha256(b"".join(bytes_of(sample))).digest() for sample in samples]


def _refuse_scored(batches: Sequence[Tree], task: Task) -> None:
    """Statistics that were estimated on the scored samples would flatter every variant."""
    known = {digest for batch in batches for digest in _digests(batch)}
    with task.pinned(), closing(task.batches()) as scored:
        both = sum(digest in known for batch in scored for digest in _digests(batch.inputs))
    if both:
        fault = f"{both} of the scored samples are also in the calibration data"
        raise UsageError(fault, remedy="name other data with --calibration-data, such as the training images")


class Recalibration:
    """Estimates the statistics of variants of a task's model, each once."""

    def __init__(self, task: Task, swaps: Swaps, batches: Sequence[Tree]) -> None:
        self.batches, self._task, self._swaps = batches, task, swaps
        self._estimates: dict[str, dict[str, Tensor]] = {}

    def statistics(self, variant: str, taken: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The new running means and variances, by name, of the model with `taken` written to it.

        The model itself is afterwards as it was. Raises what the model raises in training mode, such as for a
        batch of a single value a channel.
        """
        if variant not in self._estimates:
            norms = _norms(self._task.model)
            places = {buffer.data_ptr() for norm in norms for buffer in (norm.running_mean, norm.running_var)}
            own = {name: value for name, value in self._swaps.state.items() if value.data_ptr() in places}
            with self._swaps.holding(taken), _estimating(norms), torch.no_grad():
                for batch in self.batches:
                    call(self._task.model, self._task.prepared(batch))
                self._estimates[variant] = {name: value.clone() for name, value in own.items()}
        return self._estimates[variant]


def _norms(model: nn.Module) -> list[Any]:
    norms = (module for module in model.modules() if isinstance(module, _BatchNorm))
    return [norm for norm in norms if norm.running_mean is not None]


@contextmanager
def _estimating(norms: Sequence[Any]) -> Iterator[None]:
    """Batch norms that start from nothing and average over batches; afterwards they are as they were."""
    kept = [(norm, norm.training, norm.momentum, [buffer.clone() for buffer in norm.buffers()]) for norm in norms]
    try:
        for norm in norms:  # which alone are in training mode, so that dropout draws nothing
            norm.reset_running_stats()
            norm.momentum = None
            norm.train()
        yield
    finally:
        for norm, training, momentum, buffers in kept:
            norm.train(training)
            norm.momentum = momentum
            for buffer, before in zip(norm.buffers(), buffers, strict=True):
                buffer.copy_(before)
