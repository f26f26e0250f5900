"""`file.py:function` and `package.module:function`: the user's `fn(output, target) → one value a sample (N,)`."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np

from ckptswap.errors import MetricError, brief
from ckptswap.registry import names
from ckptswap.task.callables import faults_of, load_callable
from ckptswap.task.in_memory import value_of
from ckptswap.task.metrics.metric import Direction, Metric, PerSample, Tree
from ckptswap.task.spec import DIRECTIONS

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Own(Metric):
    """A callable as a metric, whose value is the mean over samples."""

    function: "Callable[[Tensor, Tree], Any]"
    takes_direction: ClassVar[bool] = True

    @property
    def bounds(self) -> tuple[float, float]:
        return getattr(self.function, "bounds", super().bounds)

    def against(self, target: Tree) -> PerSample:
        return partial(self._values, target)

    def _values(self, target: Tree, output: "Tensor") -> np.ndarray:
        from ckptswap.task.tree import mapped

        with faults_of(self.name, MetricError):
            own = mapped(lambda tensor: tensor.to(output.device, copy=True), target)  # which it may write to
            returned = self.function(output, own)
        values = _floats(returned)
        if values is None or values.shape != (len(output),):
            got = f"the shape {list(values.shape)}" if values is not None else f"a {type(returned).__name__}"
            raise MetricError(
                f"{self.name} gave {got} for {len(output)} samples", remedy="return one value a sample, shape (N,)"
            )
        return values[:, None]


def built(name: str, flag: str | None) -> Own:
    """Load a callable as a metric; its direction is what the flag says, or else its attribute `direction`."""
    return _of(name, load_callable(name, MetricError, names("metrics")), flag)


def held(word: str, flag: str | None) -> Own:
    """The same of a function that stands in memory. Raises `MetricError` for anything else."""
    function = value_of(word, "metric", MetricError)
    if type(function).__module__.partition(".")[0] == "torchmetrics":
        named = type(function).__name__
        remedy = f"name it: metric='torchmetrics:{named}', with its arguments behind the name (:beta=0.5)"
        raise MetricError(f"{word} keeps states of its own between batches", remedy=remedy)
    if not callable(function):
        raise MetricError(
            f"the metric is {brief(function)}", remedy="give a name, or a function of output and target"
        )
    return _of(word, function, flag)


def _of(name: str, function: "Callable[[Tensor, Tree], Any]", flag: str | None) -> Own:
    direction = flag or getattr(function, "direction", None)
    if direction not in DIRECTIONS:
        raise MetricError(f"{name} does not say which way is better", remedy="pass --direction max or min")
    return Own(name, cast(Direction, direction), function)


def _floats(returned: Any) -> np.ndarray | None:
    import torch

    if isinstance(returned, torch.Tensor):
        return returned.detach().cpu().double().numpy()
    try:
        is_numbers = isinstance(returned, Iterable | np.generic | float | int)
        return np.asarray(returned, np.float64) if is_numbers else None
    except (TypeError, ValueError):
        return None
