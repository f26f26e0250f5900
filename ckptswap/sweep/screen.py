"""Cheap guesses at how much a swap will hurt, made before any variant is run.

`rmse`: how far donor and recipient are apart in the tensors that are swapped. `gradient`: the first-order change
of a loss, |Σ gradient × difference|, from one backward pass for all variants (Molchanov et al., Importance
Estimation for Neural Network Pruning, CVPR 2019, arXiv:1906.10771). Batch norm's running statistics have a
gradient too: for the backward pass it is written out as arithmetic.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

import torch
from torch import Tensor

from ckptswap.errors import MetricError, UsageError
from ckptswap.scoring.full import FullScorer
from ckptswap.scoring.graph import Graph, capture
from ckptswap.scoring.guards import Uncapturable
from ckptswap.scoring.interpreter import filled
from ckptswap.scoring.variant import Variant
from ckptswap.sweep.plan import Plan
from ckptswap.sweep.spec import ScreenName
from ckptswap.task.tree import Tree, described, only_tensor

_BATCH_NORMS = ("aten::native_batch_norm", "aten::_native_batch_norm_legit_no_training")
BATCHES = 4  # batches whose gradients are averaged: the first of the walk, which are a random sample


def screen(by: ScreenName, plan: Plan, scorer: FullScorer, variants: Sequence[Variant]) -> dict[str, float]:
    """A number for each variant, the larger the worse; missing where none can be had. Raises `UsageError` where
    the model's gradients cannot be had."""
    if by == "rmse":
        return {cell.variant: cell.rmse for cell in plan.cells if cell.rmse is not None}
    slopes = _gradients(scorer)
    plain = (variant for variant in variants if not variant.recalibrated)
    changes = {variant.id: _first_order(scorer, variant, slopes) for variant in plain}
    return {variant: value for variant, value in changes.items() if math.isfinite(value)}


def _first_order(scorer: FullScorer, variant: Variant, slopes: Mapping[str, Tensor]) -> float:
    taken, own = scorer.written(variant), scorer.swaps.state
    changes = {name: value.double() - own[name].double() for name, value in taken.items() if name in slopes}
    return abs(math.fsum((slopes[name].double() * change).sum().item() for name, change in changes.items()))


def _gradients(scorer: FullScorer) -> dict[str, Tensor]:
    """The gradient of the mean loss by every floating tensor of the state that the model reads."""
    task, total = scorer.task, dict[str, Tensor]()
    with task.pinned(), closing(task.data.numbered(range(BATCHES))) as batches:
        for _, batch in batches:
            inputs = task.prepared(batch.inputs)
            try:
                graph = capture(task.model, inputs, task.pick)
            except Uncapturable as error:
                raise UsageError(
                    f"--screen gradient needs a model that can be captured ({error})", remedy="use --screen rmse"
                ) from None
            for name, slope in _backward(graph, scorer, inputs, batch.targets, task.spec.ignore).items():
                total[name] = total[name] + slope if name in total else slope
    return total


def _backward(
    graph: Graph, scorer: FullScorer, inputs: Tree, targets: Tree, ignore: int | None
) -> dict[str, Tensor]:
    names = {graph.state[name]: name for name in scorer.swaps.state if name in graph.state}
    values: dict[int, Any] = {**graph.constants, **graph.given(inputs)}
    with torch.enable_grad():
        for number, name in names.items():
            own = scorer.swaps.state[name].detach().clone()
            values[number] = own.requires_grad_(own.is_floating_point())
        for step in graph.steps:
            args = [filled(argument, values) for argument in step.args]
            kwargs = {word: filled(argument, values) for word, argument in step.kwargs.items()}
            name = getattr(getattr(step.op, "_schema", None), "name", "")
            values[step.gives] = (_batch_norm if name in _BATCH_NORMS else step.op)(*args, **kwargs)
        wanted = {name: values[number] for number, name in names.items() if values[number].requires_grad}
        mean_loss = _loss(values[graph.output], targets, ignore)
        slopes = torch.autograd.grad(mean_loss, list(wanted.values()), allow_unused=True)
    return {name: slope for name, slope in zip(wanted, slopes, strict=True) if slope is not None}


def _loss(output: Tensor, targets: Tree, ignore: int | None) -> Tensor:
    try:
        return loss(output, only_tensor(targets, "the loss"), ignore)
    except (RuntimeError, IndexError, ValueError, MetricError) as error:
        shape = tuple(targets.shape) if isinstance(targets, Tensor) else described(targets)
        raise UsageError(
            f"--screen gradient has no loss for outputs {tuple(output.shape)} and targets {shape} "
            f"({str(error).splitlines()[0]})",
            remedy="use --screen rmse",
        ) from None


def loss(output: Tensor, targets: Tensor, ignore: int | None = None) -> Tensor:
    """What stands in for the metric: cross-entropy for class ids, squared error for everything else.

    Class ids that are `ignore` do not count, as in the metrics.

    >>> loss(torch.zeros(2, 1, 4, 4), torch.zeros(2, 4, 4, dtype=torch.int64)).item()
    0.693147...
    """
    targets = targets.to(output.device)
    if targets.is_floating_point():
        return (output - targets.reshape(output.shape)).square().mean()
    if output.dim() == targets.dim() + 1 and output.shape[1] > 1:
        none = -100 if ignore is None else ignore  # torch's own word for no class
        return torch.nn.functional.cross_entropy(output, targets.long(), ignore_index=none)
    targets = targets.reshape(output.shape)
    counts = torch.ones_like(targets, dtype=torch.bool) if ignore is None else targets != ignore
    wanted = targets[counts].clamp(0, 1).to(output.dtype)
    return torch.nn.functional.binary_cross_entropy_with_logits(output[counts], wanted)


def _batch_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, variance: Tensor, *rest: Any
) -> tuple[Tensor, None, None]:
    """Batch norm in eval mode, through whose statistics torch's own has no gradient."""
    shape = (1, -1, *[1] * (x.dim() - 2))
    normalized = (x - mean.view(shape)) * torch.rsqrt(variance.view(shape) + rest[-1])
    normalized = normalized if weight is None else normalized * weight.view(shape)
    return (normalized if bias is None else normalized + bias.view(shape)), None, None
