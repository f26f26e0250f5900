"""Many small tensors: what each command takes for 200,000 of them, against ten times what it takes for 20,000.

    python benchmarks/many.py [--tensors 200000] [--runs 1] [--folder /tmp] [--only diff]

Every figure is a whole command in a process of its own, imports included: seconds, the processor's seconds, and
the largest resident size that the operating system saw. The last column is the processor's time for all tensors
over ten times that for a tenth of them: at most about 1 where the work is linear, whatever else the machine does.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from keeping import keep

ROLES = ("q", "k", "v", "o")


@dataclass(frozen=True)
class Run:
    """One finished command."""

    seconds: float
    processor: float
    megabytes: float


def main() -> None:
    options = arguments()
    print(f"{'':34} {'tensors':>9} {'seconds':>8} {'cpu s':>7} {'MB':>6} {'cpu, of ten times a tenth':>26}")
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        sides = {count: Path(name, str(count)) for count in (options.tensors // 10, options.tensors)}
        for count, inside in sides.items():
            writing = get_context("spawn").Process(target=prepare, args=(inside, count))
            writing.start()  # not here: a child's largest size begins with that of its parent
            writing.join()
        for title in commands(Path(name), options.tensors):
            if options.only in title:
                compare(title, sides, options.runs)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tensors", type=int, default=200_000, help="in the larger files")
    parser.add_argument("--runs", type=int, default=1, help="runs of each command, of which the fastest counts")
    parser.add_argument("--folder", default=None, help="where to put the files")
    parser.add_argument("--only", default="", metavar="TEXT", help="commands whose title has this in it")
    return parser.parse_args()


def prepare(inside: Path, count: int) -> None:
    """Fill a folder with the same `count` tensors of four values twice, a third of the values other in the second,
    and with the first in all formats."""
    inside.mkdir()
    names = [f"model.layers.{at // 4}.block{at % 7}.{ROLES[at % 4]}.weight" for at in range(count)]
    fields = {
        name: {"dtype": "F32", "shape": [2, 2], "data_offsets": [16 * at, 16 * at + 16]}
        for at, name in enumerate(names)
    }
    header = json.dumps(fields).encode()
    header += b" " * (-len(header) % 8)
    values = np.arange(4 * count, dtype=np.float32)
    for side, shift in (("a", 0), ("b", 1)):
        raw = (values + shift * (np.arange(values.size) % 3 == 0)).astype("<f4").tobytes()
        (inside / f"{side}.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + raw)
    for target in ("a.pt", "a.npz", "shards/"):
        timed([*ckptswap("convert"), f"{inside}/a.safetensors", f"{inside}/{target}"])


def commands(inside: Path, count: int) -> dict[str, list[str]]:
    """What is measured, by title."""
    a, b, out = (str(inside / name) for name in ("a.safetensors", "b.safetensors", "out"))
    taking = [*ckptswap("transplant"), "--from", b, "--only", "*.q.*", "--to"]
    return {
        "show": [*ckptswap("show"), a],
        "show json": [*ckptswap("show"), a, "--format", "json"],
        "show torch": [*ckptswap("show"), f"{inside}/a.pt"],
        "show npz": [*ckptswap("show"), f"{inside}/a.npz"],
        "show shards": [*ckptswap("show"), f"{inside}/shards"],
        "verify": [*ckptswap("verify"), a],
        "diff": [*ckptswap("diff"), a, b],
        "diff --stat": [*ckptswap("diff"), a, b, "--stat"],
        "diff json": [*ckptswap("diff"), a, b, "--format", "json"],
        "diff csv": [*ckptswap("diff"), a, b, "--format", "csv"],
        "diff by layer": [*ckptswap("diff"), a, b, "--by", "layer"],
        "transplant": [*taking, a, "-o", f"{out}.safetensors"],
        "transplant torch": [*taking, f"{inside}/a.pt", "-o", f"{out}.pt"],
        "transplant shards": [*taking, f"{inside}/shards", "-o", f"{out}-shards"],
        "convert to torch": [*ckptswap("convert"), a, f"{out}.pt"],
        "convert to npz": [*ckptswap("convert"), a, f"{out}.npz"],
        "convert to shards": [*ckptswap("convert"), a, f"{out}-shards/", "--shard-size", str(max(count, 1))],
    }


def compare(title: str, sides: dict[int, Path], runs: int) -> None:
    """One command on few tensors and on many."""
    processor: list[float] = []
    for count, inside in sides.items():
        run = min((fresh(title, inside, count) for _ in range(runs)), key=lambda each: each.processor)
        processor.append(run.processor)
        ratio = f"{processor[1] / (10 * processor[0]):26.2f}" if len(processor) == 2 else ""
        print(
            f"{title:34} {count:9,} {run.seconds:8.1f} {run.processor:7.1f} {run.megabytes:6.0f} {ratio}",
            flush=True,
        )
    few, many = sorted(sides)
    work = f"{title}, {many:,} tensors"
    keep(
        __file__,
        f"processor time of {work}",
        f"ten times that for {few:,}",
        processor[1] / (10 * processor[0]),
        most=1.2,
    )
    keep(__file__, f"memory of {work}", "", run.megabytes, most=600, unit=" MB")


def fresh(title: str, inside: Path, count: int) -> Run:
    """One run, which finds nothing of an earlier one in its way."""
    for each in inside.glob("out*"):
        shutil.rmtree(each) if each.is_dir() else each.unlink()
    return timed(commands(inside, count)[title])


def ckptswap(word: str) -> list[str]:
    return [str(Path(sys.executable).parent / "ckptswap"), word]


def timed(command: list[str]) -> Run:
    """Run it to its end; raises `SystemExit` with what it said when it fails."""
    with tempfile.TemporaryFile() as said:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - began
        if process.returncode:
            said.seek(0)
            raise SystemExit(f"{' '.join(command)}\n{said.read().decode()}")
    return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000)


if __name__ == "__main__":
    main()
