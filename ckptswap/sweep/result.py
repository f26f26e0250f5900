"""What a sweep found: pure data, the hinge between `sweep`, `lab.findings` and `report`.

A value that does not exist is None, never 0. Field names are those of the JSON contract.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from ckptswap.errors import UsageError
from ckptswap.naming import natural_key
from ckptswap.statistics import Drawn, ErrorRate, Interval, StandardError, Verdict

FailOn = Literal["sensitive", "undecided"]
"""Which rows a check does not let pass: sensitive ones, or all that are not known to be reusable."""
Status = Literal["measured", "identical", "no-effect", "mismatch", "failed"]
Mode = str
"""`only`, `all-but`, `prefix`, `suffix`, `lattice`, `window:W` or `window:V:W`; `mode_of` refuses any other."""
MODES = ("only", "all-but", "prefix", "suffix", "lattice")
_WINDOW = re.compile(r"window:(?:([0-9]{1,4}):)?([0-9]{1,4})")


def mode_of(text: str) -> Mode:
    """A mode as it is typed; raises `UsageError` for a word that is none.

    >>> mode_of("window:2:4")
    'window:2:4'
    """
    if text not in MODES and not window_sizes(text):
        remedy = f"use {' or '.join(MODES)}, or window:W for runs of W blocks"
        raise UsageError(f"--mode is {text!r:.40}", remedy=remedy)
    return text


def window_sizes(mode: Mode) -> range:
    """How many blocks the runs of `window:W` have, or those of `window:V:W`; empty for another mode.

    >>> window_sizes("window:3"), window_sizes("window:1:3"), len(window_sizes("only"))
    (range(3, 4), range(1, 4), 0)
    """
    match = _WINDOW.fullmatch(mode)
    if match is None:
        return range(0)
    most = int(match[2])
    least = int(match[1]) if match[1] else most
    return range(least, most + 1) if least else range(0)


def goes_by_order(mode: Mode) -> bool:
    """Whether it takes one after another, in the order in which a model runs them."""
    return mode in ("prefix", "suffix") or bool(window_sizes(mode))


def has_places(mode: Mode) -> bool:
    """Whether no tensor is in two cells of one split, so that each has a place of its own."""
    return mode != "lattice" and not goes_by_order(mode)


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
    p_reusable: float | None = None
    p_sensitive: float | None = None
    verdict: Verdict | None = None
    reason: str | None = None


@dataclass(frozen=True)
class OtherMetric:
    """A metric of the run that does not rank its rows, and by it the score of the recipient and of the first donor
    (None if it does not fit)."""

    name: str
    direction: Literal["max", "min"]
    baseline: float
    donor_score: float | None


@dataclass(frozen=True)
class MetricScore:
    """A row by another metric: its score, and its drop with the plain interval; None where the row has none."""

    score: float | None = None
    drop: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None


@dataclass(frozen=True)
class DonorScore:
    """A donor's own score; None where it does not fit."""

    path: str
    score: float | None


@dataclass(frozen=True)
class Row:
    """One variant. `layer` is None for a whole kind or block, `kind` None for a whole layer or block.

    `block` is the one that it is, or that its layer belongs to; with `last_block`, the first of a run of blocks.
    `by` is the split that it belongs to (not in JSON). `others` are its scores by `SweepResult.others`,
    `zero_drop` is that of its zero control, where it has one. `parts` are those of a set in a lattice,
    `interaction` is what its drop has beyond the sum of theirs.

    `drop`: how much worse than the baseline, positive is worse, whatever the metric's direction; `ci_*` its plain
    95 % interval, `sim_*` the simultaneous one, `p_*` the row's own p-values. `rel_l2` is relative to the
    recipient; there is no distance where values are `non_finite`, which says how many. `is_unproven`: too few
    groups moved to tell that it is reusable. `unseen`: of a reusable row, the share of all groups that may break
    nevertheless. `guess` is the screen's, where there was one.
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
    p_reusable: float | None = None
    p_sensitive: float | None = None
    samples: int | None = None
    verdict: Verdict | None = None
    reason: str | None = None
    donor: int = 0
    path: tuple[Point, ...] = ()
    barrier: Barrier | None = None
    recalibrated: Recalibrated | None = None
    non_finite: str | None = None
    is_unproven: bool = False
    block: str | None = None
    last_block: str | None = None
    by: tuple[str, ...] = ()
    guess: float | None = None
    zero_drop: float | None = None
    parts: tuple[str, ...] = ()
    interaction: Interval | None = None
    others: tuple[MetricScore, ...] = ()
    unseen: float | None = None

    @property
    def place(self) -> str | None:
        """The layer, the block or the run of blocks of which it takes a part; None where it goes by none."""
        return place_of(self.layer, self.block, self.last_block)

    @property
    def is_of_parts(self) -> bool:
        """Whether it goes by a depth or an expression, so that its place is no layer.

        >>> Row("encoder", "conv.bias", (), 4, "measured", by=("depth:1", "kind")).is_of_parts
        True
        """
        return any(way.startswith(("depth:", "re:")) for way in self.by)


def place_of(layer: str | None, block: str | None, last: str | None = None) -> str | None:
    """What a cell's place is called: its layer, or its block where it goes by blocks.

    >>> place_of("h.0.attn", "h.0"), place_of(None, "h.0", "h.2")
    ('h.0.attn', 'h.0…2')
    """
    if layer is not None or block is None or last is None or last == block:
        return block if layer is None else layer
    shared = block.rpartition(".")[0] == last.rpartition(".")[0]
    return f"{block}…{last.rpartition('.')[2] if shared else last}"


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
        place = row.place, row.kind, row.donor
        most[place] = max(most.get(place, 0), len(row.tensors))
    kept = [row for row in every if len(row.tensors) == most[row.place, row.kind, row.donor]]
    return list({(row.place, row.kind, row.donor, row.tensors): row for row in kept}.values())


@dataclass(frozen=True)
class Screened:
    """How well a screen told the drops beforehand, over the measured `variants` of which it guessed.

    `samples`: how many it scored (None: none). `spearman`: rank correlation. `auc`: how often a `sensitive` one
    was guessed worse than one that is decided otherwise; `sensitive` and `decided` count both sorts. `top`: by how
    many (5, 10) the share of so many worst ones that were guessed among as many. None where nothing can be told.
    """

    by: str
    samples: int | None
    variants: int
    spearman: float | None
    auc: float | None
    sensitive: int
    decided: int
    top: Mapping[str, float | None]


@dataclass(frozen=True)
class Finding:
    """A claim, the rule by which it was judged, the numbers, and what came out."""

    claim: str
    text: str
    rule: str
    numbers: Mapping[str, float | int | None]
    verdict: Literal["supported", "not supported", "undecided"]


@dataclass(frozen=True)
class Filtered:
    """Of what a table is a part: the flags that chose its rows or their order, and how many there are in all."""

    flags: str
    rows: int


@dataclass(frozen=True, repr=False)
class SweepResult:
    """The whole table, in the order in which it is shown (worst drop first within each way of splitting).

    `beside` counts the scores beside the rows, `failed` the rows and scores that could not be had. `layers` are in
    the order in which they run; empty where that is not known. `trivial` is the score of a prediction that looks
    at nothing. `others` are the metrics that were scored beside the one that ranks. `error` is what verdicts keep,
    `se` what standard errors presume of the `groups` of samples. `complete`: nothing is left to score. `filtered`
    where not all rows are here, `drawn` where not all samples of the data are.
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
    trivial: float | None = None
    screen: Screened | None = None
    others: tuple[OtherMetric, ...] = ()
    groups: int | None = None
    error: ErrorRate = "fwer"
    se: StandardError = "cluster"
    complete: bool = True
    filtered: Filtered | None = None
    drawn: Drawn | None = None

    def __repr__(self) -> str:
        score = f"{self.metric} {self.baseline:.6g}, tolerance {self.tolerance:.6g}"
        return f"<SweepResult {score}, {len(self.rows)} rows>"

    def failing(self, on: FailOn) -> list[Row]:
        """The rows that a check does not let pass; with `undecided` also what has no verdict (shapes that differ).

        >>> rows = [Row("l", "conv.weight", ("l.weight",), 4, "measured", verdict="undecided")]
        >>> result = SweepResult("dice", "max", 0.01, 0.9, None, 8, rows=tuple(rows))
        >>> len(result.failing("sensitive")), len(result.failing("undecided"))
        (0, 1)
        """
        passing = ("reusable", "unused") if on == "undecided" else ("reusable", "unused", "undecided", None)
        return [row for row in self.rows if row.verdict not in passing]

    def in_order(self, layers: Iterable[str]) -> list[str]:
        """Each layer or block once, in the order in which they run; in natural order where that is not known.

        >>> result = SweepResult("dice", "max", 0.01, 0.9, None, 8, rows=(), layers=("b", "a"))
        >>> result.in_order(["a", "c10", "b", "c9"])
        ['b', 'a', 'c9', 'c10']
        """
        place: dict[str, int] = {}
        for at, layer in enumerate(self.layers):
            above = layer
            while above and above not in place:  # a block stands where the first of its layers does
                place[above] = at
                above = above.rpartition(".")[0]
        place |= {layer: at for at, layer in enumerate(self.layers)}
        return sorted(set(layers), key=lambda layer: (place.get(layer, len(place)), natural_key(layer)))
