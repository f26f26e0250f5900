"""Racing on real scores: does the race find the exact sweep's top, and for how much of its work?

    python benchmarks/racing.py [--folder DIR] [--steps 150] [--top 10] [--seeds 10]

The MNI152 brain at 1 mm is cut along its middle: a pair of U-Nets (segmentation and auto-encoding, shared
initialisation) is trained on planes of the left half, and every plane of the right half that shows brain (axial,
coronal and sagittal, in all more than 400) is scored, so that no voxel is in both. One exact sweep scores every
layer × kind on all of them. Then the race is run on these scores in as many random orders of the samples as there
are seeds, as a race in a folder of its own would see them, and once for real. Work is counted in FLOPs: the cones
of all blocks that were asked for, and a base pass for every batch in every round that asked for it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from keeping import keep
from torch import Tensor

HERE = Path(__file__).resolve()
HEIGHT, WIDTH, MIDLINE, GAP = 96, 128, 98, 3
BATCH = 8
Item = tuple[Tensor, Tensor, int]


def planes(part: str) -> list[Item]:
    """(image (1, 96, 128), mask (96, 128), group) of every third plane of the left half, or all of the right."""
    from ckptswap.lab.data import _templates

    template, mask = _templates()  # (Z, Y, X), 1 mm
    half = slice(0, MIDLINE - GAP) if part == "train" else slice(MIDLINE + GAP, None)
    image, truth = template[:, :, half], np.asarray(mask)[:, :, half] > 0
    found = []
    for axis in range(3):
        for at in range(0, image.shape[axis], 3 if part == "train" else 1):
            seen, grey = np.take(image, at, axis), np.take(truth, at, axis)
            if grey.sum() >= 30:
                found.append((_canvas(seen, np.mean), _canvas(grey, np.mean) >= 0.5, (axis * 1000 + at) // 8))
    return [(torch.from_numpy(x)[None].float(), torch.from_numpy(y).long(), group) for x, y, group in found]


def _canvas(plane: np.ndarray, pool: Any) -> np.ndarray:
    """Halved, turned so that the longer side lies, and put in the middle of 96 × 128."""
    height, width = (side // 2 * 2 for side in plane.shape)
    small = pool(plane[:height, :width].reshape(height // 2, 2, width // 2, 2).astype(float), axis=(1, 3))
    small = small if small.shape[0] <= small.shape[1] else small.T
    canvas = np.zeros((HEIGHT, WIDTH))
    top, left = (HEIGHT - small.shape[0]) // 2, (WIDTH - small.shape[1]) // 2
    canvas[top : top + small.shape[0], left : left + small.shape[1]] = small
    return canvas


def main() -> None:
    options = arguments()
    folder = Path(options.folder or tempfile.mkdtemp())
    folder.mkdir(exist_ok=True, parents=True)
    for task, init in (("segment", "--save-init"), ("reconstruct", "--init-from")):
        if not (folder / f"{task}.safetensors").exists():
            train(folder, task, init, options.steps)
    print(f"{len(planes('train'))} planes to train on, {len(planes('test'))} to score")
    exact = swept(folder, "exact", [])
    race_all(folder, options, exact)
    raced = swept(folder, "raced", ["--top", str(options.top)])
    found, true = ([row["tensors"][0] for row in each["rows"][: options.top]] for each in (raced, exact))
    print(f"one real race: {len(set(found) & set(true))} of the exact top {options.top}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", help="where checkpoints and runs are kept; what is there is used again")
    parser.add_argument("--steps", type=int, default=150, help="of training")
    parser.add_argument("--top", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=10, help="random orders of the samples")
    return parser.parse_args()


def ckptswap(*words: str, folder: Path) -> str:
    program = str(Path(sys.executable).parent / "ckptswap")
    done = subprocess.run([program, *words], cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def train(folder: Path, task: str, init: str, steps: int) -> None:
    ckptswap(
        *("train", task, "--model", "lab:unet", "--model-args", "width=12,depth=3", "--data", f"{HERE}:planes"),
        *("--data-args", "part=train", "--steps", str(steps), init, "init.safetensors"),
        *("-o", f"{task}.safetensors"), folder=folder,
    )  # fmt: skip


def swept(folder: Path, run: str, flags: list[str]) -> dict[str, Any]:
    import json

    return json.loads(ckptswap(
        *("sweep", "--from", "reconstruct.safetensors", "--to", "segment.safetensors", "--data", f"{HERE}:planes"),
        *("--data-args", "part=test", "--metric", "dice", "--batch-size", str(BATCH), "--run", run, *flags),
        *("--format", "json"), folder=folder,
    ))  # fmt: skip


def race_all(folder: Path, options: argparse.Namespace, exact: dict[str, Any]) -> None:
    """The race in every order, on the exact sweep's scores."""
    from ckptswap.sweep.race import RaceRules, largest_drop

    rows = [row for row in exact["rows"] if row["status"] == "measured"]
    drops, baseline, costs = scores(folder, rows)
    true = drops.mean(axis=1)
    epsilon = exact["tolerance"]
    rules = RaceRules(options.top, 0.95, epsilon, largest_drop(baseline, (0.0, 1.0), "max"))
    bar = np.sort(true)[-options.top]
    print(f"{len(rows)} variants, bar {bar:.4f}, epsilon {epsilon:.4f}, "
          f"{int((np.abs(true - bar) < epsilon).sum())} drops within epsilon of the bar")  # fmt: skip
    held, shares = 0, []
    for seed in range(options.seeds):
        leaders, work = race(drops, costs, np.random.default_rng(seed), rules)
        missed = set(np.argsort(-true)[: options.top]) - set(leaders)
        right = all(true[at] <= true[list(leaders)].min() + epsilon for at in missed)
        held, shares = held + right, [*shares, work]
        print(f"  seed {seed}: {'held' if right else 'NOT held'}, {work:.1%} of the exact sweep's work")
    work = f"a race for the top {options.top} of {len(rows)} rows"
    keep(
        __file__,
        work,
        "orders in which it missed none by more than epsilon",
        100 * held / options.seeds,
        unit=" %",
    )
    keep(__file__, work, "the exact sweep's FLOPs", 100 * float(np.median(shares)), unit=" %")
    print(f"held in {held} of {options.seeds}; work: median {np.median(shares):.1%}, most {max(shares):.1%}")


def scores(folder: Path, rows: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Drops (V, N), baseline (N,), and each variant's cone as a share of a forward pass (V,)."""
    from ckptswap.formats import open_checkpoint
    from ckptswap.scoring.graph import capture
    from ckptswap.scoring.schedule import cone_of
    from ckptswap.scoring.variant import BASELINE
    from ckptswap.sweep.plan import variant_id
    from ckptswap.sweep.run_folder.blocks import Scores
    from ckptswap.sweep.run_folder.folder import RunFolder
    from ckptswap.task.models.build import build_model, model_of

    plan, blocks = RunFolder(folder / "exact").read()
    known = Scores(blocks.values(), plan.walk)
    baseline = known.statistics(BASELINE, "dice")[:, 0]
    drops = np.array([baseline - known.statistics(variant_id(row["tensors"]), "dice")[:, 0] for row in rows])
    with open_checkpoint(folder / "segment.safetensors") as checkpoint:
        model = build_model(*model_of(checkpoint))
    graph = capture(model, torch.zeros(BATCH, 1, HEIGHT, WIDTH), lambda found: found)  # type: ignore[arg-type, return-value]
    cones = (cone_of(graph, [graph.state[name] for name in row["tensors"]]) for row in rows)
    return drops, baseline, np.array([cone.flops / graph.flops for cone in cones])


def race(
    drops: np.ndarray, costs: np.ndarray, random: np.random.Generator, rules: Any
) -> tuple[tuple[int, ...], float]:
    """The leaders and the share of the exact sweep's FLOPs, in one random order of the samples."""
    from ckptswap.sweep.race import chunk_ends, standing

    samples = drops.shape[1]
    walk = drops[:, random.permutation(samples)]
    sizes = [min(BATCH, samples - start) for start in range(0, samples, BATCH)]
    starts, ends = np.cumsum([0, *sizes[:-1]]), chunk_ends(sizes)
    known, passes = np.full_like(walk, np.nan), float(samples)  # the baseline's own pass
    while not (now := standing(known, ends, rules)).finished:
        asked = np.arange(samples) < now.wanted[:, None]
        new = asked & np.isnan(known)
        passes += float((new * costs[:, None]).sum())
        passes += sum(size for start, size in zip(starts, sizes, strict=True) if new[:, start].any())
        known[asked] = walk[asked]
    exact = 2 * samples + float(costs.sum()) * samples
    return now.leaders, passes / exact


if __name__ == "__main__":
    main()
