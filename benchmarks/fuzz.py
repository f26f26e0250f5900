"""Damages files of every format, at length: each is read, or refused in a sentence, and nothing else happens.

    nice -n 19 python benchmarks/fuzz.py [--minutes 10] [--seed 0] [--only hdf5 keras] [--totals fuzz.json]
    python benchmarks/fuzz.py --replay 'torch zip/2' 12345 [--seed 0] [-o FOLDER]

Of mutation N of a specimen there is one for each seed: `--replay` makes it again, shows what comes of it, and
writes its files. With `--totals` a later call goes on where this one ended. No mutation may crash the process or
raise an error of another's, take more than 5 s of work, or more memory than 64 MB and four times the file, open,
import or start anything. The short form is tests/fuzzing.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import time
import traceback
from collections import defaultdict
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/fuzzing"))
import holding
import specimens
from holding import Tally

from ckptswap import registry

SLICE = 10
"""Seconds that a specimen has in its turn."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", default=specimens.FORMATS, metavar="FORMAT")
    parser.add_argument("--totals", type=Path, help="a file that remembers what was done")
    parser.add_argument("--replay", nargs=2, metavar=("SPECIMEN", "NUMBER"))
    parser.add_argument("-o", type=Path, help="a folder for the files of --replay")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        every = specimens.made(Path(folder), options.only)
    holding.watch()
    registry._loaded = cache(registry._loaded)  # which is a quarter of the time that a small file takes
    if options.replay:
        replay(every[options.replay[0]], options.seed, int(options.replay[1]), options.o)
        return
    tallies = remembered(options.totals, options.seed)
    fuzz(every, options, tallies)
    print(table(tallies))
    print("\n".join(holding.faults(tallies)) or "nothing went wrong")
    sys.exit(bool(holding.faults(tallies)))


def fuzz(every: dict[str, specimens.Specimen], options: argparse.Namespace, tallies: dict[str, Tally]) -> None:
    until = time.monotonic() + 60 * options.minutes
    known = set(holding.faults(tallies))
    for name, specimen in itertools.cycle(every.items()):
        if time.monotonic() > until:
            return
        tally = tallies.setdefault(name, Tally())
        tally.add(holding.run(specimen, options.seed, tally.mutations, 10**9, SLICE))
        for line in holding.faults({name: tally}):
            if (fault := line.rpartition(" (")[0]) not in known:
                known.add(fault)
                print(line, flush=True)
        if options.totals:
            remember(options.totals, options.seed, tallies)


def remember(path: Path, seed: int, tallies: dict[str, Tally]) -> None:
    path.write_text(json.dumps({"seed": seed, **{name: vars(tally) for name, tally in tallies.items()}}, indent=1))


def remembered(path: Path | None, seed: int) -> dict[str, Tally]:
    if path is None or not path.exists():
        return {}
    content = json.loads(path.read_text())
    if content.pop("seed") != seed:
        sys.exit(f"{path} is of another seed: name another file")
    return {name: Tally(**fields) for name, fields in content.items()}


def table(tallies: dict[str, Tally]) -> str:
    by_format: dict[str, Tally] = defaultdict(Tally)
    for name, tally in tallies.items():
        by_format[name.rpartition("/")[0]].add(tally)
        by_format["all"].add(tally)
    lines = [
        "| format | mutations | refused | read | went wrong | slowest, s | most memory, MB |",
        "|---|---|---|---|---|---|---|",
    ]
    by_format["all"] = by_format.pop("all", Tally())
    for name, tally in by_format.items():
        wrong = sum(map(len, tally.faults.values()))
        counts = f"{tally.mutations:,} | {tally.refused:,} | {tally.read:,} | {wrong:,}"
        lines.append(f"| {name} | {counts} | {tally.slowest:.2f} | {tally.memory / 1e6:.0f} |")
    return "\n".join(lines)


def replay(specimen: specimens.Specimen, seed: int, at: int, folder: Path | None) -> None:
    files = holding.files_of(specimen, seed, at)
    if folder:
        folder.mkdir(parents=True)
        for name, raw in files.items():
            (folder / name).write_bytes(raw)
    tally = holding.run(specimen, seed, at, 1)
    print("\n".join(tally.faults) or ("read" if tally.read else "refused"))
    if any(fault.startswith(("hangs", "kills", "waits")) for fault in tally.faults):
        return
    try:
        with specimen.open(files) as found:
            specimen.read(found)
    except Exception:
        traceback.print_exc()


if __name__ == "__main__":
    main()
