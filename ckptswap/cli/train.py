"""`ckptswap train`: one network of a pair."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ckptswap.cli.flags import ForceFlag, Patterns
from ckptswap.cli.terminal import Meter, emit, say, warn
from ckptswap.errors import listing
from ckptswap.report.text import plural


def train(
    task: Annotated[Literal["segment", "reconstruct"], typer.Argument(help="What the network learns.")],
    out: Annotated[str, typer.Option("-o", "--out", metavar="FILE", help="The checkpoint to write.")],
    model: Annotated[str | None, typer.Option(metavar="SPEC", help="lab:unet, lab:pspnet or smp:NAME.")] = None,
    model_args: Annotated[Patterns, typer.Option(metavar="K=V,…", help="The model's arguments.")] = None,
    data: Annotated[
        str | None, typer.Option(metavar="SPEC", help="lab:mni, or a folder with images/ and masks/.")
    ] = None,
    data_args: Annotated[Patterns, typer.Option(metavar="K=V,…", help="The data's arguments: part=train.")] = None,
    steps: Annotated[int | None, typer.Option(metavar="N", help="Optimizer steps. [default: 150]")] = None,
    batch_size: Annotated[int | None, typer.Option(metavar="N", help="Samples a step. [default: 8]")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate, falling to 0. [default: 0.003]")] = None,
    optimizer: Annotated[
        Literal["adamw", "sgd"] | None, typer.Option(help="SGD is with momentum 0.9. [default: adamw]")
    ] = None,
    freeze: Annotated[
        Patterns, typer.Option(metavar="KIND", help="Kinds that stay as initialised: conv.bias, 'bn.*'.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Decides initialisation and order. [default: 0]")] = None,
    threads: Annotated[int | None, typer.Option(metavar="N", help="Torch threads. [default: 2]")] = None,
    ignore: Annotated[int | None, typer.Option(metavar="CLASS", help="Mask value that does not count.")] = None,
    init_from: Annotated[
        str | None, typer.Option(metavar="FILE", help="Start from this checkpoint instead of a random one.")
    ] = None,
    save_init: Annotated[
        str | None, typer.Option(metavar="FILE", help="Also write the network as it was before the first step.")
    ] = None,
    force: ForceFlag = False,
) -> None:
    """Train a network to segment, or to reconstruct its input, and print the path of the checkpoint.

    \b
    Examples:
      ckptswap train segment --data-args part=train --steps 3 --save-init start.safetensors -o seg.safetensors
      ckptswap train reconstruct --data-args part=train --steps 3 --init-from init.safetensors -o rec.safetensors
    """
    from ckptswap.lab import train as library
    from ckptswap.task.spec import parse_args

    said: dict[str, Any] = {
        "model": model, "data": data, "steps": steps, "batch_size": batch_size, "lr": lr, "seed": seed,
        "threads": threads, "ignore": ignore, "optimizer": optimizer,
        "freeze": tuple(each for value in freeze for each in value.split(",")) if freeze else None,
        "model_args": parse_args(",".join(model_args)) if model_args else None,
        "data_args": parse_args(",".join(data_args)) if data_args else None,
    }  # fmt: skip
    spec = library.TrainSpec(task, **{key: value for key, value in said.items() if value is not None})
    meter = Meter(f"train {task}", " steps")
    try:
        result = library.train(
            spec,
            Path(out),
            init_from=Path(init_from) if init_from else None,
            save_init=Path(save_init) if save_init else None,
            progress=lambda step, loss: meter(step, spec.steps, f"loss {loss:.4f}"),
            force=force,
        )
    finally:
        meter.close()
    if result.kept:
        warn([f"{init_from} does not fill {listing(result.kept, most=5)}; kept as initialised"])
    work = f"{plural(spec.steps, 'step')} on {plural(result.samples, 'sample')}"
    say(f"{work}: loss {result.losses[0]:.4f} → {result.losses[-1]:.4f}")
    emit(str(result.path))
