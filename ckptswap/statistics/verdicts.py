"""A table of drops: plain intervals, intervals that hold for all rows at once, p-values and verdicts. numpy only.

For a whole table's intervals c is the 95 % quantile of the largest |t*| of all its rows (max-T); its verdicts are
those of one-sided step-down tests (`stepdown`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ckptswap.statistics import LEAST_GROUPS, ErrorRate, Tails, Verdict
from ckptswap.statistics.bootstrap import LEVEL, effects, neighbours_alike, upper, value_of
from ckptswap.statistics.exact import Few
from ckptswap.statistics.intervals import cut
from ckptswap.statistics.stepdown import Both, Exact, Tests, tests_of
from ckptswap.statistics.totals import Form, Sample

HELD = 1 << 22
"""Draws of rows that are held at once: 32 MB."""
AT_ONCE = 8  # rows of these that are ranked at once, so that their draws stay in a cache

MOST_SHARE = 0.5
"""Of all samples that one group may have: the drop of a table with a larger one is that group's, of which there is
one. In simulations a quarter of such tables had a wrong verdict."""


@dataclass(frozen=True)
class RowIntervals:
    """A drop with its plain and its simultaneous interval; `few` where too few groups moved to be resampled, and
    `error` then how often each end of the simultaneous one may be wrong.

    `p_reusable` and `p_sensitive` are the p-values, of this row alone, that the drop is not below the tolerance,
    and that it is not above; None without a tolerance, and where nothing can be told. `verdict` minds all rows.
    `lag_one` is how alike neighbouring groups are.
    """

    drop: float
    ci_low: float | None = None
    ci_high: float | None = None
    sim_low: float | None = None
    sim_high: float | None = None
    p_reusable: float | None = None
    p_sensitive: float | None = None
    few: Few | None = None
    error: float = 0.0
    groups: int = 0
    lag_one: float | None = None
    verdict: Verdict = "undecided"

    @property
    def numbers(self) -> dict[str, Any]:
        """The drop, the four ends and the two p-values, by name."""
        names = "drop", "ci_low", "ci_high", "sim_low", "sim_high", "p_reusable", "p_sensitive"
        return {name: getattr(self, name) for name in names}


def drop_form(column: int, direction: str, baseline: int = 0) -> Form:
    """The drop of a variant (a column) from the baseline (column 0): positive is worse.

    >>> drop_form(3, "max"), drop_form(3, "min")
    ({0: 1.0, 3: -1.0}, {0: -1.0, 3: 1.0})
    """
    sign = 1.0 if direction == "max" else -1.0
    return {baseline: sign, column: -sign}


def table(
    sample: Sample,
    direction: str,
    baselines: Sequence[int] | None = None,
    tolerance: float | None = None,
    error: ErrorRate = "fwer",
) -> list[RowIntervals]:
    """The drops of variants, `judged`.

    `baselines[j]` is the column that the `j`-th variant is paired with, variants being the last columns; without
    it column 0 is the baseline of columns 1….
    """
    paired = baselines if baselines is not None else [0] * (len(sample.columns) - 1)
    first = len(sample.columns) - len(paired)
    forms = [drop_form(first + at, direction, baseline) for at, baseline in enumerate(paired)]
    return judged(sample, forms, tolerance, error)


def judged(
    sample: Sample, forms: Sequence[Form], tolerance: float | None = None, error: ErrorRate = "fwer"
) -> list[RowIntervals]:
    """Linear combinations of values with plain intervals and intervals that hold all at once (95 %), and held
    against a tolerance, where there is one.

    A row with fewer than 8 groups has no interval. All others share the simultaneous intervals' error evenly,
    those that moved in too few groups to be resampled each by itself.

    >>> rng = np.random.default_rng(0)
    >>> scores = [rng.normal(mean, 0.01, (16, 1)) for mean in (0.9, 0.9, 0.6, 0.88)]
    >>> from ckptswap.statistics.totals import mean
    >>> rows = judged(Sample.of(scores, np.arange(16), mean), [{0: 1.0, at: -1.0} for at in (1, 2, 3)], 0.02)
    >>> [row.verdict for row in rows]
    ['reusable', 'sensitive', 'undecided']
    """
    told = [at for at, form in enumerate(forms) if sample.groups_of(form) >= LEAST_GROUPS]
    few = {at: bound for at in told if (bound := sample.few(forms[at]))}
    spread = [at for at in told if at not in few]
    share = (1 - LEVEL) / max(len(spread) + sum(row.is_bounded for row in few.values()), 1)
    drawn = _drawn(sample, [forms[at] for at in spread], tolerance)
    rows = dict(zip(spread, drawn.rows(sample, 1 - share * len(spread) if few else LEVEL), strict=True))
    for at, bound in few.items():
        plain, simultaneous = bound.ends((1 - LEVEL) / 2), bound.ends(share / 2)
        rows[at] = RowIntervals(value_of(sample, forms[at]), *plain, *simultaneous, few=bound, error=share / 2)
    if tolerance is not None:
        rows |= _with_verdicts(sample, rows, drawn, tolerance, error)
    told_of = [rows.get(at) or RowIntervals(value_of(sample, form)) for at, form in enumerate(forms)]
    return [
        replace(row, groups=sample.groups_of(form), lag_one=neighbours_alike(sample, form))
        for row, form in zip(told_of, forms, strict=True)
    ]


def tails(sample: Sample, form: Form, bound: float) -> Tails:
    """A linear combination of values against a bound, by itself as a table's row against the tolerance.

    >>> scores = np.linspace(0.2, 1, 8)[:, None]
    >>> from ckptswap.statistics.totals import mean
    >>> [round(p, 2) for p in tails(Sample.of([scores, scores**2], np.arange(8), mean), {0: 1.0, 1: -1.0}, 0.05)]
    [0.97, 0.03]
    """
    (row,) = judged(sample, [form], bound)
    return Tails(row.p_reusable, row.p_sensitive)


@dataclass(frozen=True)
class _Drawn:
    """What is kept of the draws of rows that are resampled: their own critical values (F,), the largest |t*| of
    all rows in each resample, and the tests of both sides."""

    forms: Sequence[Form]
    estimate: np.ndarray
    se: np.ndarray
    critical: np.ndarray
    largest: np.ndarray
    below: Tests | None
    above: Tests | None

    def rows(self, sample: Sample, level: float) -> list[RowIntervals]:
        """Each row with both intervals, the simultaneous ones together at this level."""
        common = float(upper(self.largest, level)) if len(self.forms) else 0.0
        rows, margins = [], zip((self.critical * self.se).tolist(), (common * self.se).tolist(), strict=True)
        for form, drop, (plain, wide) in zip(self.forms, self.estimate.tolist(), margins, strict=True):
            bounds = sample.range_of(form)
            rows.append(RowIntervals(drop, *cut(drop, plain, bounds), *cut(drop, wide, bounds)))
        return rows


def _drawn(sample: Sample, forms: Sequence[Form], tolerance: float | None) -> _Drawn:
    """Resample these rows, some at a time."""
    resamples = sample.resamples
    draws = resamples if tolerance is None else max(sample.draws, resamples)
    numbers: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    largest = np.zeros(resamples)
    sides = {side: Tests.room(len(forms), draws) for side in (1, -1)} if forms and tolerance is not None else {}
    step = max(1, HELD // draws)
    for start in range(0, len(forms), step):
        effect = effects(sample, forms[start : start + step], draws)
        first = replace(effect, t=effect.t[:, :resamples])
        numbers.append((effect.estimate, effect.se, first.critical()))
        largest = np.maximum(largest, first.largest())
        for at in range(0, len(effect.se), AT_ONCE):
            some = effect.of(slice(at, at + AT_ONCE))
            for side, tests in sides.items() if tolerance is not None else ():
                tests.put(start + at, tests_of(some, tolerance, side))
    estimate, se, critical = map(np.concatenate, zip(*numbers, strict=True)) if numbers else [np.zeros(0)] * 3
    return _Drawn(forms, estimate, se, critical, largest, sides.get(1), sides.get(-1))


def _with_verdicts(
    sample: Sample, rows: Mapping[int, RowIntervals], drawn: _Drawn, tolerance: float, error: ErrorRate
) -> dict[int, RowIntervals]:
    """The rows of which anything can be told, with p-values and verdicts."""
    resampled = [at for at, row in rows.items() if row.few is None]
    sure = [place for place, form in enumerate(drawn.forms) if sample.largest_share(form) <= MOST_SHARE]
    spread = [resampled[place] for place in sure]
    few = {at: row.few for at, row in rows.items() if row.few is not None and row.few.is_bounded}
    under, over = (Exact.of(list(few.values()), tolerance, side) for side in (1, -1))
    below, above = (tests.of(sure) if tests else None for tests in (drawn.below, drawn.above))
    both = Both(below, above, under, over)
    told = zip((*spread, *few), *(p.tolist() for p in both.p), both.verdicts(error), strict=True)
    return {
        at: replace(rows[at], p_reusable=p_reusable, p_sensitive=p_sensitive, verdict=verdict)
        for at, p_reusable, p_sensitive, verdict in told
    }
