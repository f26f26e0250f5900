"""Cheap guesses at how much a swap will hurt, made before any variant is run.

`rmse`: how far donor and recipient are apart in the tensors that are swapped. `gradient`: the first-order change
of a loss, |Σ gradient × difference| (Molchanov et al., Importance Estimation for Neural Network Pruning, CVPR
2019, arXiv:1906.10771). `curvature`: the second-order change of the outputs, ½ Σ (J × difference)² weighed by the
outputs' own Hessian, without labels: the generalised Gauss-Newton form (Schraudolph, Neural Computation 14 (2002)
1723; Martens, JMLR 21 (2020) 146), estimated in random directions (Hutchinson, Commun. Stat. 18 (1989) 1059). A
backward pass serves all variants, so that the work hardly grows with their number. `sample:N` guesses nothing: the
walk begins with N samples, on which every variant is scored.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing

import torch
from torch import Tensor

from ckptswap.errors import MetricError, UsageError
from ckptswap.scoring.full import FullScorer
from ckptswap.scoring.gradients import Differentiable, differentiable
from ckptswap.scoring.guards import Uncapturable
from ckptswap.scoring.variant import Variant
from ckptswap.task.data import Batch
from ckptswap.task.metrics import Metric
from ckptswap.task.metrics.entropy import CrossEntropy
from ckptswap.task.metrics.overlap import Overlap
from ckptswap.task.metrics.ranked import Ranked
from ckptswap.task.metrics.rows import NO_LABEL, Labels, labels_of, rows
from ckptswap.task.metrics.unlabelled import Divergence, SameClass, reference
from ckptswap.task.tree import Tree, described, only_tensor

BATCHES = 4  # on which slopes are taken: the first of the walk, which are a random sample
DIRECTIONS = 4
"""In which the curvature is looked at, on each batch."""
SEED = 3411
LEAST = 1e-3
"""Below this a probability's curvature is cut off: its reciprocal has no bound."""
_OF_CLASSES = (Overlap, Ranked, CrossEntropy, Divergence, SameClass)


def screen(by: str, scorer: FullScorer, variants: Sequence[Variant]) -> dict[str, float]:
    """A number for each variant by `gradient` or `curvature`, the larger the worse; missing where none can be had.

    Raises `UsageError` where the model's gradients cannot be had.
    """
    changes = Changes(scorer, [variant for variant in variants if not variant.recalibrated])
    try:
        values = _first_order(scorer, changes) if by == "gradient" else _second_order(scorer, changes)
    except Uncapturable as error:
        remedy = "use --screen sample:4, which needs no gradients, or rmse"
        raise UsageError(f"--screen {by} finds no gradients of this model ({error})", remedy=remedy) from None
    return {variant: value for variant, value in values.items() if math.isfinite(value)}


def passes(by: str, sizes: Sequence[int]) -> int:
    """How many forward passes of one sample a guess takes, a backward pass counting for two; `sizes` are those of
    the walk's batches.

    >>> passes("rmse", [8] * 9), passes("gradient", [8] * 9)
    (0, 96)
    """
    backward = {"gradient": 1, "curvature": DIRECTIONS}.get(by, 0)
    return (1 + 2 * backward) * sum(sizes[:BATCHES]) if backward else 0


class Changes:
    """What variants take instead of the recipient's values; each tensor of each donor once."""

    def __init__(self, scorer: FullScorer, variants: Sequence[Variant]) -> None:
        self._own = scorer.swaps.state
        self._given: dict[tuple[str, int], Tensor] = {}
        self._parts: dict[str, tuple[float, list[tuple[str, int]]]] = {}
        for variant in variants:
            taken = scorer.written(variant._replace(alpha=1.0))
            given = {(name, variant.donor): value for name, value in taken.items() if value is not self._own[name]}
            self._given |= given
            self._parts[variant.id] = variant.alpha, list(given)

    def along(self, slopes: Mapping[str, Tensor]) -> dict[str, float]:
        """By variant Σ slope × change, in double precision; none of a variant that has no slope."""
        sums = {
            (name, donor): (slopes[name].double() * (value.double() - self._own[name].double())).sum().item()
            for (name, donor), value in self._given.items()
            if name in slopes
        }
        known = {
            variant: (alpha, [sums[part] for part in parts if part in sums])
            for variant, (alpha, parts) in self._parts.items()
        }
        return {variant: alpha * sum(own) for variant, (alpha, own) in known.items() if own}


def _first_order(scorer: FullScorer, changes: Changes) -> dict[str, float]:
    total: dict[str, Tensor] = {}
    for batch, model in _differentiated(scorer):
        own = model.output.detach().requires_grad_()
        (weights,) = torch.autograd.grad(_loss(own, batch, scorer.task.spec.ignore), own)
        for name, slope in model.slopes(weights).items():
            total[name] = total[name] + slope if name in total else slope
    return {variant: abs(value) for variant, value in changes.along(total).items()}


def _second_order(scorer: FullScorer, changes: Changes) -> dict[str, float]:
    """The mean over samples of each one's ½ Σ (J × change)², weighed, over its positions."""
    total: dict[str, float] = {}
    draw, samples = torch.Generator().manual_seed(SEED), 0
    for batch, model in _differentiated(scorer):
        samples += len(batch)
        for _ in range(DIRECTIONS):
            weights = direction(model.output, batch, scorer.task.metrics[0], draw)
            for variant, value in changes.along(model.slopes(weights)).items():
                total[variant] = total.get(variant, 0.0) + value**2
    return {variant: value / (2 * DIRECTIONS * samples) for variant, value in total.items()}


def _differentiated(scorer: FullScorer) -> Iterator[tuple[Batch, Differentiable]]:
    task = scorer.task
    with task.pinned(), closing(task.data.numbered(range(BATCHES))) as batches:
        for _, batch in batches:
            yield batch, differentiable(scorer, batch.inputs)


def direction(output: Tensor, batch: Batch, metric: Metric, draw: torch.Generator) -> Tensor:
    """Random signs times a root of the outputs' own Hessian: weights of the output's shape, whose outer product is
    that Hessian in expectation. Each sample counts by the mean over its positions, padding left out."""
    own = output.detach().requires_grad_()
    told = reference(batch.inputs, own)
    scores = rows(own, are_tokens=told.are_tokens)
    signs = torch.randint(0, 2, scores.shape, generator=draw).to(scores) * 2 - 1
    if _is_of_classes(metric, batch.targets):
        signs = rooted(scores.detach(), signs, probability=getattr(metric, "probability", False))
    kept = torch.ones_like(scores[..., 0]) if told.kept is None else told.kept.to(scores)
    weights = signs * (kept / kept.sum(1, keepdim=True).clamp_min(1).sqrt())[..., None]
    return torch.autograd.grad(scores, own, weights)[0]


def _is_of_classes(metric: Metric, targets: Tree) -> bool:
    """Whether outputs are judged as classes, else as values; a loss of values is the squared error."""
    are_values = isinstance(metric, CrossEntropy) and isinstance(targets, Tensor) and targets.is_floating_point()
    return isinstance(metric, _OF_CLASSES) and not are_values


def rooted(scores: Tensor, signs: Tensor, *, probability: bool = False) -> Tensor:
    """A root of the Hessian of the cross-entropy between an output (…, C) and itself, times `signs` (…, C).

    One channel is of two classes. Of logits with probabilities p it is diag(p) − ppᵀ, of probabilities diag(1/p).

    >>> rooted(torch.zeros(1), torch.ones(1)), rooted(torch.zeros(2), torch.tensor([1.0, -1.0]))
    (tensor([0.5000]), tensor([ 0.7071, -0.7071]))
    """
    if scores.shape[-1] == 1:
        share = scores if probability else scores.sigmoid()
        spread = share * (1 - share)
        return signs * (spread.clamp_min(LEAST).rsqrt() if probability else spread.sqrt())
    if probability:
        return signs * scores.clamp_min(LEAST).rsqrt()
    root = scores.softmax(-1).sqrt()
    return root * (signs - root * (root * signs).sum(-1, keepdim=True))


def _loss(output: Tensor, batch: Batch, ignore: int | None) -> Tensor:
    targets = batch.targets
    try:
        labels = labels_of(batch.inputs, only_tensor(targets, "the loss"), "the loss")
        if isinstance(labels, Labels) and labels.are_tokens:  # whose classes lie along the last dimension
            return loss(output.movedim(-1, 1), labels.ids, ignore)
        return loss(output, only_tensor(targets, "the loss"), ignore)
    except (RuntimeError, IndexError, ValueError, MetricError) as error:
        shape = tuple(targets.shape) if isinstance(targets, Tensor) else described(targets)
        raise UsageError(
            f"--screen gradient has no loss for outputs {tuple(output.shape)} and targets {shape} "
            f"({str(error).splitlines()[0]})",
            remedy="use --screen curvature, which needs no targets, or sample:4",
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
        ids = targets.long() if ignore is None else targets.long().masked_fill(targets == ignore, NO_LABEL)
        return torch.nn.functional.cross_entropy(output, ids, ignore_index=NO_LABEL)
    targets = targets.reshape(output.shape)
    counts = torch.ones_like(targets, dtype=torch.bool) if ignore is None else targets != ignore
    wanted = targets[counts].clamp(0, 1).to(output.dtype)
    return torch.nn.functional.binary_cross_entropy_with_logits(output[counts], wanted)
