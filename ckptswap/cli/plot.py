"""`ckptswap plot`: a run's pictures for papers."""

from dataclasses import MISSING
from typing import Literal

from ckptswap import api
from ckptswap.cli.flags import METRIC, OVER, BriefFlags, Keywords, flags, writable
from ckptswap.cli.sweepflags import JUDGING, RunArgument
from ckptswap.cli.terminal import emit
from ckptswap.records import option


@flags(told=BriefFlags, judging=JUDGING)
def plot(
    *,
    run: RunArgument,
    out: str = option(
        MISSING, "Where to: .png, .svg or .pdf.", short="o", metavar="FILE", callback=writable, defaults="never"
    ),
    force: bool = OVER,
    kind: Literal["heatmap", "bars", "depth", "scatter"] = option(
        "heatmap",
        "Layers × kinds, or runs of blocks as a triangle; the worst cells; along the layers; RMSE against drop.",
        defaults="file",
    ),
    metric: str | None = METRIC,
    judging: Keywords,
) -> None:
    """Draw what a sweep found, for a paper. Needs the extra 'plot'.

    \b
    Examples:
      ckptswap plot run -o heatmap.png
      ckptswap plot run --kind bars -o worst.svg
      ckptswap plot run --kind scatter -o rmse.pdf
    """
    api.plot(run, out, kind=kind, metric=metric, force=force, **judging)
    emit(out)
