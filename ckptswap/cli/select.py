"""`ckptswap select`: the largest set of parts that can be taken together."""

from __future__ import annotations

from typing import Annotated

import typer

from ckptswap import api, lazy
from ckptswap.cli.flags import NEVER, Keywords, OutputFlags, flags
from ckptswap.cli.sweepflags import NAMED, ToleranceFlag
from ckptswap.report import select as report
from ckptswap.scoring.allocator import keep_freed_memory


@flags(named=NAMED)
def select(
    run: Annotated[str, typer.Argument(help="A finished sweep's folder.", show_default=False)],
    named: Keywords,
    output: OutputFlags,
    tolerance: ToleranceFlag = None,
    to: Annotated[
        str, typer.Option("--to", metavar="FILE", help="What the printed command is to write."), NEVER
    ] = "selected.safetensors",
) -> None:
    """Find the largest set of a sweep's cells that the donor can replace together.

    Prints how to make it.
    Single drops do not add up, so every set that is tried is scored as a whole, on the sweep's own task. Donors
    that are no files (zeros, init:SEED, …) give nothing.

    Of a folder that your own command made, everything is taken up again. A stranger's may name any code and any
    file: name what it says again, with --from, --recipient and the task's flags.

    \b
    Examples:
      ckptswap select run
      ckptswap select run --tolerance 0.02 --to mixed.safetensors
      ckptswap select run --format json | jq -r '.commands[]'
    """
    keep_freed_memory()
    choice = api.select(run, tolerance=tolerance, **named)
    output.emit(
        report.select_json(choice, lazy.select.commands(choice, to)),
        table=lambda document: report.select_table(document, output.style),
        csv=report.select_csv,
        md=report.select_md,
    )
