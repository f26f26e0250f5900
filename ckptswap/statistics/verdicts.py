"""A table of drops: plain intervals, intervals that hold for all rows at once, verdicts. numpy only.

For a whole table c is the 95 % quantile of the largest |t*| of all its rows (max-T).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ckptswap.statistics import Verdict
from ckptswap.statistics.bootstrap import LEVEL, effects, value_of
from ckptswap.statistics.exact import Few
from ckptswap.statistics.intervals import LEAST_GROUPS, cut
from ckptswap.statistics.totals import Form, Sample


@dataclass(frozen=True)
class RowIntervals:
    """A drop with its plain and its simultaneous interval; `few` where too few groups moved to be resampled, and
    `error` then how often each end of the simultaneous one may be wrong."""

    drop: float
    ci_low: float | None = None
    ci_high: float | None = None
    sim_low: float | None = None
    sim_high: float | None = None
    few: Few | None = None
    error: float = 0.0

    @property
    def numbers(self) -> dict[str, Any]:
        """The drop and the four ends, by name."""
        return {name: getattr(self, name) for name in ("drop", "ci_low", "ci_high", "sim_low", "sim_high")}


def drop_form(column: int, direction: str, baseline: int = 0) -> Form:
    """The drop of a variant (a column) from the baseline (column 0): positive is worse.

    >>> drop_form(3, "max"), drop_form(3, "min")
    ({0: 1.0, 3: -1.0}, {0: -1.0, 3: 1.0})
    """
    sign = 1.0 if direction == "max" else -1.0
    return {baseline: sign, column: -sign}


def table(sample: Sample, direction: str, baselines: Sequence[int] | None = None) -> list[RowIntervals]:
    """The drops of variants, with plain intervals and intervals that hold all at once (95 %).

    `baselines[j]` is the column that the `j`-th variant is paired with, variants being the last columns; without
    it column 0 is the baseline of columns 1…. A row with fewer than 8 groups has no interval. All others share the
    simultaneous intervals' error evenly, those that moved in too few groups to be resampled each by itself.
    """
    paired = baselines if baselines is not None else [0] * (len(sample.columns) - 1)
    first = len(sample.columns) - len(paired)
    forms = [drop_form(first + at, direction, baseline) for at, baseline in enumerate(paired)]
    told = [at for at, form in enumerate(forms) if sample.groups_of(form) >= LEAST_GROUPS]
    few = {at: bound for at in told if (bound := sample.few(forms[at]))}
    spread = [at for at in told if at not in few]
    error = (1 - LEVEL) / max(len(spread) + sum(row.is_bounded for row in few.values()), 1)
    level = 1 - error * len(spread) if few else LEVEL
    rows = dict(zip(spread, _rows(sample, [forms[at] for at in spread], level), strict=True))
    for at, bound in few.items():
        plain, simultaneous = bound.ends((1 - LEVEL) / 2), bound.ends(error / 2)
        rows[at] = RowIntervals(value_of(sample, forms[at]), *plain, *simultaneous, bound, error / 2)
    return [rows.get(at) or RowIntervals(value_of(sample, form)) for at, form in enumerate(forms)]


def _rows(sample: Sample, forms: Sequence[Form], level: float) -> Iterator[RowIntervals]:
    if not forms:
        return
    effect = effects(sample, forms)
    plain = effect.critical() * effect.se
    simultaneous = effect.critical_of_all(level) * effect.se
    for at, drop in enumerate(effect.estimate.tolist()):
        bounds = sample.range_of(forms[at])
        near, far = (cut(drop, float(margin[at]), bounds) for margin in (plain, simultaneous))
        yield RowIntervals(drop, *near, *far)


def verdict(low: float | None, high: float | None, tolerance: float) -> Verdict:
    """Whether an interval of the drop lies wholly below the tolerance, wholly above it, or neither.

    >>> verdict(-0.01, 0.004, 0.005), verdict(0.1, 0.2, 0.005), verdict(0.0, 0.1, 0.005), verdict(None, None, 1)
    ('reusable', 'sensitive', 'undecided', 'undecided')
    """
    if low is not None and low > tolerance:
        return "sensitive"
    if high is not None and high < tolerance:
        return "reusable"
    return "undecided"
