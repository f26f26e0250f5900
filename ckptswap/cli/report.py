"""`ckptswap report`: a run's table again."""

from __future__ import annotations

from typing import Annotated

import typer

from ckptswap.cli.flags import AsciiFlag, FormatFlag, OutFlag
from ckptswap.cli.sweep import ToleranceFlag, judged, render, say_notes
from ckptswap.cli.terminal import emit, style


def report(
    run: Annotated[str, typer.Argument(help="A run's folder, finished or not.", show_default=False)],
    metric: Annotated[str | None, typer.Option(help="Which of the run's metrics. [default: its first]")] = None,
    tolerance: ToleranceFlag = None,
    top: Annotated[int | None, typer.Option(metavar="N", min=1, help="Show only the N worst cells.")] = None,
    format: FormatFlag = "table",
    out: OutFlag = None,
    ascii: AsciiFlag = False,
) -> None:
    """Show what a sweep found, from its folder alone: ranked table, heatmap, kinds, findings.

    \b
    Examples:
      ckptswap report run
      ckptswap report run --top 10 --ascii
      ckptswap report run --format csv -o drops.csv
    """
    result = judged(run, metric, tolerance)
    say_notes(result, format)
    emit(render(result, format, style(out, ascii=ascii), top), out)
