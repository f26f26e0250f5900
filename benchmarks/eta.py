"""What `sweep --dry-run` foretells, against the time that the sweep takes: six networks, one with seven shapes.

    python benchmarks/eta.py [--only NAME,…] [--folder DIR] [--limit RATIO] [--processor]

Networks have random values, and accuracy against random classes: what a sweep takes does not depend on either.
Each command runs as a person types it, in a process of its own, on one thread; the time is that of the whole
command. The dry run's knows nothing of Python's own start and of what is imported before the sweep begins, which
is measured by importing that and told beside it. Exit code 1 where a ratio is beyond the limit.

Beside busy neighbours the clock tells nothing: a command that takes minutes may have the machine to itself for
half of them. With `--processor` both sides count processor seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

HERE = Path(__file__).resolve()
Clock = Callable[[], float]
BY_PROCESSOR = """import time
time.monotonic = time.perf_counter = time.process_time
from ckptswap.cli.main import main
main()
"""
# name: model, side, shapes, samples, batch, --by
NETWORKS = {
    "resnet18, one shape": ("torchvision:resnet18", 64, 1, 96, 8, "layer"),
    "resnet18, seven shapes": ("torchvision:resnet18", 48, 7, 56, 8, "layer"),
    "mobilenet_v3_small": ("torchvision:mobilenet_v3_small", 64, 1, 64, 8, "layer"),
    "densenet121": ("torchvision:densenet121", 64, 1, 16, 8, "kind"),
    "squeezenet1_1, full": ("torchvision:squeezenet1_1", 96, 1, 64, 8, "layer,kind"),
    "efficientnet_b0": ("torchvision:efficientnet_b0", 64, 1, 24, 8, "kind"),
}


def samples(side: int, shapes: int, samples: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Random images (3, side, side), larger ones too where there are several shapes, and their classes."""
    draw = torch.Generator().manual_seed(0)
    sides = (side + 8 * (at % shapes) for at in range(samples))
    return [(torch.randn(3, side, side, generator=draw), torch.tensor(at % 10)) for at, side in enumerate(sides)]


def pair(model: str, folder: Path) -> list[str]:
    """Two checkpoints of random values, as words of the command."""
    import torchvision

    name = model.partition(":")[2]
    for seed, file in enumerate(("donor.pt", "recipient.pt")):
        torch.manual_seed(seed)
        torch.save(torchvision.models.get_model(name, num_classes=10).state_dict(), folder / file)
    return ["--from", str(folder / "donor.pt"), "--to", str(folder / "recipient.pt")]


def ran(words: list[str], folder: Path, clock: Clock) -> tuple[str, float]:
    """What a command prints, and how many seconds it takes."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    start = clock()
    command = [sys.executable, *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return done.stdout, clock() - start


def processor() -> float:
    """Processor seconds of all commands that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def ratio(name: str, folder: Path, start: float, clock: Clock) -> float:
    """Foretell, then sweep; prints and gives foretold / taken."""
    model, side, shapes, count, batch, by = NETWORKS[name]
    sizes = f"side={side},shapes={shapes},samples={count}"
    program = ["-m", "ckptswap"] if clock is time.perf_counter else ["-c", BY_PROCESSOR]
    words = [*program, "sweep", *pair(model, folder)]
    words += [
        "--model",
        model,
        "--model-args",
        "num_classes=10",
        "--threads",
        "1",
        "--data",
        f"{HERE}:samples",
        "--data-args",
        sizes,
        "--metric",
        "accuracy",
        "--by",
        by,
        "--batch-size",
        str(batch),
        "--tolerance",
        "0.01",
        "--run",
        "run",
        "--format",
        "json",
    ]
    words += ["--engine", "full"] if name.endswith("full") else []
    plan = json.loads(ran([*words, "--dry-run"], folder, clock)[0])
    _, took = ran(words, folder, clock)
    foretold = plan["seconds"] + start
    print(
        f"{name:24} {plan['engine']:7} {plan['variants']:4} variants  foretold {foretold:6.1f} s  "
        f"took {took:6.1f} s  ratio {foretold / took:.2f}",
        flush=True,
    )
    return foretold / took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="beginnings of names, with commas between")
    parser.add_argument("--folder", type=Path, help="where to keep what is made")
    parser.add_argument("--limit", type=float, default=1.5)
    parser.add_argument("--processor", action="store_true", help="count processor seconds")
    told = parser.parse_args()
    clock = processor if told.processor else time.perf_counter
    wanted = [name for name in NETWORKS if name.startswith(tuple(told.only.split(",")))]
    with tempfile.TemporaryDirectory() as made:
        folder = told.folder or Path(made)
        start = ran(["-c", "import ckptswap.sweeping, torchvision"], folder, clock)[1]
        print(f"Python and what a command imports: {start:.1f} s")
        places = [folder / str(at) for at in range(len(wanted))]
        for place in places:
            place.mkdir(parents=True)
        ratios = [ratio(name, place, start, clock) for name, place in zip(wanted, places, strict=True)]
    sys.exit(any(max(one, 1 / one) > told.limit for one in ratios))


if __name__ == "__main__":
    main()
