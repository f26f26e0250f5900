"""`ckptswap select`: the largest set of parts that can be taken together."""

from __future__ import annotations

from typing import Annotated

import typer

from ckptswap.cli.flags import FormatFlag, OutFlag, OverFlag, flags
from ckptswap.cli.sweepflags import NamedFlags, ToleranceFlag
from ckptswap.cli.terminal import emit, progress, style


@flags
def select(
    run: Annotated[str, typer.Argument(help="A finished sweep's folder.", show_default=False)],
    named: NamedFlags,
    tolerance: ToleranceFlag = None,
    to: Annotated[
        str, typer.Option("--to", metavar="FILE", help="What the printed command is to write.")
    ] = "selected.safetensors",
    format: FormatFlag = "table",
    out: OutFlag = None,
    force: OverFlag = False,
) -> None:
    """Find the largest set of a sweep's cells that the donor can replace together, and print how to make it.

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
    from ckptswap.report import select as report
    from ckptswap.report.text import dump_json
    from ckptswap.scoring.allocator import keep_freed_memory
    from ckptswap.sweep.select import commands
    from ckptswap.sweep.select import select as search

    keep_freed_memory()
    with progress("selecting", unit=" cells") as tell:
        choice = search(run, tolerance=tolerance, progress=tell, named=named.named())
    data = report.select_json(choice, commands(choice, to))
    texts = {
        "table": lambda: report.select_table(data, style(out)),
        "json": lambda: dump_json(data),
        "csv": lambda: report.select_csv(data),
        "md": lambda: report.select_md(data),
    }
    emit(texts[format](), out)
