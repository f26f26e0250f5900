"""`ckptswap train`: one network of a pair."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from ckptswap import api
from ckptswap.cli.flags import FILE, NEVER, ForceFlag, Group, Keywords, flags
from ckptswap.cli.terminal import emit, say
from ckptswap.errors import listing
from ckptswap.messages import warn
from ckptswap.report.text import plural


def _flag(kind: Any, help: str, metavar: str | None = None, mark: Any = FILE) -> tuple[Any, None]:
    return Annotated[kind | None, typer.Option(metavar=metavar, help=help), mark], None


TRAINING: Group = {
    "model": _flag(str, "lab:unet, lab:pspnet or smp:NAME.", "SPEC"),
    "model_args": _flag(list[str], "The model's arguments.", "K=V,…"),
    "data": _flag(str, "lab:mni, or a folder with images/ and masks/.", "SPEC", NEVER),
    "data_args": _flag(list[str], "The data's arguments: part=train.", "K=V,…", NEVER),
    "steps": _flag(int, "Optimizer steps. [default: 150]", "N"),
    "batch_size": _flag(int, "Samples a step. [default: 8]", "N"),
    "lr": _flag(float, "Learning rate, falling to 0. [default: 0.003]"),
    "optimizer": _flag(Literal["adamw", "sgd"], "SGD is with momentum 0.9. [default: adamw]"),
    "freeze": _flag(list[str], "Kinds that stay as initialised: conv.bias, 'bn.*'.", "KIND"),
    "seed": _flag(int, "Decides initialisation and order. [default: 0]"),
    "threads": _flag(int, "Torch threads. [default: 2]", "N"),
    "ignore": _flag(int, "Mask value that does not count.", "CLASS"),
}
"""What is trained on what: the fields of `ckptswap.lab.train.TrainSpec`, which would load torch."""


@flags(how=TRAINING)
def train(
    task: Annotated[Literal["segment", "reconstruct"], typer.Argument(help="What the network learns.")],
    out: Annotated[str, typer.Option("-o", "--out", metavar="FILE", help="The checkpoint to write."), NEVER],
    how: Keywords,
    init_from: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Start from this checkpoint instead of a random one."),
        NEVER,
    ] = None,
    save_init: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Also write the network as it was before the first step."),
        NEVER,
    ] = None,
    force: ForceFlag = False,
) -> None:
    """Train a network to segment, or to reconstruct its input, and print the path of the checkpoint.

    \b
    Examples:
      ckptswap train segment --data-args part=train --steps 3 --save-init start.safetensors -o seg.safetensors
      ckptswap train reconstruct --data-args part=train --steps 3 --init-from init.safetensors -o rec.safetensors
    """
    said = {name: value for name, value in how.items() if value is not None}
    result = api.train(task, out, init_from=init_from, save_init=save_init, force=force, **said)
    if result.kept:
        warn([f"{init_from} does not fill {listing(result.kept, most=5)}; kept as initialised"])
    work = f"{plural(len(result.losses), 'step')} on {plural(result.samples, 'sample')}"
    say(f"{work}: loss {result.losses[0]:.4f} → {result.losses[-1]:.4f}")
    emit(str(result.path))
