"""`ckptswap show`: what is in a checkpoint."""

from ckptswap import api
from ckptswap.cli.flags import SELECTION, CheckpointArgument, Keywords, OutputFlags, flags
from ckptswap.records import option
from ckptswap.report import checkpoint as report


@flags(select=SELECTION)
def show(
    checkpoint: CheckpointArgument,
    select: Keywords,
    output: OutputFlags,
    stats: bool = option(False, "Also read the values: min, max, mean, std, NaN, Inf.", defaults="file"),
) -> None:
    """List a checkpoint's tensors: name, layer, kind, shape, dtype, size.

    \b
    Examples:
      ckptswap show segment.safetensors
      ckptswap show segment.safetensors --layers 'encoder.0:1' --kind 'bn.*'
      ckptswap show segment.safetensors --stats --format json | jq '.rows[0]'
    """
    contents = api.show(checkpoint, stats=stats, **select)
    output.emit(
        report.show_json(contents.checkpoint, contents.entries, contents.moments, contents.unread),
        table=lambda document: report.show_table(document, output.style),
        csv=report.show_csv,
        md=report.show_md,
        latex=report.show_latex,
    )
