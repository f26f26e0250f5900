"""What decides a training's result, as pure data: the flags of `ckptswap train` are made of it. No torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ckptswap.records import option

OPTIMIZERS = ("adamw", "sgd")


@dataclass(frozen=True)
class TrainSpec:
    """All that decides a training's result, but for the initialisation it may start from. Defaults are the demo's.

    `task`: `segment` (cross-entropy; for one class binary cross-entropy plus soft Dice) or `reconstruct` (mean
    squared error to the input). `in_channels` and `classes` are taken from the data where `model_args` does not
    say. `data`: whatever a task takes. Under `sgd`, without decay, a parameter that has no gradient stays where it
    is; the rate falls linearly from `lr` to 0. Kinds in `freeze` (as in a selection) are not trained.
    """

    task: str
    model: str = option("lab:unet", "lab:unet, lab:pspnet or smp:NAME.", metavar="SPEC", defaults="file")
    model_args: Mapping[str, Any] = option(
        None, "The model's arguments.", factory=dict, metavar="K=V,…", defaults="file"
    )
    data: str = option(
        "lab:mni", "lab:mni, or a folder with images/ and masks/.", metavar="SPEC", defaults="never"
    )
    data_args: Mapping[str, Any] = option(
        None, "The data's arguments: part=train.", factory=dict, metavar="K=V,…", defaults="never"
    )
    steps: int = option(150, "Optimizer steps. [default: 150]", metavar="N", defaults="file")
    batch_size: int = option(8, "Samples a step. [default: 8]", metavar="N", defaults="file")
    lr: float = option(3e-3, "Learning rate, falling to 0. [default: 0.003]", defaults="file")
    optimizer: str = option(
        "adamw", "SGD is with momentum 0.9. [default: adamw]", choices=OPTIMIZERS, defaults="file"
    )
    freeze: tuple[str, ...] = option(
        (), "Kinds that stay as initialised: conv.bias, 'bn.*'.", metavar="KIND", defaults="file"
    )
    seed: int = option(0, "Decides initialisation and order. [default: 0]", defaults="file")
    threads: int = option(2, "Torch threads. [default: 2]", metavar="N", defaults="file")
    ignore: int | None = option(None, "Mask value that does not count.", metavar="CLASS", defaults="file")
