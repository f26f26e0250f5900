"""A sweep whose scores come from a scorer that runs no model of ours: names are then the recipient's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import UsageError
from ckptswap.renaming import aligned_with
from ckptswap.scoring.scorer import Scorer
from ckptswap.sweep.conditions import conditions
from ckptswap.sweep.donors import open_donor
from ckptswap.sweep.opening import Sides
from ckptswap.sweep.plan import make_plan
from ckptswap.sweep.run_folder.folder import RunFolder
from ckptswap.sweep.run_folder.journal import key_of
from ckptswap.sweep.runner import Sweep
from ckptswap.sweep.spec import SweepSpec

MakeScorer = Callable[[Sequence[Checkpoint], Checkpoint], Scorer]
"""From donors and recipient, under common names, to what scores variants of the recipient."""


def prepare_external(
    make_scorer: MakeScorer, spec: SweepSpec, sides: Sides, run: str | Path | None = None
) -> Sweep:
    """Plan a sweep by a scorer of the caller's own; `Sweep.run` does it, in this process. Nothing is written.

    Of the spec's task nothing is used. Raises `SelectionError` when nothing is selected, and `UsageError` for what
    only a model can tell: the order in which layers run, and batch norm's statistics on other data.
    """
    if spec.mode in ("prefix", "suffix") or spec.calibration:
        raise UsageError(
            "a scorer without a model knows no order of layers, and estimates no statistics",
            remedy="leave --mode prefix or suffix and --recalibrate-bn out",
        )
    recipient = sides.recipient
    given = [
        open_donor(donor, recipient, spec.task) if isinstance(donor, str) else donor for donor in sides.donors
    ]
    aligned = [aligned_with(donor, recipient, "the recipient") for donor in given]
    donors = tuple(donor for donor, _ in aligned)
    scorer = make_scorer(donors, recipient)
    plan = make_plan(donors, recipient, spec.selection, spec.by, mode=spec.mode, alphas=spec.alphas)
    plan = plan.without_effect(scorer.unread())
    now = conditions(scorer, donors, recipient)
    folder = RunFolder(run if run is not None else Path("runs") / key_of(now)[:12])
    notes = (*sides.notes, *(renamed for _, renamed in aligned if renamed), *sides.hints)
    return Sweep(spec, scorer, recipient, donors, plan, now, folder, (None,) * len(donors), notes=notes)
