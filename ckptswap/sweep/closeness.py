"""Scores that are only close: which are not enough: too far off, or a verdict hangs on them."""

import math
from collections.abc import Iterator

from ckptswap.scoring.scorer import CLOSE
from ckptswap.sweep.analysis import analysed
from ckptswap.sweep.run_folder.blocks import Blocks
from ckptswap.sweep.run_folder.plan_file import RunPlan
from ckptswap.sweep.scored_run import ScoredRun
from ckptswap.sweep.spec import Judging

SHARE = 0.1
"""Of the tolerance: how far off a drop may be, unless told otherwise."""


def too_close_to_call(run: RunPlan, blocks: Blocks) -> set[str]:
    """The variants whose close scores are not enough: their drops are further off than the run bears, nobody knows
    how far, or a verdict would be another if all drops were off by so much.

    A verdict depends on how a drop lies to the tolerance, and for each side is monotone in all drops: so tables by
    a tolerance that is that much smaller and larger bound what can be.
    """
    close = {block.variant for block in blocks.values() if block.engine == CLOSE}
    if not close:
        return set()
    scored = ScoredRun.of(run, blocks)
    tolerance = scored.tolerance()[0]
    bound = SHARE * tolerance if run.close_within is None else run.close_within
    off = scored.scores.closeness
    beyond = {variant for variant in close if not off.get(variant, math.inf) <= bound}
    return beyond | (close & set(_undecided(run, blocks, tolerance, bound)))


def _undecided(run: RunPlan, blocks: Blocks, tolerance: float, bound: float) -> Iterator[str]:
    """The variants of rows whose verdict is not the same by both tolerances, and their zero controls."""
    limits = (max(tolerance - bound, 0.0), tolerance + bound)
    tables = [analysed(ScoredRun.of(run, blocks, judging=Judging(limit))).result.rows for limit in limits]
    verdicts = [{(row.by, row.donor, row.tensors): row.verdict for row in rows} for rows in tables]
    for cell in run.plan.cells:
        place = cell.by, cell.donor, cell.names
        if len({table.get(place) for table in verdicts}) > 1:
            control = run.plan.control(cell)
            yield from (cell.variant, *([control.id] if control else []))
