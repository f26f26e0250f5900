"""Racing on per-sample drops whose truth is known: how often is it wrong, and how much of the work is left?

    python benchmarks/race.py [--races 25] [--variants 100] [--samples 400] [--top 10] [--family NAME …]

Three tests on the same walks: `known` bets with the true ceiling of a sample's drop, `assumed` takes the ceiling
from the drops seen (both as in ckptswap.sweep.race), and `student` uses t intervals with finite population
correction, Bonferroni over the top and the looks, in the same race: it shows why it is not in the library. A race
is wrong when a variant that it left out has a drop over all samples that exceeds the last of the shown by more
than epsilon. Work is the share of the exact sweep's, each variant weighted by a random part of a forward pass;
`complete` counts the variants that saw all samples.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from ckptswap.statistics.seeds import student_quantile
from ckptswap.sweep.race import RaceRules, chunk_ends, standing

BATCH = 8
Make = Callable[[np.random.Generator, int, int, int], np.ndarray]
"""random, V, N, top → drops (V, N)."""


# Families -------------------------------------------------------------------------------------------------------


def separable(random: np.random.Generator, variants: int, samples: int, top: int) -> np.ndarray:
    """A clear gap: the top drops by 0.15 to 0.6, nearly all others hardly."""
    mean = np.append(random.uniform(0.15, 0.6, top), random.exponential(0.01, variants - top))
    spread = np.append(np.full(top, 0.25), random.uniform(0.005, 0.05, variants - top))
    return np.clip(mean[:, None] + spread[:, None] * random.normal(size=(variants, samples)), -1, 1)


def network(random: np.random.Generator, variants: int, samples: int, top: int) -> np.ndarray:
    """As real sweeps look: drops fall as 1 / rank, and a drop is a few samples that break."""
    mean = 0.8 / np.arange(1, variants + 1)
    return np.clip(mean[:, None] * random.beta(0.5, 2, (variants, samples)) / 0.2, -1, 1)


def rare(random: np.random.Generator, variants: int, samples: int, top: int) -> np.ndarray:
    """Zeros, and a few samples that break wholly: 5 % of them in the top, up to 3 % below it."""
    broken = np.append(np.full(top, samples // 20), random.integers(0, samples * 3 // 100 + 1, variants - top))
    return np.array([spikes(random, samples, count) for count in broken])


def decoys(random: np.random.Generator, variants: int, samples: int, top: int) -> np.ndarray:
    """The worst case: each of the top rests on 5 % of the samples, and as many constants lie just below."""
    drops = rare(random, variants, samples, top)
    drops[top:] = 0.0
    drops[top : 2 * top] = 0.999 * (samples // 20) / samples
    return drops


def skew(random: np.random.Generator, variants: int, samples: int, top: int) -> np.ndarray:
    """Lognormal samples, cut at 1, some variants close below the top."""
    mean = np.append(random.uniform(0.1, 0.4, top), random.uniform(0, 0.06, variants - top))
    return np.minimum(mean[:, None] * random.lognormal(-1.125, 1.5, (variants, samples)), 1)


def ties(random: np.random.Generator, variants: int, samples: int, top: int) -> np.ndarray:
    """Half of the top is clear; all others drop by 0.1 but for noise."""
    mean = np.append(random.uniform(0.2, 0.5, top // 2), np.full(variants - top // 2, 0.1))
    return np.clip(mean[:, None] + 0.1 * random.normal(size=(variants, samples)), -1, 1)


def zeros(random: np.random.Generator, variants: int, samples: int, top: int) -> np.ndarray:
    """Fewer variants drop at all than the top has places."""
    drops = separable(random, variants, samples, top)
    drops[top - 2 :] = 0.0
    return drops


def equal(random: np.random.Generator, variants: int, samples: int, top: int) -> np.ndarray:
    """Variants have twins with the same scores; one pair stands across the edge of the top."""
    half = skew(random, variants // 2 + 1, samples, top // 2)
    return np.repeat(half, 2, axis=0)[1 - top % 2 :][:variants]


def correlated(random: np.random.Generator, variants: int, samples: int, top: int) -> np.ndarray:
    """Samples are hard or easy for all variants alike."""
    mean = np.append(random.uniform(0.15, 0.3, top), random.uniform(0, 0.12, variants - top))
    noise = 0.3 * random.normal(size=samples) + 0.02 * random.normal(size=(variants, samples))
    return np.clip(mean[:, None] + noise, -1, 1)


def batches(random: np.random.Generator, variants: int, samples: int, top: int) -> np.ndarray:
    """Neighbours of a ready-made batch break together; else as `decoys`."""
    drops = np.zeros((variants, samples))
    units = samples // BATCH
    for row in drops[:top]:
        row[: units * BATCH] = np.repeat(spikes(random, units, units // 10), BATCH)
    drops[top : 2 * top] = 0.999 * drops[0].mean()
    return drops


def peaked(random: np.random.Generator, variants: int, samples: int, top: int) -> np.ndarray:
    """Without bounds: a drop is a share of samples, 3 to 50 %, that break by a lognormal amount."""
    share = random.uniform(0.03, 0.5, (variants, 1))
    mean = np.arange(1, variants + 1)[:, None] ** -0.7
    hit = random.random((variants, samples)) < share
    return mean / share * hit * random.lognormal(-0.3, 0.7, (variants, samples))


def decibels(random: np.random.Generator, variants: int, samples: int, top: int) -> np.ndarray:
    """Without bounds, and harmless: psnr drops by 4 to 12 dB at the top, by about 1 below."""
    mean = np.append(random.uniform(4, 12, top), random.exponential(0.8, variants - top))[:, None]
    noise = random.normal(size=(2, variants, samples))
    return mean * (1 + 0.4 * noise[0]) + 0.3 * noise[1]


def lonely(random: np.random.Generator, variants: int, samples: int, top: int) -> np.ndarray:
    """Without bounds, and hopeless: one variant rests on 3 % of the samples, and none is like it."""
    mean = np.append(random.uniform(0.5, 2, top), random.uniform(-0.1, 0.4, variants - top))
    drops = mean[:, None] + random.normal(size=(variants, samples))
    drops[0] = 30 * spikes(random, samples, samples * 3 // 100)
    return drops


def spikes(random: np.random.Generator, samples: int, count: int) -> np.ndarray:
    """Zeros (N,) with `count` ones."""
    return np.isin(np.arange(samples), random.choice(samples, count, replace=False)).astype(float)


BOUNDED: tuple[Make, ...] = (separable, network, rare, decoys, skew, ties, zeros, equal, correlated, batches)
UNBOUNDED: tuple[Make, ...] = (decibels, peaked, lonely)


# Races ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """One race that was run to its end: was it wrong, its share of the work, how many variants saw all samples."""

    wrong: bool
    work: float
    complete: int


@dataclass(frozen=True)
class Walked:
    """Drops (V, N) in the order of one walk, the units of the walk (None: each sample alone), the costs (V,)."""

    drops: np.ndarray
    units: np.ndarray | None
    costs: np.ndarray

    @classmethod
    def of(cls, make: Make, variants: int, samples: int, top: int, seed: int) -> Walked:
        """The family's drops under a seed, walked in random order."""
        random = np.random.default_rng(seed)
        drops = make(random, variants, samples, top)
        labels = np.arange(samples) // (BATCH if make is batches else 1)
        drawn = random.permutation(labels.max() + 1)
        order = np.argsort(np.argsort(drawn)[labels], kind="stable")
        costs = random.uniform(0.1, 1, variants)
        return cls(drops[:, order], labels[order] if make is batches else None, costs)

    @property
    def ends(self) -> list[int]:
        whole, rest = divmod(self.drops.shape[1], BATCH)
        if self.units is not None:
            return chunk_ends(np.diff(np.flatnonzero(np.diff(self.units, prepend=-1, append=-1))).tolist())
        return chunk_ends([BATCH] * whole + [rest] * (rest > 0))

    def outcome(self, leaders: Sequence[int], scored: np.ndarray, epsilon: float) -> Outcome:
        drops = self.drops.mean(axis=1)
        left = np.delete(drops, list(leaders))
        wrong = len(left) > 0 and left.max() > drops[list(leaders)].min() + epsilon + 1e-12
        samples = self.drops.shape[1]
        work = float(scored @ self.costs / self.costs.sum() / samples)
        return Outcome(bool(wrong), work, int((scored == samples).sum()))


def bet(walked: Walked, rules: RaceRules) -> Outcome:
    """The library's race."""
    found = standing(walked.drops, walked.ends, rules, walked.units)
    return walked.outcome(found.leaders, found.scored, rules.epsilon)


def student(walked: Walked, rules: RaceRules) -> Outcome:
    """The same race with a one-sided t interval for each variant left."""
    drops, ends = walked.drops, walked.ends
    means, samples = drops.mean(axis=1), drops.shape[1]
    level = 1 - 2 * (1 - rules.confidence) / rules.top / len(ends)
    scored, outside = np.zeros(len(drops), dtype=int), np.zeros(len(drops), dtype=bool)
    for end in ends:
        scored[~outside] = np.maximum(scored[~outside], end)
        sofar = np.array([row[:seen].mean() for row, seen in zip(drops, scored, strict=True)])
        scored[np.argsort(np.where(outside, np.inf, -sofar), kind="stable")[: rules.top]] = samples
        bar = np.sort(means[scored == samples])[-rules.top]
        left = np.flatnonzero(~outside & (scored < samples))
        error = drops[left, :end].std(axis=1, ddof=1) / math.sqrt(end) * math.sqrt(1 - end / samples)
        outside[left] = sofar[left] + student_quantile(end - 1, level) * error < bar + rules.epsilon
    leaders = np.argsort(np.where(scored == samples, -means, np.inf), kind="stable")[: rules.top]
    return walked.outcome(leaders.tolist(), scored, rules.epsilon)


def tested(make: Make, rules: RaceRules, walks: Sequence[Walked]) -> Iterator[tuple[str, list[Outcome]]]:
    """The outcomes by each test that the family admits."""
    assumed = RaceRules(rules.top, rules.confidence, rules.epsilon)
    if make in BOUNDED:
        known = RaceRules(rules.top, rules.confidence, rules.epsilon, ceiling=1.0)
        yield "known", [bet(walked, known) for walked in walks]
    yield "assumed", [bet(walked, assumed) for walked in walks]
    yield "student", [student(walked, assumed) for walked in walks]


def main() -> None:
    options = arguments()
    rules = RaceRules(options.top, options.confidence, options.epsilon)
    print(f"{options.variants} variants, {options.samples} samples, {options.races} races of each family")
    print(f"top {options.top}, epsilon {options.epsilon:g}: wrong should stay under {1 - options.confidence:.3f}")
    print(f"{'family':12}{'test':10}{'wrong':>7}{'work':>8}{'complete':>10}")
    for make in (*BOUNDED, *UNBOUNDED):
        if options.family and make.__name__ not in options.family:
            continue
        sizes = options.variants, options.samples, options.top
        walks = [Walked.of(make, *sizes, seed) for seed in range(options.seed, options.seed + options.races)]
        for test, found in tested(make, rules, walks):
            wrong, work, complete = (
                fmean(getattr(each, name) for each in found) for name in ("wrong", "work", "complete")
            )
            print(f"{make.__name__:12}{test:10}{wrong:7.3f}{work:8.3f}{complete:10.1f}", flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--races", type=int, default=25, help="races of each family")
    parser.add_argument("--variants", type=int, default=100)
    parser.add_argument("--samples", type=int, default=400)
    parser.add_argument("--top", type=int, default=10)
    parser.add_argument("--confidence", type=float, default=0.95)
    parser.add_argument("--epsilon", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0, help="of the first race")
    parser.add_argument("--family", nargs="*", default=[], help="only these")
    return parser.parse_args()


if __name__ == "__main__":
    main()
