"""What `reproduce` trains and sweeps: networks × seeds × initialisations, as pure data. Source: arXiv:2008.03414
for the pair; the controls, seeds and initialisations are ours (`docs/method.md`)."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ckptswap.checkpoint import Checkpoint
from ckptswap.lab.train import Training
from ckptswap.lab.trainspec import TrainSpec
from ckptswap.scoring.variant import Calibration
from ckptswap.selection import Selection
from ckptswap.sweep.plan import By
from ckptswap.sweep.result import Mode
from ckptswap.task.spec import TaskSpec

INITS = ("shared", "independent")
OTHER = 1000  # an independent initialisation has the seed of the network, and so many more
INIT, SEGMENT = "init.safetensors", "segment.safetensors"
STAGES = "sweeps.json"  # the names of a pair's sweeps, beside them
WAYS = ("cells", "kinds", "prefix", "back")
"""The sweeps that every pair has; others take sets of several kinds or layers."""
SHUFFLE, NOISE = "shuffle:0", "noise:0.3"
SCORED_BATCH = 15
CALIBRATION = 2  # batches on which batch norm's statistics are estimated anew


@dataclass(frozen=True)
class Arm:
    """A network, and how it is trained."""

    name: str
    model: str
    model_args: Mapping[str, Any] = field(default_factory=dict)
    optimizer: str = "adamw"
    lr: float = 3e-3
    freeze: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stage:
    """One sweep of a pair; `donors` are beside the pair's own, `back` turns the pair round."""

    name: str
    by: tuple[By, ...]
    selection: Selection = field(default_factory=Selection)
    donors: tuple[str, ...] = ()
    mode: Mode = "only"
    is_recalibrated: bool = False
    is_screened: bool = False
    is_back: bool = False


@dataclass(frozen=True)
class Unit:
    """One network under one seed: three trainings (a segmentation network, an auto-encoder from the same
    initialisation, one from another), then the same sweeps for both pairs. `folder` is below the experiment's."""

    arm: Arm
    seed: int

    @property
    def folder(self) -> str:
        return f"{self.arm.name}/seed-{self.seed}"


@dataclass(frozen=True)
class Experiment:
    """All of it. `data` None is `lab:mni`; else a folder with `train/` and `test/`, each with images/ and masks/.

    >>> [unit.folder for unit in Experiment((Arm("unet", "lab:unet"),), seeds=2, steps=1).units()]
    ['unet/seed-0', 'unet/seed-1']
    """

    arms: tuple[Arm, ...]
    seeds: int
    steps: int
    batch_size: int = 8
    data: str | None = None

    def units(self) -> list[Unit]:
        """Seed by seed, so that an unfinished experiment has whole seeds."""
        return [Unit(arm, seed) for seed in range(self.seeds) for arm in self.arms]

    def trainings(self, unit: Unit) -> list[Training]:
        """The three trainings of a unit, in the order in which they need each other."""
        of_arm = {name: value for name, value in vars(unit.arm).items() if name != "name"}
        how: dict[str, Any] = {"steps": self.steps, "batch_size": self.batch_size, "seed": unit.seed, "threads": 1}
        segment = TrainSpec("segment", **of_arm, **how, **self._data("train"))
        encode = replace(segment, task="reconstruct")
        return [
            Training("segment", segment, save_init=INIT),
            Training("shared", encode, init_from=INIT),
            Training("independent", replace(encode, seed=unit.seed + OTHER)),
        ]

    def task(self, *, back: bool = False) -> TaskSpec:
        """What pairs are scored by: Dice of the held-out masks; of an auto-encoder psnr of the held-out images."""
        how: dict[str, Any] = {"target": "input", "metrics": ("psnr",)} if back else {"metrics": ("dice",)}
        return TaskSpec(**self._data("test"), batch_size=SCORED_BATCH, threads=1, **how)

    def calibration(self) -> Calibration:
        """The training images."""
        return Calibration(CALIBRATION, **self._data("train"))

    def _data(self, part: str) -> dict[str, Any]:
        if self.data is None:
            return {"data": "lab:mni", "data_args": {"part": part}}
        return {"data": str(Path(self.data) / part)}


def stages(recipient: Checkpoint, before_norm: Mapping[str, str]) -> list[Stage]:
    """The sweeps of a pair; `before_norm` has the layers whose output goes straight into a batch norm.

    >>> import numpy as np
    >>> arrays = {"c.weight": np.zeros((2, 1, 3, 3)), "c.bias": np.zeros(2)}
    >>> [stage.name for stage in stages(Checkpoint.from_arrays(arrays), {})]
    ['cells', 'kinds', 'prefix', 'back', 'bias-without-norm']
    """
    biases = [entry for entry in recipient.values() if entry.kind == "conv.bias"]
    means = [entry.name for entry in recipient.values() if entry.kind == "bn.running_mean"]
    before = [entry.name for entry in biases if entry.layer in before_norm]
    groups = {
        "affine": [entry.name for entry in recipient.values() if entry.kind in ("bn.weight", "bn.bias")],
        "bias-before-norm": before,
        "bias-without-norm": [entry.name for entry in biases if entry.layer not in before_norm],
        "bias-and-mean": [*before, *means] if before else [],
    }
    planned = [
        Stage("cells", (("layer", "kind"),), is_screened=True),
        Stage("kinds", (("kind",),), donors=(SHUFFLE, NOISE), is_recalibrated=True),
        Stage("prefix", (("layer",),), mode="prefix"),
        Stage("back", (("kind",),), is_back=True),
    ]
    for name, names in groups.items():
        if names:
            is_recalibrated = name != "bias-and-mean"
            planned.append(Stage(name, (("all",),), Selection.exactly(names), is_recalibrated=is_recalibrated))
    return planned


def quick(data: str | None = None) -> Experiment:
    """Small networks, few steps, 2 seeds: shows what the experiment does, and decides nothing."""
    return Experiment(_arms(width=4, smp_depth=3), seeds=2, steps=80, data=data)


def full(data: str | None = None) -> Experiment:
    """5 seeds, networks that reach their task."""
    return Experiment(_arms(width=8, smp_depth=4), seeds=5, steps=200, data=data)


def _arms(width: int, smp_depth: int) -> tuple[Arm, ...]:
    resnet = {"encoder_name": "resnet18", "encoder_weights": None}
    decoder = [64, 32, 16, 8][-smp_depth:]
    unet = Arm("unet", "lab:unet", {"width": width, "depth": 3})
    return (
        unet,
        replace(unet, name="unet-no-skips", model_args={**unet.model_args, "skips": False}),
        Arm("pspnet", "lab:pspnet", {"width": 2 * width}),
        Arm("smp-unet", "smp:Unet", {**resnet, "encoder_depth": smp_depth, "decoder_channels": decoder}),
        Arm("smp-pspnet", "smp:PSPNet", {**resnet, "psp_out_channels": 16 * width, "psp_dropout": 0.0}),
        replace(unet, name="unet-sgd", optimizer="sgd", lr=0.05),
        replace(unet, name="unet-frozen-bias", freeze=("conv.bias",)),
    )
