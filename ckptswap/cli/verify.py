"""`ckptswap verify`: is this file whole?"""

import typer

from ckptswap import api
from ckptswap.cli.flags import CheckpointArgument, TextFlags, flags
from ckptswap.errors import EXIT_USAGE
from ckptswap.report.checkpoint import verify_json, verify_text


@flags()
def verify(checkpoint: CheckpointArgument, output: TextFlags) -> None:
    """Read a checkpoint to its end and say what is wrong with it; exit 0 when nothing is, else 2.

    Looked at: structure, checksums where the format has them, non-finite values, names with control characters.
    Values that cannot be read (packed weights, arrays, maps within the map) are listed: they are not vouched for.

    \b
    Examples:
      ckptswap verify segment.safetensors
    """
    result = api.verify(checkpoint)
    output.emit(verify_json(result), table=verify_text)
    if not result.ok:
        raise typer.Exit(EXIT_USAGE)
