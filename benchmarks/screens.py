"""Screens on real networks: how well does each tell the exact sweep's ranking, and for how much of its work?

    python benchmarks/screens.py [--only unet,classifier,transformer] [--folder DIR]

Three pairs are trained for seconds each, donor and recipient from one initialisation: the demo's U-Net (45
held-out slices; its donor is an auto-encoder), timm's smallest ResNet on drawn gratings (orientation; its donor
tells the frequency), and a small transformer on two Markov chains. Each is swept exactly, its walk
beginning with the samples of `sample:4`, and every screen is held against the drops by what a table tells: the
area under the ROC curve for `sensitive` against the other decided variants, the share of the ten worst that it
finds, and Spearman's rank correlation. Work is told in seconds beside those of the sweep, of which `sample:4` has
its share.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

HERE = Path(__file__).resolve()
SAMPLES = "sample:4"
CLASSES, SIDE = 8, 32
WORDS, LENGTH = 24, 64


# The classifier's data: gratings, of which orientation or frequency is the class --------------------------------


def gratings(part: str = "test", what: str = "orientation") -> list[tuple[Tensor, Tensor, int]]:
    """(image (1, 32, 32), class, group) of 160 gratings that are scored, or 800 to train on."""
    draw = np.random.default_rng(1 if part == "test" else 0)
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    items = []
    for at in range(160 if part == "test" else 800):
        orientation, frequency = draw.integers(CLASSES, size=2)
        angle, waves = np.pi * orientation / CLASSES, 2 + frequency
        wave = np.sin(2 * np.pi * waves * (x * np.cos(angle) + y * np.sin(angle)) + draw.uniform(0, 2 * np.pi))
        image = torch.from_numpy(wave + draw.normal(0, 0.7, wave.shape)).float()[None]
        items.append((image, torch.tensor(int(orientation if what == "orientation" else frequency)), at))
    return items


# The transformer, and its data: sentences of one of two Markov chains -------------------------------------------


class Layer(nn.Module):
    """Attention and an MLP, each behind its norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.qkv(self.ln_1(x)).unflatten(-1, (3, self.heads, -1)).movedim(-3, 0).transpose(-2, -3)
        mixed = functional.scaled_dot_product_attention(*parts, is_causal=True)
        x = x + self.proj(mixed.transpose(-2, -3).flatten(-2))
        return x + self.down(functional.gelu(self.up(self.ln_2(x))))


class Language(nn.Module):
    """Tokens (N, T) to logits of the next one (N, T, 24)."""

    def __init__(self, width: int = 48, depth: int = 4, heads: int = 4) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(WORDS, width), nn.Embedding(LENGTH, width)
        self.h = nn.ModuleList(Layer(width, heads) for _ in range(depth))
        self.ln_f, self.head = nn.LayerNorm(width), nn.Linear(width, WORDS)

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.wte(input_ids) + self.wpe.weight[: input_ids.shape[1]]
        for layer in self.h:
            x = layer(x)
        return self.head(self.ln_f(x))


def sentences(part: str = "test", chain: int = 0) -> list[dict[str, Tensor]]:
    """120 sentences that are scored, or 1,000 to train on: each word follows from the two before it, mostly."""
    rules = np.random.default_rng(chain).integers(WORDS, size=(WORDS, WORDS))
    draw = np.random.default_rng(10 + chain + 100 * (part == "test"))
    sentences = draw.integers(WORDS, size=(120 if part == "test" else 1000, LENGTH))
    for at in range(2, LENGTH):
        is_ruled = draw.random(len(sentences)) < 0.9
        sentences[is_ruled, at] = rules[sentences[is_ruled, at - 2], sentences[is_ruled, at - 1]] % WORDS
    ids = [torch.from_numpy(sentence) for sentence in sentences]
    return [{"input_ids": own, "labels": own} for own in ids]


# Training -------------------------------------------------------------------------------------------------------


def fit(model: nn.Module, batch: Callable[[np.random.Generator], tuple[Tensor, Tensor]], steps: int) -> nn.Module:
    """Adam on the cross-entropy, the rate falling to 0."""
    draw = np.random.default_rng(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    for _ in range(steps):
        inputs, targets = batch(draw)
        loss = functional.cross_entropy(model(inputs).flatten(0, -2), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def unet(folder: Path) -> Any:
    from ckptswap.lab.demo import HELD_OUT, RECONSTRUCTED, SEGMENT, SEGMENTED, trainings

    for training in trainings(replace(SEGMENT, threads=1, steps=100)):
        if not training.is_finished(folder):
            training.run(folder, lambda step, loss: None)
    return SEGMENTED, RECONSTRUCTED, replace(HELD_OUT, threads=1)


def classifier(folder: Path) -> Any:
    import timm

    from ckptswap.task import TaskSpec

    def make() -> nn.Module:
        torch.manual_seed(0)
        return timm.create_model("resnet10t", num_classes=CLASSES, in_chans=1)

    for name, what in (("classifier", "orientation"), ("classifier-donor", "frequency")):
        items = gratings("train", what)

        def batch(draw: np.random.Generator, items: Any = items) -> tuple[Tensor, Tensor]:
            chosen = [items[at] for at in draw.integers(len(items), size=32)]
            return torch.stack([image for image, _, _ in chosen]), torch.stack([label for _, label, _ in chosen])

        _save(folder / f"{name}.pt", lambda batch=batch: fit(make(), batch, 60))
    args = {"num_classes": CLASSES, "in_chans": 1}
    told = {"model": "timm:resnet10t", "model_args": args, "data": f"{HERE}:gratings", "metrics": ("loss",)}
    return "classifier.pt", "classifier-donor.pt", TaskSpec(**told, threads=1)


def transformer(folder: Path) -> Any:
    from ckptswap.task import TaskSpec

    for name, chain in (("transformer", 0), ("transformer-donor", 1)):
        ids = torch.stack([item["input_ids"] for item in sentences("train", chain)])

        def batch(draw: np.random.Generator, ids: Tensor = ids) -> tuple[Tensor, Tensor]:
            chosen = ids[torch.from_numpy(draw.integers(len(ids), size=32))]
            return chosen[:, :-1], chosen[:, 1:]

        def make(batch: Any = batch) -> nn.Module:
            torch.manual_seed(0)
            return fit(Language(), batch, 500)

        _save(folder / f"{name}.pt", make)
    told = {"model": f"{HERE}:Language", "data": f"{HERE}:sentences", "metrics": ("loss",)}
    return "transformer.pt", "transformer-donor.pt", TaskSpec(**told, threads=1)


def _save(path: Path, make: Callable[[], nn.Module]) -> None:
    if not path.exists():
        torch.save(make().state_dict(), path)


# The screens ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """A screen on a network: how long it took beside the sweep's seconds, and how well it told."""

    screen: str
    seconds: float
    share: float
    auc: float | None
    top: float | None
    spearman: float | None


def lines(folder: Path, recipient: str, donor: str, task: Any) -> Iterable[Line]:
    """Sweep exactly, then guess by each screen."""
    from ckptswap.statistics.ranks import auc, spearman, top_overlap
    from ckptswap.sweep.preparing import prepared
    from ckptswap.sweep.screen import screen
    from ckptswap.sweep.spec import RunOptions, SweepSpec

    spec = SweepSpec((str(folder / donor),), str(folder / recipient), task, screen=SAMPLES)
    with prepared(spec, folder / f"run-{Path(recipient).stem}") as sweep:
        variants, begun = sweep.plan.variants(), time.perf_counter()
        result = sweep.run(RunOptions(fresh=True, samples=False)).result
        exact = time.perf_counter() - begun
        assert result.screen is not None
        assert result.screen.samples is not None
        guesses = {SAMPLES: {row.tensors: row.guess for row in result.rows if row.guess is not None}}
        names = {variant.id: variant.names for variant in variants}
        seconds = {SAMPLES: exact * result.screen.samples / result.samples}
        guesses["rmse"] = {cell.names: cell.rmse for cell in sweep.plan.cells if cell.rmse is not None}
        seconds["rmse"] = 0.0
        for by in ("gradient", "curvature"):
            begun = time.perf_counter()
            values = screen(by, sweep.runs_model, variants)
            seconds[by] = time.perf_counter() - begun
            guesses[by] = {names[variant]: value for variant, value in values.items()}
    rows = [row for row in result.rows if row.status == "measured"]
    words = ("sensitive", "reusable", "undecided")
    verdicts = {word: sum(row.verdict == word for row in rows) for word in words}
    print(f"\n{recipient}: {result.metric} {result.baseline:.4g}, {len(rows)} variants "
          f"on {result.samples} samples in {exact:.1f} s; {verdicts}")  # fmt: skip
    for by in ("rmse", "gradient", "curvature", SAMPLES):
        known = [(guesses[by][row.tensors], row.drop, row.verdict) for row in rows if row.tensors in guesses[by]]
        values, drops = [value for value, _, _ in known], [drop for _, drop, _ in known]
        sides: dict[bool, list[float]] = {False: [], True: []}
        for value, _, verdict in known:
            if verdict != "undecided":
                sides[verdict == "sensitive"].append(value)
        told = auc(sides[False], sides[True]), top_overlap(values, drops, 10), spearman(values, drops)
        yield Line(by, seconds[by], seconds[by] / exact, *told)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="unet,classifier,transformer", help="which networks")
    parser.add_argument("--folder", help="where pairs and runs are kept; pairs that are there are used again")
    options = parser.parse_args()
    folder = Path(options.folder or tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for name in options.only.split(","):
        table = list(lines(folder, *globals()[name](folder)))
        print(f"{'screen':>10} {'seconds':>8} {'of the work':>11} {'AUC':>6} {'top 10':>6} {'Spearman':>8}")
        for line in table:
            numbers = [
                "–" if number is None else f"{number:.2f}" for number in (line.auc, line.top, line.spearman)
            ]
            print(f"{line.screen:>10} {line.seconds:8.2f} {line.share:11.1%} {numbers[0]:>6} {numbers[1]:>6} "
                  f"{numbers[2]:>8}")  # fmt: skip


if __name__ == "__main__":
    main()
