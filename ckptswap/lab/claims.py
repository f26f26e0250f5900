"""The claims judged over seeds, per network and initialisation, and over networks. Pure functions of pairs.

Rules: `docs/method.md`, 'The experiment over seeds and networks'. A seed is an observation; p-values and intervals
are Student's t over seeds. Sources: arXiv:2008.03414 (claims 1–5), arXiv:2008.03411 (6). Thresholds are ours.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from ckptswap.lab.findings import AFFINE, STATISTICS
from ckptswap.lab.judging import (
    ClaimPart,
    Number,
    all_below,
    half_above,
    judged,
    mean,
    mean_of_known,
    minus,
)
from ckptswap.lab.pairs import ALL, Pair, by_network
from ckptswap.lab.predictors import kind_correlation, threshold_gains
from ckptswap.statistics import Tails
from ckptswap.statistics.ranks import spearman
from ckptswap.statistics.seeds import CORRELATION, seeds_above, seeds_interval
from ckptswap.statistics.totals import UNBOUNDED, Bounds
from ckptswap.sweep.result import Finding
from ckptswap.sweep.scored_run import DEFAULT_TOLERANCE

TOLERANCE = DEFAULT_TOLERANCE  # a share is a drop over what the default tolerance is a hundredth of
VERY = 10 * TOLERANCE
LEAST = 5  # seeds that a claim takes; networks too, where these are the observations
STAYS = 0.1
BIASES = ("bias-before-norm", "bias-without-norm")
VARIANTS = ("unet-sgd", "unet-frozen-bias")
"""Other ways of training a network that is there already: no networks of their own."""

Values = Sequence[float | None]
MakePart = Callable[[Sequence[Pair]], ClaimPart]


class Claim:
    """What is claimed, the rule by which it is judged, and its parts; `speaks_of` tells of which pairs."""

    def __init__(
        self,
        name: str,
        text: str,
        rule: str,
        *parts: MakePart,
        speaks_of: Callable[[Sequence[Pair]], bool] = lambda pairs: True,
    ) -> None:
        self.judge = lambda pairs: judged(name, text, rule, [part(pairs) for part in parts])
        self.speaks_of = speaks_of


@dataclass(frozen=True)
class Judged:
    """A claim, and what it is judged for; None where it is judged over all networks or initialisations."""

    arm: str | None
    init: str | None
    finding: Finding


def claims(pairs: Sequence[Pair]) -> list[Judged]:
    """Judge every claim for every network × initialisation, then those about networks, then those over networks.

    >>> claims([])
    []
    """
    groups: list[tuple[str | None, str | None, list[Pair], Sequence[Claim]]] = [
        (*network, CLAIMS) for network in by_network(pairs)
    ]
    for arm in dict.fromkeys(pair.arm for pair in pairs):
        groups.append((arm, None, [pair for pair in pairs if pair.arm == arm], OF_NETWORKS))
    for init in dict.fromkeys(pair.init for pair in pairs):
        alike = [pair for pair in pairs if pair.init == init and pair.arm not in VARIANTS]
        groups.append((None, init, alike, OVER_NETWORKS))
    return [
        Judged(arm, init, claim.judge(group))
        for arm, init, group, known in groups
        for claim in known
        if claim.speaks_of(group)
    ]


def above(name: str, values: Values, bound: float, bounds: Bounds = UNBOUNDED) -> ClaimPart:
    """A part about the values' mean: it lies above a bound.

    >>> above("gap", [0.2, 0.3, 0.2, 0.3, 0.2], 0.0).p_for, above("gap", [0.2, 0.3], 0.0).p_for
    (0.0003..., None)
    """
    return _placed(name, values, bound, bounds)


def below(name: str, values: Values, bound: float, bounds: Bounds = UNBOUNDED) -> ClaimPart:
    """A part about the values' mean: it lies below a bound."""
    return _placed(name, values, bound, bounds, sign=-1.0)


def _placed(name: str, values: Values, bound: float, bounds: Bounds, sign: float = 1.0) -> ClaimPart:
    known = [value for value in values if value is not None]
    interval = seeds_interval(known, bounds=bounds) if known else None
    ends = (interval.estimate, interval.low, interval.high) if interval else (None, None, None)
    numbers: dict[str, Number] = dict(zip((name, f"{name}.low", f"{name}.high"), ends, strict=True))
    numbers[f"{name}.n"] = len(known)
    if len(known) < LEAST:
        return ClaimPart(name, numbers, why=f"{name} has {len(known)} values, and a claim takes {LEAST}")
    p_for = seeds_above([sign * value for value in known], sign * bound)
    return ClaimPart(name, numbers, p_for, (1 - p_for,))


def _per_pair(
    judge: Callable[..., ClaimPart],
    name: str,
    value: Callable[[Pair], float | None],
    bound: float = 0.0,
    bounds: Bounds = UNBOUNDED,
) -> MakePart:
    """A part about a number that each pair has."""
    return lambda pairs: judge(name, [value(pair) for pair in pairs], bound, bounds=bounds)


def _whole(kind: str) -> MakePart:
    return _per_pair(below, kind, _share(kind), TOLERANCE)


def _cells(judge: Callable[[str, Sequence[Tails], str], ClaimPart], *kinds: str) -> MakePart:
    """A part about how the cells of some kinds lie to the tolerance, each by itself."""

    def part(pairs: Sequence[Pair]) -> ClaimPart:
        cells: dict[tuple[str, str], list[float]] = {}
        for cell in (cell for pair in pairs for cell in pair.cells if cell.kind in kinds):
            cells.setdefault((cell.layer, cell.kind), []).append(cell.share)
        name, are_few = f"cells of {' and '.join(kinds)}", min(map(len, cells.values()), default=0) < LEAST
        tails = [_tails(shares) for shares in cells.values()]
        return judge(name, tails, f"{name}: not every cell has {LEAST} seeds" if are_few else "")

    return part


def _tails(shares: Sequence[float]) -> Tails:
    if len(shares) < LEAST:
        return Tails()
    p_below = seeds_above([-share for share in shares], -TOLERANCE)
    return Tails(p_below, 1 - p_below)


def _share(kind: str) -> Callable[[Pair], float | None]:
    return lambda pair: pair.kinds.get(kind)


def _gap(pair: Pair, *kinds: str) -> float | None:
    """The mean share of whole kinds minus that of batch norm's weight and bias."""
    return minus(mean(map(pair.kinds.get, kinds)), mean(map(pair.kinds.get, AFFINE)))


def _gap_of_cells(pair: Pair) -> float | None:
    return minus(
        *(mean(cell.share for cell in pair.cells if cell.kind in kinds) for kinds in (STATISTICS, AFFINE))
    )


def _by_depth(pair: Pair, kind: str = "conv.weight") -> float | None:
    cells = [cell for cell in pair.cells if cell.kind == kind]
    return spearman([cell.place for cell in cells], [cell.share for cell in cells])


def _ahead(pair: Pair, kind: str = "conv.weight") -> float | None:
    others = [share for name, share in pair.noise.items() if name != kind]
    known = [share for share in others if share is not None]  # one that failed may be the largest
    return minus(pair.noise.get(kind), max(known)) if known and len(known) == len(others) else None


def _alone_minus_together(pair: Pair) -> float | None:
    if pair.groups.get("bias-before-norm") is None:
        return None  # the biases are equal in both networks: nothing was swapped beside the means
    return minus(pair.kinds.get("bn.running_mean"), pair.groups.get("bias-and-mean"))


def _first_half(pair: Pair) -> float | None:
    return pair.prefix[(len(pair.prefix) + 1) // 2 - 1] if pair.prefix else None


def _log_ratio(to: str, pair: Pair) -> float | None:
    apart = pair.apart.get(ALL)
    other = getattr(apart, to) if apart else None
    return math.log(apart.pair / other) if apart and apart.pair and other else None


def _apart_by_start(pairs: Sequence[Pair], kind: str = "conv.bias") -> Values:
    """Of every seed, the share from an independent start minus that from a shared one."""
    shares = {(pair.init, pair.seed): pair.kinds.get(kind) for pair in pairs}
    seeds = sorted({pair.seed for pair in pairs})
    return [minus(shares.get(("independent", seed)), shares.get(("shared", seed))) for seed in seeds]


def _correlations(pairs: Sequence[Pair]) -> Values:
    groups = [group for _, _, group in by_network(pairs)]
    return [mean_of_known(kind_correlation(pair, "rmse") for pair in group) for group in groups]


def _has_bias_before_norm(pairs: Sequence[Pair]) -> bool:
    return any("bias-before-norm" in pair.groups for pair in pairs)


# The claims ------------------------------------------------------------------------------------------------------

_GAP = "share of {} minus mean share of bn.weight and bn.bias, over whole kinds{}: above 0"
_PREDICTS = ("rmse-predicts-drop", "The RMSE between donor and recipient predicts the drop.")

CLAIMS = (
    Claim(
        "bn-statistics-matter-more",
        "In batch norm, running mean and variance matter more than weight and bias.",
        _GAP.format("running mean and variance (their mean)", ", and over cells"),
        _per_pair(above, "whole kinds", lambda pair: _gap(pair, *STATISTICS)),
        _per_pair(above, "cells", _gap_of_cells),
    ),
    Claim(
        "bn-running-mean-matters-more",
        "The running mean alone matters more than weight and bias.",
        _GAP.format("bn.running_mean", ""),
        _per_pair(above, "mean minus affine", lambda pair: _gap(pair, "bn.running_mean")),
    ),
    Claim(
        "bn-running-var-matters-more",
        "The running variance alone matters more than weight and bias.",
        _GAP.format("bn.running_var", ""),
        _per_pair(above, "variance minus affine", lambda pair: _gap(pair, "bn.running_var")),
    ),
    Claim(
        "bn-statistics-matter-more-recalibrated",
        "Once the statistics are estimated anew, the swapped ones still matter more than weight and bias.",
        "0 (new statistics write over the swapped ones) minus mean share of bn.weight and bn.bias with new "
        "statistics: above 0",
        _per_pair(above, "0 minus affine", lambda pair: minus(0.0, mean(map(pair.recalibrated.get, AFFINE)))),
    ),
    Claim(
        "bn-affine-reusable",
        "The weight and bias of batch norm can be reused.",
        f"bn.weight, bn.bias, both together, and every one of their cells: below {TOLERANCE}",
        *map(_whole, AFFINE),
        _per_pair(below, "both together", lambda pair: pair.groups.get("affine"), TOLERANCE),
        _cells(all_below, *AFFINE),
    ),
    Claim(
        "conv-weight-very-sensitive",
        "The network is very sensitive to convolution weights.",
        f"conv.weight: above {VERY:g}; at least half of its cells: above {TOLERANCE}, not supported when more "
        "than half are below",
        _per_pair(above, "conv.weight", _share("conv.weight"), VERY),
        _cells(half_above, "conv.weight"),
    ),
    Claim(
        "conv-weight-early-layers-matter-more",
        "Convolution weights matter more the earlier they run.",
        "rank correlation of place in execution order and share, over the cells of conv.weight: below 0",
        _per_pair(below, "rank correlation", _by_depth, bounds=CORRELATION),
    ),
    Claim(
        "conv-weight-sensitive-at-equal-distance",
        "Moved equally far, convolution weights matter more than any other kind.",
        "every tensor moved by 30 % of its norm: share of conv.weight minus the largest of the others: above 0",
        _per_pair(above, "conv.weight minus others", _ahead),
    ),
    Claim(
        "conv-bias-reusable",
        "Convolution biases are not sensitive and can be reused directly.",
        f"conv.bias, and every one of its cells: below {TOLERANCE}",
        _whole("conv.bias"),
        _cells(all_below, "conv.bias"),
    ),
    Claim(
        "conv-bias-harm-lies-before-norm",
        "What harm biases do is done by those before batch norm.",
        "share of all biases before batch norm minus that of all others: above 0",
        _per_pair(above, "before minus others", lambda pair: minus(*map(pair.groups.get, BIASES))),
        speaks_of=_has_bias_before_norm,
    ),
    Claim(
        "running-mean-absorbs-bias",
        "A bias before batch norm is absorbed by the running mean.",
        f"biases before batch norm with new statistics: below {TOLERANCE}; share of bn.running_mean alone "
        "minus share of both together: above 0",
        _per_pair(below, "with new statistics", lambda pair: pair.regrouped.get("bias-before-norm"), TOLERANCE),
        _per_pair(above, "mean alone minus together", _alone_minus_together),
        speaks_of=_has_bias_before_norm,
    ),
    Claim(
        "conv-bias-stays-near-its-start",
        "A bias before batch norm, which has no gradient, stays near its initial value.",
        f"distance from the initial values relative to these: below {STAYS}",
        _per_pair(below, "relative distance", lambda pair: pair.moved, STAYS),
        speaks_of=_has_bias_before_norm,
    ),
    Claim(
        "features-are-general",
        "The first half of the layers can be taken from a network of another task.",
        f"the first half of the layers in execution order, all their tensors: below {TOLERANCE}",
        _per_pair(below, "first half", _first_half, TOLERANCE),
    ),
    Claim(
        "parameters-differ-little",
        "The parameters of networks for the two tasks differ little.",
        "over all weights and biases, log of the pair's RMSE over that from the recipient's own start: below "
        "0; over that between recipients of two seeds: below 0",
        _per_pair(below, "log ratio to start", partial(_log_ratio, "start")),
        _per_pair(below, "log ratio to seeds", partial(_log_ratio, "seeds")),
    ),
    Claim(
        *_PREDICTS,
        "rank correlation of RMSE and share over the cells of a kind, mean over kinds with 5 cells: above 0",
        _per_pair(above, "rank correlation", lambda pair: kind_correlation(pair, "rmse"), bounds=CORRELATION),
    ),
)
"""For every network × initialisation."""
OF_NETWORKS = (
    Claim(
        "conv-bias-needs-shared-start",
        "Convolution biases can be reused only where both networks began alike.",
        f"conv.bias, independent minus shared initialisation of the same seed: above {TOLERANCE}",
        lambda pairs: above("independent minus shared", _apart_by_start(pairs), TOLERANCE),
    ),
)
"""For every network, over both initialisations."""
OVER_NETWORKS = (
    Claim(
        *_PREDICTS,
        "as for one network, with the mean over seeds of each of the networks as an observation: above 0",
        lambda pairs: above("rank correlation", _correlations(pairs), 0.0, bounds=CORRELATION),
    ),
    Claim(
        "rmse-threshold-carries-over",
        "A threshold on RMSE tells reusable cells from others in a network that it was not fitted on.",
        "balanced accuracy on the network left out, mean over kinds, minus 0.5: above 0",
        lambda pairs: above(
            "balanced accuracy minus 0.5", [*threshold_gains(pairs, "rmse").values()], 0.0, bounds=(-0.5, 0.5)
        ),
    ),
)
"""For every initialisation; a network is the observation."""
