"""Zero controls: what came out reusable is scored once more without any values (`ckptswap.neutral`).

Where that costs nothing either, the network does not need those tensors: they are `unused`, and that the donor's
serve says nothing of the donor. Which cells are reusable is known at the end, so that their controls come last.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from ckptswap.scoring.variant import Variant
from ckptswap.statistics import REUSABLE, Verdict
from ckptswap.sweep.plan import Cell, Plan
from ckptswap.sweep.result import Row
from ckptswap.sweep.scored_run import ScoredRun

SHARE = 0.1
"""Of a sweep's variants; where nobody asked for controls, there are fewer. They are counted, not weighed: by any
engine a run comes to the same table."""
Judge = Callable[[Sequence[str]], Mapping[str, tuple[float, Verdict]]]
"""From variants to their drops and verdicts, as one table."""


def controls(plan: Plan, rows: Iterable[Row]) -> list[Variant]:
    """The zero controls of the rows that came out reusable, each once."""
    reusable = {(row.tensors, row.donor) for row in rows if _is_due(row)}
    every = (plan.control(cell) for cell in plan.cells if (cell.names, cell.donor) in reusable)
    return list(dict.fromkeys(control for control in every if control))


def are_few(controls: Sequence[Variant], variants: Sequence[Variant]) -> bool:
    """Whether controls take little beside a sweep's variants.

    >>> one = Variant("v", ("c.bias",))
    >>> are_few([one], [one] * 11), are_few([one], [one] * 10)
    (True, False)
    """
    return len(controls) < SHARE * len(variants)


def controlled(run: ScoredRun, cells: Sequence[Cell], rows: Sequence[Row], judge: Judge) -> list[Row]:
    """The rows of these cells with their controls' drops; `unused` where a control, too, is judged reusable."""
    known = [run.plan.control(cell) if _is_due(row) else None for cell, row in zip(cells, rows, strict=True)]
    whole = dict.fromkeys(control.id for control in known if control and run.is_whole(control.id))
    judged = judge(list(whole)) if whole else {}

    def told(cell: Cell, row: Row, control: Variant | None) -> Row:
        if control and control.id in judged:
            drop, verdict = judged[control.id]
            return replace(row, zero_drop=drop, verdict="unused" if verdict == "reusable" else row.verdict)
        return replace(row, reason=_why_none(run, cell, control) or row.reason) if _is_due(row) else row

    return list(map(told, cells, rows, known))


def _is_due(row: Row) -> bool:
    return row.status == "measured" and row.verdict in REUSABLE


def _why_none(run: ScoredRun, cell: Cell, control: Variant | None) -> str | None:
    """Why there is no control; None where it was not asked for, or waits."""
    if cell.is_neutral:
        return "holds nothing but zeros, or a norm's identity, as it is: no zero control"
    fault = control and run.failed(control.id)
    return f"its zero control has no score: {fault}" if fault else None
