"""`torchmetrics:NAME`: a metric of torchmetrics, of each sample alone, then the mean over samples.

Arguments stand behind the name, `torchmetrics:FBetaScore:beta=0.5`; the task, the number of classes and the value
that is ignored are taken from the model and from `--ignore`. Where classes are scored the metric gets
probabilities, of each position of a sample, and labels as in `rows`; everything else gets output and target as
they are. One that has no value for a sample alone (a correlation of one pair) is refused. `--direction` says which
way is better where the library does not.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from inspect import signature
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np

from ckptswap.errors import MetricError, near
from ckptswap.registry import Source, library
from ckptswap.task.metrics.counts import unlike
from ckptswap.task.metrics.metric import Direction, Metric, PerSample, Tree
from ckptswap.task.metrics.rows import Labels, labels_of, log_probabilities, scored_rows
from ckptswap.task.spec import TaskSpec, parse_args

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class OfLibrary(Metric):
    """One of the library's metrics; `form` makes it, `args` are those that were given."""

    form: Callable[..., Any]
    args: Mapping[str, Any]
    probability: bool = False
    ignore: int | None = None
    limits: tuple[float, float] = (-math.inf, math.inf)
    takes_direction: ClassVar[bool] = True
    _made: dict[int, Any] = field(default_factory=dict, compare=False)

    @property
    def bounds(self) -> tuple[float, float]:
        return self.limits

    def truth(self, inputs: Tree, targets: Tree, own: Callable[[], Tensor]) -> Tree:
        return labels_of(inputs, targets, self.name)

    def against(self, target: Tree) -> PerSample:
        labels = target if isinstance(target, Labels) else labels_of((), target, self.name)
        if _takes(self.form, "num_classes") and isinstance(labels, Labels):
            return partial(self._of_classes, labels)
        return partial(self._of_values, labels.ids if isinstance(labels, Labels) else labels)

    def _of_classes(self, labels: Labels, output: Tensor) -> np.ndarray:
        values = []
        for row, ids in scored_rows(output, labels, self.ignore):
            shares = log_probabilities(row, probability=self.probability).exp()
            scorer = self._scorer(row.shape[1])
            values.append(self._value(scorer, shares[:, 1] if row.shape[1] == 1 else shares, ids.long()))
        return np.array(values)[:, None]

    def _of_values(self, target: Tensor, output: Tensor) -> np.ndarray:
        if output.dim() == target.dim() + 1 and output.shape[1] == 1:
            target = target[:, None]
        if output.shape != target.shape:
            raise MetricError(f"{self.name}: {unlike(output.shape, target.shape)}", remedy="use one for classes")
        pairs = zip(output.detach().cpu().float(), target.float(), strict=True)
        return np.array([self._value(self._scorer(0), own[None], other[None]) for own, other in pairs])[:, None]

    def _scorer(self, classes: int) -> Any:
        """The library's object, for outputs of so many channels; 0 where it knows of none."""
        if classes not in self._made:
            known: dict[str, Any] = {}
            if classes and _takes(self.form, "task"):
                known["task"] = "binary" if classes == 1 else "multiclass"
            if classes > 1:
                known["num_classes"] = classes
            try:
                self._made[classes] = self.form(**{**known, **self.args})
            except Exception as error:
                raise MetricError(f"{self.name} cannot be made ({error})", remedy="see its arguments") from None
        return self._made[classes]

    def _value(self, scorer: Any, own: Tensor, other: Tensor) -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of classes that one sample has none of
            try:
                scorer.reset()
                scorer.update(own, other)
                value = float(scorer.compute())
            except Exception as error:
                fault = f"{self.name} gives no value for a sample alone ({type(error).__name__}: {error})"
                raise MetricError(fault[:300], remedy="use one that is a mean over samples") from None
        if not math.isfinite(value):
            raise MetricError(
                f"{self.name} is {value} for a sample alone", remedy="use one that is a mean over samples"
            )
        return value


def _built(ending: str, spec: TaskSpec) -> OfLibrary:
    torchmetrics = library("torchmetrics")
    name, *args = ending.split(":")
    form = getattr(torchmetrics, name, None)
    known = [public for public, made in vars(torchmetrics).items() if _is_metric(made, torchmetrics.Metric)]
    if name not in known:
        raise MetricError(
            f"torchmetrics has no metric {name!r}", remedy=near(name, known) or "see its list of metrics"
        )
    low, high = getattr(form, "plot_lower_bound", None), getattr(form, "plot_upper_bound", None)
    limits = (-math.inf, math.inf) if low is None or high is None else (float(low), float(high))
    direction = spec.direction or _direction(form)
    if direction is None:
        raise MetricError(f"{name} does not say which way is better", remedy="pass --direction max or min")
    return OfLibrary(
        f"torchmetrics:{ending}",
        cast(Direction, direction),
        cast(Callable[..., Any], form),
        parse_args(",".join(args)),
        spec.output == "probability",
        spec.ignore,
        limits,
    )


def _is_metric(made: Any, base: type) -> bool:
    return isinstance(made, type) and issubclass(made, base) and made is not base


def _takes(form: Callable[..., Any], name: str) -> bool:
    """Whether it has an argument; those that only choose among others have it by `__new__`."""
    chooses = "__new__" in vars(form)
    return name in signature(form.__new__ if chooses else form).parameters


def _direction(form: Any) -> str | None:
    """By what the library says of itself; what chooses among others says nothing, and is asked by its binary
    one."""
    better = getattr(form, "higher_is_better", None)
    if better is None and _takes(form, "task"):
        try:
            better = form(task="binary").higher_is_better
        except Exception:
            return None
    return None if better is None else "max" if better else "min"


SOURCE = Source(_built, libraries=("torchmetrics",))
