"""What a sweep says, in two sentences."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from ckptswap.report.sweep import cell_name
from ckptswap.report.text import number, plural

if TYPE_CHECKING:
    from ckptswap.sweep.result import Row, SweepResult


def answer(result: SweepResult) -> tuple[str, ...]:
    """What the sweep says, in at most two sentences.

    >>> from ckptswap.sweep.result import Row, SweepResult
    >>> row = Row("c", "conv.bias", ("c.bias",), 4, "measured", score=0.4, drop=0.5, verdict="sensitive")
    >>> for sentence in answer(SweepResult("dice", "max", 0.01, 0.9, None, 72, rows=(row,))):
    ...     print(sentence)
    Taking c conv.bias from the donor costs most: dice goes from 0.9 to 0.4, a drop of +0.5.
    Of 1 measured row, 0 are reusable within 0.01, 1 is sensitive and 0 are undecided.
    """
    measured = [row for row in result.rows if row.status == "measured" and row.drop is not None]
    if not measured:
        return ("So far nothing is measured yet.",) if not result.rows else (f"{_free(result)}.".capitalize(),)
    worst = max(measured, key=lambda row: row.drop or 0.0)
    verdicts = Counter(row.verdict for row in measured)
    first = (
        f"{_deed(result, worst)} costs most: {result.metric} goes from {number(result.baseline)} to "
        f"{number(worst.score)}, a drop of {number(worst.drop, signed=True)}."
    )
    second = (
        f"Of {plural(len(measured), 'measured row')}, {_are(verdicts['reusable'])} reusable within "
        f"{number(result.tolerance)}, {_are(verdicts['sensitive'])} sensitive and "
        f"{_are(verdicts['undecided'])} undecided"
    )
    free = _free(result)
    return first, f"{second}; {free}." if free else f"{second}."


def _are(amount: int) -> str:
    return f"{amount:,} {'is' if amount == 1 else 'are'}"


def _free(result: SweepResult) -> str:
    found: Counter[str] = Counter(row.status for row in result.rows)
    said = {
        "identical": "equal in both",
        "no-effect": "never read",
        "mismatch": "not fitting",
        "failed": "failed",
    }
    return ", ".join(f"{_are(found[status])} {words}" for status, words in said.items() if found[status])


def _deed(result: SweepResult, row: Row) -> str:
    donor = result.donors[row.donor].path if len(result.donors) > 1 else "the donor"
    name = f"all of {cell_name(row)}" if row.layer is None or row.kind is None else cell_name(row)
    where = {
        "only": f"Taking {name}",
        "all-but": f"Taking all but {name}",
        "prefix": f"Taking all layers up to {name}",
        "suffix": f"Taking all layers from {name} on",
    }[result.mode]
    return f"{where} from {donor}"
