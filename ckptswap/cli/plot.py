"""`ckptswap plot`: a run's pictures for papers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ckptswap.cli.flags import OverFlag, writable
from ckptswap.cli.sweepflags import ToleranceFlag
from ckptswap.cli.terminal import emit, put
from ckptswap.errors import UsageError

if TYPE_CHECKING:
    from ckptswap.sweep.result import SweepResult


def plot(
    run: Annotated[str, typer.Argument(help="A run's folder, finished or not.", show_default=False)],
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
    ],
    force: OverFlag = False,
    kind: Annotated[
        Literal["heatmap", "bars", "depth", "scatter"],
        typer.Option(help="Layers × kinds; the worst cells; along the layers; RMSE against drop."),
    ] = "heatmap",
    metric: Annotated[str | None, typer.Option(help="Which of the run's metrics. [default: its first]")] = None,
    tolerance: ToleranceFlag = None,
) -> None:
    """Draw what a sweep found, for a paper. Needs the extra 'plot'.

    \b
    Examples:
      ckptswap plot run -o heatmap.png
      ckptswap plot run --kind bars -o worst.svg
      ckptswap plot run --kind scatter -o rmse.pdf
    """
    from ckptswap.cli.sweep import judged
    from ckptswap.report import charts
    from ckptswap.report.figures import draw, form_of

    form = form_of(out)
    result = judged(run, metric, tolerance)
    if len(result.donors) > 1:
        raise UsageError(f"{run} has several donors", remedy="draw the run of one: sweep with one --from")
    draws: dict[str, Callable[[SweepResult], charts.Picture]] = {
        "heatmap": charts.heat,
        "bars": charts.bars,
        "depth": charts.depth,
        "scatter": charts.scatter,
    }
    picture = draws[kind](result)
    if charts.is_empty(picture):
        raise UsageError(
            f"{run} has nothing for a {kind}", remedy="sweep with --by layer,kind, or choose another --kind"
        )
    drawn = draw([picture], form)
    put(drawn, out)
    emit(out)
