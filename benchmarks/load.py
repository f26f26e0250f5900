"""A sweep beside other work: how much do busy processes slow it, and how much would they if its threads spun?

    python benchmarks/load.py [--busy 1,4] [--rounds 3] [--spinning] [--demo]

`ckptswap sweep --by kind` of a U-Net with random values, the whole command, runs alone and beside so many
processes that do nothing but compute, in turn. The ratio is the median of the rounds'. On two cores its fair share
beside four is a third. `--spinning` runs it with threads that spin where they wait, too, as OpenMP has them unless
it is told otherwise; scores must be the same to the last bit. `--demo` does the same with `ckptswap demo`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from keeping import keep
from sweep import BATCH, HERE, NETWORKS, pair

NETWORK, BATCHES = "unet-resnet18", 2
WAYS = {
    "sleeping": {"OMP_WAIT_POLICY": "passive"},
    "spinning": {"OMP_WAIT_POLICY": "active", "GOMP_SPINCOUNT": "300000"},
}
"""How threads wait, as the environment says it; the second is what GNU's OpenMP does by itself."""
FOUND = "found.json"
WORDS = {1: "one busy process", 4: "four busy processes"}
MOST = {4: 3.5}


class Run(NamedTuple):
    """What one command took, and the scores that it found."""

    seconds: float
    processor: float
    scores: Any


def main() -> None:
    options = arguments()
    counts = [0, *map(int, options.busy.split(","))]
    ways = list(WAYS) if options.spinning else ["sleeping"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pair(NETWORK, folder)
        words = ["demo"] if options.demo else sweep_words(folder)
        measure(
            words,
            "the time of the demo" if options.demo else "the time of a sweep by kind",
            counts,
            ways,
            options.rounds,
        )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--busy", default="1,4", help="numbers of busy processes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--spinning", action="store_true", help="with threads that spin where they wait, too")
    parser.add_argument("--demo", action="store_true", help="of the demo, not a sweep")
    return parser.parse_args()


def sweep_words(folder: Path) -> list[str]:
    """The command of the sweep."""
    model, args, channels, _ = NETWORKS[NETWORK]
    task = {"model": model, "data": f"{HERE}:data", "metric": "dice", "batch-size": BATCH}
    given = {"model-args": args, "data-args": {"channels": channels, "samples": BATCH * BATCHES}}
    flags = [f"--{name}={value}" for name, value in task.items()]
    flags += [f"--{flag}={key}={value}" for flag, pairs in given.items() for key, value in pairs.items()]
    flags += ["--by=kind", "--format=json", "-o", FOUND]
    return ["sweep", "--from", f"{folder}/a.safetensors", "--to", f"{folder}/b.safetensors", *flags]


def measure(words: Sequence[str], what: str, counts: Sequence[int], ways: Sequence[str], rounds: int) -> None:
    """Run it in turn, way by way and from alone to most disturbed; print the medians and keep the ratios."""
    runs: dict[tuple[str, int], list[Run]] = {(way, count): [] for way in ways for count in counts}
    for _ in range(rounds):
        for (way, count), found in runs.items():
            with busy(count):
                found.append(timed(words, WAYS[way]))
    if len({json.dumps(run.scores) for found in runs.values() for run in found}) != 1:
        raise SystemExit("scores differ by how threads wait")
    print(f"{'threads':10}{'busy':>6}{'seconds':>10}{'processor':>11}{'ratio':>8}")
    for (way, count), found in runs.items():
        ratio = statistics.median(
            run.seconds / alone.seconds for run, alone in zip(found, runs[way, 0], strict=True)
        )
        seconds, processor = (statistics.median(run[at] for run in found) for at in (0, 1))
        print(f"{way:10}{count:6}{seconds:10.1f}{processor:11.1f}{ratio:8.2f}")
        if count:
            how = "" if way == "sleeping" else ", if its threads spun"
            most = MOST.get(count) if way == "sleeping" else None
            work = f"{what} beside {WORDS.get(count, f'{count} busy processes')}{how}"
            keep(__file__, work, "its time alone", ratio, most=most, unit=" ×")


@contextmanager
def busy(count: int) -> Iterator[None]:
    """So many processes that do nothing but compute."""
    others = [subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def timed(words: Sequence[str], env: dict[str, str]) -> Run:
    """Run a command in a folder of its own; raises `SystemExit` with what it said when it fails."""
    program = str(Path(sys.executable).parent / "ckptswap")
    with tempfile.TemporaryDirectory() as folder:
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(
            [program, *words, "--quiet"], cwd=folder, env={**os.environ, **env}, capture_output=True, text=True
        )
        seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode:
            raise SystemExit(done.stderr)
        found = Path(folder, FOUND)
        scores = [row["score"] for row in json.loads(found.read_text())["rows"]] if found.exists() else done.stdout
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Run(seconds, processor, scores)


if __name__ == "__main__":
    main()
