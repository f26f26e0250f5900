"""Which networks that people have are replayed, with equal bits, and why the others are not.

    python benchmarks/families.py [NAME …]          # names or their beginnings, such as timm/ smp/Unet; none: all

Each network is built small, with random values, and a few tensors of a noisy copy of it are swapped, one after
another, on three batches; every replayed output is held against a full pass. The list is
`tests/scoring/networks_of_people.py`, docs/howto/any-model.md tells what came out, and
`tests/scoring/test_scoring_networks.py` holds some of it.
"""

from __future__ import annotations

import sys
import time
import warnings
from pathlib import Path

import torch

for folder in ("tests", "tests/scoring"):
    sys.path.insert(0, str(Path(__file__).parents[1] / folder))
from networks_of_people import NETWORKS  # noqa: E402
from people_scored import replayed, scorer_of_copies  # noqa: E402


def told(name: str) -> str:
    """One network's line: how it is run, of how many steps its graph is, and how long all of it took."""
    start = time.perf_counter()
    try:
        task, engine = scorer_of_copies(name)
        count, _ = replayed(task, engine)
    except Exception as error:  # of any library
        return f"{name:42} {'fails':8}          {type(error).__name__}: {str(error)[:200]}"
    took = f"{time.perf_counter() - start:6.1f} s"
    if engine.notes:
        return f"{name:42} {'in full':8} {took}  {'; '.join(engine.notes)}"
    steps = max(len(known.graph.steps) for known in engine._replays.values())
    return f"{name:42} {'replayed':8} {took}  {count} outputs with equal bits, {steps:,} steps"


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    wanted = tuple(sys.argv[1:]) or ("",)
    for name in NETWORKS:
        if name.startswith(wanted):
            print(told(name), flush=True)


if __name__ == "__main__":
    main()
