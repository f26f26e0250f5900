"""Outputs as rows of scores, one a position, and labels with them: of classifiers, of masks, of tokens.

Where outputs are (N, T, V) and the inputs hold whole numbers (N, T), positions are tokens, and classes lie along
the last dimension; everywhere else along the second. Labels that repeat the tokens that went in are what a causal
language model is to foretell, so that the output at a token is held against the next one. Labels of other tokens
(masked language models, tags, translations) are held against the output in their own place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ckptswap.errors import MetricError
from ckptswap.task.metrics.counts import beyond, unlike
from ckptswap.task.metrics.metric import Tree

if TYPE_CHECKING:
    from torch import Tensor

NO_LABEL = -100
"""torch's own word for what is not scored."""
PADDING = "attention_mask"
"""An input of this name is 0 where a token is padding."""


@dataclass(frozen=True)
class Labels:
    """Class ids (N, …), `NO_LABEL` where nothing is scored, and whether they are those of tokens."""

    ids: Tensor
    are_tokens: bool = False

    def __len__(self) -> int:
        return len(self.ids)

    def scored(self, ignore: int | None) -> list[Tensor]:
        """Of each sample the labels that are scored (P,)."""
        flat = self.ids.flatten(1) if self.ids.dim() > 1 else self.ids[:, None]
        return [own[(own != NO_LABEL) & (own != (NO_LABEL if ignore is None else ignore))] for own in flat]


def labels_of(inputs: Tree, targets: Tree, metric: str) -> Tree:
    """A batch's targets as `Labels`, of tokens where they are such, shifted where they repeat the inputs.

    Targets that are no whole numbers stay as they are. Raises `MetricError` for targets that are not one tensor,
    and for tokens that are shifted already.
    """
    if isinstance(targets, Mapping | tuple | list):
        raise MetricError(
            f"{metric} compares with one tensor, and the target is a {type(targets).__name__}",
            remedy="score with a function of your own: --metric file.py:function",
        )
    if targets.is_floating_point():
        return targets
    tokens, ids = tokens_of(inputs, targets), targets.long()  # uint8 has no place for NO_LABEL
    if tokens is None:
        return Labels(ids)
    ids = ids.clone()
    padding = inputs.get(PADDING) if isinstance(inputs, Mapping) else None
    if padding is not None and padding.shape == ids.shape:
        ids[padding == 0] = NO_LABEL
    return Labels(_foretold(ids, tokens, metric), are_tokens=True)


def tokens_of(inputs: Tree, like: Tensor) -> Tensor | None:
    """The first of a batch's inputs that are whole numbers (N, T), as many as (N, T, …) are; None without such."""
    parts = inputs.values() if isinstance(inputs, Mapping) else inputs if isinstance(inputs, tuple) else (inputs,)
    shape = tuple(like.shape[:2])
    named = inputs.get("input_ids") if isinstance(inputs, Mapping) else None
    for part in (*(() if named is None else (named,)), *parts):
        fits = not isinstance(part, Mapping | tuple) and len(shape) == 2 and tuple(part.shape) == shape
        if fits and not (part.is_floating_point() or part.is_complex()):
            return part
    return None


def _foretold(ids: Tensor, tokens: Tensor, metric: str) -> Tensor:
    """Labels (N, T) to hold outputs against, each in its own place."""
    counted = ids != NO_LABEL
    if ids.shape[1] > 1 and bool((ids == tokens)[counted].all()):
        later = ids.roll(-1, dims=1)
        later[:, -1] = NO_LABEL
        return later
    ahead, inner = tokens.roll(-1, dims=1), counted.clone()
    inner[:, -1] = False
    if int(inner.sum()) > 1 and bool((ids == ahead)[inner].all()):
        raise MetricError(
            f"the labels are the tokens shifted by one already, and {metric} shifts them itself",
            remedy="give the tokens themselves as labels, -100 where none is to be scored",
        )
    return ids


def rows(output: Tensor, *, are_tokens: bool) -> Tensor:
    """An output as (N, P, C): of each sample its positions, of each its scores.

    >>> import torch
    >>> rows(torch.zeros(2, 3, 4, 5), are_tokens=False).shape, rows(torch.zeros(2, 7, 9), are_tokens=True).shape
    (torch.Size([2, 20, 3]), torch.Size([2, 7, 9]))
    """
    if output.dim() == 1:
        return output[:, None, None]
    if are_tokens and output.dim() == 3:
        return output
    return output.flatten(2).movedim(1, 2) if output.dim() > 2 else output[:, None]


def scored_rows(output: Tensor, labels: Labels, ignore: int | None) -> Iterator[tuple[Tensor, Tensor]]:
    """Of each sample the rows (P, C) of the positions that are scored, and their labels (P,), on the CPU.

    Raises `MetricError` where sizes do not fit, a label is no class of the model's, or a sample has none at all.
    """
    given = rows(output.detach(), are_tokens=labels.are_tokens)
    ids = _one_channel(labels.ids, output).flatten(1) if labels.ids.dim() > 1 else labels.ids[:, None]
    if given.shape[:2] != ids.shape or output.is_complex():
        raise MetricError(
            unlike(output.shape, labels.ids.shape),
            remedy="the model must give a score for each class, of each label",
        )
    counted = ids != NO_LABEL if ignore is None else (ids != NO_LABEL) & (ids != ignore)
    if not counted.any(1).all():
        raise MetricError("a sample has no label but ignored ones", remedy="leave such samples out of the data")
    classes = max(given.shape[2], 2)
    remedy = beyond(ids[counted].numpy(), classes)
    if remedy is not None:
        wrong = int(ids[counted & ((ids < 0) | (ids >= classes))][0])
        raise MetricError(
            f"the targets hold the class {wrong}, but the model tells {classes} classes apart", remedy=remedy
        )
    for row, label, kept in zip(given.cpu(), ids, counted, strict=True):
        yield row[kept], label[kept]


def _one_channel(ids: Tensor, output: Tensor) -> Tensor:
    """(N, 1, H, W) as (N, H, W), where the output has channels too."""
    return ids[:, 0] if ids.dim() == output.dim() > 2 and ids.shape[1] == 1 else ids


def log_probabilities(row: Tensor, *, probability: bool) -> Tensor:
    """Of rows (P, C) of logits, or probabilities, the logarithms of C probabilities, or 2 for one channel, in
    double precision.

    >>> import torch
    >>> log_probabilities(torch.tensor([[0.0]]), probability=False).exp().tolist()
    [[0.5, 0.5]]
    """
    import torch

    row = row.double()
    if row.shape[1] == 1:
        if probability:
            return torch.cat([1 - row, row], 1).clamp_min(torch.finfo(torch.float64).tiny).log()
        return torch.nn.functional.logsigmoid(torch.cat([-row, row], 1))
    if probability:
        return row.clamp_min(torch.finfo(torch.float64).tiny).log()
    return row.log_softmax(1)


def mean_frequencies(ids: Sequence[Tensor]) -> np.ndarray:
    """How often each class is a label, the mean over samples of each one's shares: (C,).

    >>> import torch
    >>> mean_frequencies([torch.tensor([0, 0]), torch.tensor([0, 1])]).tolist()
    [0.75, 0.25]
    """
    classes = 1 + max(int(own.max()) for own in ids)
    shares = [np.bincount(own.numpy(), minlength=classes) / len(own) for own in ids]
    return np.array([np.sort(column).sum() for column in np.array(shares).T]) / len(ids)
