"""`ckptswap train`: one network of a pair."""

from dataclasses import MISSING
from typing import Annotated, Literal

import typer

from ckptswap import api
from ckptswap.cli.flags import FORCE, Keywords, flags, flags_of
from ckptswap.cli.terminal import emit, say
from ckptswap.errors import listing
from ckptswap.lab.trainspec import TrainSpec
from ckptswap.messages import warn
from ckptswap.records import option
from ckptswap.report.text import plural


@flags(how=flags_of(TrainSpec))
def train(
    *,
    task: Annotated[Literal["segment", "reconstruct"], typer.Argument(help="What the network learns.")],
    out: str = option(MISSING, "The checkpoint to write.", short="o", metavar="FILE", defaults="never"),
    how: Keywords,
    init_from: str | None = option(
        None, "Start from this checkpoint instead of a random one.", metavar="FILE", defaults="never"
    ),
    save_init: str | None = option(
        None, "Also write the network as it was before the first step.", metavar="FILE", defaults="never"
    ),
    force: bool = FORCE,
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
