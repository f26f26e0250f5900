"""Whether two versions of the package give the same rows, to the last bit, by their command lines alone.

    python benchmarks/same_rows.py run --package CHECKOUT -o rows.json [--only NAME,…] [--demo]
    python benchmarks/same_rows.py compare before.json after.json

`run` makes checkpoints, scans and models that depend on no version of the package, sweeps them in every way that
a run folder can be of, and keeps what `sweep` printed as JSON, every float as its hexadecimal digits; `report`
must read the same from the folder again. `--demo` adds the run that `ckptswap demo` makes, at full length.
`compare` names the first values that differ, and exits 1 when there are any. Fields that only the later version
has are named and do not count; findings are no rows, and are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

OWN = '''
"""Models, data and a metric as a user writes them."""
import torch
from torch import nn


class Net(nn.Module):
    """Batch norm, a skip connection, a module that is never read."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.inner = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.head = nn.Conv2d(4, 1, 1)
        self.unused = nn.Linear(2, 2)

    def forward(self, x):
        y = torch.relu(self.norm(self.stem(x)))
        return self.head(y + self.inner(y))


class Branching(Net):
    """Its flow depends on values, so that it cannot be replayed."""

    def forward(self, x):
        y = super().forward(x)
        return y if y.mean() > 0 else y + 0.1


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Conv2d(1, 1, 3, padding=1)
        self.two = nn.Conv2d(1, 1, 3, padding=1)
        self.two.weight = self.one.weight

    def forward(self, x):
        return self.two(torch.relu(self.one(x)))


class Tokens(nn.Module):
    """A transformer over rows of pixels."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(16, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.body(self.embed(x[:, 0])).mean(1))


def data(samples=24, group=2, seed=0):
    draw = torch.Generator().manual_seed(seed)
    images = [torch.rand(1, 16, 16, generator=draw) for _ in range(samples)]
    return [(image, (image > 0.5).long()[0], at // group) for at, image in enumerate(images)]


def classes(samples=24):
    draw = torch.Generator().manual_seed(1)
    return [(torch.rand(1, 16, 16, generator=draw), at % 2) for at in range(samples)]


def error(output, target):
    return (output[:, 0] - target).square().mean(dim=(1, 2))


def spread(output, target):
    return (output[:, 0] - output[:, 1] - target).square()


error.direction = spread.direction = "min"
'''

PAIR = "--from donor.pt --to recipient.pt --model own.py:Net --data own.py:data --batch-size 5 --threads 1"
IOU = f"{PAIR} --metric iou"
CALIBRATION = "--recalibrate-bn 2 --calibration-data own.py:data --calibration-args samples=16,seed=1"
CASES = {
    "cells: three metrics": f"{PAIR} --metric iou,own.py:error,accuracy",
    "all-but": f"{IOU} --mode all-but",
    "prefix": f"{IOU} --mode prefix --by layer",
    "suffix": f"{IOU} --mode suffix --by layer",
    "alphas": f"{PAIR} --metric own.py:error --alpha 0:1:0.25",
    "recalibrated": f"{IOU} --by kind {CALIBRATION}",
    "recalibrated: by alphas": f"{IOU} --by kind --alpha 0:1:0.5 {CALIBRATION}",
    "several donors": f"{IOU} --from other.pt --from third.safetensors",
    "made donors": f"{IOU} --from init:1 --from shuffle:0 --from zeros --from mean --from noise:0.3 --by kind",
    "tied": "--from tied1.pt --to tied0.pt --model own.py:Tied --data own.py:data --metric own.py:error "
    "--threads 1",
    "race": f"{PAIR} --metric own.py:error --top 3 --data-args samples=120",
    "pooled": f"{PAIR} --metric iou:pooled,dice:pooled --by kind --by all",
    "in full": f"{IOU} --engine full",
    "cannot be replayed": f"{IOU} --model own.py:Branching",
    "two jobs": f"{PAIR} --metric own.py:error,iou --jobs 2",
    "kind and tensor": f"{IOU} --by kind --by tensor --screen gradient",
    "screened by rmse": f"{PAIR} --metric own.py:error --screen rmse --tolerance 0.001",
    "selected": f"{IOU} --only 'norm*' --only '*.weight' --exclude 'head.*' --limit 11",
    "reconstruct": f"{PAIR} --target input --metric psnr,mse --by kind --by layer,kind",
    "both ways": f"{PAIR} --metric dice --both --back-metric psnr --by kind",
    "transformer": "--from tokens1.pt --to tokens0.pt --model own.py:Tokens --data own.py:classes "
    "--metric own.py:spread --by layer,kind --by kind --threads 1",
    "transformer: classes": "--from tokens1.pt --to tokens0.pt --model own.py:Tokens --data own.py:classes "
    "--metric accuracy --by tensor --by layer --threads 1",
    "double": f"{PAIR} --metric own.py:error --dtype f64",
    "wrapped": f"{IOU} --to wrapped.pt --by kind".replace("--to recipient.pt ", ""),
    "scans: trained": "--from reconstruct.safetensors --to segment.safetensors --data scans --metric dice "
    "--by kind --by layer,kind --threads 1 --group '(s..)_'",
    "scans: rewound": "--from rewind --to segment.safetensors --data scans --metric dice,iou --threads 1",
}
"""Name → what `sweep` is given."""
TRAINED = (
    "segment --model-args width=2,depth=1 --data scans --steps 12 --threads 1 --save-init init.safetensors "
    "-o segment.safetensors",
    "reconstruct --model-args width=2,depth=1 --data scans --steps 12 --threads 1 --init-from init.safetensors "
    "-o reconstruct.safetensors",
)
IGNORED = frozenset({"findings"})
SHOWN = 20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="make all runs with one version")
    run.add_argument("--package", type=Path, required=True, help="the checkout that holds ckptswap/")
    run.add_argument("--only", help="names of cases, with commas")
    run.add_argument("--demo", action="store_true", help="also the demo's run, which takes minutes")
    run.add_argument("-o", "--out", type=Path, required=True)
    compare = commands.add_parser("compare", help="hold two outputs against each other")
    compare.add_argument("before", type=Path)
    compare.add_argument("after", type=Path)
    options = parser.parse_args()
    if options.command == "compare":
        return compared(json.loads(options.before.read_text()), json.loads(options.after.read_text()))
    names = options.only.split(",") if options.only else list(CASES)
    with tempfile.TemporaryDirectory() as folder:
        results = {}
        for name, result in runs(Path(folder), options.package.absolute(), names, demo=options.demo):
            results[name] = result
            options.out.write_text(json.dumps(results, indent=1) + "\n")
    return 0


# Making runs -----------------------------------------------------------------------------------------------------


def runs(folder: Path, package: Path, names: list[str], *, demo: bool) -> Iterator[tuple[str, Any]]:
    """Every case's result, as it comes."""
    prepare(folder)
    ckptswap = Program(folder, package)
    if any("scans" in name for name in names):
        for words in TRAINED:
            ckptswap(f"train {words}")
    for name in names:
        begun = time.perf_counter()
        yield name, swept(ckptswap, name)
        print(f"{time.perf_counter() - begun:6.1f} s  {name}", file=sys.stderr)
    if demo:
        ckptswap("demo demo")
        yield "demo", exact(json.loads(ckptswap("report demo/run --format json")))
    ckptswap.close()


def swept(ckptswap: Program, name: str) -> Any:
    """What a case's sweep prints; `report` must read the same again, but for two ways, and a race's other rows."""
    run, words = name.replace(" ", "-").replace(":", ""), CASES[name]
    try:
        result = json.loads(ckptswap(f"sweep {words} --run {run} --format json"))
    except CommandError as error:
        return {"exit": error.args[0], "error": error.args[1].strip().splitlines()[-1:]}
    if "--both" not in words and "--top" not in words:
        again = json.loads(ckptswap(f"report {run} --format json"))
        if exact(again) != exact(result):
            raise SystemExit(f"{name}: report reads other values than sweep printed")
    return exact(result)


class Program:
    """The command line of a version, in one process for all commands: imports take longer than most of these."""

    def __init__(self, folder: Path, package: Path) -> None:
        paths = os.pathsep.join([str(package), str(folder)])
        environment = {**os.environ, "PYTHONPATH": paths, "OMP_WAIT_POLICY": "passive", "COLUMNS": "80"}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", SERVED],
            cwd=folder,
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def __call__(self, words: str) -> str:
        """What a command prints. Raises `CommandError` where it fails."""
        assert self._process.stdin
        assert self._process.stdout
        print(json.dumps(shlex.split(words)), file=self._process.stdin, flush=True)
        code, out, err = json.loads(self._process.stdout.readline())
        if code:
            print(f"{words}\n{err}", file=sys.stderr)
            raise CommandError(code, err)
        return out

    def close(self) -> None:
        self._process.communicate()


class CommandError(Exception):
    """A command failed: its exit code, and what it said."""


SERVED = """
import contextlib, io, json, sys
from unittest.mock import patch
from ckptswap.cli.main import main

for line in sys.stdin:
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    code = 0
    try:
        with (
            patch.object(sys, "argv", ["ckptswap", *json.loads(line)]),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            main()
    except SystemExit as end:
        code = end.code
    print(json.dumps([code, *(stream.buffer.getvalue().decode() for stream in (out, err))]), flush=True)
"""


def prepare(folder: Path) -> None:
    """Write the models, checkpoints and scans: the same bytes whatever the package is."""
    (folder / "own.py").write_text(OWN)
    namespace: dict[str, Any] = {}
    exec(OWN, namespace)

    def save(file: str, model: str, seed: int, prefix: str = "") -> dict[str, torch.Tensor]:
        torch.manual_seed(seed)
        state = namespace[model]().state_dict()
        for value in state.values():
            if value.is_floating_point():
                value += 0.1 * torch.rand(value.shape)
        torch.save({prefix + key: value for key, value in state.items()}, folder / file)
        return state

    for file, model, seed in (
        ("recipient.pt", "Net", 0),
        ("donor.pt", "Net", 1),
        ("other.pt", "Net", 2),
        ("tied0.pt", "Tied", 0),
        ("tied1.pt", "Tied", 1),
        ("tokens0.pt", "Tokens", 0),
        ("tokens1.pt", "Tokens", 1),
    ):
        save(file, model, seed)
    save("wrapped.pt", "Net", 0, "module.")
    from safetensors.torch import save_file

    save_file(save("third.pt", "Net", 3), folder / "third.safetensors")
    draw_scans(folder / "scans")


def draw_scans(folder: Path, count: int = 18) -> None:
    """Bright discs on noise, two slices a subject."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:16, :16]
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for at in range(count):
        cy, cx = rng.uniform(4, 12, 2)
        disc = ((y - cy) ** 2 + (x - cx) ** 2 < 16).astype(np.uint8)
        noisy = (90 * disc + rng.integers(0, 60, disc.shape)).astype(np.uint8)
        name = f"s{at // 2:02d}_{at % 2}.png"
        Image.fromarray(noisy).save(folder / "images" / name)
        Image.fromarray(disc * 255).save(folder / "masks" / name)


def exact(value: Any) -> Any:
    """The same with every float as hexadecimal digits, and without what is no row."""
    if isinstance(value, float):
        return value.hex()
    if isinstance(value, dict):
        return {key: exact(part) for key, part in value.items() if key not in IGNORED}
    return [exact(part) for part in value] if isinstance(value, list) else value


# Comparing -------------------------------------------------------------------------------------------------------


def compared(before: dict[str, Any], after: dict[str, Any]) -> int:
    """Print what differs; 1 when anything does."""
    differ = [f"/{name} failed: {result['error']}" for name, result in before.items() if "exit" in result]
    differ += differences(before, after, "")
    for line in differ[:SHOWN]:
        print(line)
    added = sorted(dict.fromkeys(additions(before, after)))
    if added:
        print(f"only in the later one: {', '.join(added)}")
    rows = sum(len(part.get("rows", ())) for result in before.values() for part in parts(result))
    verdict = f"{len(differ)} values differ" if differ else "equal to the last bit"
    print(f"{len(before)} runs, {rows} rows: {verdict}")
    return int(bool(differ))


def parts(result: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A result, or the results of both ways."""
    yield result
    yield from (value for value in result.values() if isinstance(value, dict) and "rows" in value)


def differences(before: Any, after: Any, place: str) -> Iterator[str]:
    """A line for each value of the earlier one that the later one does not have alike."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            if key in after:
                yield from differences(value, after[key], f"{place}/{key}")
            else:
                yield f"{place}/{key}: missing in the later one"
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for at, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from differences(one, other, f"{place}/{at}")
    elif before != after:
        yield f"{place}: {before} → {after}"


def additions(before: Any, after: Any) -> Iterator[str]:
    """Keys that only the later one has."""
    if isinstance(before, dict) and isinstance(after, dict):
        yield from after.keys() - before.keys()
        for key in before.keys() & after.keys():
            yield from additions(before[key], after[key])
    elif isinstance(before, list) and isinstance(after, list):
        for one, other in zip(before, after, strict=False):
            yield from additions(one, other)


if __name__ == "__main__":
    sys.exit(main())
