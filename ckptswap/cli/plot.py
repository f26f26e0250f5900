"""`ckptswap plot`: a run's pictures for papers."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from ckptswap import api
from ckptswap.cli.flags import FILE, NEVER, MetricFlag, OverFlag, flags, writable
from ckptswap.cli.sweepflags import RunArgument, ToleranceFlag
from ckptswap.cli.terminal import emit


@flags()
def plot(
    run: RunArgument,
    out: Annotated[
        str,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="Where to: .png, .svg or .pdf.",
            show_default=False,
            callback=writable,
        ),
        NEVER,
    ],
    force: OverFlag = False,
    kind: Annotated[
        Literal["heatmap", "bars", "depth", "scatter"],
        typer.Option(help="Layers × kinds; the worst cells; along the layers; RMSE against drop."),
        FILE,
    ] = "heatmap",
    metric: MetricFlag = None,
    tolerance: ToleranceFlag = None,
) -> None:
    """Draw what a sweep found, for a paper. Needs the extra 'plot'.

    \b
    Examples:
      ckptswap plot run -o heatmap.png
      ckptswap plot run --kind bars -o worst.svg
      ckptswap plot run --kind scatter -o rmse.pdf
    """
    api.plot(run, out, kind=kind, metric=metric, tolerance=tolerance, force=force)
    emit(out)
