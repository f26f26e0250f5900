"""A captured model's output, differentiable by every floating tensor that the model holds and reads.

torch's own batch norm has no gradient by its running statistics in eval mode: it is written out as arithmetic.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ckptswap.scoring.full import FullScorer
from ckptswap.scoring.guards import Uncapturable
from ckptswap.scoring.interpreter import filled
from ckptswap.task.callables import first_line
from ckptswap.task.tree import Tree


@dataclass(frozen=True)
class Differentiable:
    """The output (N, …) for a batch, and by their names the tensors that it depends on; of tied ones the last."""

    output: Tensor
    state: Mapping[str, Tensor]

    def slopes(self, weights: Tensor) -> dict[str, Tensor]:
        """The gradient of Σ weights × output (both of its shape) by each tensor; may be asked for again.

        Raises `Uncapturable` where an operation has no gradient.
        """
        if not self.output.requires_grad:
            raise Uncapturable("its output has no gradient")
        tensors = list(self.state.values())
        try:
            slopes = torch.autograd.grad(self.output, tensors, weights, retain_graph=True, allow_unused=True)
        except RuntimeError as error:
            raise Uncapturable(first_line(error)) from None
        return {name: slope for name, slope in zip(self.state, slopes, strict=True) if slope is not None}


def differentiable(scorer: FullScorer, inputs: Tree) -> Differentiable:
    """A scorer's model, run for a batch with the recipient's values.

    Raises `Uncapturable` where it cannot be captured, or run in this way.
    """
    graph, state = scorer.graph(inputs), scorer.swaps.state
    values: dict[int, Any] = {**graph.constants, **graph.given(scorer.task.prepared(inputs))}
    names = {graph.state[name]: name for name in state if name in graph.state}
    with torch.enable_grad():
        for number, name in names.items():
            own = state[name].detach().clone()
            values[number] = own.requires_grad_(own.is_floating_point())
        for step in graph.steps:
            args = [filled(argument, values) for argument in step.args]
            kwargs = {word: filled(argument, values) for word, argument in step.kwargs.items()}
            name = getattr(getattr(step.op, "_schema", None), "name", "")
            try:
                values[step.gives] = _INSTEAD.get(name, step.op)(*args, **kwargs)
            except RuntimeError as error:
                raise Uncapturable(first_line(error)) from None
    wanted = {name: values[number] for number, name in names.items() if values[number].requires_grad}
    return Differentiable(values[graph.output], wanted)


def _batch_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, variance: Tensor, *rest: Any
) -> tuple[Tensor, None, None]:
    """Batch norm in eval mode, as arithmetic."""
    shape = (1, -1, *[1] * (x.dim() - 2))
    normalized = (x - mean.view(shape)) * torch.rsqrt(variance.view(shape) + rest[-1])
    normalized = normalized if weight is None else normalized * weight.view(shape)
    return (normalized if bias is None else normalized + bias.view(shape)), None, None


_INSTEAD: Mapping[str, Callable[..., Any]] = {
    "aten::native_batch_norm": _batch_norm,
    "aten::_native_batch_norm_legit_no_training": _batch_norm,
    "aten::detach": torch.ops.aten.alias.default,  # what training leaves out of account changes the output as well
}
