"""What a sweep found: pure data, the hinge between `sweep`, `lab.findings` and `report`.

A value that does not exist is None, never 0. Field names are those of the JSON contract.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from ckptswap.naming import natural_key
from ckptswap.statistics import Verdict

Status = Literal["measured", "identical", "no-effect", "mismatch", "failed"]
Mode = Literal["only", "all-but", "prefix", "suffix"]


@dataclass(frozen=True)
class Point:
    """One point of the path from recipient (alpha 0) to donor (1), with its plain interval."""

    alpha: float
    score: float
    drop: float
    ci_low: float | None
    ci_high: float | None


@dataclass(frozen=True)
class Barrier:
    """How far a path rises above the line between its ends, at most; the interval does not know of that choice."""

    alpha: float
    height: float
    ci_low: float | None
    ci_high: float | None


@dataclass(frozen=True)
class Recalibrated:
    """A row again, with batch norm's statistics estimated anew, its drop against the baseline with the same."""

    score: float | None = None
    drop: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    sim_low: float | None = None
    sim_high: float | None = None
    verdict: Verdict | None = None
    reason: str | None = None


@dataclass(frozen=True)
class DonorScore:
    """A donor's own score; None where it does not fit."""

    path: str
    score: float | None


@dataclass(frozen=True)
class Row:
    """One variant. `layer` is None for a whole kind, `kind` None for a whole layer.

    `drop`: how much worse than the baseline, positive is worse, whatever the metric's direction; `ci_*` its plain
    95 % interval, `sim_*` the simultaneous one. `rel_l2` is relative to the recipient; there is no distance where
    values are `non_finite`, which says how many. `is_unproven`: too few groups moved to tell that it is reusable.
    """

    layer: str | None
    kind: str | None
    tensors: tuple[str, ...]
    numel: int
    status: Status
    rank: int | None = None
    rmse: float | None = None
    rel_l2: float | None = None
    score: float | None = None
    drop: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    sim_low: float | None = None
    sim_high: float | None = None
    samples: int | None = None
    verdict: Verdict | None = None
    reason: str | None = None
    donor: int = 0
    path: tuple[Point, ...] = ()
    barrier: Barrier | None = None
    recalibrated: Recalibrated | None = None
    non_finite: str | None = None
    is_unproven: bool = False


def widest(rows: Iterable[Row]) -> list[Row]:
    """Without the tensors of a cell that is there itself (`--by tensor` beside `--by layer,kind`), and each once.

    >>> cell = Row("l", "rnn.weight", ("l.weight_l0", "l.weight_l1"), 8, "measured")
    >>> parts = [Row("l", "rnn.weight", (name,), 4, "measured") for name in cell.tensors]
    >>> widest([*parts, cell]) == [cell], widest([*parts, *parts]) == parts
    (True, True)
    """
    every = list(rows)
    most: dict[object, int] = {}
    for row in every:
        place = row.layer, row.kind, row.donor
        most[place] = max(most.get(place, 0), len(row.tensors))
    kept = [row for row in every if len(row.tensors) == most[row.layer, row.kind, row.donor]]
    return list({(row.layer, row.kind, row.donor, row.tensors): row for row in kept}.values())


@dataclass(frozen=True)
class Finding:
    """A claim, the rule by which it was judged, the numbers, and what came out."""

    claim: str
    text: str
    rule: str
    numbers: Mapping[str, float | int | None]
    verdict: Literal["supported", "not supported", "undecided"]


@dataclass(frozen=True)
class SweepResult:
    """The whole table, in the order in which it is shown (worst drop first within each way of splitting).

    `beside` counts the scores beside the rows, `failed` the rows and scores that could not be had. `layers` are in
    the order in which they run; empty where that is not known.
    """

    metric: str
    direction: Literal["max", "min"]
    tolerance: float
    baseline: float
    donor_score: float | None
    samples: int
    rows: tuple[Row, ...]
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = field(default=())
    mode: Mode = "only"
    donors: tuple[DonorScore, ...] = ()
    recalibrated_baseline: float | None = None
    beside: int = 0
    failed: int = 0
    layers: tuple[str, ...] = ()

    def in_order(self, layers: Iterable[str]) -> list[str]:
        """Each layer once, in the order in which they run; in natural order where that is not known.

        >>> result = SweepResult("dice", "max", 0.01, 0.9, None, 8, rows=(), layers=("b", "a"))
        >>> result.in_order(["a", "c10", "b", "c9"])
        ['b', 'a', 'c9', 'c10']
        """
        place = {layer: at for at, layer in enumerate(self.layers)}
        return sorted(set(layers), key=lambda layer: (place.get(layer, len(place)), natural_key(layer)))
