"""What `plan.json` says, as typed data. A sound checksum does not say who wrote it: each part is held against its
type, and the parts and the journal's blocks against each other."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ckptswap.records import Count, from_json, parsed, to_json
from ckptswap.scoring.scorer import CLOSENESS, EXTENT, Block, Measure, Scorer
from ckptswap.statistics import Drawn, ErrorRate, StandardError
from ckptswap.sweep.plan import Plan
from ckptswap.sweep.race import Race
from ckptswap.sweep.spec import SweepSource, SweepSpec, samples_of
from ckptswap.task.metrics import recorded_metric
from ckptswap.task.order import first_of

SCHEMA = "ckptswap.run/4"
MOST_KINDS, MOST_POINTS = 1000, 100_000
"""Beyond these a small plan keeps a report at work for minutes: kinds of tensors; points without a score."""

_Renames = Mapping[str, str]
_KEY = {
    "donor": str | tuple[str, ...],
    "recipient": str,
    "data": str | None,
    "names": Mapping[str, _Renames | tuple[_Renames, ...]],
    "task": Mapping[str, Any],
    "versions": Mapping[str, Any],
}


@dataclass(frozen=True)
class RunMetric:
    """A metric of a run: which way is better, a constant prediction's score, between which bounds one sample's
    lies (None: none), and whether its value is the mean over samples, or one that only the whole set has."""

    name: str
    direction: Literal["max", "min"]
    trivial: float | None
    bounds: tuple[float | None, float | None]
    is_mean: bool
    is_of_set: bool = False

    @classmethod
    def of(cls, scorer: Scorer, metric: Measure) -> "RunMetric":
        """What a scorer knows of one of its metrics."""
        low, high = (bound if math.isfinite(bound) else None for bound in metric.bounds)
        ways = metric.is_mean, metric.is_of_set
        return cls(metric.name, metric.direction, scorer.trivial(metric.name), (low, high), *ways)


@dataclass(frozen=True)
class Guess:
    """What a screen guessed beforehand: a number for each variant, the larger the worse. `sample:N` has none here:
    its guesses are in the journal, as scores of the walk's first samples. `is_order`: the worst come first."""

    by: str
    values: Mapping[str, float]
    is_order: bool = False


@dataclass(frozen=True)
class Made:
    """The last command, the version that it was of, and when the run was begun first."""

    command: str | None = None
    version: str | None = None
    begun: str | None = None


@dataclass(frozen=True)
class RunPlan:
    """What a run knows beside its scores.

    `key` are the conditions of its scores (`conditions`), `source` what it takes to build its engine again. `walk`
    are the samples' places batch by batch, `groups` and `units` (N,) belong to the samples; `drawn` says of what
    these are a part, where a limit took one; `ended` why the last work on it ended before all was scored, where
    that is known; `close_within` how far off a drop may be that is only close (None: a share of the tolerance).
    """

    key: Mapping[str, Any]
    source: SweepSource
    tolerance: float | None
    metrics: tuple[RunMetric, ...]
    groups: tuple[Count, ...]
    units: tuple[Count, ...]
    walk: tuple[tuple[Count, ...], ...]
    plan: Plan
    layers: tuple[str, ...]
    donor_misfits: tuple[str | None, ...]
    warnings: tuple[str, ...]
    race: Race | None = None
    screen: Guess | None = None
    made: Made = Made()
    error: ErrorRate | None = None
    se: StandardError | None = None
    drawn: Drawn | None = None
    ended: str | None = None
    close_within: float | None = None

    @property
    def spec(self) -> SweepSpec:
        """What the sweep was told."""
        return self.source.spec

    @property
    def screen_batches(self) -> int:
        """How many of the walk's first batches `--screen sample:N` scores every variant on; 0 without it."""
        samples = samples_of(self.spec.screen)
        return first_of(list(map(len, self.walk)), samples) if samples else 0

    @property
    def donor_hashes(self) -> tuple[str, ...]:
        """The SHA-256 of each donor's file."""
        hashes = self.key.get("donor", ())
        return (hashes,) if isinstance(hashes, str) else tuple(hashes)

    def to_json(self) -> dict[str, Any]:
        """A JSON object; `from_json` reads it back."""
        return {"schema": SCHEMA, **to_json(self)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "RunPlan":
        """The plan that `to_json` wrote; raises `ValueError`, whose text ends a sentence, for anything else."""
        if value.get("schema") != SCHEMA:
            raise ValueError(f"its schema is {value.get('schema')!r:.40}, not {SCHEMA!r}")
        plan = from_json(cls, {name: part for name, part in value.items() if name != "schema"})
        for name in _KEY.keys() & plan.key.keys():
            try:
                parsed(_KEY[name], plan.key[name])
            except ValueError:
                raise ValueError(f"the part {name!r} of its key is not what it should be") from None
        return plan


def refuse_odd_run(run: RunPlan, blocks: Collection[Block]) -> None:
    """Raises `ValueError` where a plan contradicts itself, or a block is none of its samples'."""
    samples, donors = sum(map(len, run.walk)), len(run.spec.donors)
    if not samples or sorted(place for places in run.walk for place in places) != list(range(samples)):
        raise ValueError("its walk leaves samples out")
    if {len(run.groups), len(run.units)} != {samples} or not all(run.walk):
        raise ValueError("its groups are not those of its samples")
    if {len(run.donor_misfits), len(run.source.donors)} != {donors}:
        raise ValueError("its donors are not told")
    plan = run.plan
    if plan.mode != run.spec.mode:
        raise ValueError("its mode is not that of its cells")
    if any(cell.by not in plan.by or cell.donor >= donors or not cell.names for cell in plan.cells):
        raise ValueError("it has cells that belong nowhere")
    if len({(cell.by, cell.layer, cell.kind, cell.names, cell.donor) for cell in plan.cells}) < len(plan.cells):
        raise ValueError("it has the same cell twice")
    if len({cell.kind for cell in plan.cells}) > MOST_KINDS:
        raise ValueError("it has more kinds than there can be")
    if len(plan.alphas) * len(plan.cells) > MOST_POINTS + 10 * len(blocks):
        raise ValueError("it has more points of paths than anybody scores")
    metrics = [metric.name for metric in run.metrics]
    if run.race and run.race.metric not in metrics:
        raise ValueError("its race is for nothing that is measured")
    if not metrics or len(set(metrics)) != len(metrics):
        raise ValueError("its metrics are not told")
    refuse_odd_blocks(blocks, list(map(len, run.walk)), run.metrics)


def refuse_odd_blocks(
    blocks: Iterable[Block], sizes: Sequence[int], metrics: Sequence[Measure | RunMetric]
) -> None:
    """Raises `ValueError` for a block without this run's metrics, or of other samples than its batch's."""
    widths: dict[str, int] = {}
    for block in blocks:
        if block.batch >= len(sizes):
            raise ValueError(f"the journal has scores of a batch {block.batch}, which the run does not have")
        if block.failed is not None:
            continue
        size, statistics = sizes[block.batch], block.statistics
        for metric in metrics:
            shape = statistics[metric.name].shape if metric.name in statistics else ()
            width = widths.setdefault(metric.name, shape[-1] if shape else 0)
            fits = width == 1 if metric.is_mean else metric.is_of_set or recorded_metric(metric.name).fits(width)
            if shape != (size, width) or not fits:
                raise ValueError(f"the journal has odd scores of batch {block.batch}")
        if EXTENT in statistics and statistics[EXTENT].shape != (1, 2):
            raise ValueError(f"the journal's {EXTENT} of batch {block.batch} is not one")
        if CLOSENESS in statistics and statistics[CLOSENESS].shape != (1, 1):
            raise ValueError(f"the journal's {CLOSENESS} of batch {block.batch} is not one")
