"""How often is a claim about 19 rows judged wrongly, and how often rightly, on tables whose truth is known?

    python benchmarks/claims.py [--tables 300] [--groups 15]

A table's rows are half common noise, half their own, over groups; the tolerance is 0.01. `before` reads the
simultaneous intervals (supported: all lie below; refuted: one lies above; half: counts of these), as claims were
judged up to commit a6c32bf; `after` is an intersection–union test, Holm's procedure and a partial conjunction over
the rows' own p-values (of 4,000 draws). A case is told as the share of tables in which the claim is supported, and
in which it is refuted.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence

import numpy as np

from ckptswap.lab.judging import ClaimPart, all_below, half_above, judged
from ckptswap.statistics import Tails
from ckptswap.statistics.totals import Sample, mean
from ckptswap.statistics.verdicts import RowIntervals, table

TOLERANCE, SPREAD, ROWS = 0.01, 0.01, 19
HALF = (ROWS + 1) // 2
ALL, SOME = "all are reusable", "half are sensitive"
# (the claim, what is so, each row's mean drop from the tolerance in standard errors)
CASES = (
    (ALL, "wrong: one lies on the edge", [-10.0] * (ROWS - 1) + [0.0]),
    (ALL, "right: all lie on the edge", [-1e-9] * ROWS),
    (ALL, "right: all lie 4 below", [-4.0] * ROWS),
    (ALL, "wrong: one lies 4 above", [-10.0] * (ROWS - 1) + [4.0]),
    (SOME, "wrong: one is missing", [10.0] * (HALF - 1) + [0.0] * (ROWS - HALF + 1)),
    (SOME, "right: two thirds lie 4 above", [4.0] * (2 * ROWS // 3) + [-4.0] * (ROWS - 2 * ROWS // 3)),
)
NOISES = ("normal", "lognormal 0.5", "lognormal 1")


def noise(name: str, shape: tuple[int, int], random: np.random.Generator) -> np.ndarray:
    """Of mean 0 and variance 1 (rows, groups); skewed towards harm."""
    common, own = random.normal(size=(1, shape[1])), random.normal(size=shape)
    drawn = math.sqrt(0.5) * common + math.sqrt(0.5) * own
    if name == "normal":
        return drawn
    sigma = float(name.split()[1])
    middle, variance = math.exp(sigma**2 / 2), (math.exp(sigma**2) - 1) * math.exp(sigma**2)
    return (np.exp(sigma * drawn) - middle) / math.sqrt(variance)


def simulated(means: Sequence[float], name: str, groups: int, random: np.random.Generator) -> list[RowIntervals]:
    """One table's rows."""
    apart = np.array(means)[:, None] / math.sqrt(groups) + noise(name, (len(means), groups), random)
    columns = [np.zeros((groups, 1)), *(-(TOLERANCE + SPREAD * apart))[..., None]]
    return table(Sample.of(columns, np.arange(groups), mean, draws=4000), "max", tolerance=TOLERANCE)


def after(claim: str, rows: Sequence[RowIntervals]) -> str:
    """The verdict of the claim, now."""
    tails = [Tails(row.p_reusable, row.p_sensitive) for row in rows]
    part: ClaimPart = all_below("rows", tails) if claim == ALL else half_above("rows", tails)
    return judged(claim, claim, "", [part]).verdict


def before(claim: str, rows: Sequence[RowIntervals]) -> str:
    """The same from simultaneous intervals."""
    below = sum(row.sim_high is not None and row.sim_high < TOLERANCE for row in rows)
    above = sum(row.sim_low is not None and row.sim_low > TOLERANCE for row in rows)
    if claim == ALL:
        return "not supported" if above else "supported" if below == len(rows) else "undecided"
    is_refuted = 2 * below > len(rows)
    return "supported" if 2 * above >= len(rows) else "not supported" if is_refuted else "undecided"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=int, default=300)
    parser.add_argument("--groups", type=int, default=15)
    asked = parser.parse_args()
    print("supported / refuted, share of tables; before, after")
    for claim, truth, means in CASES:
        for name in NOISES:
            random = np.random.default_rng(18)
            tables = [simulated(means, name, asked.groups, random) for _ in range(asked.tables)]
            shares = [
                f"{np.mean([verdict == wanted for verdict in verdicts]):.3f}"
                for judge in (before, after)
                for verdicts in [[judge(claim, rows) for rows in tables]]
                for wanted in ("supported", "not supported")
            ]
            told = f"{shares[0]} / {shares[1]}   {shares[2]} / {shares[3]}"
            print(f"{claim:20} {truth:32} {name:15} {told}", flush=True)


if __name__ == "__main__":
    main()
