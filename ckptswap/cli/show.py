"""`ckptswap show`: what is in a checkpoint."""

from __future__ import annotations

from typing import Annotated

import typer

from ckptswap.cli.flags import FormatFlag, OutFlag, OverFlag, SelectionFlags, flags
from ckptswap.cli.terminal import emit, progress, style, tell_notes, tell_unmatched


@flags
def show(
    checkpoint: Annotated[str, typer.Argument(help="A checkpoint: a file or a folder.", show_default=False)],
    select: SelectionFlags,
    stats: Annotated[
        bool, typer.Option("--stats", help="Also read the values: min, max, mean, std, NaN, Inf.")
    ] = False,
    format: FormatFlag = "table",
    out: OutFlag = None,
    force: OverFlag = False,
) -> None:
    """List a checkpoint's tensors: name, layer, kind, shape, dtype, size.

    \b
    Examples:
      ckptswap show segment.safetensors
      ckptswap show segment.safetensors --layers 'encoder.0:1' --kind 'bn.*'
      ckptswap show segment.safetensors --stats --format json | jq '.rows[0]'
    """
    from ckptswap.formats import open_checkpoint
    from ckptswap.report import checkpoint as report
    from ckptswap.report.text import dump_json
    from ckptswap.show import statistics

    with open_checkpoint(checkpoint) as opened:
        tell_notes(opened)
        selection = select.selection()
        entries = selection.pick(opened)
        tell_unmatched(selection, opened)
        moments = None
        if stats:
            with progress("reading") as tell:
                moments = statistics(opened, entries, tell)
        data = report.show_json(opened, entries, moments)
    texts = {
        "table": lambda: report.show_table(data, style(out)),
        "json": lambda: dump_json(data),
        "csv": lambda: report.show_csv(data),
        "md": lambda: report.show_md(data),
    }
    emit(texts[format](), out)
