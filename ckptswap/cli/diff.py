"""`ckptswap diff`: what differs between two checkpoints."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from ckptswap.cli.flags import AsciiFlag, FormatFlag, OutFlag, Patterns, SelectionFlags, flags
from ckptswap.cli.terminal import emit, progress, style, tell_notes
from ckptswap.errors import EXIT_DIFFERENT


@flags
def diff(
    a: Annotated[str, typer.Argument(help="The one.", show_default=False)],
    b: Annotated[str, typer.Argument(help="The other.", show_default=False)],
    select: SelectionFlags,
    stat: Annotated[
        bool, typer.Option("--stat", help="Headers only: names, shapes and dtypes, no values.")
    ] = False,
    by: Annotated[
        Patterns, typer.Option("--by", metavar="WAY", help="Pool the rows: layer, kind, or layer,kind.")
    ] = None,
    sort: Annotated[
        Literal["name", "rmse", "max_abs", "rel_l2", "changed"], typer.Option(help="Largest first, or by name.")
    ] = "name",
    top: Annotated[int | None, typer.Option(metavar="N", min=1, help="Only the first N rows.")] = None,
    all_rows: Annotated[bool, typer.Option("--all", help="In the table, also list what did not change.")] = False,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 1 when something differs.")] = False,
    format: FormatFlag = "table",
    out: OutFlag = None,
    ascii: AsciiFlag = False,
) -> None:
    """Compare two checkpoints tensor by tensor: bytes first, then by how much.

    \b
    Examples:
      ckptswap diff init.safetensors segment.safetensors
      ckptswap diff init.safetensors segment.safetensors --only 'bn.running_*' --layers encoder.3
      ckptswap diff init.safetensors segment.safetensors --by kind --sort rel_l2
      ckptswap diff init.safetensors segment.safetensors --stat --format json | jq .summary
    """
    from ckptswap import diff as library
    from ckptswap.formats import open_checkpoint
    from ckptswap.report import diff as report
    from ckptswap.report.text import dump_json

    with open_checkpoint(a) as left, open_checkpoint(b) as right:
        tell_notes(left, right)
        with progress("comparing") as tell:
            found = library.diff(left, right, select.selection(), values=not stat, progress=tell)
    differs = found.differs
    if by:
        found = found.grouped(split_ways(by))
    found = found.sorted(sort, top)
    data = report.diff_json(found)
    texts = {
        "table": lambda: report.diff_table(data, style(out, ascii=ascii), every=all_rows),
        "json": lambda: dump_json(data),
        "csv": lambda: report.diff_csv(data),
        "md": lambda: report.diff_md(data, every=all_rows),
    }
    emit(texts[format](), out)
    if exit_code and differs:
        raise typer.Exit(EXIT_DIFFERENT)


def split_ways(values: list[str]) -> tuple[str, ...]:
    """`layer,kind` as two words."""
    return tuple(word.strip() for value in values for word in value.split(","))
