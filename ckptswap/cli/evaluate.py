"""`ckptswap evaluate`: how good is this one, and how do these compare?"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Annotated

import typer

from ckptswap.cli.completion import complete_names
from ckptswap.cli.flags import FormatFlag, NameFlags, OutFlag, OverFlag, PartialFlag, Patterns, TaskFlags, flags
from ckptswap.cli.terminal import emit, note, progress, style, warn
from ckptswap.errors import EXIT_PARTIAL
from ckptswap.selection import Selection


@flags
def evaluate(
    checkpoints: Annotated[list[str], typer.Argument(help="One or more checkpoints.", show_default=False)],
    task: TaskFlags,
    names: NameFlags,
    exclude: Annotated[
        Patterns,
        typer.Option(
            "--exclude",
            metavar="PATTERN",
            help="These tensors need not fit the model: whole name or kind, as a glob.",
            autocompletion=complete_names,
        ),
    ] = None,
    partial: PartialFlag = False,
    format: FormatFlag = "table",
    out: OutFlag = None,
    force: OverFlag = False,
) -> None:
    """Score checkpoints on the same samples, with intervals, and their differences, paired.

    \b
    Examples:
      ckptswap evaluate segment.safetensors --data lab:mni --metric dice --limit 16
      ckptswap evaluate segment.safetensors reconstruct.safetensors --data lab:mni --metric dice,iou --limit 16
      ckptswap evaluate reconstruct.safetensors --data lab:mni --target input --metric psnr --format json
    """
    from ckptswap.formats import open_checkpoint
    from ckptswap.report import evaluate as report
    from ckptswap.report.text import dump_json
    from ckptswap.task.comparison import compare
    from ckptswap.task.evaluate import evaluate as score

    with ExitStack() as stack, progress("evaluating", unit=" samples") as tell:
        opened = [stack.enter_context(open_checkpoint(path)) for path in checkpoints]
        spec = task.spec(exclude=exclude, partial=partial)
        found = score(names.renamed(*opened), spec, tell)
        warn(map(str, found.unmatched(Selection(exclude=spec.exclude))))
    comparison = compare(found)
    note(found.notes)
    warn(comparison.warnings)
    data = report.evaluate_json(comparison)
    texts = {
        "table": lambda: report.evaluate_table(data, style(out)),
        "json": lambda: dump_json(data),
        "csv": lambda: report.evaluate_csv(data),
        "md": lambda: report.evaluate_md(data),
    }
    emit(texts[format](), out)
    if comparison.failed:
        raise typer.Exit(EXIT_PARTIAL)
