"""The four claims of arXiv:2008.03414, judged from a sweep's rows by the rules of `docs/method.md`. No torch.

A claim is made of parts, each upheld, refuted or open. It is supported when every part is upheld, not supported
when any is refuted, and undecided otherwise. Every threshold is ours: the paper's abstract sets none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ckptswap.errors import listing
from ckptswap.lab.judging import Number, Part, State, beyond, judged
from ckptswap.sweep.analysis import Analysis
from ckptswap.sweep.result import Finding, Row, SweepResult, Verdict

VERY = 10  # times the tolerance, for 'very sensitive'
STATS = ("bn.running_mean", "bn.running_var")
AFFINE = ("bn.weight", "bn.bias")
_NOT_SWAPPED = ("identical", "no-effect")


def judge(analysis: Analysis) -> SweepResult:
    """The analysis's result with the claims judged on it; unchanged where they cannot be.

    The claims are about parts of one donor, taken one at a time: nothing is said of other modes or several donors.
    """
    result = analysis.result
    if result.mode != "only" or len(result.donors) > 1:
        return result
    return replace(result, findings=findings(analysis))


def findings(analysis: Analysis) -> tuple[Finding, ...]:
    """The four claims with rule, numbers and verdict, in the paper's order.

    `analysis.result.rows` should hold whole kinds (layer None) and layer × kind cells; what is missing leaves a
    claim undecided. Source: arXiv:2008.03414 for the claims, docs/method.md for the rules.

    >>> from types import SimpleNamespace
    >>> nothing = SweepResult("dice", "max", 0.01, 0.9, None, 0, rows=())
    >>> {each.verdict for each in findings(SimpleNamespace(result=nothing, contrast=None))}
    {'undecided'}
    """
    return (_statistics_matter_more(analysis), _affine_reusable(analysis), *_convolutions(analysis))


def _statistics_matter_more(analysis: Analysis) -> Finding:
    parts = [_contrast_part(analysis, "whole_kinds", whole=True), _contrast_part(analysis, "cells", whole=False)]
    return judged(
        "bn-statistics-matter-more",
        "In batch norm, running mean and variance matter more than weight and bias.",
        "mean drop of bn.running_mean and bn.running_var minus mean drop of bn.weight and bn.bias, over whole "
        "kinds and over cells: supported when both 95 % intervals lie above 0, not supported when either lies "
        "at or below 0",
        parts,
    )


def _affine_reusable(analysis: Analysis) -> Finding:
    parts = [part for kind in AFFINE for part in _reusable_parts(analysis.result, kind)]
    return judged(
        "bn-affine-reusable", "The weight and bias of batch norm can be reused.", _reusable_rule(*AFFINE), parts
    )


def _convolutions(analysis: Analysis) -> tuple[Finding, Finding]:
    weight = judged(
        "conv-weight-very-sensitive",
        "The network is very sensitive to convolution weights.",
        f"the simultaneous interval of the whole kind conv.weight lies above {VERY} × tolerance, and at least "
        f"half of its cells are sensitive: supported; that interval at or below {VERY} × tolerance, or more "
        "than half of the cells reusable: not supported (10 and half are ours)",
        [_very_sensitive_part(analysis.result), _half_sensitive_part(analysis.result)],
    )
    bias = judged(
        "conv-bias-reusable",
        "Convolution biases are not sensitive and can be reused directly.",
        _reusable_rule("conv.bias"),
        _reusable_parts(analysis.result, "conv.bias"),
    )
    return weight, bias


def _reusable_rule(*kinds: str) -> str:
    return (
        f"{' and '.join(kinds)}, as whole kinds and in every cell: supported when all are reusable at the "
        "tolerance, not supported when any is sensitive (simultaneous intervals)"
    )


# Claim 1 -------------------------------------------------------------------------------------------


def _contrast_part(analysis: Analysis, name: str, *, whole: bool) -> Part:
    """Mean drop of the statistics minus mean drop of the affine parameters, against 0."""
    rows = {kind: _rows(analysis.result, kind, whole=whole) for kind in STATS + AFFINE}
    drops = {f"{name}.{kind}": _mean([row.drop for row in of_kind.values()]) for kind, of_kind in rows.items()}
    why = _untested(rows, whole=whole) or _without_drop([row for each in rows.values() for row in each.values()])
    if why:
        return Part("open", drops, why)
    found = analysis.contrast(_weights(rows))
    bounds = {f"{name}.contrast": found.estimate, f"{name}.low": found.low, f"{name}.high": found.high}
    state, why = beyond(found.low, found.high, 0.0)
    return Part(state, {**drops, **bounds}, why)


def _weights(rows: Mapping[str, Mapping[int, Row]]) -> dict[int, float]:
    """Row index → weight: the mean over the statistics' rows minus that over the affine ones.

    Identical and no-effect rows count in the means; their drop is 0, so that they need no weight.
    """
    weights = {}
    for kinds, sign in ((STATS, 1.0), (AFFINE, -1.0)):
        side = {at: row for kind in kinds for at, row in rows[kind].items()}
        weights.update({at: sign / len(side) for at, row in side.items() if row.status == "measured"})
    return weights


# Claims 2 and 4 ------------------------------------------------------------------------------------


def _reusable_parts(result: SweepResult, kind: str) -> list[Part]:
    return [_whole_reusable(result, kind), _cells_reusable(result, kind)]


def _whole_reusable(result: SweepResult, kind: str) -> Part:
    row, why = _whole(result, kind)
    states: Mapping[Verdict | None, State] = {"reusable": "upheld", "sensitive": "refuted"}
    if row is None or why:
        return Part("open", _row_numbers(kind, row), why)
    return Part(
        states.get(row.verdict, "open"), _row_numbers(kind, row), beyond(row.sim_low, row.sim_high, 0.0)[1]
    )


def _cells_reusable(result: SweepResult, kind: str) -> Part:
    counts, why = _counts(result, kind)
    if counts["sensitive"]:
        return Part("refuted", _labelled(kind, counts))
    upheld = counts["reusable"] == counts["cells"] and not why
    return Part("upheld" if upheld else "open", _labelled(kind, counts), why)


# Claim 3 -------------------------------------------------------------------------------------------


def _very_sensitive_part(result: SweepResult, kind: str = "conv.weight") -> Part:
    bound = VERY * result.tolerance
    row, why = _whole(result, kind)
    numbers = {**_row_numbers(kind, row), "bound": bound}
    if row is None or why:
        return Part("open", numbers, why)
    state, why = beyond(row.sim_low, row.sim_high, bound)
    return Part(state, numbers, why)


def _half_sensitive_part(result: SweepResult, kind: str = "conv.weight") -> Part:
    counts, why = _counts(result, kind)
    numbers = _labelled(kind, counts)
    if why:
        return Part("open", numbers, why)
    if 2 * counts["sensitive"] >= counts["cells"]:
        return Part("upheld", numbers)
    return Part("refuted" if 2 * counts["reusable"] > counts["cells"] else "open", numbers)


# Rows ----------------------------------------------------------------------------------------------


def _rows(result: SweepResult, kind: str, *, whole: bool) -> dict[int, Row]:
    """Index → row, of the whole kind or of its cells. What two ways of splitting share counts once."""
    rows = {at: row for at, row in enumerate(result.rows) if row.kind == kind and (row.layer is None) == whole}
    first = {(row.layer, row.tensors): at for at, row in reversed(rows.items())}
    return {at: rows[at] for at in sorted(first.values())}


def _whole(result: SweepResult, kind: str) -> tuple[Row | None, str]:
    """The whole kind's row, and why it cannot speak ('' when it can)."""
    rows = _rows(result, kind, whole=True)
    row = next(iter(rows.values()), None)
    return row, _untested({kind: rows}, whole=True) or _without_drop([row] if row else [])


def _counts(result: SweepResult, kind: str) -> tuple[dict[str, int], str]:
    """How many cells of the kind have which verdict, and why they cannot speak ('' when they can)."""
    rows = _rows(result, kind, whole=False)
    verdicts = [row.verdict for row in rows.values()]
    counts = {
        "cells": len(rows),
        "reusable": verdicts.count("reusable"),
        "sensitive": verdicts.count("sensitive"),
        "not_run": sum(row.status != "measured" for row in rows.values()),
    }
    return counts, _untested({kind: rows}, whole=False)


def _untested(rows: Mapping[str, Mapping[int, Row]], *, whole: bool) -> str:
    """Which kinds were not put to the test: without rows, or with none but identical and no-effect ones."""
    form = "no whole-kind row" if whole else "no cells"
    missing = [kind for kind, of_kind in rows.items() if not of_kind]
    if missing:
        return f"the table has {form} of {', '.join(missing)}"
    idle = [kind for kind, each in rows.items() if all(row.status in _NOT_SWAPPED for row in each.values())]
    return f"{', '.join(idle)} would change nothing: equal in both, or never read" if idle else ""


def _without_drop(rows: Sequence[Row]) -> str:
    lost = [row for row in rows if row.drop is None]
    return listing(
        [f"{row.kind if row.layer is None else f'{row.layer} {row.kind}'} is {row.status}" for row in lost]
    )


def _labelled(kind: str, counts: Mapping[str, int]) -> dict[str, Number]:
    return {f"{kind}.{name}": count for name, count in counts.items()}


def _row_numbers(kind: str, row: Row | None) -> dict[str, Number]:
    return {f"{kind}.{name}": getattr(row, name, None) for name in ("drop", "sim_low", "sim_high")}


def _mean(drops: Sequence[float | None]) -> float | None:
    """The mean, or None when there is nothing to average or a drop is missing."""
    known = [drop for drop in drops if drop is not None]
    return sum(known) / len(known) if known and len(known) == len(drops) else None
