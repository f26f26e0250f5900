"""`--decide`: how often a verdict is wrong, and how much work it leaves.

    python benchmarks/decide.py simulate [--tables 150] [--family NAME …] [--groups 40 200] [--spending NAME …]
    python benchmarks/decide.py answers
    python benchmarks/decide.py make FOLDER
    python benchmarks/decide.py replay RUN [RUN …] [--orders 40]

`simulate` judges tables of which the truth is known: of 100 rows 40 lie exactly at the tolerance, where either
verdict is wrong, 30 below and 30 above it. `answers` says after how many of 240 answers it is known that parts
break three in ten of them, and when parts that break none are left. `replay` takes the scores of exact sweeps,
each a finished run folder, and walks their groups in other orders, as a sweep with `--decide` would: a verdict is
contradicted where the exact sweep's own is the opposite one. Work is told in scores, as a share of the exact
sweep's. `make` makes two such folders, `pictures` and `subjects` (four pictures each): a pair of small U-Nets, for
segmentation and for auto-encoding, is trained and swept on made-up pictures of blobs.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import torch

from ckptswap.statistics import sequential
from ckptswap.statistics.totals import mean
from ckptswap.sweep.decide import Walked, decisions
from ckptswap.sweep.scored_run import ScoredRun

TOLERANCE, ROWS, SIDE = 0.01, 100, 48
TRUTH = np.repeat([0.0, -1.0, 1.0], [40, 30, 30])
"""Of each row: at the tolerance, below it, above it."""
Draw = Callable[[np.random.Generator, int, int], np.ndarray]


def normal(random: np.random.Generator, rows: int, groups: int) -> np.ndarray:
    return random.normal(size=(rows, groups))


def lognormal(spread: float, sign: float) -> Draw:
    """Of mean 0 and variance 1, with the long tail above (a few groups lose much) or below."""

    def draw(random: np.random.Generator, rows: int, groups: int) -> np.ndarray:
        values = np.exp(spread * random.normal(size=(rows, groups)))
        middle, variance = np.exp(spread**2 / 2), (np.exp(spread**2) - 1) * np.exp(spread**2)
        return sign * (values - middle) / np.sqrt(variance)

    return draw


def correlated(random: np.random.Generator, rows: int, groups: int) -> np.ndarray:
    """Half of each row's variance is the group's own, in all rows alike."""
    return np.sqrt(0.5) * (random.normal(size=(1, groups)) + random.normal(size=(rows, groups)))


def rare(random: np.random.Generator, rows: int, groups: int) -> np.ndarray:
    """All groups move a little, and one in twenty breaks."""
    breaks = (random.random((rows, groups)) < 0.05) - 0.05
    return breaks / np.sqrt(0.05 * 0.95) + 0.05 * random.normal(size=(rows, groups))


FAMILIES: dict[str, Draw] = {
    "normal": normal,
    "lognormal-0.5": lognormal(0.5, 1.0),
    "lognormal-1": lognormal(1.0, 1.0),
    "lognormal-1-below": lognormal(1.0, -1.0),
    "correlated": correlated,
    "unequal": normal,
    "rare": rare,
}


@dataclass(frozen=True)
class Table:
    """Scores of a simulated sweep, whose groups come in the order of their numbers."""

    walked: Walked
    truth: np.ndarray


def table(family: str, groups: int, seed: int) -> Table:
    """100 rows, whose groups spread by 0.3 to 3 tolerances, and lie 1 to 6 tolerances off where they do."""
    random = np.random.default_rng([seed, groups, list(FAMILIES).index(family)])
    sizes = random.integers(1, 10, groups) if family == "unequal" else np.ones(groups, np.int64)
    spread = TOLERANCE * np.exp(random.uniform(np.log(0.3), np.log(3.0), (ROWS, 1)))
    away = TOLERANCE * np.exp(random.uniform(0.0, np.log(6.0), (ROWS, 1)))
    drops = TOLERANCE + TRUTH[:, None] * away + spread * FAMILIES[family](random, ROWS, groups)
    number = np.repeat(np.arange(groups), sizes)
    scores = {str(row): 0.8 - drops[row, number][:, None] for row in range(ROWS)}
    walk = [np.flatnonzero(number == group) for group in range(groups)]
    baseline = np.full((len(number), 1), 0.8)
    return Table(Walked(baseline, scores, number, walk, mean, "max", (-np.inf, np.inf)), TRUTH)


def equal(looks: list[int]) -> np.ndarray:
    return np.full(len(looks), 1 / len(looks))


def pocock(looks: list[int]) -> np.ndarray:
    """Lan and DeMets' increments of ln(1 + (e − 1)·t)."""
    return np.diff(np.log1p((np.e - 1) * np.array([0, *looks]) / looks[-1]))


def root(looks: list[int]) -> np.ndarray:
    """Increments of √t."""
    return np.diff(np.sqrt(np.array([0, *looks]) / looks[-1]))


def linear(looks: list[int]) -> np.ndarray:
    """Increments of t, nearer to O'Brien and Fleming's."""
    return np.diff(np.array([0, *looks]) / looks[-1])


SPENDING: dict[str, Callable[[list[int]], np.ndarray]] = {
    "chosen": sequential.shares_of,
    "equal": equal,
    "root": root,
    "pocock": pocock,
    "linear": linear,
}


@dataclass(frozen=True)
class Outcome:
    """Of one table: whether any row is wrongly reusable, or sensitive; the share of the rows off the tolerance
    that are decided rightly; and of their work."""

    wrong: tuple[bool, bool]
    right: float
    work: float


def judged(family: str, groups: int, seed: int, spending: str) -> Outcome:
    drawn = table(family, groups, seed)
    looks, tests = drawn.walked.looks, drawn.walked.by_t(TOLERANCE)
    now = sequential.standing(drawn.walked.known, looks, tests, SPENDING[spending](looks))
    verdicts, off = np.array(now.verdicts), drawn.truth != 0
    wrong = (verdicts == "reusable") & (drawn.truth >= 0), (verdicts == "sensitive") & (drawn.truth <= 0)
    right = verdicts == np.where(drawn.truth < 0, "reusable", "sensitive")
    ends = bool(wrong[0].any()), bool(wrong[1].any())
    return Outcome(ends, float(right[off].mean()), float(now.looked[off].mean() / groups))


def simulate(options: argparse.Namespace) -> None:
    print("| family | groups | spending | wrongly reusable | wrongly sensitive | right of those off it | work |")
    print("|---|---|---|---|---|---|---|")
    for family, groups, spending in product(options.family, options.groups, options.spending):
        tables = [judged(family, groups, seed, spending) for seed in range(options.tables)]
        wrong = " | ".join(f"{share:.1%}" for share in np.mean([own.wrong for own in tables], axis=0))
        right, work = (np.mean([getattr(own, name) for own in tables]) for name in ("right", "work"))
        print(f"| {family} | {groups} | {spending} | {wrong} | {right:.0%} | {work:.0%} |", flush=True)


def looked(broken: np.ndarray, *, are_bounded: bool) -> float:
    """After how many answers rows are left in the median; broken (rows, answers) are no longer right."""
    answers = np.arange(broken.shape[1])
    scores = {str(row): 1.0 - own[:, None] for row, own in enumerate(broken)}
    bounds = (0.0, 1.0) if are_bounded else (-np.inf, np.inf)
    walked = Walked(np.ones((len(answers), 1)), scores, answers, [answers], mean, "max", bounds)
    return float(np.median([own.groups for own in decisions(walked, TOLERANCE, bets=False).judgements.values()]))


def answers(_: argparse.Namespace) -> None:
    broken = np.random.default_rng(0).random((ROWS, 240)) < 0.3
    print(f"three in ten are broken, by bets: {looked(broken, are_bounded=True):g} of 240")
    print(f"three in ten are broken, by t-tests: {looked(broken, are_bounded=False):g} of 240")
    print(f"none is broken, left undecided: {looked(broken & False, are_bounded=True):g} of 240")


def replay(options: argparse.Namespace) -> None:
    print("| run | rows | groups | decided | contradicted | exact undecided | work: mean | most |")
    print("|---|---|---|---|---|---|---|---|")
    for folder in options.runs:
        print(replayed(folder, options.orders))


def replayed(folder: str, orders: int) -> str:
    from ckptswap.sweep.analysis import analysed
    from ckptswap.sweep.run_folder.folder import RunFolder

    run = ScoredRun.read(RunFolder(folder))
    exact = {(row.donor, row.tensors): row.verdict for row in analysed(run).result.rows}
    variants = {
        cell.variant: exact[cell.donor, cell.names] for cell in run.plan.cells if cell.status == "measured"
    }
    scores = {name: run.statistics(name) for name in variants}
    base = Walked(run.statistics("baseline"), scores, run.groups, (), run.reduce, run.metric.direction, run.bounds)
    numbers = np.unique(run.groups)
    decided, contradicted, bold, work = [], 0, [], []
    for seed in range(orders):
        order = np.random.default_rng(seed).permutation(numbers)
        walked = replace(base, walk=[np.flatnonzero(run.groups == group) for group in order])
        now = decisions(walked, run.tolerance()[0], bets=False).judgements
        pairs = [(now[name].verdict, verdict) for name, verdict in variants.items()]
        decided.append(np.mean([ours != "undecided" for ours, _ in pairs]))
        contradicted += sum({ours, theirs} == {"reusable", "sensitive"} for ours, theirs in pairs)
        bold.append(np.mean([ours != "undecided" and theirs == "undecided" for ours, theirs in pairs]))
        sizes = np.cumsum(walked.sizes)
        work.append(np.mean([sizes[now[name].groups - 1] for name in variants]) / sizes[-1])
    return (
        f"| {folder} | {len(variants)} | {len(numbers)} | {np.mean(decided):.0%} | {contradicted} | "
        f"{np.mean(bold):.1%} | {np.mean(work):.1%} | {max(work):.1%} |"
    )


def pictures(part: str, count: int, together: int = 1) -> list[tuple[torch.Tensor, torch.Tensor, int]]:
    """Noisy blobs on 48 × 48 points, and where they are; so many `together` are a group."""
    draw = torch.Generator().manual_seed(0 if part == "train" else 1)
    y, x = torch.meshgrid(torch.arange(SIDE) * 1.0, torch.arange(SIDE) * 1.0, indexing="ij")
    items = []
    for at in range(count):
        mask, image = (
            torch.zeros(SIDE, SIDE, dtype=torch.bool),
            0.3 * torch.rand(1, generator=draw).expand(SIDE, SIDE),
        )
        for _ in range(int(torch.randint(1, 6, (1,), generator=draw))):
            row, column, high, wide, tone = torch.rand(5, generator=draw).tolist()
            blob = ((y - SIDE * row) / (3 + 8 * high)) ** 2 + ((x - SIDE * column) / (3 + 8 * wide)) ** 2 < 1
            mask, image = mask | blob, torch.where(blob, 0.35 + 0.6 * tone, image)
        noise = (0.05 + 0.15 * torch.rand(1, generator=draw)) * torch.randn(SIDE, SIDE, generator=draw)
        items.append(((image + noise)[None].float(), mask.long(), at // together))
    return items


def make(options: argparse.Namespace) -> None:
    """Train the pair, and sweep it on 240 groups of one picture and on 200 of four."""
    folder = Path(options.folder)
    folder.mkdir(parents=True, exist_ok=True)

    def ckptswap(words: str) -> None:
        program = str(Path(sys.executable).parent / "ckptswap")
        subprocess.run([program, *words.split(), "--threads", "1"], cwd=folder, check=True)

    data = f"--data {Path(__file__).resolve()}:pictures --data-args"
    net = f"--model lab:unet --model-args width=6,depth=3 --steps 120 {data} part=train,count=160"
    ckptswap(f"train segment {net} --save-init init.safetensors -o segment.safetensors")
    ckptswap(f"train reconstruct {net} --init-from init.safetensors -o reconstruct.safetensors")
    pair = "sweep --from reconstruct.safetensors --to segment.safetensors --metric dice --no-zero-control"
    ckptswap(f"{pair} {data} part=test,count=240 --by layer,kind --by kind --run pictures")
    ckptswap(f"{pair} {data} part=test,count=800,together=4 --run subjects")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(required=True)
    first = parts.add_parser("simulate")
    first.add_argument("--tables", type=int, default=150)
    first.add_argument("--family", nargs="+", default=list(FAMILIES), choices=FAMILIES)
    first.add_argument("--groups", type=int, nargs="+", default=[15, 40, 200])
    first.add_argument("--spending", nargs="+", default=["chosen"], choices=SPENDING)
    first.set_defaults(do=simulate)
    parts.add_parser("answers").set_defaults(do=answers)
    second = parts.add_parser("replay")
    second.add_argument("runs", nargs="+")
    second.add_argument("--orders", type=int, default=40)
    second.set_defaults(do=replay)
    third = parts.add_parser("make")
    third.add_argument("folder")
    third.set_defaults(do=make)
    options = parser.parse_args()
    options.do(options)


if __name__ == "__main__":
    main()
