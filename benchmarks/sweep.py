"""Sweeps: replay against one full forward pass a variant, and against the script that people write today.

    python benchmarks/sweep.py [--networks unet-resnet18,pspnet-resnet18] [--scale 1] [--rounds 3] [--threads 2]

For each network a pair of random checkpoints, one variant for every tensor that the network reads, and

- *ours*: `prepare` and `run`, that is capture, checks, baseline, base passes, scoring, journal and table;
- *full*: the same variants in memory: tensors copied in, one full forward pass, the same scoring, copied back;
- *script*: both files loaded, tensors copied, `load_state_dict`, a DataLoader, for some of the variants, scaled.

Each is a process of its own, whose threads sleep where they wait; imports and the reading of the data are not
counted, as they are the same. They are run in turn, and the ratio is the median of the rounds'. The *bound*
is what the FLOPs of the cones allow; the *share* is the ratio over the bound. Scores must be the same to the
last bit, or the benchmark fails.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from keeping import keep
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

SIDE, BATCH, SCRIPTED = 128, 8, 8
HERE = Path(__file__).resolve()


class Tokens(nn.Module):
    """A small transformer over rows of pixels."""

    def __init__(self, width: int = 128, depth: int = 8) -> None:
        super().__init__()
        self.embed = nn.Linear(SIDE, width)
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, batch_first=True)
        self.body = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.embed(x.mean(1))).mean(1))


def classifier(name: str) -> nn.Module:
    """A network of timm's for ten classes."""
    import timm

    return timm.create_model(name, num_classes=10)


def transformer() -> nn.Module:
    """The small transformer."""
    return Tokens()


NETWORKS: dict[str, tuple[str, dict[str, Any], int, int]] = {
    "unet-resnet18": ("smp:Unet", {"encoder_name": "resnet18", "classes": 1}, 3, 2),
    "unet-vgg11_bn": ("smp:Unet", {"encoder_name": "vgg11_bn", "classes": 1}, 3, 2),
    "pspnet-resnet18": ("smp:PSPNet", {"encoder_name": "resnet18", "classes": 1}, 3, 8),
    "lab-unet": ("lab:unet", {}, 1, 8),
    "lab-pspnet": ("lab:pspnet", {}, 1, 16),
    "timm-resnet18": (f"{HERE}:classifier", {"name": "resnet18"}, 3, 16),
    "transformer": (f"{HERE}:transformer", {}, 3, 32),
}
"""Model, its arguments, channels of its input, and batches that make a minute of full passes or so."""


def data(channels: int, samples: int) -> list[tuple[Tensor, Tensor]]:
    """Noise, and what part of it is bright."""
    images = torch.rand(samples, channels, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    return [(image, (image[0] > 0.5).long()) for image in images]


def spread(output: Tensor, target: Tensor) -> Tensor:
    """A number a sample for outputs of any shape."""
    return output.flatten(1).square().mean(1)


spread.direction = "min"  # type: ignore[attr-defined]


COLUMNS = ("batches", "variants", "ours s", "full s", "ratio", "bound", "share", "script", "MB", "full MB")
"""`ratio` full / ours, `bound` by FLOPs, `share` ratio / bound, `script` script / ours, peak memory of both."""


def main() -> None:
    options = arguments()
    if options.how:
        print(json.dumps(one(options)))
        return
    print(f"batches of {BATCH}, {SIDE} px, {options.threads} threads, {options.rounds} rounds")
    print(f"{'network':16}" + "".join(f"{name:>9}" for name in COLUMNS))
    for network in options.networks.split(","):
        compare(network, options)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of batches")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--how", choices=("ours", "full", "script"), help=argparse.SUPPRESS)
    parser.add_argument("--allocator", choices=("kept", "plain"), default="kept", help="of all processes")
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    return parser.parse_args()


def compare(network: str, options: argparse.Namespace) -> None:
    """Run the three in turn and print a line."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pair(network, folder)
        rounds = [{how: process(network, how, options, folder) for how in ("ours", "full")}
                  for _ in range(options.rounds)]  # fmt: skip
        script = process(network, "script", options, folder)
    ours, full = ([each[how] for each in rounds] for how in ("ours", "full"))
    if {each["scores"] for each in ours + full} != {ours[0]["scores"]}:
        raise SystemExit(f"{network}: replayed scores differ from those of full passes")
    ratio = statistics.median(b["seconds"] / a["seconds"] for a, b in zip(ours, full, strict=True))
    time_ours, time_full = (statistics.median(each["seconds"] for each in side) for side in (ours, full))
    memory, full_memory = (max(each["megabytes"] for each in side) for side in (ours, full))
    bound = ours[0]["bound"]
    batches = max(1, round(NETWORKS[network][3] * options.scale))
    figures = (ratio, bound, ratio / bound, script["seconds"] / time_ours)
    told = [f"{batches}", f"{ours[0]['variants']}", f"{time_ours:.1f}", f"{time_full:.1f}"]
    told += [*(f"{figure:.2f}" for figure in figures), f"{memory:.0f}", f"{full_memory:.0f}"]
    print(f"{network:16}" + "".join(f"{each:>9}" for each in told), flush=True)
    work = f"the speed of an exact sweep of {network}, tensor by tensor"
    keep(__file__, work, "one full pass a variant, in memory", ratio, unit=" ×")
    keep(__file__, work, "what the FLOPs of what each swap reaches allow", ratio / bound, least=0.85)


def process(network: str, how: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    words = [
        "--networks",
        network,
        "--how",
        how,
        "--scale",
        str(options.scale),
        "--threads",
        str(options.threads),
    ]
    command = [sys.executable, str(HERE), *words, "--allocator", options.allocator, "--folder", str(folder)]
    done = subprocess.run(
        command, env={**os.environ, "OMP_WAIT_POLICY": "passive"}, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def pair(network: str, folder: Path) -> None:
    """Two checkpoints with random values."""
    from ckptswap.task.models.build import build_model

    for seed, name in enumerate(("a", "b")):
        torch.manual_seed(seed)
        state = build_model(*NETWORKS[network][:2]).state_dict()
        for value in state.values():
            if value.is_floating_point():
                value += 0.01 * torch.rand(value.shape)
        save_file({key: value.contiguous() for key, value in state.items()}, folder / f"{name}.safetensors")


def one(options: argparse.Namespace) -> dict[str, Any]:
    """Measure one way in this process."""
    from ckptswap.formats import open_checkpoint
    from ckptswap.scoring.allocator import keep_freed_memory
    from ckptswap.sweep.preparing import prepare
    from ckptswap.task import TaskSpec, load_task

    if options.allocator == "kept":
        keep_freed_memory()
    network = options.networks
    model, args, channels, batches = NETWORKS[network]
    samples = BATCH * max(1, round(batches * options.scale))
    metric = "dice" if ":" in model and not model.startswith(str(HERE)) else f"{HERE}:spread"
    spec = TaskSpec(
        model=model, model_args=args, data=f"{HERE}:data", metrics=(metric,), batch_size=BATCH,
        data_args={"channels": channels, "samples": samples}, threads=options.threads,
    )  # fmt: skip
    folder = Path(options.folder)
    with (
        open_checkpoint(folder / "a.safetensors") as donor,
        open_checkpoint(folder / "b.safetensors") as recipient,
    ):
        load_task(spec, recipient)  # imports
        if options.how == "ours":
            return ours(spec, donor, recipient, folder)
        planned = prepare(*sweep_of(spec, donor, recipient))
        names = [name for variant in planned.plan.variants() for name in variant.names]
        run: Callable[..., dict[str, float]] = in_memory if options.how == "full" else scripted
        chosen = names if options.how == "full" else names[:: max(1, len(names) // SCRIPTED)]
        start = time.perf_counter()
        with planned.task.pinned():
            scores = run(planned.task, folder, chosen)
        seconds = (time.perf_counter() - start) * len(names) / len(chosen)
    return report(seconds, scores)


def sweep_of(task: Any, donor: Any, recipient: Any) -> tuple[Any, Any]:
    """Spec and sides of a sweep, tensor by tensor."""
    from ckptswap.sweep.sides import Sides
    from ckptswap.sweep.spec import SweepSpec

    return SweepSpec((donor.path,), recipient.path, task, by=(("tensor",),)), Sides((donor,), recipient)


def ours(spec: Any, donor: Any, recipient: Any, folder: Path) -> dict[str, Any]:
    from ckptswap.sweep.preparing import prepare
    from ckptswap.sweep.spec import RunOptions

    with tempfile.TemporaryDirectory(dir=folder) as run:
        start = time.perf_counter()
        planned = prepare(*sweep_of(spec, donor, recipient), run)
        result = planned.run(RunOptions(tolerance=0.01, samples=False)).result
        seconds = time.perf_counter() - start
    assert planned.scorer.notes == [], planned.scorer.notes
    scores = {row.tensors[0]: row.score for row in result.rows if row.status == "measured"}
    replay = planned.scorer.replay(planned.task.first_inputs())
    cones = [replay.cone(frozenset([replay.graph.state[name]])).flops for name in scores]
    return {**report(seconds, scores), "bound": len(cones) * replay.graph.flops / sum(cones)}


def in_memory(task: Any, folder: Path, names: list[str]) -> dict[str, float]:
    """One full forward pass a variant and batch, the donor's tensors at hand."""
    donor = load_file(folder / "a.safetensors")
    state = task.model.state_dict()
    parts: dict[str, list[Any]] = {name: [] for name in names}
    for batch in task.batches():
        score = task.scored_against(batch)
        for name in names:
            kept = state[name].clone()
            state[name].copy_(donor[name])
            with torch.inference_mode():
                output = task.model(batch.inputs)
            parts[name].append(next(iter(score(output).statistics.values())))
            state[name].copy_(kept)
    return {name: mean_of(task, found) for name, found in parts.items()}


def scripted(task: Any, folder: Path, names: list[str]) -> dict[str, float]:
    """What people write: for each variant, load both files, copy, load the state dict, and run a DataLoader."""
    from ckptswap.task.data import Batch

    samples = data(**task.spec.data_args)
    found = {}
    for name in names:
        donor, recipient = (load_file(folder / f"{each}.safetensors") for each in "ab")
        recipient[name] = donor[name]
        task.model.load_state_dict(recipient)
        task.model.eval()
        scores = []
        for inputs, targets in torch.utils.data.DataLoader(samples, batch_size=BATCH):
            with torch.no_grad():
                output = task.model(inputs)
            batch = Batch(inputs, targets, np.arange(len(inputs)))
            scores.append(next(iter(task.scored_against(batch)(output).statistics.values())))
        found[name] = float(np.concatenate(scores).mean())
    return found


def mean_of(task: Any, parts: list[np.ndarray]) -> float:
    values = np.empty((task.samples, parts[0].shape[1]))
    for places, part in zip(task.data.places, parts, strict=True):
        values[places] = part
    return float(values[:, 0].sum() / task.samples)


def report(seconds: float, scores: dict[str, float]) -> dict[str, Any]:
    exact = hashlib.sha256(
        "".join(f"{name} {scores[name].hex()}\n" for name in sorted(scores)).encode()
    ).hexdigest()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": seconds, "scores": exact, "variants": len(scores), "megabytes": peak}


if __name__ == "__main__":
    main()
