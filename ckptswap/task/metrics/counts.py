"""True and false positives and negatives, of every image and class.

numpy counts, sample by sample: what it holds stays in a core's cache, and no other thread is woken. Beside a
network's last layers, which take milliseconds, counting must not show.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ckptswap.errors import MetricError

if TYPE_CHECKING:
    from torch import Tensor

TOGETHER = 1 << 14
"""Values of several samples that are looked at together; a call for each would take longer than what it does."""
Counts = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Of each sample and class (N, C): pixels that are guessed rightly, that are guessed, that are so in truth."""


class Truth:
    """A batch's class ids (N, …) or (N, 1, …), with all that does not depend on the model's output.

    Raises `MetricError` where ids are fractions, or an image has no pixel but ignored ones.

    >>> import torch
    >>> Truth(torch.tensor([[[1, 1, 0]]])).counts(torch.tensor([[[[2.0, -1.0, 3.0]]]])).tolist()
    [[[1.0, 1.0, 1.0, 0.0]]]
    """

    def __init__(self, target: Tensor, ignore: int | None = None) -> None:
        self._shape = tuple(target.shape)
        ids = target.detach().cpu().flatten(1) if target.dim() > 1 else target.detach().cpu()[:, None]
        if ids.is_floating_point() and (ids != ids.round()).any():
            raise MetricError("the target holds fractions, not class ids", remedy="use mse, or whole numbers")
        self._ids = ids.long().numpy()
        self._valid = None if ignore is None else self._ids != ignore
        self._pixels = np.full(len(ids), ids.shape[1]) if self._valid is None else self._valid.sum(1)
        if not self._pixels.all():
            raise MetricError("a mask has no pixel but ignored ones", remedy="leave such samples out of the data")
        self._true: dict[int, np.ndarray] = {}
        self._foreground = self._ids == 1 if self._valid is None else (self._ids == 1) & self._valid

    def counts(self, output: Tensor, *, probability: bool = False) -> np.ndarray:
        """True and false positives, false and true negatives, in the order TP, FP, FN, TN: (N, C, 4) float64.

        `output` is (N, C, …) logits or probabilities, or (N, H, W) for one channel. Raises `MetricError` where
        sizes don't fit, or the truth has a class that the model does not tell.
        """
        scores = self._fitted(output)
        one = scores.shape[1] == 1
        hits, guessed, true = self._one(scores[:, 0], 0.5 if probability else 0) if one else self._several(scores)
        rest = self._pixels[:, None] - guessed - true + hits
        return np.stack([hits, guessed - hits, true - hits, rest], -1).astype(np.float64)

    def _one(self, scores: Tensor, cut: float) -> Counts:
        """From (N, P): the foreground's counts, C = 1."""
        true = self._histogram(2)[:, 1:]
        guess = scores.cpu().numpy() > cut
        guessed = guess if self._valid is None else guess & self._valid
        return _row_sums(guess & self._foreground), _row_sums(guessed), true

    def _several(self, scores: Tensor) -> Counts:
        """From (N, C, P): each class's counts."""
        classes, tables = scores.shape[1], []
        true = self._histogram(classes)
        for rows, guess in _guesses(scores):
            samples = np.arange(len(guess))[:, None]
            code = (samples * classes + guess) * 2 + (guess == self._ids[rows])
            kept = code.ravel() if self._valid is None else code[self._valid[rows]]
            tables.append(np.bincount(kept, minlength=code.shape[0] * classes * 2).reshape(-1, classes, 2))
        wrong, hits = np.moveaxis(np.concatenate(tables), -1, 0)
        return hits, wrong + hits, true

    def _histogram(self, classes: int) -> np.ndarray:
        """How many pixels each class has in truth (N, classes)."""
        if classes not in self._true:
            rows = [self._kept(at, ids) for at, ids in enumerate(self._ids)]
            for row in rows:
                _refuse_other(row, classes)
            self._true[classes] = np.array([np.bincount(row, minlength=classes) for row in rows])
        return self._true[classes]

    def _kept(self, at: int, row: np.ndarray) -> np.ndarray:
        """A sample's pixels (P,) without the ignored ones."""
        return row if self._valid is None else row[self._valid[at]]

    def _fitted(self, output: Tensor) -> Tensor:
        """An output as (N, C, P), which numpy can read."""
        shape, truth = tuple(output.shape), self._shape
        if len(truth) == len(shape) > 1 and truth[1] == 1:
            truth = (truth[0], *truth[2:])
        if len(shape) == 3 and shape == truth:
            shape = (shape[0], 1, *shape[1:])
        if len(shape) != len(truth) + 1 or shape[0] != truth[0] or output.is_complex():
            raise MetricError(
                unlike(output.shape, truth),
                remedy="the model must give (N, C, H, W), the mask (N, H, W) class ids",
            )
        if shape[2:] != truth[1:]:
            raise MetricError(
                unlike(output.shape, truth), remedy="resample the masks, or the model's output, to one size"
            )
        wide = output.detach()
        if wide.is_floating_point() and wide.element_size() == 2:  # numpy lacks bf16 and is slow with f16
            wide = wide.float()
        return wide.reshape(shape[0], shape[1], -1)


def first_greatest(scores: np.ndarray) -> np.ndarray:
    """The first of the greatest of (…, C, P) along C, as `torch.argmax` finds it, but ten times as fast: (…, P).

    >>> first_greatest(np.array([[1.0, 0.0], [3.0, 2.0], [3.0, -1.0]])).tolist()
    [1, 1]
    """
    greatest = scores.max(axis=-2, keepdims=True)
    if np.isnan(greatest).any():
        return scores.argmax(axis=-2)  # the first NaN, as torch's
    channels = scores.shape[-2]
    countdown = np.arange(channels, 0, -1, dtype=np.min_scalar_type(channels))[:, None]
    return channels - ((scores == greatest) * countdown).max(axis=-2)


def unlike(output: Sequence[int], target: Sequence[int]) -> str:
    """Two shapes that do not fit.

    >>> unlike((1, 2), (3,))
    "the model's output is [1, 2], the target [3]"
    """
    return f"the model's output is {list(output)}, the target {list(target)}"


def _guesses(scores: Tensor) -> Iterator[tuple[slice, np.ndarray]]:
    """Class ids (n, P) from (N, C, P), and of which samples: of as many at once as the cache holds."""
    if scores.device.type != "cpu":
        yield slice(None), scores.argmax(1).cpu().numpy()
        return
    values = scores.numpy()
    step = max(1, TOGETHER // max(values[0].size, 1))
    for start in range(0, len(values), step):
        rows = slice(start, start + step)
        yield rows, first_greatest(values[rows])


def _row_sums(flags: np.ndarray) -> np.ndarray:
    """(N, P) as (N, 1): row by row is five times as fast as along an axis."""
    return np.array([[np.count_nonzero(row)] for row in flags])


GREYS = 8
"""More values than so many for each class of a model look like a picture's."""


def beyond(ids: np.ndarray, classes: int) -> str | None:
    """What to do about class ids that the model does not tell apart; None where all are."""
    if not ids.size or (ids.min() >= 0 and ids.max() < classes):
        return None
    if ids.min() >= 1 and ids.max() == classes:
        return "they count from 1, and classes from 0: subtract 1 from them"
    if set(np.unique(ids).tolist()) <= {0, 255}:
        return "save masks of 0 and 255 as 0 and 1, or pass --ignore 255 where it marks what is not scored"
    if ids.max() <= 255 and len(np.unique(ids)) > GREYS * classes:
        return "if these are grey values and no classes, cut the masks at a threshold first"
    odd = np.unique(ids[(ids < 0) | (ids >= classes)]).tolist()
    return f"pass --ignore {odd[0] if len(odd) == 1 else 'VALUE'} to leave such out, or a model with more classes"


def _refuse_other(ids: np.ndarray, classes: int) -> None:
    remedy = beyond(ids, classes)
    if remedy is not None:
        wrong = ids[(ids < 0) | (ids >= classes)]
        raise MetricError(
            f"a mask holds the class {wrong[0]}, but the model tells {classes} classes apart",
            remedy=remedy.replace("such out", "such pixels out"),
        )
