"""Verdicts on tables whose truth is known: how often is one wrong, and how many rows are decided rightly?

    python benchmarks/verdicts.py [--tables 150] [--rows 100] [--draws 40000] [--case NAME …] [--groups 8 15 …]
    python benchmarks/verdicts.py --time

Each table is judged three ways: `max-T` reads the simultaneous intervals, as verdicts were given before;
`step-down` is what `ckptswap sweep` does, `fdr` the same with --error fdr. A verdict is wrong where the row's
true drop is on the other side of the tolerance, or just at it. `wrong` is the share of tables with a wrong verdict
(to be at most 0.05), `false`, of fdr, the mean share of wrong ones among those decided (likewise); a star marks
what is more than two Monte-Carlo standard errors above. `right` is the share of rows, of those that are not at the
tolerance, with the right verdict. Rows hang together, and the more one drops the more it varies.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np

from ckptswap.statistics.totals import DRAWS, Sample, mean
from ckptswap.statistics.verdicts import RowIntervals, table

TOLERANCE, LEVEL = 0.01, 0.05
TRUTH = np.array([-0.5, 0, 0, 0.1, 0.3, 0.5, 0.6, 0.8, 1.2, 1.5, 2, 3, 5, 10, 30])
"""The rows' true drops, in tolerances."""
WAYS = ("max-T", "step-down", "fdr")


@dataclass(frozen=True)
class Case:
    """A table: true drops (V,), drops by sample (V, N), which group each sample is of (N,)."""

    truth: np.ndarray
    drops: np.ndarray
    label: np.ndarray

    @property
    def sample(self) -> tuple[list[np.ndarray], np.ndarray]:
        """Scores of a baseline and of the variants, as a sweep has them."""
        baseline = np.zeros(self.drops.shape[1])
        return [baseline[:, None], *(baseline - self.drops)[..., None]], self.label


Make = Callable[[np.random.Generator, int, int], Case]
"""random, V, G → a table."""


# Cases ----------------------------------------------------------------------------------------------------------


def truths(random: np.random.Generator, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """True drops (V,), and how much a group's varies (V, 1): tenths of the tolerance, and half of the drop."""
    truth = TOLERANCE * random.choice(TRUTH, rows)
    return truth, random.lognormal(0, 0.5, (rows, 1)) * (0.3 * TOLERANCE + 0.5 * np.abs(truth[:, None]))


def correlated(random: np.random.Generator, rows: int, groups: int) -> np.ndarray:
    """Standard normal numbers (V, G), of which each two rows share half of the variance."""
    return math.sqrt(0.5) * (random.normal(size=groups) + random.normal(size=(rows, groups)))


def normal(random: np.random.Generator, rows: int, groups: int) -> Case:
    """One sample a group, normal."""
    truth, spread = truths(random, rows)
    return Case(truth, truth[:, None] + spread * correlated(random, rows, groups), np.arange(groups))


def lognormal(random: np.random.Generator, rows: int, groups: int) -> Case:
    """One sample a group, with a long tail of large drops (σ = 0.75), around its mean."""
    truth, spread = truths(random, rows)
    skewed = np.exp(0.75 * correlated(random, rows, groups)) - math.exp(0.75**2 / 2)
    return Case(truth, truth[:, None] + spread * skewed, np.arange(groups))


def subjects(random: np.random.Generator, rows: int, groups: int) -> Case:
    """Three to eight samples a subject, which differ among themselves as much as subjects do."""
    truth, spread = truths(random, rows)
    label = np.repeat(np.arange(groups), random.integers(3, 9, groups))
    own = correlated(random, rows, groups)[:, label] + correlated(random, rows, len(label))
    return Case(truth, truth[:, None] + spread * own, label)


def unequal(random: np.random.Generator, rows: int, groups: int) -> Case:
    """Groups of one to some forty samples, most of them small."""
    truth, spread = truths(random, rows)
    label = np.repeat(np.arange(groups), np.ceil(random.lognormal(1, 1, groups)).astype(int))
    own = correlated(random, rows, groups)[:, label] + 0.5 * correlated(random, rows, len(label))
    return Case(truth, truth[:, None] + spread * own, label)


def dominated(random: np.random.Generator, rows: int, groups: int) -> Case:
    """One group has six in ten of all samples."""
    truth, spread = truths(random, rows)
    label = np.concatenate([np.zeros(math.ceil(1.5 * (groups - 1)), dtype=int), np.arange(1, groups)])
    own = correlated(random, rows, groups)[:, label] + 0.5 * correlated(random, rows, len(label))
    return Case(truth, truth[:, None] + spread * own, label)


def idle(random: np.random.Generator, rows: int, groups: int) -> Case:
    """As lognormal; a third of the rows hardly move, and of these half in next to no group."""
    case = lognormal(random, rows, groups)
    third = rows // 3
    case.truth[:third] = 1e-6
    case.drops[:third] = 1e-6 * random.lognormal(0, 2, (third, groups)) / math.exp(2)
    case.truth[: third // 2] = 0.0
    case.drops[: third // 2] = 0.0
    return case


def edge(random: np.random.Generator, rows: int, groups: int) -> Case:
    """As normal; a fifth of the rows lie just at the tolerance, where either verdict is wrong."""
    return at_the_edge(normal(random, rows, groups))


def skewed_edge(random: np.random.Generator, rows: int, groups: int) -> Case:
    """The same of lognormal: groups that lack the long tail look surer than they are."""
    return at_the_edge(lognormal(random, rows, groups))


def at_the_edge(case: Case) -> Case:
    """The same table, with the first fifth of its rows moved to the tolerance."""
    fifth = len(case.truth) // 5
    case.drops[:fifth] += TOLERANCE - case.truth[:fifth, None]
    case.truth[:fifth] = TOLERANCE
    return case


def rare(random: np.random.Generator, rows: int, groups: int) -> Case:
    """A few groups in a hundred lose 0.3, all others next to nothing: what was not drawn is not seen."""
    share = random.choice([0.0, 0.01, 0.02, 0.05, 0.1, 0.2], rows)[:, None]
    broken = random.random((rows, groups)) < share
    hardly = 0.1 * TOLERANCE * correlated(random, rows, groups)
    return Case(0.3 * share[:, 0], np.where(broken, 0.3, 0.0) + hardly, np.arange(groups))


CASES: tuple[Make, ...] = (normal, lognormal, subjects, unequal, dominated, idle, edge, skewed_edge, rare)


# Judging --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What came of one table: is one verdict wrong, which share of those given, and how many are right."""

    wrong: bool
    false: float
    right: float


def by_intervals(row: RowIntervals) -> str:
    """The verdict that the simultaneous interval gives."""
    if row.sim_low is None or row.sim_high is None:
        return "undecided"
    return "sensitive" if row.sim_low > TOLERANCE else "reusable" if row.sim_high < TOLERANCE else "undecided"


def by_benjamini_hochberg(rows: Sequence[RowIntervals]) -> list[str]:
    """What `--error fdr` says, written as a plain loop: the most certain k rows with p ≤ k / m × the level."""
    sides = [(row.p_reusable, row.p_sensitive) for row in rows]
    p = sorted((2 * min(a, b), at) for at, (a, b) in enumerate(sides) if a is not None and b is not None)
    last = max((k for k, (value, _) in enumerate(p, 1) if value <= LEVEL * k / len(p)), default=0)
    words = ["undecided"] * len(rows)
    for _, at in p[:last]:
        below, above = sides[at]
        words[at] = "reusable" if below < above else "sensitive"
    return words


def outcome(verdicts: Sequence[str], truth: np.ndarray) -> Outcome:
    """Held against the true drops."""
    apart = np.round(truth / TOLERANCE - 1, 9)
    given = np.array([{"reusable": -1, "sensitive": 1}.get(word, 0) for word in verdicts])
    mistakes = int(((given != 0) & (given != np.sign(apart))).sum())
    right = float(((given != 0) & (given == np.sign(apart))).sum() / max(1, (apart != 0).sum()))
    return Outcome(mistakes > 0, mistakes / max(1, int((given != 0).sum())), right)


def judged(make: Make, rows: int, groups: int, draws: int, seed: int) -> dict[str, Outcome]:
    """One table, each way."""
    case = make(np.random.default_rng(seed), rows, groups)
    columns, label = case.sample
    sample = Sample.of(columns, label, mean, draws=draws, bounds=(-1e3, 1e3))
    judged_rows = table(sample, "max", tolerance=TOLERANCE)
    words = {
        "max-T": list(map(by_intervals, judged_rows)),
        "step-down": [row.verdict for row in judged_rows],
        "fdr": by_benjamini_hochberg(judged_rows),
    }
    return {way: outcome(given, case.truth) for way, given in words.items()}


def marked(values: Sequence[float], is_share: bool) -> str:
    """Their mean, with a star where it is beyond the level by more than two standard errors."""
    centre = fmean(values)
    error = math.sqrt(LEVEL * (1 - LEVEL) / len(values)) if is_share else stdev(values) / math.sqrt(len(values))
    return f"{centre:.3f}{'*' if centre > LEVEL + 2 * error else ' '}"


def summed(outcomes: Sequence[Outcome], way: str) -> str:
    """How wrong, and how often right, over tables."""
    error = marked([one.false for one in outcomes], False)
    if way != "fdr":
        error = marked([float(one.wrong) for one in outcomes], True)
    return f"{error}  {fmean(one.right for one in outcomes):.3f}"


def timed() -> None:
    """The promise of speed: 500 rows of 200 groups."""
    case = normal(np.random.default_rng(0), 500, 200)
    columns, label = case.sample
    begun, used = time.perf_counter(), time.process_time()
    table(Sample.of(columns, label, mean, bounds=(-1e3, 1e3)), "max", tolerance=TOLERANCE)
    print(f"500 rows, 200 groups, {DRAWS:,} draws: {time.perf_counter() - begun:.2f} s "
          f"({time.process_time() - used:.2f} s of processors' time); hold 2 s")  # fmt: skip


def main() -> None:
    options = arguments()
    if options.time:
        timed()
        return
    print(f"{options.tables} tables of {options.rows} rows a case, {options.draws:,} draws; level {LEVEL:g}")
    print(f"{'':19}" + "".join(f"{way:<18}" for way in WAYS))
    print(f"{'case':13}{'groups':6}" + "wrong   right     " * 2 + "false   right")
    for make in CASES:
        for groups in options.groups if not options.case or make.__name__ in options.case else ():
            seeds = range(options.seed, options.seed + options.tables)
            outcomes = [judged(make, options.rows, groups, options.draws, seed) for seed in seeds]
            told = (summed([outcome[way] for outcome in outcomes], way) for way in WAYS)
            print(f"{make.__name__:13}{groups:<6}{'     '.join(told)}", flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=int, default=150, help="tables of each case")
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--groups", type=int, nargs="*", default=[8, 15, 40, 200])
    parser.add_argument("--draws", type=int, default=DRAWS)
    parser.add_argument("--seed", type=int, default=0, help="of the first table")
    parser.add_argument("--case", nargs="*", default=[], help="only these")
    parser.add_argument("--time", action="store_true", help="only how long a large table takes")
    return parser.parse_args()


if __name__ == "__main__":
    main()
