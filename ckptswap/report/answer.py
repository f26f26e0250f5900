"""What a sweep says, in two sentences."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from ckptswap.report.rows import is_partial, row_names
from ckptswap.report.text import number, plural
from ckptswap.statistics import REUSABLE
from ckptswap.sweep.result import Mode, Row, Status, SweepResult

_FREE: dict[Status, str] = {
    "identical": "equal in both",
    "no-effect": "never read",
    "mismatch": "not fitting",
    "failed": "failed",
}


def answer(result: SweepResult, waiting: int = 0) -> tuple[str, ...]:
    """What the sweep says, in at most two sentences; `waiting` rows are not scored yet. Before them one that the
    baseline is worse than a prediction that looks at nothing, where it is.

    >>> row = Row("c", "conv.bias", ("c.bias",), 4, "measured", score=0.4, drop=0.5, verdict="sensitive")
    >>> for sentence in answer(SweepResult("dice", "max", 0.01, 0.9, None, 72, rows=(row,))):
    ...     print(sentence)
    Taking c conv.bias from the donor costs most: dice goes from 0.9 to 0.4, a drop of +0.5.
    Of 1 measured row, 0 are reusable within 0.01, 1 is sensitive and 0 are undecided.
    """
    measured = [row for row in result.rows if row.status == "measured" and row.drop is not None]
    statuses = Counter(row.status for row in result.rows)
    rest = unscored(statuses, waiting)
    odd = _worse_than_nothing(result)
    if not measured:
        return (*odd, "Nothing is scored yet." if not result.rows else f"{rest}.")
    some = _on_fewer(result, measured)
    second = f"Of {plural(len(measured), 'measured row')}{some}, {_counted(measured, result.tolerance)}"
    worst = max(measured, key=lambda row: row.drop or 0.0)
    return *odd, _first(result, worst), f"{second}; {rest}." if rest else f"{second}."


def _on_fewer(result: SweepResult, rows: Sequence[Row]) -> str:
    """On how many samples these rows' verdicts rest, where that is not all."""
    known = [row.samples for row in rows if row.samples is not None]
    least, most = min(known, default=result.samples), max(known, default=result.samples)
    if least == result.samples:
        return ""
    return f", on {least} {f'to {most} ' if most > least else ''}of {result.samples} samples"


def _counted(rows: Sequence[Row], tolerance: float) -> str:
    """How many rows have which verdict; of those that are reusable, how many have no zero control."""
    verdicts = Counter(row.verdict for row in rows)
    able = [row for row in rows if row.verdict in REUSABLE]
    left = sum(row.zero_drop is None for row in able)
    without = f"{'' if left == len(able) else f'{left} of them '}without a zero control" if left else ""
    remarks = ", ".join(filter(None, (without, _unseen(rows))))
    remarks = f" ({remarks})" if remarks else ""
    counts = [f"{_are(verdicts['reusable'])} reusable within {number(tolerance)}{remarks}"]
    if left < len(able):
        counts.append(f"{_are(verdicts['unused'])} unused")
    return (
        f"{', '.join(counts)}, {_are(verdicts['sensitive'])} sensitive and {_are(verdicts['undecided'])} undecided"
    )


def unscored(statuses: Mapping[Status, int], waiting: int = 0) -> str:
    """How many rows are not scored, by why; `waiting` are not scored yet.

    >>> unscored({"measured": 3, "mismatch": 16, "identical": 1})
    '1 is equal in both, 16 are not fitting'
    """
    amounts = [(statuses.get(status, 0), words) for status, words in _FREE.items()] + [(waiting, "not scored yet")]
    return ", ".join(f"{_are(amount)} {words}" for amount, words in amounts if amount)


def _unseen(rows: Sequence[Row]) -> str:
    """What a mean that is within the tolerance does not exclude."""
    share = max((row.unseen for row in rows if row.unseen is not None), default=None)
    return f"though up to {share:.1%} of all groups may break, unseen" if share is not None else ""


def worse_than_nothing(metric: str, score: float, trivial: float) -> str:
    """Say that a score is worse than that of a prediction that looks at nothing, and what to do.

    >>> worse_than_nothing("dice", 0.1, 0.3)[:67]
    'dice is 0.1, worse than the 0.3 of a prediction that looks at nothi'
    """
    return (
        f"{metric} is {number(score)}, worse than the {number(trivial)} of a prediction that looks at nothing: "
        "check normalization, labels and --output before you trust a table."
    )


def _worse_than_nothing(result: SweepResult) -> tuple[str, ...]:
    if result.trivial is None:
        return ()
    lost = result.trivial - result.baseline if result.direction == "max" else result.baseline - result.trivial
    return (worse_than_nothing(result.metric, result.baseline, result.trivial),) if lost > 0 else ()


def _first(result: SweepResult, worst: Row) -> str:
    """What costs most, on the samples that it was scored on; or that nothing costs."""
    drop = worst.drop or 0.0
    from_to = f"{result.metric} goes from {number(_baseline_of(result, worst))} to {number(worst.score)}"
    some = f", on {worst.samples} of {result.samples} samples" if is_partial(result, worst) else ""
    name = row_names(result.rows)[result.rows.index(worst)]
    if result.mode in ("only", "lattice") and (worst.place is None or worst.kind is None):
        name = f"all of {name}"
    donor = result.donors[worst.donor].path if len(result.donors) > 1 else "the donor"
    deed = f"taking {taken(result.mode, name)} from {donor}"
    if drop <= 0:
        return f"Nothing costs: the worst is {deed}, where {from_to}{some}."
    return f"T{deed[1:]} costs most: {from_to}, {change(result, drop)}{some}."


def _baseline_of(result: SweepResult, row: Row) -> float:
    """The baseline on the row's own samples, with which its drop is paired."""
    if row.score is None or row.drop is None:
        return result.baseline
    drop = row.drop if result.direction == "max" else -row.drop
    if math.isclose(row.score, -drop, rel_tol=1e-9):  # their sum would be what rounding leaves of 0
        return 0.0
    return row.score + drop if math.isfinite(row.score + drop) else result.baseline


def change(result: SweepResult, drop: float) -> str:
    """A drop in words, for a metric of which more is better, and for one of which less is.

    >>> change(SweepResult("mse", "min", 0.01, 0.9, None, 72, rows=()), 164.0)
    '+164 worse'
    """
    shown = number(drop, signed=True)
    return f"a drop of {shown}" if result.direction == "max" else f"{shown} worse"


def taken(mode: Mode, name: str) -> str:
    """What the variant of a cell takes from the donor.

    >>> taken("all-but", "conv1 conv.bias"), taken("prefix", "conv1")
    ('all but conv1 conv.bias', 'all layers up to conv1')
    """
    return {
        "only": name,
        "all-but": f"all but {name}",
        "prefix": f"all layers up to {name}",
        "suffix": f"all layers from {name} on",
    }.get(mode, name)


def _are(amount: int) -> str:
    return f"{amount:,} {'is' if amount == 1 else 'are'}"
