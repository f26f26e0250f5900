"""The four claims of arXiv:2008.03414, judged from a sweep's rows by the rules of `docs/method.md`. No torch.
Every threshold is ours: the paper's abstract sets none."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ckptswap.errors import listing
from ckptswap.lab.judging import Condition, Number, State, all_reusable, beyond, half, judged
from ckptswap.sweep.analysis import Analysis
from ckptswap.sweep.result import Finding, Row, SweepResult, Verdict

VERY = 10  # times the tolerance, for 'very sensitive'
STATISTICS, AFFINE = ("bn.running_mean", "bn.running_var"), ("bn.weight", "bn.bias")
_REUSABLE = (
    "{}, as whole kinds and in every cell: supported when all are reusable at the tolerance, not supported when "
    "any is sensitive (simultaneous intervals)"
)
_NOT_SWAPPED = ("identical", "no-effect")


def judge(analysis: Analysis) -> SweepResult:
    """Lay the claims onto an analysis's result; nothing is said of several donors, or of parts that were not taken
    one at a time."""
    result = analysis.result
    if result.mode != "only" or len(result.donors) > 1:
        return result
    return replace(result, findings=findings(analysis))


def findings(analysis: Analysis) -> tuple[Finding, ...]:
    """Judge the four claims: each with rule, numbers and verdict, in the paper's order.

    `analysis.result.rows` should hold whole kinds (layer None) and layer × kind cells; what is missing leaves a
    claim undecided.

    >>> from types import SimpleNamespace
    >>> nothing = SweepResult("dice", "max", 0.01, 0.9, None, 0, rows=())
    >>> {finding.verdict for finding in findings(SimpleNamespace(result=nothing, contrast=None))}
    {'undecided'}
    """
    result = analysis.result
    return (
        judged(
            "bn-statistics-matter-more",
            "In batch norm, running mean and variance matter more than weight and bias.",
            "mean drop of bn.running_mean and bn.running_var minus mean drop of bn.weight and bn.bias, over whole "
            "kinds and over cells: supported when both 95 % intervals lie above 0, not supported when either lies "
            "at or below 0",
            [_contrast(analysis, "whole_kinds", whole=True), _contrast(analysis, "cells", whole=False)],
        ),
        judged(
            "bn-affine-reusable",
            "The weight and bias of batch norm can be reused.",
            _REUSABLE.format(" and ".join(AFFINE)),
            [part for kind in AFFINE for part in _reusable(result, kind)],
        ),
        judged(
            "conv-weight-very-sensitive",
            "The network is very sensitive to convolution weights.",
            f"the simultaneous interval of the whole kind conv.weight lies above {VERY} × tolerance, and at least "
            f"half of its cells are sensitive: supported; that interval at or below {VERY} × tolerance, or more "
            "than half of the cells reusable: not supported (10 and half are ours)",
            _very_sensitive(result, "conv.weight"),
        ),
        judged(
            "conv-bias-reusable",
            "Convolution biases are not sensitive and can be reused directly.",
            _REUSABLE.format("conv.bias"),
            _reusable(result, "conv.bias"),
        ),
    )


def _contrast(analysis: Analysis, name: str, *, whole: bool) -> Condition:
    """Mean drop of the statistics minus mean drop of the affine parameters, against 0."""
    rows = {kind: _rows(analysis.result, kind, whole=whole) for kind in STATISTICS + AFFINE}
    drops = {f"{name}.{kind}": _mean([row.drop for row in of_kind.values()]) for kind, of_kind in rows.items()}
    why = _untested(rows, whole=whole)
    why = why or _without_drop([row for of_kind in rows.values() for row in of_kind.values()])
    if why:
        return Condition("open", drops, why)
    interval = analysis.contrast(_weights(rows))
    bounds = {f"{name}.contrast": interval.estimate, f"{name}.low": interval.low, f"{name}.high": interval.high}
    state, why = beyond(interval.low, interval.high, 0.0)
    return Condition(state, {**drops, **bounds}, why)


def _weights(rows: Mapping[str, Mapping[int, Row]]) -> dict[int, float]:
    """Row index → weight: the mean over the statistics' rows minus that over the affine ones. Identical and
    no-effect rows count in the means; their drop is 0, so that they need no weight."""
    weights = {}
    for kinds, sign in ((STATISTICS, 1.0), (AFFINE, -1.0)):
        side = {at: row for kind in kinds for at, row in rows[kind].items()}
        weights.update({at: sign / len(side) for at, row in side.items() if row.status == "measured"})
    return weights


def _reusable(result: SweepResult, kind: str) -> list[Condition]:
    """Two parts: the whole kind, and its cells."""
    row, numbers, why = _whole(result, kind)
    states: Mapping[Verdict | None, State] = {"reusable": "upheld", "sensitive": "refuted"}
    state: State = "open"
    if row is not None and not why:
        state, why = states.get(row.verdict, "open"), beyond(row.sim_low, row.sim_high, 0.0)[1]
    return [Condition(state, numbers, why), all_reusable(kind, *_counts(result, kind))]


def _very_sensitive(result: SweepResult, kind: str) -> list[Condition]:
    """Two parts: the whole kind, and half of its cells."""
    bound = VERY * result.tolerance
    row, numbers, why = _whole(result, kind)
    state: State = "open"
    if row is not None and not why:
        state, why = beyond(row.sim_low, row.sim_high, bound)
    return [Condition(state, {**numbers, "bound": bound}, why), half(kind, *_counts(result, kind))]


def _rows(result: SweepResult, kind: str, *, whole: bool) -> dict[int, Row]:
    """Index → row, of the whole kind or of its cells. What two ways of splitting share counts once; parts by a
    depth or an expression are neither."""
    rows = {
        at: row
        for at, row in enumerate(result.rows)
        if row.kind == kind and (row.layer is None) == whole and row.layer == row.place and not row.is_of_parts
    }
    first = {(row.layer, row.tensors): at for at, row in reversed(rows.items())}
    return {at: rows[at] for at in sorted(first.values())}


def _whole(result: SweepResult, kind: str) -> tuple[Row | None, dict[str, Number], str]:
    """The whole kind's row, its numbers, and why it cannot speak ('' when it can)."""
    rows = _rows(result, kind, whole=True)
    row = next(iter(rows.values()), None)
    numbers = {f"{kind}.{name}": getattr(row, name, None) for name in ("drop", "sim_low", "sim_high")}
    return row, numbers, _untested({kind: rows}, whole=True) or _without_drop([row] if row else [])


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
    idle = [kind for kind, own in rows.items() if all(row.status in _NOT_SWAPPED for row in own.values())]
    return f"{', '.join(idle)} would change nothing: equal in both, or never read" if idle else ""


def _without_drop(rows: Sequence[Row]) -> str:
    lost = [row for row in rows if row.drop is None]
    return listing(
        [f"{row.kind if row.layer is None else f'{row.layer} {row.kind}'} is {row.status}" for row in lost]
    )


def _mean(drops: Sequence[float | None]) -> float | None:
    known = [drop for drop in drops if drop is not None]
    return sum(known) / len(known) if known and len(known) == len(drops) else None
