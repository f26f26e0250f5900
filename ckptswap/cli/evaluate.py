"""`ckptswap evaluate`: how good is this one, and how do these compare?"""

from typing import Annotated

import typer

from ckptswap import api
from ckptswap.cli.completion import complete_names
from ckptswap.cli.flags import FIT, NAMES, TASK, Keywords, OutputFlags, Patterns, flags, task_keywords
from ckptswap.errors import EXIT_PARTIAL, UsageError
from ckptswap.records import option
from ckptswap.report import evaluate as report
from ckptswap.report import explain as explained


@flags(task=TASK, names=NAMES, fit=FIT)
def evaluate(
    checkpoints: Annotated[list[str], typer.Argument(help="One or more checkpoints.", show_default=False)],
    task: Keywords,
    names: Keywords,
    fit: Keywords,
    output: OutputFlags,
    exclude: Patterns = option(
        None,
        "These tensors need not fit the model: whole name or kind, as a glob.",
        metavar="PATTERN",
        complete=complete_names,
        defaults="file",
    ),
    explain: bool = option(
        False, "Say what was inferred: model, data, the first sample, a constant's score.", defaults="never"
    ),
) -> None:
    """Score checkpoints on the same samples, with intervals, and their differences, paired.

    \b
    Examples:
      ckptswap evaluate segment.safetensors --data lab:mni --metric dice --limit 16
      ckptswap evaluate segment.safetensors reconstruct.safetensors --data lab:mni --metric dice,iou --limit 16
      ckptswap evaluate reconstruct.safetensors --data lab:mni --target input --metric psnr --format json
      ckptswap evaluate segment.safetensors --data lab:mni --metric dice --limit 16 --explain
    """
    if explain:
        if len(checkpoints) > 1 or output.format in ("csv", "md", "latex"):
            raise UsageError("--explain is about one checkpoint, as a table or json", remedy="leave the rest out")
        explanation = api.explain(checkpoints[0], exclude=exclude, **fit, **names, **task_keywords(task))
        output.emit(
            explained.explain_json(explanation),
            table=lambda document: explained.explain_table(document, output.style),
        )
        return
    comparison = api.evaluate(checkpoints, exclude=exclude, **fit, **names, **task_keywords(task))
    output.emit(
        report.evaluate_json(comparison),
        table=lambda document: report.evaluate_table(document, output.style),
        csv=report.evaluate_csv,
        md=report.evaluate_md,
        latex=report.evaluate_latex,
    )
    if comparison.failed:
        raise typer.Exit(EXIT_PARTIAL)
