"""`ckptswap plot`: pictures of runs for papers."""

from dataclasses import MISSING
from typing import Annotated, Literal

import typer

from ckptswap import api
from ckptswap.cli.flags import METRIC, OVER, SELECTION, BriefFlags, Keywords, flags, writable
from ckptswap.cli.sweepflags import JUDGING
from ckptswap.cli.terminal import emit
from ckptswap.errors import UsageError
from ckptswap.records import option

Picture = Literal["heatmap", "bars", "depth", "scatter"]


@flags(told=BriefFlags, select=SELECTION, judging=JUDGING)
def plot(
    *,
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...",
            help="A run's folder, finished or not; of several the means are drawn.",
            show_default=False,
        ),
    ],
    out: str = option(
        MISSING, "Where to: .png, .svg or .pdf.", short="o", metavar="FILE", callback=writable, defaults="never"
    ),
    force: bool = OVER,
    picture: Picture = option(
        "heatmap",
        "Layers × kinds or donors, or a triangle of runs of blocks; the worst; along the layers; RMSE and drop.",
        defaults="file",
    ),
    width: str | None = option(
        None,
        "column (3.5 inches), page (7), or inches. [default: what it needs, a page at the most]",
        metavar="WIDTH",
        defaults="file",
    ),
    title: str | None = option(
        None, "A title of one's own; '' is none. [default: what is drawn]", metavar="TEXT", defaults="never"
    ),
    metric: str | None = METRIC,
    select: Keywords,
    judging: Keywords,
) -> None:
    """Draw what sweeps found, for a paper. Needs the extra 'plot'.

    Of a run with several donors each is drawn, of several runs the means with their 95 % t intervals.

    \b
    Examples:
      ckptswap plot run -o heatmap.png
      ckptswap plot run --picture bars --kind conv.weight,conv.bias -o worst.svg
      ckptswap plot run other-run --picture bars --width column -o means.pdf
      ckptswap plot run --picture scatter --title '' -o rmse.pdf
    """
    if named := [kind for kind in select["kind"] or () if kind in ("heatmap", "bars", "depth", "scatter")]:
        remedy = f"write --picture {named[0]}"
        raise UsageError(f"--kind {named[0]} is a picture: --kind chooses kinds of parameters", remedy=remedy)
    api.plot(runs, out, picture=picture, width=width, title=title, metric=metric, force=force, **select, **judging)
    emit(out)
