"""What a sweep survives, at length, and what remembering costs.

    python benchmarks/faults.py [--kills 50] [--seed 0] [--blocks 200000]

Kills are SIGKILL at random moments: when a random number of further blocks has come in, or within seconds of the
start. A block counts as lost when it was in the journal before a kill and not after it. The short form is
tests/faults; Slurm and Ray are in tests/cluster.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests/faults"))
import chaos

from ckptswap.scoring.scorer import Block
from ckptswap.sweep.run_folder.journal import Journal, read_blocks

BLOCK = 0.005
"""Seconds that a block is said to take."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="of the sweep, of a sweep with workers, of a worker")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--blocks", type=int, default=200_000, help="of the journal that is written and read")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        journal(Path(name), options.blocks)
        kills(Path(name), options.kills, random.Random(options.seed))


def kills(folder: Path, count: int, draw: random.Random) -> None:
    work = chaos.make(folder / "work")
    expected = chaos.finish(work, "whole")
    blocks = len(chaos.places(work / "whole"))
    for title, victim, flags in (
        ("the sweep", chaos.itself, []),
        ("the sweep, with two workers", chaos.itself, ["--jobs", "2"]),
        ("one of two workers", chaos.worker_of, ["--jobs", "2"]),
    ):
        survived, lost, twice, equal, run = 0, 0, 0, True, 0
        while survived < count:  # in several sweeps, as one has too few blocks
            found = chaos.survive(
                work, f"{victim.__name__}{len(flags)}-{run}", min(10, count - survived), victim, draw, expected,
                *flags, most=blocks // 6, early=0.3,
            )  # fmt: skip
            survived, lost, twice = survived + found.kills, lost + found.lost, twice + found.twice
            equal, run = equal and found.equal, run + 1
        table = "equal" if equal else "DIFFERS"
        print(f"SIGKILL of {title}: {survived} kills survived in {run} sweeps of {blocks} blocks,", end=" ")
        print(f"{lost} results lost, {twice} blocks written twice, table {table}", flush=True)


def journal(folder: Path, count: int) -> None:
    """1,000 variants on 200 batches of eight samples with two metrics, by a task that takes no time."""
    statistics = {name: np.random.default_rng(0).random((8, 1)) for name in ("iou", "dice")}
    variants = [f"{number:016x}" for number in range(count // 200)]
    start = time.perf_counter()
    with Journal(folder / "run", "key") as written:
        for batch in range(200):
            for variant in variants:
                written.append(Block(variant, batch, statistics))
    each = (time.perf_counter() - start) / (len(variants) * 200)
    start = time.perf_counter()
    found = read_blocks(folder / "run", key="key")
    seconds = time.perf_counter() - start
    size = sum(path.stat().st_size for path in (folder / "run/journal").iterdir())
    print(f"journal of {len(found):,} blocks: {each * 1e6:.0f} µs each, {each / BLOCK:.1%} of 5 ms", end=" ")
    print("(5 % allowed);", end=" ")
    print(f"{size / 1e6:.0f} MB, read again in {seconds:.2f} s (2 s allowed)", flush=True)


if __name__ == "__main__":
    main()
