"""The four claims of arXiv:2008.03414, judged from a sweep's rows by the rules of `docs/method.md`. No torch.
Every threshold is ours: the paper's abstract sets none."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from ckptswap.errors import UsageError, listing
from ckptswap.lab.judging import ClaimPart, Number, all_below, half_above, judged
from ckptswap.statistics import Tails
from ckptswap.sweep.analysis import Analysis
from ckptswap.sweep.result import Finding, Row, SweepResult

VERY = 10  # times the tolerance, for 'very sensitive'
STATISTICS, AFFINE = ("bn.running_mean", "bn.running_var"), ("bn.weight", "bn.bias")
_REUSABLE = (
    "{} reusable as whole kinds and in every cell, each at its own 5 %: supported; any of them sensitive, at 5 % "
    "for all together (Holm): not supported"
)
NO_P_VALUE = "there is no p-value (it takes at least 8 groups, and bounds where next to nothing moves)"
_NOT_SWAPPED = ("identical", "no-effect")


def judge(analysis: Analysis) -> SweepResult:
    """Lay the claims onto an analysis's result; nothing is said of several donors, or of parts that were not taken
    one at a time. Raises as `refuse_looks`."""
    refuse_looks(is_decided=analysis.is_decided)
    result = analysis.result
    if result.mode != "only" or len(result.donors) > 1:
        return result
    return replace(result, findings=findings(analysis))


def refuse_looks(*, is_decided: bool) -> None:
    """Raises `UsageError` for rows that were looked at until something was known: 5 % a row is for one look."""
    if is_decided:
        what = "claims want each row judged once, on all samples, and --decide looks until it knows"
        raise UsageError(what, remedy="leave --claims out, or sweep without --decide into another --run folder")


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
            "kinds and over cells: both above 0, each at its own 5 %: supported; either at or below 0, at 5 % for "
            "both together (Holm): not supported",
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
            f"the whole kind conv.weight drops by more than {VERY} × tolerance, and at least half of its "
            "cells are sensitive (partial conjunction), each at its own 5 %: supported; by no more than that, or "
            "more than half of the cells reusable, at 5 % for both (Holm): not supported (10 and half are ours)",
            _very_sensitive(analysis, "conv.weight"),
        ),
        judged(
            "conv-bias-reusable",
            "Convolution biases are not sensitive and can be reused directly.",
            _REUSABLE.format("conv.bias"),
            _reusable(result, "conv.bias"),
        ),
    )


def _contrast(analysis: Analysis, name: str, *, whole: bool) -> ClaimPart:
    """Mean drop of the statistics minus mean drop of the affine parameters, against 0."""
    rows = {kind: _rows(analysis.result, kind, whole=whole) for kind in STATISTICS + AFFINE}
    drops = {f"{name}.{kind}": _mean([row.drop for row in of_kind.values()]) for kind, of_kind in rows.items()}
    why = _untested(rows, whole=whole)
    why = why or _without_drop([row for of_kind in rows.values() for row in of_kind.values()])
    if why:
        return ClaimPart(name, drops, why=why)
    weights = _weights(rows)
    interval = analysis.contrast(weights)
    bounds = {f"{name}.contrast": interval.estimate, f"{name}.low": interval.low, f"{name}.high": interval.high}
    below, above = analysis.tails(weights)
    return _part(name, {**drops, **bounds}, above, below)


def _part(name: str, numbers: Mapping[str, Number], p_for: float | None, p_against: float | None) -> ClaimPart:
    """A part about one number."""
    if p_for is None or p_against is None:
        return ClaimPart(name, numbers, why=NO_P_VALUE)
    return ClaimPart(name, numbers, p_for, (p_against,))


def _weights(rows: Mapping[str, Mapping[int, Row]]) -> dict[int, float]:
    """Row index → weight: the mean over the statistics' rows minus that over the affine ones. Identical and
    no-effect rows count in the means; their drop is 0, so that they need no weight."""
    weights = {}
    for kinds, sign in ((STATISTICS, 1.0), (AFFINE, -1.0)):
        side = {at: row for kind in kinds for at, row in rows[kind].items()}
        weights.update({at: sign / len(side) for at, row in side.items() if row.status == "measured"})
    return weights


def _reusable(result: SweepResult, kind: str) -> list[ClaimPart]:
    """The whole kind, and every cell of it."""
    row, numbers, why = _whole(result, kind)
    whole = ClaimPart(kind, numbers, why=why)
    if row is not None and not why:
        whole = _part(kind, numbers, row.p_reusable, row.p_sensitive)
    return [whole, _cells(all_below, result, kind)]


def _very_sensitive(analysis: Analysis, kind: str) -> list[ClaimPart]:
    """The whole kind, and half of its cells."""
    bound = VERY * analysis.result.tolerance
    row, numbers, why = _whole(analysis.result, kind)
    numbers = {**numbers, "bound": bound}
    whole = ClaimPart(kind, numbers, why=why)
    if row is not None and not why:
        below, above = analysis.tails({analysis.result.rows.index(row): 1.0}, bound)
        whole = _part(kind, numbers, above, below)
    return [whole, _cells(half_above, analysis.result, kind)]


def _cells(judge: Callable[[str, Sequence[Tails], str], ClaimPart], result: SweepResult, kind: str) -> ClaimPart:
    rows = _rows(result, kind, whole=False)
    part = judge(kind, [_tails(row) for row in rows.values()], _untested({kind: rows}, whole=False))
    not_run = sum(row.status != "measured" for row in rows.values())
    return replace(part, numbers={**part.numbers, f"{kind}.not_run": not_run})


def _tails(row: Row) -> Tails:
    """A row's p-values against the tolerance; what would change nothing is known to be reusable, untested."""
    return Tails(0.0) if row.status in _NOT_SWAPPED else Tails(row.p_reusable, row.p_sensitive)


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
