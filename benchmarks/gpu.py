"""Exact, close and stacked replay against full forward passes, on a GPU and without the rest of ckptswap.

    python benchmarks/gpu.py [--device cuda] [--rounds 3] [--json FILE]

It needs torch, numpy and safetensors, and this repository on PYTHONPATH; no data, no weights, no network, and less
than six minutes. Without a GPU it runs small on the CPU, which shows that it works and says little of speed.

For a U-Net and for a transformer, each with random values, and for one variant of every tensor:

- *full*: the tensor copied in, one full forward pass, the tensor copied back;
- *exact*: the replay of each variant's cone;
- *close*: the same of a shortened graph (norms folded, doubled maps not made, packed on the CPU);
- *stacked*: the same, variants with nearly the same cone in one call.

Each score (a number a sample) stays on the device until all of a batch's are there; batches are pinned, and sent
ahead of their turn. In f32 without TF32, with it, and in bf16. `off` is the largest difference of an output from
the plain loop's (both files loaded, the tensor copied, `load_state_dict`, a full forward pass in the same
precision), over the largest output, on a few variants; `exact` must have all bits of `full`, or that is said.
Ways are run in turn, and ratios are medians over the rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ckptswap.scoring.graph import capture
from ckptswap.scoring.interpreter import Replay
from ckptswap.scoring.shortening import shortened
from ckptswap.scoring.stacked import Stacked

BATCHES, CHECKED, MEMORY = 2, 6, 8 << 30
Way = Callable[[Tensor], Iterator[tuple[int, Tensor]]]
"""From a batch to (number of the variant, output), in any order."""


class Block(nn.Sequential):
    """Twice a convolution, a norm and a ReLU."""

    def __init__(self, before: int, after: int) -> None:
        parts: list[nn.Module] = []
        for width in (before, after):
            parts += [nn.Conv2d(width, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        super().__init__(*parts)


class UNet(nn.Module):
    """Down and up again, beside what was kept."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        widths = [width << level for level in range(depth + 1)]
        self.down = nn.ModuleList(Block(*pair) for pair in zip([3, *widths[:-1]], widths, strict=True))
        pairs = zip(widths[::-1], widths[-2::-1], strict=False)
        self.up = nn.ModuleList(Block(low + high, high) for low, high in pairs)
        self.head = nn.Conv2d(width, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept = [self.down[0](x)]
        for block in list(self.down)[1:]:
            kept.append(block(nn.functional.max_pool2d(kept[-1], 2)))
        x = kept.pop()
        for block in self.up:
            x = block(torch.cat([nn.functional.interpolate(x, scale_factor=2.0), kept.pop()], 1))
        return self.head(x)


class Attention(nn.Module):
    """A transformer's layer, norms first."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.qkv, self.out = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.norm2, self.up, self.down = (
            nn.LayerNorm(width),
            nn.Linear(width, 4 * width),
            nn.Linear(4 * width, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        parts = self.qkv(self.norm(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(*parts.unbind(0))
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.down(nn.functional.gelu(self.up(self.norm2(x))))


class Transformer(nn.Module):
    """Some layers between a linear layer in and one out."""

    def __init__(self, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(32, width), nn.Linear(width, 10)
        self.layers = nn.Sequential(*(Attention(width, heads) for _ in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(self.embed(x)).mean(1))


def networks(small: bool) -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    """Each network with the shape of a batch."""
    if small:
        return {"unet": (UNet(4, 2), (2, 3, 32, 32)), "transformer": (Transformer(32, 2, 2), (4, 16, 32))}
    return {"unet": (UNet(32, 4), (16, 3, 256, 256)), "transformer": (Transformer(512, 8, 8), (32, 256, 32))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write all rows there, too")
    options = parser.parse_args()
    on_gpu = torch.device(options.device).type == "cuda"
    if not on_gpu:
        torch.set_num_threads(1)  # small calls among several threads wait for each other
    name = torch.cuda.get_device_name(options.device) if on_gpu else "CPU, small: this only shows that it works"
    print(f"torch {torch.__version__}, {name}, {options.rounds} rounds")
    print(
        f"{'network':12} {'precision':9} {'way':8} {'variants':>8} {'seconds':>8} {'× full':>7} {'off':>9}  bits"
    )
    rows = []
    for precision in ("f32", "tf32", "bf16") if on_gpu else ("f32", "bf16"):
        for network, (model, shape) in networks(not on_gpu).items():
            with pinned(precision):
                for row in measured(model, shape, precision, options):
                    rows.append({"network": network, "precision": precision, "device": name, **row})
                    print(line(rows[-1]), flush=True)
    if options.json:
        options.json.write_text(json.dumps({"torch": torch.__version__, "rows": rows}, indent=1), "utf-8")


def line(row: dict[str, Any]) -> str:
    bits = "all" if row["same_bits"] else "-"
    told = f"{row['network']:12} {row['precision']:9} {row['way']:8} {row['variants']:8} {row['seconds']:8.3f}"
    return f"{told} {row['ratio']:7.2f} {row['off']:9.1e}  {bits}"


@contextlib.contextmanager
def pinned(precision: str) -> Iterator[None]:
    """Deterministic, and with TF32 only where it is meant; nothing has a gradient."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    with torch.no_grad():
        yield


def measured(
    model: nn.Module, shape: tuple[int, ...], precision: str, options: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """A row for each way."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    model = model.to(options.device, dtype).eval()
    filled(model)
    draw = torch.Generator().manual_seed(1)
    batches = [torch.rand(shape, generator=draw).to(dtype) for _ in range(BATCHES)]
    donor = {name: value * 1.01 + 0.01 for name, value in model.state_dict().items() if value.is_floating_point()}
    ways = ways_of(model, donor, batches[0].to(options.device))
    chosen = list(range(0, len(donor), max(1, len(donor) // CHECKED)))
    expected = plain(model, donor, chosen, batches[0].to(options.device))
    outputs = {way: dict(collected(run, batches[0].to(options.device), chosen)) for way, run in ways.items()}
    times: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(options.rounds):
        for way, run in ways.items():
            times[way].append(timed(run, batches, len(donor), options.device))
    for way, own in outputs.items():
        off = [float((own[at] - expected[at]).abs().max() / expected[at].abs().max()) for at in chosen]
        ratios = [full / seconds for full, seconds in zip(times["full"], times[way], strict=True)]
        yield {
            "way": way,
            "variants": len(donor),
            "seconds": statistics.median(times[way]),
            "ratio": statistics.median(ratios),
            "off": max(off),
            "same_bits": all(torch.equal(own[at], expected[at]) for at in chosen),
        }


def filled(model: nn.Module) -> None:
    """Random values of a network that has been trained: statistics that are none of the initial ones."""
    draw = torch.Generator().manual_seed(0)
    for name, value in model.state_dict().items():
        if value.is_floating_point() and value.dim() == 1:
            base = 1.0 if name.endswith(("running_var", "weight")) else 0.0
            value.copy_(base + 0.1 * torch.rand(value.shape, generator=draw))


def ways_of(model: nn.Module, donor: dict[str, Tensor], batch: Tensor) -> dict[str, Way]:
    """Full passes, and each replay, of all variants."""
    graph = capture(model, batch, lambda output: output)  # type: ignore[arg-type, return-value]
    own = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    state = {graph.state[name]: value.detach() for name, value in own.items()}
    swaps = [{graph.state[name]: value} for name, value in donor.items()]
    given = {**state, **graph.given(batch)}

    def replayed(replay: Replay) -> Way:
        return lambda inputs: (
            (at, output) for at, output in replay.outputs(inputs, swaps, with_output=False) if at is not None
        )

    def full(inputs: Tensor) -> Iterator[tuple[int, Tensor]]:
        for at, (name, value) in enumerate(donor.items()):
            kept = own[name].detach().clone()
            own[name].copy_(value)
            yield at, model(inputs)
            own[name].copy_(kept)

    on_cpu = batch.device.type == "cpu"
    return {
        "full": full,
        "exact": replayed(Replay(graph, state, MEMORY)),
        "close": replayed(Replay(shortened(graph, given, laid_out=on_cpu), state, MEMORY)),
        "stacked": replayed(Stacked(shortened(graph, given, laid_out=False), state, MEMORY)),
    }


def plain(model: nn.Module, donor: dict[str, Tensor], chosen: list[int], batch: Tensor) -> dict[int, Tensor]:
    """The loop that anyone would write: load both, copy the tensor, `load_state_dict`, a full pass."""
    names, found = list(donor), {}
    with tempfile.TemporaryDirectory() as folder:
        own = {name: value.contiguous() for name, value in model.state_dict().items()}
        save_file(own, f"{folder}/recipient.safetensors")
        save_file({name: value.contiguous() for name, value in donor.items()}, f"{folder}/donor.safetensors")
        for at in chosen:
            state, other = (load_file(f"{folder}/{side}.safetensors") for side in ("recipient", "donor"))
            state[names[at]] = other[names[at]]
            model.load_state_dict(state)
            found[at] = model(batch).float().cpu()
        model.load_state_dict(load_file(f"{folder}/recipient.safetensors"))
    return found


def collected(run: Way, batch: Tensor, chosen: list[int]) -> Iterator[tuple[int, Tensor]]:
    for at, output in run(batch):
        if at in chosen:
            yield at, output.float().cpu()


def timed(run: Way, batches: list[Tensor], variants: int, device: str) -> float:
    """Seconds for all variants on all batches, scores included."""
    synchronize = torch.cuda.synchronize if torch.device(device).type == "cuda" else lambda: None
    synchronize()
    start = time.perf_counter()
    for inputs in sent_ahead(batches, device):
        scores: list[Tensor | None] = [None] * variants
        for at, output in run(inputs):
            scores[at] = output.float().flatten(1).sigmoid().mean(1)
        table = torch.stack([score for score in scores if score is not None]).cpu().numpy()
        assert table.shape == (variants, len(inputs))
        assert np.isfinite(table).all()
    synchronize()
    return time.perf_counter() - start


def sent_ahead(batches: list[Tensor], device: str) -> Iterator[Tensor]:
    """Each batch on the device; the next one is on its way meanwhile."""
    if torch.device(device).type != "cuda":
        yield from batches
        return
    waiting = [batch.pin_memory() for batch in batches]
    following = waiting[0].to(device, non_blocking=True)
    for at in range(len(waiting)):
        inputs = following
        if at + 1 < len(waiting):
            following = waiting[at + 1].to(device, non_blocking=True)
        yield inputs


if __name__ == "__main__":
    main()
