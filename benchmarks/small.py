"""Sweeps of small networks: what does a score take beside the network's own arithmetic?

    python benchmarks/small.py [--rounds 3] [--network lenet|unet]

Some 500 variants (every tensor, in several shares) of a network whose pass takes a few milliseconds, on one
thread. *engine* is what replays take for a variant on a batch, *rest* all else for it: scoring, journal,
progress; *table* is what the whole run takes beside blocks, once. Times are the processor's, so that others
on the machine count little. The rest is held against a pass of 5 ms.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from keeping import keep
from safetensors.torch import save_file
from torch import Tensor, nn

import ckptswap

HERE = Path(__file__).resolve()
PASS = 5.0  # milliseconds
BATCHES, BATCH = 8, 8
now = time.process_time


class LeNet(nn.Sequential):
    """LeNet-5 (LeCun et al. 1998), with tanh and means."""

    def __init__(self) -> None:
        maps = [nn.Conv2d(1, 6, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2)]
        maps += [nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten()]
        super().__init__(*maps, nn.Linear(400, 120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, 10))


NETWORKS: dict[str, tuple[str, dict[str, Any], int, str, int]] = {
    "lenet": (f"{HERE}:LeNet", {}, 28, "accuracy", 50),
    "unet": ("lab:unet", {"width": 4, "depth": 2}, 32, "dice", 8),
}
"""Model, its arguments, pixels a side, metric, and in how many shares each tensor is taken."""


def data(side: int, classes: int) -> list[tuple[Tensor, Any]]:
    """Noise: with a class each, or, without classes, with what part of it is bright."""
    images = torch.rand(BATCH * BATCHES, 1, side, side, generator=torch.Generator().manual_seed(0))
    return [(image, at % classes if classes else (image[0] > 0.5).long()) for at, image in enumerate(images)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--network", choices=NETWORKS, action="append")
    options = parser.parse_args()
    print(
        f"{'network':9}{'variants':>9}"
        + "".join(f"{name:>11}" for name in ("pass ms", "engine", "rest", "table s"))
    )
    for network in options.network or NETWORKS:
        with tempfile.TemporaryDirectory() as folder:
            pair(network, Path(folder))
            rounds = [measured(network, Path(folder)) for _ in range(options.rounds)]
        variants, *times = (statistics.median(values) for values in zip(*rounds, strict=True))
        print(f"{network:9}{variants:9.0f}" + "".join(f"{value:11.3f}" for value in times), flush=True)
        work = f"a block's scoring and bookkeeping, {variants:.0f} variants of {network}"
        keep(__file__, work, f"a forward pass of {PASS:g} ms", 100 * times[2] / PASS, most=10, unit=" %")


def pair(network: str, folder: Path) -> None:
    """Two checkpoints with random values."""
    from ckptswap.task.models.build import build_model

    for seed, name in enumerate("ab"):
        torch.manual_seed(seed)
        save_file(build_model(*NETWORKS[network][:2]).state_dict(), folder / f"{name}.safetensors")


def measured(network: str, folder: Path) -> tuple[float, ...]:
    """Variants, and milliseconds a pass, a block's replay and a block's rest, and seconds of the table."""
    from ckptswap.sweep.preparing import prepare
    from ckptswap.sweep.progress import Listeners
    from ckptswap.sweep.sides import Sides
    from ckptswap.sweep.spec import RunOptions, SweepSpec
    from ckptswap.task import TaskSpec

    model, args, side, metric, shares = NETWORKS[network]
    given = {"side": side, "classes": 10 if metric == "accuracy" else 0}
    task = TaskSpec(model=model, model_args=args, data=f"{HERE}:data", data_args=given, metrics=(metric,),
                    batch_size=BATCH, threads=1)  # fmt: skip
    alphas = tuple((at + 1) / shares for at in range(shares))
    donor, recipient = (ckptswap.open(folder / f"{name}.safetensors") for name in "ab")
    with donor, recipient, tempfile.TemporaryDirectory(dir=folder) as run:
        spec = SweepSpec((donor.path,), recipient.path, task, by=(("tensor",),), alphas=alphas)
        planned = prepare(spec, Sides((donor,), recipient), run)
        inputs, watched = planned.task.first_inputs(), Watched(planned.runs_model)
        with planned.task.pinned():
            one_pass = min(timed(planned.task.forward, inputs) for _ in range(50))
        listeners = Listeners(progress=watched.progress, live=lambda worst: None)
        whole = timed(planned.run, RunOptions(tolerance=0.01, samples=False, zero_control=False), listeners)
    blocks = (len(planned.variants) + 1) * planned.batches
    rest = watched.scoring - watched.engine
    per_block = (1000 * seconds / blocks for seconds in (watched.engine, rest))
    return len(planned.variants), 1000 * one_pass, *per_block, whole - watched.scoring


class Watched:
    """How long a scorer's outputs took to come, and how long it was from the first to the last block."""

    def __init__(self, scorer: Any) -> None:
        self.engine, self._outputs, self._began, self._last = 0.0, scorer.outputs, None, 0.0
        scorer.outputs = self.outputs

    def outputs(self, *given: Any) -> Iterator[Any]:
        results, ended = self._outputs(*given), object()
        while True:
            began = now()
            self._began = began if self._began is None else self._began
            result = next(results, ended)
            self.engine += now() - began
            if result is ended:
                return
            yield result

    def progress(self, done: int, total: int) -> None:
        self._last = now()

    @property
    def scoring(self) -> float:
        """Seconds from the first block to the last."""
        return self._last - (self._began or self._last)


def timed(work: Any, *given: Any) -> float:
    began = now()
    work(*given)
    return now() - began


if __name__ == "__main__":
    main()
