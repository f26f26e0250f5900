"""What a sweep found: pure data, the hinge between `sweep`, `lab.findings` and `report`.

A value that does not exist is None, never 0. Field names are those of the JSON contract.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Status = Literal["measured", "identical", "no-effect", "mismatch", "failed"]
Verdict = Literal["reusable", "sensitive", "undecided"]


@dataclass(frozen=True)
class Row:
    """One variant. `layer` is None for a whole kind, `kind` None for a whole layer.

    `drop` is how much worse the variant scores than the baseline: positive is worse, whatever the metric's
    direction. `ci_*` is the plain 95 % interval of the drop, `sim_*` the simultaneous one.
    `rel_l2` is relative to the recipient.
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
    """The whole table, in the order in which it is shown (worst drop first within each way of splitting)."""

    metric: str
    direction: Literal["max", "min"]
    tolerance: float
    baseline: float
    donor_score: float | None
    samples: int
    rows: tuple[Row, ...]
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = field(default=())
