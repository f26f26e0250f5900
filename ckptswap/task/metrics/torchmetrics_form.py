"""A class of torchmetrics with the arguments that were given: its objects, and what they say of themselves.

Whether it is a mean over samples, and whether its states add up, is found by a trial on a few drawn samples: the
library says neither.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from inspect import signature
from typing import TYPE_CHECKING, Any

import numpy as np

from ckptswap.errors import MetricError, near
from ckptswap.registry import library
from ckptswap.task.spec import parse_args

if TYPE_CHECKING:
    from torch import Tensor

ROOMS = ("", ".classification", ".regression", ".image", ".segmentation")
"""Modules of the library whose metrics are known by their names alone."""
_CLASSES = (1, 3)
"""Channels of the trial's outputs, where classes are scored."""
_SHAPES = ((), (4,), (1, 16, 16), (3, 16, 16))
"""Shapes of a sample in the trial, where values are."""
_DRAWN = 12


@dataclass(frozen=True)
class Form:
    """`made_by` makes its objects, `args` are those that were given; `name` is how the whole is written."""

    name: str
    made_by: Callable[..., Any]
    args: Mapping[str, Any]
    _made: dict[int, Any] = field(default_factory=dict, compare=False)

    @classmethod
    def of(cls, text: str) -> Form:
        """From `NAME:key=value:…`. Raises `MetricError` where the library has no such metric."""
        base = library("torchmetrics").Metric
        name, *args = text.split(":")
        known: dict[str, Any] = {}
        for room in ROOMS:  # each of which takes long to import
            content = vars(library(f"torchmetrics{room}"))
            known |= {word: made for word, made in content.items() if _is_metric(made, base) and word not in known}
            if name in known:
                break
        else:
            remedy = near(name, known) or "see its list of metrics"
            raise MetricError(f"torchmetrics has no metric {name!r}", remedy=remedy)
        return cls(f"torchmetrics:{text}", known[name], parse_args(",".join(args)))

    @property
    def is_of_classes(self) -> bool:
        """Whether it scores classes, of outputs that become probabilities."""
        return self.takes("num_classes") or self.made_by.__name__.startswith("Binary")

    @property
    def is_of_labels(self) -> bool:
        """Whether it wants whole numbers to compare with."""
        return self.is_of_classes or self.made_by.__module__.startswith("torchmetrics.classification")

    def takes(self, argument: str) -> bool:
        """Whether it has an argument; those that only choose among others have it by `__new__`."""
        chooses = "__new__" in vars(self.made_by)
        return argument in signature(self.made_by.__new__ if chooses else self.made_by).parameters

    def scorer(self, channels: int) -> Any:
        """The library's object for outputs of so many channels, 0 where it knows of none. Raises `MetricError`."""
        if channels not in self._made:
            known: dict[str, Any] = {}
            if channels and self.takes("task"):
                known["task"] = "binary" if channels == 1 else "multiclass"
            if channels > 1 and self.takes("num_classes"):
                known["num_classes"] = channels
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of what it will remember, and of its place in the library
                    self._made[channels] = self.made_by(**{**known, **self.args})
            except Exception as error:
                raise MetricError(f"{self.name} cannot be made ({error})", remedy="see its arguments") from None
        return self._made[channels]

    def value(self, channels: int, pairs: Sequence[tuple[Tensor, Tensor]]) -> float:
        """What it makes of some outputs and targets. Raises whatever the library does."""
        scorer = self.updated(channels, pairs)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of classes that these samples have none of
            return float(scorer.compute())

    def updated(self, channels: int, pairs: Sequence[tuple[Tensor, Tensor]]) -> Any:
        """Its object, anew, once it has seen these outputs and targets."""
        scorer = self.scorer(channels)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scorer.reset()
            for pair in pairs:
                scorer.update(*pair)
        return scorer

    def state(self, channels: int, pairs: Sequence[tuple[Tensor, Tensor]]) -> np.ndarray:
        """What it remembers of some outputs and targets, as numbers (K,). Raises whatever the library does, and
        `TypeError` where it keeps lists of them."""
        parts = list(self.updated(channels, pairs).metric_state.values())
        if not parts or any(isinstance(part, list) for part in parts):
            raise TypeError("it keeps what it is given")
        return np.concatenate([part.double().reshape(-1).numpy() for part in parts])

    def value_of_state(self, channels: int, state: np.ndarray) -> float:
        """What it makes of such numbers. Raises whatever the library does."""
        import torch

        scorer, at = self.updated(channels, []), 0
        for name, part in scorer.metric_state.items():
            numbers = torch.from_numpy(state[at : at + part.numel()])
            setattr(scorer, name, numbers.reshape(part.shape).to(part.dtype))
            at += part.numel()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it was not updated
            return float(scorer.compute())

    @property
    def direction(self) -> str | None:
        """Which way is better, as the library says it; None where it does not. Raises `MetricError`."""
        better = self._said("higher_is_better")
        return None if better is None else "max" if better else "min"

    @cached_property
    def bounds(self) -> tuple[float, float]:
        """Between which its values lie, as the library says it. Raises `MetricError`."""
        low, high = (self._said(f"plot_{end}_bound") for end in ("lower", "upper"))
        return -math.inf if low is None else float(low), math.inf if high is None else float(high)

    def _said(self, name: str) -> Any:
        """What its class says of itself; of one that chooses among others, what its object does."""
        return getattr(self._chosen if "__new__" in vars(self.made_by) else self.made_by, name, None)

    @property
    def _chosen(self) -> Any:
        """One of those that it chooses among, for two classes or for more."""
        try:
            return self.scorer(_CLASSES[0])
        except MetricError:
            return self.scorer(_CLASSES[-1])

    @cached_property
    def is_mean(self) -> bool:
        """Whether the value of a set is the mean over its samples of each one's own. True, too, where no trial
        could be made: a sample itself will tell."""
        return all(self._is_mean_of(channels, pairs) for channels, pairs in self._trials)

    @cached_property
    def is_additive(self) -> bool:
        """Whether what it remembers of a set is the sum of what it remembers of its samples."""
        return bool(self._trials) and all(self._adds_up(channels, pairs) for channels, pairs in self._trials)

    def _is_mean_of(self, channels: int, pairs: Sequence[tuple[Tensor, Tensor]]) -> bool:
        try:
            alone = [self.value(channels, [pair]) for pair in pairs]
        except Exception:
            return False
        return bool(np.isclose(np.mean(alone), self.value(channels, [_joined(pairs)]), rtol=1e-4, atol=1e-6))

    def _adds_up(self, channels: int, pairs: Sequence[tuple[Tensor, Tensor]]) -> bool:
        try:
            alone = [self.state(channels, [pair]) for pair in pairs]
            together = self.state(channels, [_joined(pairs)])
        except Exception:
            return False
        if any(part.shape != together.shape for part in alone):
            return False
        added = np.sum(alone, axis=0)
        values = self.value_of_state(channels, added), self.value(channels, [_joined(pairs)])
        return bool(
            np.allclose(added, together, rtol=1e-4, atol=1e-6) and np.isclose(*values, rtol=1e-4, atol=1e-6)
        )

    @cached_property
    def _trials(self) -> list[tuple[int, list[tuple[Tensor, Tensor]]]]:
        """Channels, and samples of which all together have a value."""
        trials = []
        for channels, pairs in _drawn_classes() if self.is_of_classes else _drawn_values(self.is_of_labels):
            try:
                if math.isfinite(self.value(channels, [_joined(pairs)])):
                    trials.append((channels, pairs))
            except Exception:  # the library says so in many ways
                continue
        return trials


def _drawn_classes() -> Iterator[tuple[int, list[tuple[Tensor, Tensor]]]]:
    import torch

    draw = torch.Generator().manual_seed(0)
    for channels in _CLASSES:
        classes = max(channels, 2)
        ids = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2]) % classes
        right = torch.nn.functional.one_hot(ids, classes) * (torch.arange(_DRAWN) % 3 > 0)[:, None]
        shares = (2 * right + torch.rand(_DRAWN, classes, generator=draw, dtype=torch.float64)).softmax(1)
        outputs = shares[:, 1] if channels == 1 else shares
        yield channels, [(outputs[at : at + 1], ids[at : at + 1]) for at in range(_DRAWN)]


def _drawn_values(are_labels: bool) -> Iterator[tuple[int, list[tuple[Tensor, Tensor]]]]:
    import torch

    draw = torch.Generator().manual_seed(0)
    for shape in _SHAPES:
        output, target = (torch.rand(_DRAWN, *shape, generator=draw) for _ in range(2))
        target = (target > 0.5).long() if are_labels else target
        yield 0, [(output[at : at + 1], target[at : at + 1]) for at in range(_DRAWN)]


def _joined(pairs: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    import torch

    outputs, targets = zip(*pairs, strict=True)
    return torch.cat(outputs), torch.cat(targets)


def _is_metric(made: Any, base: type) -> bool:
    return isinstance(made, type) and issubclass(made, base) and made is not base
