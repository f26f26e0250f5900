"""Files at the speed of the disk: ckptswap against plain loops and other tools, side by side in one run.

    python benchmarks/files.py [--gigabytes 1] [--runs 3] [--folder /tmp] [--peers venv/bin]

Every figure is a whole command, imports included. Each pair of commands is run in turn (A B A B …) after one
warm-up of each, and the ratio printed is the median of the pairwise ratios: above 1, we are faster. Memory is the
largest resident size that the operating system saw. Other people's tools (`pip install sft-cli mergekit`, best in
an environment of their own) are looked for in `--peers` and on PATH, and named where they are missing.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from keeping import keep

TENSORS = 293
MERGE = """
merge_method: linear
models:
  - model: {recipient}
    parameters: {{weight: [{{filter: layers.9.weight, value: 0}}, {{value: 1}}]}}
  - model: {donor}
    parameters: {{weight: [{{filter: layers.9.weight, value: 1}}, {{value: 0}}]}}
"""
LEAST = {
    "diff, one tensor changed": 1.0,
    **dict.fromkeys(("diff, two thirds changed", "diff, all changed", "diff, all changed, bf16"), 0.9),
    "transplant of one tensor (vs cp && sync)": 0.9,
    **{
        f"start-up: {name} (vs import numpy, typer, rich)": 0.5
        for name in ("--help", "show", "diff of small files")
    },
}
"""What the ratios are to be at least."""
LOOP = """
import os, sys, threading
from concurrent.futures import ThreadPoolExecutor
import numpy as np
files = [os.open(path, os.O_RDONLY) for path in sys.argv[1:3]]
size, chunk, local = os.fstat(files[0]).st_size, 1 << 20, threading.local()

def equal(start):
    if not hasattr(local, "buffers"):
        local.buffers = [np.empty(chunk, np.uint8) for _ in files]
    parts = [buffer[: min(chunk, size - start)] for buffer in local.buffers]
    for file, part in zip(files, parts):
        os.preadv(file, [part], start)
    return np.array_equal(*parts)

with ThreadPoolExecutor(2) as pool:
    print(sum(not same for same in pool.map(equal, range(0, size, chunk))))
"""

STATISTICS = LOOP.replace(
    "return np.array_equal(*parts)",
    """
    a, b = (part[: part.size & ~3].view("<f4") for part in parts)
    changed, flips = np.count_nonzero(a.view("<i4") != b.view("<i4")), np.count_nonzero(a * b < 0)
    bad = [np.count_nonzero(test(side)) for side in (a, b) for test in (np.isnan, np.isinf)]
    x, y = a.astype(np.float64), b.astype(np.float64)
    gap = np.abs(x - y)
    numbers = gap.max(), gap.sum(), (gap * gap).sum(), (x * x).sum(), (y * y).sum(), (x * y).sum()
    return changed == 0
""",
)
"""The same loop with the statistics that a diff of changed values has to compute, written plainly."""


@dataclass(frozen=True)
class Run:
    """One finished command."""

    seconds: float
    megabytes: float
    processor: float


def main() -> None:
    options = arguments()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed program is compiled once, here at the warm-up
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        a, b, c, third = (folder / f"{each}.safetensors" for each in "abcd")
        pair(options.gigabytes, "F32", a, b, c, third)
        print(f"{os.path.getsize(a) / 1e9:.2f} GB a file, {TENSORS} tensors, {options.runs} runs, warm cache")
        diffs(a, {"one tensor": b, "two thirds": third, "all": c}, options.runs)
        compare("diff, all changed, nothing cached", diff(a, c), loop(a, c), options.runs, cold=(a, c))
        plain = [sys.executable, "-W", "ignore", "-c", STATISTICS, str(a), str(c)]
        compare("diff, all changed (vs a loop with the same statistics)", diff(a, c), plain, options.runs)
        compare("show --stats (vs the loop over twice the bytes)", statistics_of(a), loop(a, c), options.runs)
        third.unlink()
        half_a, half_b, half_c = (folder / f"half-{each}.safetensors" for each in "abc")
        pair(options.gigabytes, "BF16", half_a, half_b, half_c)
        diffs(half_a, {"one tensor": half_b, "all": half_c}, options.runs, ", bf16")
        for path in (half_a, half_b, half_c):
            path.unlink()
        swap(folder, a, c, options.runs)
        start_up(folder, options.runs)
        sparse(folder)
        torch_files(folder, a, c)
        peers(folder, a, b, c, options)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=1.0, help="size of each file")
    parser.add_argument("--runs", type=int, default=3, help="counted runs of each command")
    parser.add_argument("--folder", default=None, help="where to put the files")
    parser.add_argument("--peers", metavar="DIR", help="where other people's programs are: venv/bin")
    return parser.parse_args()


def ckptswap(*words: str) -> list[str]:
    return [str(Path(sys.executable).parent / "ckptswap"), *words]


def diff(a: Path, b: Path) -> list[str]:
    return [*ckptswap("diff"), str(a), str(b)]


def diffs(a: Path, others: Mapping[str, Path], runs: int, dtype: str = "") -> None:
    """By how much of it has changed, against the loop that only compares."""
    for changed, b in others.items():
        compare(f"diff, {changed} changed{dtype}", diff(a, b), loop(a, b), runs)


def statistics_of(a: Path) -> list[str]:
    return [*ckptswap("show"), "--stats", str(a)]


def loop(a: Path, b: Path) -> list[str]:
    return [sys.executable, "-c", LOOP, str(a), str(b)]


def pair(gigabytes: float, dtype: str, a: Path, b: Path, c: Path, third: Path = Path(os.devnull)) -> None:
    """Random values; by little B differs in one tensor, C in all, and `third` in two thirds."""
    values = int(gigabytes * 1e9 / {"F32": 4, "BF16": 2}[dtype] / TENSORS) // 64 * 64
    random = np.random.default_rng(0)
    nbytes = values * {"F32": 4, "BF16": 2}[dtype]
    names = [f"layers.{at}.weight" for at in range(TENSORS)]
    fields = {
        name: {"dtype": dtype, "shape": [values], "data_offsets": [at * nbytes, (at + 1) * nbytes]}
        for at, name in enumerate(names)
    }
    header = json.dumps(fields).encode()
    header += b" " * (-len(header) % 4096 - 8 + 4096)
    with open(a, "wb") as left, open(b, "wb") as middle, open(c, "wb") as right, open(third, "wb") as most:
        for file in (left, middle, right, most):
            file.write(len(header).to_bytes(8, "little") + header)
        for at in range(TENSORS):
            plain = random.standard_normal(values, np.float32)
            other = plain * np.float32(1.01)
            if dtype == "BF16":
                plain, other = ((each.view(np.uint32) >> 16).astype(np.uint16) for each in (plain, other))
            left.write(plain)
            middle.write(other if at == 7 else plain)
            right.write(other)
            most.write(other if at % 3 else plain)


def transplant(folder: Path, a: Path, c: Path) -> list[str]:
    return [
        *ckptswap("transplant"),
        "--from",
        str(c),
        "--to",
        str(a),
        "--layers",
        "layers.9",
        "-o",
        str(made(folder)),
    ]


def made(folder: Path) -> Path:
    return folder / "o.safetensors"


def swap(folder: Path, a: Path, c: Path, runs: int) -> None:
    """One tensor put into a file, against copying the file and waiting for the disk."""
    theirs = ["sh", "-c", f"cp --reflink=never {a} {folder}/copy && sync {folder}/copy"]
    clean = [made(folder), folder / "copy"]
    compare("transplant of one tensor (vs cp && sync)", transplant(folder, a, c), theirs, runs, clean)


def start_up(folder: Path, runs: int) -> None:
    """The cost of doing next to nothing."""
    small = [folder / f"small-{each}.safetensors" for each in "abc"]
    pair(0.0001, "F32", *small)
    base = [sys.executable, "-c", "import numpy, typer, rich"]
    for title, command in {
        "--help": ckptswap("--help"),
        "show": ckptswap("show", str(small[0])),
        "diff of small files": ckptswap("diff", str(small[0]), str(small[1])),
    }.items():
        compare(f"start-up: {title} (vs import numpy, typer, rich)", command, base, 2 * runs + 1)


def sparse(folder: Path, gigabytes: int = 20) -> None:
    """Two files of holes: size without disk."""
    paths = [folder / f"sparse-{each}.safetensors" for each in "ab"]
    for path in paths:
        nbytes = gigabytes * 10**9 // 4 * 4
        header = json.dumps({"w": {"dtype": "F32", "shape": [nbytes // 4], "data_offsets": [0, nbytes]}}).encode()
        header += b" " * (-len(header) % 8)
        path.write_bytes(len(header).to_bytes(8, "little") + header)
        os.truncate(path, 8 + len(header) + nbytes)
    alone("diff of two sparse 20 GB files", timed([*ckptswap("diff"), *map(str, paths)]))


def torch_files(folder: Path, a: Path, c: Path) -> None:
    """The same in files of torch, read without it; for their memory, beside what importing torch takes."""
    ours, theirs = folder / "a.pt", folder / "c.pt"
    for source, target in ((a, ours), (c, theirs)):
        timed([*ckptswap("convert"), str(source), str(target)])
    for title, command in {
        "diff of torch files, all changed": [*ckptswap("diff"), str(ours), str(theirs)],
        "transplant of one tensor into a torch file": transplant(folder, ours, theirs),
        "import torch": [sys.executable, "-c", "import torch"],
    }.items():
        alone(title, timed(command))
    for path in (ours, theirs, made(folder)):
        path.unlink()


def alone(title: str, run: Run) -> None:
    print(f"{title:58} {run.seconds:7.2f} s {run.megabytes:6.0f} MB", flush=True)


def peers(folder: Path, a: Path, b: Path, c: Path, options: argparse.Namespace) -> None:
    """Other people's tools, where they are installed."""
    if sft := peer("sft", options.peers):
        theirs = [sft, "diff", str(a), str(b), "--delta"]
        compare("diff, one tensor changed (vs sft diff --delta)", diff(a, b), theirs, options.runs)
    if mergekit := peer("mergekit-pytorch", options.peers):
        config, merged = folder / "merge.yml", folder / "merged"
        config.write_text(MERGE.format(recipient=a, donor=c))
        theirs, clean = [mergekit, str(config), str(merged)], [made(folder), merged / "model.safetensors"]
        ours = transplant(folder, a, c)
        compare("transplant of one tensor (vs mergekit-pytorch)", ours, theirs, options.runs, clean)


def peer(name: str, folder: str | None) -> str | None:
    """Where a program is; said where it is nowhere."""
    places = filter(None, [folder, str(Path(sys.executable).parent), os.environ["PATH"]])
    found = shutil.which(name, path=os.pathsep.join(places))
    if found is None:
        print(f"{name}: not installed, not measured")
    return found


def compare(
    title: str,
    ours: Sequence[str],
    theirs: Sequence[str],
    runs: int,
    clean: Sequence[Path] = (),
    cold: Sequence[Path] = (),
) -> None:
    """Print the medians of both commands, their peaks, and the median pairwise ratios theirs / ours of the time
    that passed and of the processors' time, which says the same where neighbours are busy."""
    results = [(timed(ours, clean, cold), timed(theirs, clean, cold)) for _ in range(runs + 1)][1:]
    ratio = statistics.median(their.seconds / our.seconds for our, their in results)
    worked = statistics.median(their.processor / our.processor for our, their in results)
    said = "   peer ".join(
        f"{statistics.median(run.seconds for run in side):7.2f} s {max(run.megabytes for run in side):6.0f} MB"
        for side in zip(*results, strict=True)
    )
    print(f"{title:58} {said}   ratio {ratio:5.2f}   of processor time {worked:5.2f}", flush=True)
    work, _, peer = title.removesuffix(")").partition(" (vs ")
    keep(
        __file__,
        f"the speed of {work}",
        peer or "a loop in two threads that only compares",
        ratio,
        least=LEAST.get(title),
    )


def timed(command: Sequence[str], clean: Sequence[Path] = (), cold: Sequence[Path] = ()) -> Run:
    """Run a command to its end, without the files of `clean`, and with nothing of `cold` in memory; raises when it
    fails."""
    for path in clean:
        path.unlink(missing_ok=True)
    for path in cold:
        forget(path)
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"{' '.join(command)} failed: {said.decode()}")
    return Run(seconds, usage.ru_maxrss / 1024, usage.ru_utime + usage.ru_stime)


def forget(path: Path) -> None:
    """Have the system drop what it holds of a file in memory, once it is on the disk."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


if __name__ == "__main__":
    main()
