"""`ckptswap verify`: is this file whole?"""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from ckptswap.cli.flags import OutFlag, OverFlag
from ckptswap.cli.terminal import emit, progress
from ckptswap.errors import EXIT_USAGE


def verify(
    checkpoint: Annotated[str, typer.Argument(help="A checkpoint: a file or a folder.", show_default=False)],
    format: Annotated[
        Literal["table", "json"], typer.Option("--format", help="How to print the result.")
    ] = "table",
    out: OutFlag = None,
    force: OverFlag = False,
) -> None:
    """Read a checkpoint to its end and say what is wrong with it; exit 0 when nothing is, else 2.

    Looked at: structure, checksums where the format has them, non-finite values, names with control characters.
    Values that cannot be read (packed weights, arrays, maps within the map) are listed: they are not vouched for.

    \b
    Examples:
      ckptswap verify segment.safetensors
    """
    from ckptswap.report import verify as report
    from ckptswap.report.text import dump_json
    from ckptswap.verify import verify as examine

    with progress("verifying") as tell:
        found = examine(checkpoint, tell)
    data = report.verify_json(found)
    emit(dump_json(data) if format == "json" else report.verify_text(data), out)
    if not found.ok:
        raise typer.Exit(EXIT_USAGE)
