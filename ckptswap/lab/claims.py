"""The claims judged over seeds, per network and initialisation, and over networks. Pure functions of pairs.

Rules: `docs/method.md`, 'The experiment over seeds and networks'. A seed is an observation; intervals are
Student's t over seeds. Sources of the claims: arXiv:2008.03414 (1–5), arXiv:2008.03411 (6). Thresholds are ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ckptswap.lab.judging import Number, Part, State, beyond, judged
from ckptswap.lab.pairs import ALL, STATISTICS, Pair
from ckptswap.lab.predictors import kind_correlation, threshold_gains
from ckptswap.statistics.intervals import LEVEL, UNBOUNDED, Bounds
from ckptswap.statistics.ranks import spearman
from ckptswap.statistics.seeds import CORRELATION, seeds_interval
from ckptswap.sweep.analysis import DEFAULT_TOLERANCE
from ckptswap.sweep.result import Finding

TOLERANCE = DEFAULT_TOLERANCE
"""A share is a drop over what the default tolerance is a hundredth of."""
VERY = 10 * TOLERANCE
LEAST = 5
"""Seeds that a claim takes; networks too, where these are the observations."""
STAYS = 0.1
AFFINE = ("bn.weight", "bn.bias")
VARIANTS = ("unet-sgd", "unet-frozen-bias")
"""Other ways of training a network that is there already: no networks of their own."""

Values = Sequence[float | None]


@dataclass(frozen=True)
class Judged:
    """A claim, and what it is judged for; None where it is judged over all networks or initialisations."""

    arm: str | None
    init: str | None
    finding: Finding


def claims(pairs: Sequence[Pair]) -> list[Judged]:
    """Every claim for every network × initialisation, then those about networks, then those over networks.

    >>> claims([])
    []
    """
    found: list[Judged] = []
    for arm, init in dict.fromkeys((pair.arm, pair.init) for pair in pairs):
        group = [pair for pair in pairs if (pair.arm, pair.init) == (arm, init)]
        found += [Judged(arm, init, finding) for judge in CLAIMS for finding in judge(group)]
    for arm in dict.fromkeys(pair.arm for pair in pairs):
        found.append(Judged(arm, None, _needs_shared_start([pair for pair in pairs if pair.arm == arm])))
    for init in dict.fromkeys(pair.init for pair in pairs):
        group = [pair for pair in pairs if pair.init == init and pair.arm not in VARIANTS]
        found += [Judged(None, init, finding) for finding in _over_networks(group)]
    return found


# Parts -----------------------------------------------------------------------------------------------------------


def above(name: str, values: Values, bound: float, level: float = LEVEL, bounds: Bounds = UNBOUNDED) -> Part:
    """Whether the values' mean lies above a bound: wholly above upholds, wholly at or below refutes.

    >>> above("gap", [0.2, 0.3, 0.2, 0.3, 0.2], 0.0).state, above("gap", [0.2, 0.3], 0.0).state
    ('upheld', 'open')
    """
    return _placed(name, values, level, bounds, lambda low, high: beyond(low, high, bound))


def below(name: str, values: Values, bound: float, level: float = LEVEL, bounds: Bounds = UNBOUNDED) -> Part:
    """Whether the values' mean lies below a bound: wholly below upholds, wholly at or above refutes."""
    return _placed(name, values, level, bounds, lambda low, high: beyond(-high, -low, -bound))


def _placed(
    name: str, values: Values, level: float, bounds: Bounds, judge: Callable[[float, float], tuple[State, str]]
) -> Part:
    known = [value for value in values if value is not None]
    mean = seeds_interval(known, level, bounds) if known else None
    numbers: dict[str, Number] = {
        name: mean.estimate if mean else None,
        f"{name}.low": mean.low if mean else None,
        f"{name}.high": mean.high if mean else None,
        f"{name}.n": len(known),
    }
    if mean is None or mean.low is None or mean.high is None or len(known) < LEAST:
        return Part("open", numbers, f"{name} has {len(known)} values, and a claim takes {LEAST}")
    return Part(judge(mean.low, mean.high)[0], numbers)


def _cells(pairs: Sequence[Pair], kinds: Sequence[str]) -> dict[tuple[str, str], list[float]]:
    """Layer and kind → its share in every seed that has one."""
    found: dict[tuple[str, str], list[float]] = {}
    for pair in pairs:
        for cell in pair.cells:
            if cell.kind in kinds:
                found.setdefault((cell.layer, cell.kind), []).append(cell.share)
    return found


def _verdicts(name: str, pairs: Sequence[Pair], kinds: Sequence[str]) -> tuple[dict[str, Number], str]:
    """How many cells lie below the tolerance, and above it, by intervals that hold all at once (Bonferroni)."""
    cells = _cells(pairs, kinds)
    level = 1 - (1 - LEVEL) / max(len(cells), 1)
    states = [below(name, values, TOLERANCE, level).state for values in cells.values()]
    numbers: dict[str, Number] = {
        f"{name}.cells": len(cells),
        f"{name}.reusable": states.count("upheld"),
        f"{name}.sensitive": states.count("refuted"),
    }
    few = not cells or min(map(len, cells.values())) < LEAST
    return numbers, f"{name}: not every cell has {LEAST} seeds" if few else ""


def _all_reusable(pairs: Sequence[Pair], *kinds: str) -> Part:
    name = f"cells of {' and '.join(kinds)}"
    numbers, why = _verdicts(name, pairs, kinds)
    if numbers[f"{name}.sensitive"]:
        return Part("refuted", numbers)
    upheld = not why and numbers[f"{name}.reusable"] == numbers[f"{name}.cells"]
    return Part("upheld" if upheld else "open", numbers, why)


def _half_sensitive(pairs: Sequence[Pair], kind: str) -> Part:
    name = f"cells of {kind}"
    numbers, why = _verdicts(name, pairs, [kind])
    sensitive, reusable, cells = (numbers[f"{name}.{each}"] or 0 for each in ("sensitive", "reusable", "cells"))
    if why:
        return Part("open", numbers, why)
    return Part("upheld" if 2 * sensitive >= cells else "refuted" if 2 * reusable > cells else "open", numbers)


def _mean(values: Iterable[float | None]) -> float | None:
    known = list(values)
    if not known or any(value is None for value in known):
        return None
    return math.fsum(value for value in known if value is not None) / len(known)


def _minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


# 1: batch norm's statistics --------------------------------------------------------------------------------------


def _statistics_matter_more(pairs: Sequence[Pair]) -> list[Finding]:
    def affine(pair: Pair) -> float | None:
        return _mean(pair.kinds.get(kind) for kind in AFFINE)

    def gap(*kinds: str) -> list[float | None]:
        return [_minus(_mean(pair.kinds.get(kind) for kind in kinds), affine(pair)) for pair in pairs]

    def of_cells(pair: Pair, kinds: Sequence[str]) -> float | None:
        return _mean(cell.share for cell in pair.cells if cell.kind in kinds)

    cells = [_minus(of_cells(pair, STATISTICS), of_cells(pair, AFFINE)) for pair in pairs]
    again = [_minus(0.0, _mean(pair.recalibrated.get(kind) for kind in AFFINE)) for pair in pairs]
    rule = "share of {} minus mean share of bn.weight and bn.bias, over whole kinds{}: above 0"
    both = "In batch norm, running mean and variance matter more than weight and bias."
    return [
        judged(
            "bn-statistics-matter-more",
            both,
            rule.format("running mean and variance (their mean)", ", and over cells"),
            [above("whole kinds", gap(*STATISTICS), 0.0), above("cells", cells, 0.0)],
        ),
        judged(
            "bn-running-mean-matters-more",
            "The running mean alone matters more than weight and bias.",
            rule.format("bn.running_mean", ""),
            [above("mean minus affine", gap(STATISTICS[0]), 0.0)],
        ),
        judged(
            "bn-running-var-matters-more",
            "The running variance alone matters more than weight and bias.",
            rule.format("bn.running_var", ""),
            [above("variance minus affine", gap(STATISTICS[1]), 0.0)],
        ),
        judged(
            "bn-statistics-matter-more-recalibrated",
            "Once the statistics are estimated anew, the swapped ones still matter more than weight and bias.",
            "0 (new statistics write over the swapped ones) minus mean share of bn.weight and bn.bias with new "
            "statistics: above 0",
            [above("0 minus affine", again, 0.0)],
        ),
    ]


# 2: weight and bias of batch norm --------------------------------------------------------------------------------


def _affine_reusable(pairs: Sequence[Pair]) -> list[Finding]:
    wholes = [below(kind, [pair.kinds.get(kind) for pair in pairs], TOLERANCE) for kind in AFFINE]
    together = below("both together", [pair.groups.get("affine") for pair in pairs], TOLERANCE)
    return [
        judged(
            "bn-affine-reusable",
            "The weight and bias of batch norm can be reused.",
            f"bn.weight, bn.bias, and both together: below {TOLERANCE}; all of their cells: below {TOLERANCE} "
            "(Bonferroni), not supported when one is above",
            [*wholes, together, _all_reusable(pairs, *AFFINE)],
        )
    ]


# 3: convolution weights ------------------------------------------------------------------------------------------


def _conv_weight(pairs: Sequence[Pair], kind: str = "conv.weight") -> list[Finding]:
    def by_depth(pair: Pair) -> float | None:
        cells = [cell for cell in pair.cells if cell.kind == kind]
        return spearman([cell.place for cell in cells], [cell.share for cell in cells])

    def ahead(pair: Pair) -> float | None:
        others = [value for name, value in pair.noise.items() if name != kind]
        known = [value for value in others if value is not None]  # one that failed may be the largest
        return _minus(pair.noise.get(kind), max(known)) if known and len(known) == len(others) else None

    return [
        judged(
            "conv-weight-very-sensitive",
            "The network is very sensitive to convolution weights.",
            f"{kind}: above {VERY:g}; at least half of its cells above {TOLERANCE}, not supported when more than "
            "half are below (Bonferroni)",
            [above(kind, [pair.kinds.get(kind) for pair in pairs], VERY), _half_sensitive(pairs, kind)],
        ),
        judged(
            "conv-weight-early-layers-matter-more",
            "Convolution weights matter more the earlier they run.",
            f"rank correlation of place in execution order and share, over the cells of {kind}: below 0",
            [below("rank correlation", [by_depth(pair) for pair in pairs], 0.0, bounds=CORRELATION)],
        ),
        judged(
            "conv-weight-sensitive-at-equal-distance",
            "Moved equally far, convolution weights matter more than any other kind.",
            f"every tensor moved by 30 % of its norm: share of {kind} minus the largest of the others: above 0",
            [above("conv.weight minus others", [ahead(pair) for pair in pairs], 0.0)],
        ),
    ]


# 4: convolution biases -------------------------------------------------------------------------------------------


def _conv_bias(pairs: Sequence[Pair], kind: str = "conv.bias") -> list[Finding]:
    before = [pair.groups.get("bias-before-norm") for pair in pairs]
    rest = [pair.groups.get("bias-without-norm") for pair in pairs]
    again = [pair.regrouped.get("bias-before-norm") for pair in pairs]
    alone = [
        # Where the biases are equal in both networks, nothing was swapped beside the means.
        None if bias is None else _minus(pair.kinds.get("bn.running_mean"), pair.groups.get("bias-and-mean"))
        for pair, bias in zip(pairs, before, strict=True)
    ]
    found = [
        judged(
            "conv-bias-reusable",
            "Convolution biases are not sensitive and can be reused directly.",
            f"{kind}: below {TOLERANCE}; all of its cells: below {TOLERANCE} (Bonferroni), not supported when one "
            "is above",
            [below(kind, [pair.kinds.get(kind) for pair in pairs], TOLERANCE), _all_reusable(pairs, kind)],
        )
    ]
    if not any("bias-before-norm" in pair.groups for pair in pairs):
        return found
    return [
        *found,
        judged(
            "conv-bias-harm-lies-before-norm",
            "What harm biases do is done by those before batch norm.",
            "share of all biases before batch norm minus that of all others: above 0",
            [above("before minus others", [_minus(a, b) for a, b in zip(before, rest, strict=True)], 0.0)],
        ),
        judged(
            "running-mean-absorbs-bias",
            "A bias before batch norm is absorbed by the running mean.",
            f"biases before batch norm with new statistics: below {TOLERANCE}; share of bn.running_mean alone "
            "minus share of both together: above 0",
            [below("with new statistics", again, TOLERANCE), above("mean alone minus together", alone, 0.0)],
        ),
        judged(
            "conv-bias-stays-near-its-start",
            "A bias before batch norm, which has no gradient, stays near its initial value.",
            f"distance from the initial values relative to these: below {STAYS}",
            [below("relative distance", [pair.moved for pair in pairs], STAYS)],
        ),
    ]


def _needs_shared_start(pairs: Sequence[Pair], kind: str = "conv.bias") -> Finding:
    shares = {(pair.init, pair.seed): pair.kinds.get(kind) for pair in pairs}
    seeds = sorted({pair.seed for pair in pairs})
    apart = [_minus(shares.get(("independent", seed)), shares.get(("shared", seed))) for seed in seeds]
    return judged(
        "conv-bias-needs-shared-start",
        "Convolution biases can be reused only where both networks began alike.",
        f"{kind}, independent minus shared initialisation of the same seed: above {TOLERANCE}",
        [above("independent minus shared", apart, TOLERANCE)],
    )


# 5: the paper's reasons ------------------------------------------------------------------------------------------


def _reasons(pairs: Sequence[Pair]) -> list[Finding]:
    half = [pair.prefix[(len(pair.prefix) + 1) // 2 - 1] if pair.prefix else None for pair in pairs]

    def ratio(pair: Pair, to: str) -> float | None:
        apart = pair.apart.get(ALL)
        other = getattr(apart, to) if apart else None
        return math.log(apart.pair / other) if apart and apart.pair and other else None

    return [
        judged(
            "features-are-general",
            "The first half of the layers can be taken from a network of another task.",
            f"the first half of the layers in execution order, all their tensors: below {TOLERANCE}",
            [below("first half", half, TOLERANCE)],
        ),
        judged(
            "parameters-differ-little",
            "The parameters of networks for the two tasks differ little.",
            "over all weights and biases, log of the pair's RMSE over that from the recipient's own start: below "
            "0; over that between recipients of two seeds: below 0",
            [
                below("log ratio to start", [ratio(pair, "start") for pair in pairs], 0.0),
                below("log ratio to seeds", [ratio(pair, "seeds") for pair in pairs], 0.0),
            ],
        ),
    ]


# 6: RMSE as a predictor ------------------------------------------------------------------------------------------

_PREDICTS = "The RMSE between donor and recipient predicts the drop."


def _rmse_predicts(pairs: Sequence[Pair]) -> list[Finding]:
    return [
        judged(
            "rmse-predicts-drop",
            _PREDICTS,
            "rank correlation of RMSE and share over the cells of a kind, mean over kinds with 5 cells: above 0",
            [
                above(
                    "rank correlation", [kind_correlation(pair, "rmse") for pair in pairs], 0.0, bounds=CORRELATION
                )
            ],
        )
    ]


def _over_networks(pairs: Sequence[Pair]) -> list[Finding]:
    arms = list(dict.fromkeys(pair.arm for pair in pairs))

    def of(arm: str) -> float | None:
        known = [kind_correlation(pair, "rmse") for pair in pairs if pair.arm == arm]
        return _mean(value for value in known if value is not None)

    gains = threshold_gains(pairs, "rmse")
    return [
        judged(
            "rmse-predicts-drop",
            _PREDICTS,
            "as for one network, with the mean over seeds of each of the networks as an observation: above 0",
            [above("rank correlation", [of(arm) for arm in arms], 0.0, bounds=CORRELATION)],
        ),
        judged(
            "rmse-threshold-carries-over",
            "A threshold on RMSE tells reusable cells from others in a network that it was not fitted on.",
            "balanced accuracy on the network left out, mean over kinds, minus 0.5: above 0",
            [above("balanced accuracy minus 0.5", [gains.get(arm) for arm in arms], 0.0, bounds=(-0.5, 0.5))],
        ),
    ]


CLAIMS = (_statistics_matter_more, _affine_reusable, _conv_weight, _conv_bias, _reasons, _rmse_predicts)
