"""How long a sweep takes, and cheaper ones that answer the same question, where that is long."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ckptswap.cores import usable_cores
from ckptswap.scoring.scorer import Cost
from ckptswap.sweep.decide import outlook
from ckptswap.sweep.runner import Sweep
from ckptswap.sweep.spec import RunOptions, samples_of

LONG = 600.0  # seconds, from which on they are told
FEWEST = 8  # groups that verdicts take
SCREENED = 4  # samples that a screen takes
ELSEWHERE = ("slurm", "ray")  # executors whose workers have cores of their own


@dataclass(frozen=True)
class Effort:
    """What a sweep takes, in seconds: to prepare, to score all, and for a full pass over its `samples` (None: it
    has no model); `kinds` are those of its measured cells, `probable` the share that deciding on the way leaves
    (None: it cannot); `can_screen`: a screen and a budget can be told."""

    preparation: float
    scoring: float
    whole_pass: float | None
    samples: int
    kinds: int
    probable: float | None
    can_screen: bool = True

    @property
    def whole(self) -> float:
        """All of it."""
        return self.preparation + self.scoring


@dataclass(frozen=True)
class Alternative:
    """Flags that make a sweep cheaper, and about how many seconds it then takes."""

    flags: str
    seconds: float


def alternatives(effort: Effort, most: int = 2) -> list[Alternative]:
    """The cheapest ways to the same answer, cheapest first; none for a sweep that is no longer than ten minutes.

    >>> for way in alternatives(Effort(5.0, 3600.0, 30.0, samples=400, kinds=9, probable=0.2)):
    ...     print(way)
    Alternative(flags='--screen sample:4 --budget 2m', seconds=120.0)
    Alternative(flags='--by kind', seconds=305.0)
    """
    if effort.whole <= LONG:
        return []
    cheaper = [way for way in _ways(effort) if way.seconds < effort.whole]
    return sorted(cheaper, key=lambda way: way.seconds)[:most]


def _ways(effort: Effort) -> Iterator[Alternative]:
    first = effort.preparation
    if effort.whole_pass is not None and effort.kinds:
        scoring = effort.whole_pass * (1 + effort.kinds)
        samples = _samples_in(LONG - first, scoring, effort.samples)
        limit = f" --limit {samples}" if samples < effort.samples else ""
        yield Alternative(f"--by kind{limit}", first + scoring * samples / effort.samples)
    if effort.probable is not None:
        yield Alternative("--decide", first + effort.scoring * effort.probable)
    if effort.can_screen and effort.samples > SCREENED:  # as much again for the worst, to the last sample
        minutes = math.ceil((first + 2 * effort.scoring * SCREENED / effort.samples) / 60)
        yield Alternative(f"--screen sample:{SCREENED} --budget {minutes}m", 60.0 * minutes)


def _samples_in(seconds: float, scoring: float, samples: int) -> int:
    """How many samples can be scored in so long, in whole tens where there are so many."""
    some = int(samples * min(max(seconds, 0.0) / scoring, 1.0)) if scoring else samples
    return min(samples, max(some if some < 20 or some == samples else some // 10 * 10, FEWEST))


def effort_of(sweep: Sweep, cost: Cost, preparation: float, options: RunOptions) -> Effort:
    """What a sweep takes, among its workers, each of whom prepares as this process did."""
    spec, layout, cells = sweep.spec, sweep.scorer.layout, sweep.plan.cells
    workers = options.jobs or 1
    at_once = min(workers, max(usable_cores() // (spec.task.threads or 1), 1))
    if options.executor in ELSEWHERE:
        at_once = workers
    is_plain = spec.mode == "only" and not (spec.alphas or spec.calibration or spec.decide or options.top)
    kinds = {(cell.kind, cell.donor) for cell in cells if cell.status == "measured"}
    groups = len(np.unique(layout.groups))
    probable = None
    if is_plain and not samples_of(spec.screen) and groups >= FEWEST and not sweep.scorer.metrics[0].is_of_set:
        probable = outlook(layout.groups, len(sweep.plan.variants()), bets=False).probable_share
    return Effort(
        preparation * (1 if workers == 1 else 2),
        cost.seconds / at_once,
        None if cost.whole_pass is None else cost.whole_pass / at_once,
        layout.samples,
        kinds=len(kinds) if is_plain and ("kind",) not in spec.by else 0,
        probable=probable,
        can_screen=is_plain and spec.screen is None and options.budget is None,
    )
