"""`ckptswap select`: the largest set of parts that can be taken together."""

from typing import Annotated

import typer

from ckptswap import api, lazy
from ckptswap.cli.flags import Keywords, OutputFlags, Patterns, flags
from ckptswap.cli.sweepflags import NAMED_AGAIN, TOLERANCE
from ckptswap.records import option
from ckptswap.report import select as report
from ckptswap.scoring.allocator import keep_freed_memory


@flags(named=NAMED_AGAIN)
def select(
    *,
    run: Annotated[str, typer.Argument(help="A finished sweep's folder.", show_default=False)],
    donor: Patterns = option(
        None, "Of a stranger's folder: its donor; repeat for each.", flag="from", metavar="DONOR", defaults="never"
    ),
    recipient: str | None = option(None, "The same: its recipient.", metavar="RECIPIENT", defaults="never"),
    named: Keywords,
    output: OutputFlags,
    tolerance: float | None = TOLERANCE,
    holdout: bool = option(
        False, "Choose on one half of the groups, tell the cost on the other.", defaults="file"
    ),
    to: str = option(
        "selected.safetensors", "What the printed command is to write.", metavar="FILE", defaults="never"
    ),
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
    choice = api.select(run, tolerance=tolerance, holdout=holdout, donor=donor or (), recipient=recipient, **named)
    output.emit(
        report.select_json(choice, lazy.select.commands(choice, to)),
        table=lambda document: report.select_table(document, output.style),
        csv=report.select_csv,
        md=report.select_md,
        latex=report.select_latex,
    )
